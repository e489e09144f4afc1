"""POST /v1/events: CloudEvents from a maker's cloud, in binary or structured mode, for its own devices.

With `Prefer: wait=N` (RFC 7240, seconds) the answer of the journey is awaited and returned as a batch; without it, or when
none came in time, 202 says that the event was accepted.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from schemas.errors import Rejected
from schemas.events import STRUCTURED, Event, attributes_of_http, attributes_of_structured, to_structured
from schemas.ids import DeviceId
from streams.core.database import Database
from streams.gateway import credentials, frames, service, store
from streams.gateway.answers import Answers, Listener
from streams.gateway.publish import Publisher
from streams.gateway.store import PairedDevice

PATH = "/v1/events"
_BATCH = "application/cloudevents-batch+json"
_BODY_LIMIT = frames.MAX_BYTES * 4 // 3 + 64 * 1024  # a frame in base64, and its envelope
_WAIT_LIMIT_S = 10.0
_BODY_WITHIN_S = 10.0
_AT_ONCE = 64  # per maker, those that wait for their answer included


class EventsEndpoint:
    def __init__(self, database: Database, publisher: Publisher, answers: Answers, budget: timedelta) -> None:
        self._database = database
        self._publisher = publisher
        self._answers = answers
        self._budget = budget
        self._under_way: Counter[str] = Counter()

    def router(self) -> APIRouter:
        router = APIRouter(tags=["glasses"])
        router.add_api_route(
            PATH,
            self.post,
            methods=["POST"],
            status_code=202,
            summary="Send an event of a device",
            response_model=None,
        )
        return router

    async def post(self, request: Request) -> Response:
        """A CloudEvent of one of the maker's devices. The approval in a `payment.approved` is still signed by the device."""
        maker_id = await credentials.maker(self._database, request.headers.get("authorization"))
        if self._under_way[maker_id] >= _AT_ONCE:
            raise Rejected("overloaded", f"at most {_AT_ONCE} requests of a maker are answered at once")
        self._under_way[maker_id] += 1
        try:
            event, answer = await self._take(request, maker_id)
        finally:
            self._under_way[maker_id] -= 1
        if answer is None:
            return JSONResponse({"id": event.id, "journeyid": event.journeyid}, 202)
        return JSONResponse([to_structured(answer)], 200, media_type=_BATCH, headers={"Preference-Applied": "wait"})

    async def _take(self, request: Request, maker_id: str) -> tuple[Event, Event | None]:
        attributes = _attributes(request.headers, await _body(request))
        device = await self._device(attributes.get("deviceid"), maker_id)
        now = datetime.now(UTC)
        event = service.admit(service.stamped(attributes, device, now), device, self._budget, now)
        with self._answers.listen(device.id) as listener:
            await self._publisher.publish(event)
            return event, await self._await_answer(listener, event, _wait(request.headers.get("prefer", "")))

    async def _device(self, device_id: Any, maker_id: str) -> PairedDevice:
        try:
            async with self._database.transaction() as connection:
                device = await store.find_device(connection, DeviceId(str(device_id)))
        except ValueError:
            device = None
        if device is None or device.maker_id != maker_id:  # which of the two is nobody else's business
            raise Rejected("device-not-yours", "`deviceid` names no device of yours")
        if device.revoked:
            raise Rejected("device-revoked", "this device was revoked", instance=device.id)
        return device

    async def _await_answer(self, listener: Listener, event: Event, seconds: float) -> Event | None:
        if seconds <= 0:
            return None
        try:
            async with asyncio.timeout(seconds):
                async for answer in listener.events():
                    if event.id == answer.subject or event.journeyid == answer.journeyid:
                        return answer
        except TimeoutError:
            return None
        return None


async def _body(request: Request) -> bytes:
    """The body, as far as it may go. Raises Rejected("frame-too-large")."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _BODY_LIMIT:
                    raise Rejected("frame-too-large", f"the request has more than {_BODY_LIMIT:,} bytes")
    except TimeoutError as error:
        raise Rejected("message-malformed", f"the body was not there within {_BODY_WITHIN_S:g} s") from error
    return bytes(body)


def _attributes(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != STRUCTURED:
        return attributes_of_http(headers, body)
    try:
        return attributes_of_structured(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise Rejected("message-malformed", "the body is not JSON") from error


def _wait(prefer: str) -> float:
    """The seconds of `Prefer: wait=N`, bounded; 0 where there is none."""
    found = re.search(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])", prefer)
    return min(float(found[1]), _WAIT_LIMIT_S) if found else 0.0
