"""One pair of glasses on its WebSocket: heads and frames in, answers and notices out; newest frame wins."""

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from fastapi import WebSocket, WebSocketDisconnect
from opentelemetry.trace import SpanKind
from pydantic import BaseModel

from schemas.errors import Rejected
from schemas.events import JPEG, Event, attributes_of_structured, new_event, to_structured
from schemas.gateway import Accepted, Dropped, Refused, Welcome
from schemas.ids import JourneyId
from schemas.payments import WearChanged, WearState
from streams.core.database import Database
from streams.core.telemetry import metrics, names, tracing
from streams.gateway import frames, problems, service, store
from streams.gateway.answers import Answers, Listener
from streams.gateway.publish import Publisher
from streams.gateway.slot import FrameSlot
from streams.gateway.store import PairedDevice

log = logging.getLogger(__name__)

_HEAD_LIMIT = 64 * 1024  # characters
_TICK_S = 0.05


class GlassesSession:
    def __init__(
        self,
        socket: WebSocket,
        device: PairedDevice,
        *,
        database: Database,
        publisher: Publisher,
        answers: Answers,
        budget: timedelta,
    ) -> None:
        self._socket = socket
        self._database = database
        self._device = device
        self._publisher = publisher
        self._answers = answers
        self._budget = budget
        self._slot = FrameSlot()
        self._head: dict[str, Any] | None = None
        self._refused_head = False
        self._name = str(uuid4())
        self.link: str | None = None
        """The connection's name, once the device's row has it."""
        self._dropped = 0
        self._sending = asyncio.Lock()

    async def run(self) -> None:
        """Until the glasses are gone. A link that begins or ends takes away whatever was open to be approved."""
        with self._answers.listen(self._device.id) as listener:
            try:
                async with self._database.transaction() as connection:
                    if not await store.set_link(connection, self._device, self._name):
                        raise Rejected("credentials-invalid", "the device was revoked, or its key changed, at this moment")
                self.link = self._name
                await self._link_lost()
                await self._notify(
                    Welcome(
                        device_id=self._device.id,
                        credit=1,
                        frame_limit_bytes=frames.MAX_BYTES,
                        glance_budget_ms=int(self._budget.total_seconds() * 1000),
                    )
                )
                tasks = [asyncio.create_task(work) for work in (self._read(), self._answer(listener), self._expire())]
                try:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.wait(tasks)
                for task in done:
                    if (error := task.exception()) and not isinstance(error, WebSocketDisconnect):
                        raise error
            finally:
                with suppress(Exception):
                    await asyncio.shield(self._link_lost())

    async def _link_lost(self) -> None:
        event = new_event(
            "wear.changed",
            WearChanged(state=WearState.LINK_LOST, link=self._name),
            source="/gateway",
            journeyid=JourneyId.new(),
            deviceid=self._device.id,
        )
        await self._publisher.publish(event)

    # In.

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (text := message.get("text")) is not None:
                await self._or_refuse(self._take_text(text))
            elif self._refused_head:
                self._refused_head = False  # its frame was on the way
            else:
                await self._or_refuse(self._take_frame(message["bytes"]), _id_of(self._head or {}))

    async def _or_refuse(self, taking: Coroutine[Any, Any, None], event_id: str | None = None) -> None:
        try:
            await taking
        except Exception as error:
            await self._refuse(error, event_id)

    async def _take_text(self, text: str) -> None:
        if self._head is not None:
            missing, self._head = self._head, None
            await self._refuse(Rejected("message-unexpected", "the head's frame did not follow"), _id_of(missing))
        self._refused_head = False
        document = _parse(text)
        is_head = document.get("type") == service.SIGHTING
        try:
            if is_head:
                self._expect_frame(document)
            else:
                await self._take_intent(document)
        except Exception as error:
            self._refused_head = is_head
            await self._refuse(error, _id_of(document))

    def _expect_frame(self, document: dict[str, Any]) -> None:
        length = document.get("bytes")
        if not isinstance(length, int) or isinstance(length, bool) or length <= 0:
            raise Rejected("event-invalid", "a sighting's head says how many `bytes` of JPEG follow")
        if "data" in document or "data_base64" in document:
            raise Rejected("event-invalid", "a sighting's frame follows as a binary message, not as data")
        frames.check_length(length)
        self._head = document

    async def _take_frame(self, frame: bytes) -> None:
        head, self._head = self._head, None
        if head is None:
            raise Rejected("message-unexpected", "a frame came without a head")
        length = head.pop("bytes")
        if length != len(frame):
            frames.check_length(len(frame))
            raise Rejected("frame-length-differs", f"the head says {length} bytes, {len(frame)} came")
        now = datetime.now(UTC)
        event = service.stamped({**head, "datacontenttype": JPEG, "data": frame}, self._device, now)
        admitted = service.admit(event, self._device, self._budget, now)
        await self._send_frame(self._slot.offer(admitted))

    async def _take_intent(self, document: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        event = service.stamped(attributes_of_structured(document), self._device, now)
        await self._publish(service.admit(event, self._device, self._budget, now))

    async def _send_frame(self, frame: Event | None) -> None:
        if frame is not None:
            await self._publish(frame)
        await self._report_dropped()

    async def _publish(self, event: Event) -> None:
        await self._publisher.publish(event)
        await self._notify(Accepted(id=event.id, journeyid=event.journeyid))

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self._send_frame(self._slot.expire(datetime.now(UTC)))
            except Exception as error:
                await self._refuse(error, None)

    # Out.

    async def _answer(self, listener: Listener) -> None:
        async for event in listener.events():
            attributes = {names.EVENT_TYPE: event.type, names.EVENT_ID: event.id}
            with tracing.span(
                "push glasses.answers",
                kind=SpanKind.SERVER,
                journey=event.journeyid,
                parent=event.traceparent,
                attributes=attributes,
            ):
                document = to_structured(event)
                await self._send(document)
            if event.type in {"offers.found", "payees.found", "choice.offered", "look.again"}:
                now = datetime.now(UTC)
                if event.capturedat:
                    metrics.record("augenblick.glance_to_answer", (now - event.capturedat).total_seconds(), type=event.type)
                await self._send_frame(self._slot.answered(document["data"]["sighting_id"], now))

    async def _report_dropped(self) -> None:
        for frame, reason in self._slot.take_dropped():
            self._dropped += 1
            metrics.count("augenblick.sightings.dropped", reason=reason, role="gateway")
            await self._notify(Dropped(id=frame.id, reason=reason, dropped=self._dropped))

    async def _refuse(self, error: Exception, event_id: str | None) -> None:
        if isinstance(error, WebSocketDisconnect):
            raise error
        problem = problems.problem_of(error)
        metrics.count("augenblick.refusals", code=problem.code)
        await self._notify(Refused(id=event_id or problem.instance, problem=problem))

    async def _notify(self, notice: BaseModel) -> None:
        await self._send(notice.model_dump(mode="json", exclude_none=True))

    async def _send(self, document: dict[str, Any]) -> None:
        async with self._sending:
            try:
                await self._socket.send_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
            except (RuntimeError, OSError) as error:  # the socket was closed under us
                raise WebSocketDisconnect(1006) from error


def _parse(text: str) -> dict[str, Any]:
    if len(text) > _HEAD_LIMIT:
        raise Rejected("too-large", f"a text message has at most {_HEAD_LIMIT:,} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("message-malformed", "the message is not JSON") from error
    if not isinstance(document, dict):
        raise Rejected("message-malformed", "a CloudEvent is a JSON object")
    return document


def _id_of(document: dict[str, Any]) -> str | None:
    """The event's id as its sender wrote it, if it can be repeated to him."""
    event_id = document.get("id")
    return event_id if isinstance(event_id, str) and len(event_id) <= 100 and event_id.isprintable() else None
