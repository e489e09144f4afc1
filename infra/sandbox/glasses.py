"""Mock glasses: a client of the gateway's WebSocket that does what real glasses do, with a key of its own, and nothing more.

It knows the platform by its published protocol alone (docs/makers.md): CloudEvents, notices, and the proposal's digest, which it
computes itself from the terms it shows before it signs anything.
"""

import asyncio
import base64
import json
import secrets
import time
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws, jwt
from joserfc.jwk import OKPKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from schemas.digests import canonical_json, sha256_hex
from schemas.gateway import SUBPROTOCOL
from schemas.ids import EventId

Message = dict[str, Any]

# RFC 9864 prefers "Ed25519"; devices in the field write "EdDSA", and the gateway must understand them.
_ALGORITHM = "EdDSA"
warnings.filterwarnings("ignore", message="EdDSA is deprecated", module="joserfc")


@dataclass(frozen=True)
class DeviceKey:
    """What a pair of glasses keeps in its secure element."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def token(self, device_id: str, audience: str = "augenblick-gateway") -> str:
        """Who I am, for the next minute."""
        now = int(time.time())
        claims = {"sub": device_id, "aud": audience, "iat": now, "exp": now + 60}
        return jwt.encode({"alg": _ALGORITHM, "kid": device_id}, claims, self._jwk(), algorithms=[_ALGORITHM])

    def approve(self, proposal: Message, presence: str = "press", **changes: Any) -> str:
        """The wearer's yes to a `payment.proposed`. `changes` falsify claims, for tests."""
        terms, now = proposal["terms"], int(time.time())
        claims = {
            "proposal_id": terms["proposal_id"],
            "digest": sha256_hex(canonical_json(terms)),
            "presence": presence,
            "nonce": terms["nonce"],
            "iat": now,
            "exp": now + 30,
            **changes,
        }
        return self.sign({"kid": terms["device_id"], "typ": "augenblick-approval+jws"}, claims)

    def prove_pairing(self, maker_id: str, **changes: Any) -> str:
        """That this key exists, and is to be paired by this maker."""
        return self._prove("augenblick-pairing+jws", {"maker_id": maker_id, "public_key": self.public_base64, **changes})

    def prove_key_change(self, device_id: str, new: "DeviceKey", **changes: Any) -> str:
        """That `new` is to be this device's key: said by the old key, and by the new one."""
        return self._prove("augenblick-key-change+jws", {"device_id": device_id, "public_key": new.public_base64, **changes})

    def _prove(self, type: str, claims: dict[str, Any]) -> str:
        now = int(time.time())
        return self.sign({"typ": type}, {"iat": now, "exp": now + 120, **claims})

    def sign(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """A compact JWS."""
        header = {"alg": _ALGORITHM, **header}
        return jws.serialize_compact(header, json.dumps(claims).encode(), self._jwk(), algorithms=[_ALGORITHM])

    @property
    def public_base64(self) -> str:
        return base64.b64encode(self.public).decode()

    def _jwk(self) -> OKPKey:
        return OKPKey.import_key(self.private)


class LinkLost(ConnectionError):
    """The connection to the gateway ended."""


class Glasses:
    """One connection. Everything received is kept in `received`, in order, with the time it came."""

    def __init__(self, socket: ClientConnection, device_id: str, key: DeviceKey) -> None:
        self._socket = socket
        self._changed = asyncio.Condition()
        self._ended: str | None = None
        self.device_id = device_id
        self.key = key
        self.received: list[tuple[datetime, Message]] = []

    @classmethod
    @asynccontextmanager
    async def connected(cls, gateway: str, device_id: str, key: DeviceKey) -> AsyncIterator[Self]:
        """`gateway` is ws://host:port/v1/glasses. Puts the glasses on."""
        headers = {"Authorization": f"Bearer {key.token(device_id)}"}
        async with connect(gateway, additional_headers=headers, subprotocols=[SUBPROTOCOL], max_size=2**20) as socket:  # type: ignore[list-item]
            glasses = cls(socket, device_id, key)
            reading = asyncio.create_task(glasses._read())
            try:
                await glasses.expect(lambda message: message["type"] == "gateway.welcome")
                yield glasses
            finally:
                reading.cancel()
                await asyncio.wait([reading])

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                async with self._changed:
                    self.received.append((datetime.now(UTC), json.loads(text)))
                    self._changed.notify_all()
        except ConnectionClosed:
            pass
        finally:
            self._ended = f"{self._socket.close_code} {self._socket.close_reason}"
            async with self._changed:
                self._changed.notify_all()

    async def expect(self, wanted: Callable[[Message], bool], timeout_s: float = 10.0, *, after: int = 0) -> Message:
        """The first message since `after` that is wanted. Raises TimeoutError or LinkLost."""
        async with asyncio.timeout(timeout_s), self._changed:
            seen = after
            while True:
                for _, message in self.received[seen:]:
                    seen += 1
                    if wanted(message):
                        return message
                if self._ended is not None:
                    raise LinkLost(self._ended)
                await self._changed.wait()

    async def send(self, type: str, data: Message, journey: str | None = None, **attributes: Any) -> str:
        """An event; returns its id. Does not wait for its acceptance."""
        event_id = attributes.pop("id", None) or str(EventId.new())
        event = {"specversion": "1.0", "id": event_id, "type": type, "time": _now(), "data": data, **attributes}
        if journey:
            event["journeyid"] = journey
        await self.send_text(json.dumps(event))
        return str(event_id)

    async def send_text(self, text: str) -> None:
        await self._socket.send(text)

    async def send_frame(self, frame: bytes, intent: str = "price", **attributes: Any) -> str:
        """A sighting: head and frame; returns its id."""
        event_id = str(EventId.new())
        head = {"specversion": "1.0", "id": event_id, "type": "sighting.captured", "capturedat": _now(), "intent": intent}
        await self._socket.send(json.dumps({**head, "bytes": len(frame), **attributes}))
        await self._socket.send(frame)
        return event_id

    async def accepted(self, event_id: str, timeout_s: float = 10.0) -> Message:
        """The gateway's word that it has the event; or its refusal."""
        return await self.expect(
            lambda message: message["type"] in {"gateway.accepted", "gateway.problem"} and message.get("id") == event_id,
            timeout_s,
        )

    async def wear(self, state: str = "worn") -> None:
        accepted = await self.accepted(await self.send("wear.changed", {"state": state}))
        if accepted["type"] != "gateway.accepted":
            raise LinkLost(f"the gateway refused: {accepted}")

    async def look(self, frame: bytes, intent: str = "price", timeout_s: float = 10.0, **attributes: Any) -> Message:
        """A glance and its answer: `offers.found`, `payees.found`, `choice.offered`, `look.again`, or the notice that the frame
        was dropped or refused."""
        sighting = await self.send_frame(frame, intent, **attributes)

        def answers(message: Message) -> bool:
            if message["type"] in {"offers.found", "payees.found", "choice.offered", "look.again"}:
                return bool(message["data"]["sighting_id"] == sighting)
            return message["type"] in {"gateway.dropped", "gateway.problem"} and message.get("id") == sighting

        return await self.expect(answers, timeout_s)

    async def choose(self, offered: Message, choice: int, timeout_s: float = 10.0) -> Message:
        """Answer a `choice.offered` with one of its choices, from 0: `offers.found`, or the notice that it was refused."""
        made = await self.send("choice.made", {"offered": offered["data"], "choice": choice}, journey=offered["journeyid"])

        def answers(message: Message) -> bool:
            if message["type"] == "offers.found":
                return bool(message["journeyid"] == offered["journeyid"])
            return message["type"] == "gateway.problem" and message.get("id") == made

        return await self.expect(answers, timeout_s)

    async def request_payment(self, answer: Message, quantity: int = 1, timeout_s: float = 10.0) -> Message:
        """Ask to pay for an answer's best offer: `payment.proposed` or `intent.refused`."""
        offer = answer["data"]["offers"][0]
        return await self._request({"offer_id": offer["offer_id"], "quantity": quantity}, answer, timeout_s)

    async def request_payee(
        self, answer: Message, payee: int = 0, amount: Message | None = None, timeout_s: float = 10.0
    ) -> Message:
        """Ask to pay one of the payees of a `payees.found`; `amount` where its code names none."""
        request: Message = {"payee_code_id": answer["data"]["payees"][payee]["payee_code_id"]}
        if amount is not None:
            request["amount"] = amount
        return await self._request(request, answer, timeout_s)

    async def _request(self, request: Message, answer: Message, timeout_s: float) -> Message:
        sent = await self.send("payment.requested", request, journey=answer["journeyid"])
        return await self.expect(
            lambda message: message["type"] in {"payment.proposed", "intent.refused"} and message.get("subject") == sent,
            timeout_s,
        )

    async def send_approval(self, proposed: Message, presence: str = "press", **changes: Any) -> str:
        """The wearer's signed yes; returns the event's id. Refuses to sign terms that are not what the digest says."""
        data = proposed["data"]
        if not secrets.compare_digest(sha256_hex(canonical_json(data["terms"])), data["digest"]):
            raise ValueError("the proposal's digest is not that of its terms: nothing is signed")
        approval = self.key.approve(data, presence, **changes)
        content = {"proposal_id": data["terms"]["proposal_id"], "approval": approval}
        return await self.send("payment.approved", content, journey=proposed["journeyid"])

    async def payment(self, journey: str, *states: str, timeout_s: float = 20.0) -> Message:
        """The journey's `payment.updated` with one of `states`."""
        return await self.expect(
            lambda message: (
                message["type"] == "payment.updated" and message["journeyid"] == journey and message["data"]["state"] in states
            ),
            timeout_s,
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
