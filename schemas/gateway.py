"""The glasses' WebSocket, `augenblick.v1`: what goes over it besides CloudEvents.

Glasses send text messages, each a CloudEvent in structured JSON; a `sighting.captured` has no data and the attribute `bytes`,
and the next message is that many bytes of JPEG. The gateway sends the answers as structured CloudEvents, and these notices.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.errors import Problem
from schemas.ids import DeviceId, MakerId
from schemas.recognition import Shape

SUBPROTOCOL = "augenblick.v1"


class CloseCode:
    """Why the gateway ended a connection. From 4000 on, WebSocket close codes are the application's own."""

    TRY_AGAIN_LATER = 1013
    REPLACED = 4000
    REVOKED = 4001
    KEY_CHANGED = 4002


class Welcome(Shape):
    """First message. `credit`: how many frames may be under way at once."""

    type: Literal["gateway.welcome"] = "gateway.welcome"
    device_id: str
    credit: int
    frame_limit_bytes: int
    glance_budget_ms: int


class Accepted(Shape):
    """The event is in Kafka, acknowledged by the broker: it will be handled, whatever breaks now."""

    type: Literal["gateway.accepted"] = "gateway.accepted"
    id: str
    journeyid: str


class DropReason(StrEnum):
    SUPERSEDED = "superseded"
    TOO_LATE = "too_late"


class Dropped(Shape):
    """A frame that was not, or not in time, looked at. `dropped` counts them since the connection began."""

    type: Literal["gateway.dropped"] = "gateway.dropped"
    id: str
    reason: DropReason
    dropped: int = Field(ge=1)


class Refused(Shape):
    """The message was not accepted; nothing came of it. `id` is the event's, where it could be read."""

    type: Literal["gateway.problem"] = "gateway.problem"
    id: str | None
    problem: Problem


# What a device signs to have its key accepted: a compact JWS by that key, its `typ` named here, that lives five minutes at most.

PAIRING_PROOF = "augenblick-pairing+jws"
KEY_CHANGE_PROOF = "augenblick-key-change+jws"

PublicKey = Annotated[str, Field(pattern="^[A-Za-z0-9+/]{43}=$", description="Ed25519, 32 bytes in base64")]
Seconds = Annotated[int, Field(ge=0, le=253_402_300_799, description="since 1970, by the device's clock")]


class PairingClaims(Shape):
    """By the new key: whoever pairs a device has its private half, and means this maker."""

    maker_id: MakerId
    public_key: PublicKey
    iat: Seconds
    exp: Seconds


class KeyChangeClaims(Shape):
    """Twice, by the key that goes and by the one that comes: both mean this device and this new key."""

    device_id: DeviceId
    public_key: PublicKey
    iat: Seconds
    exp: Seconds
