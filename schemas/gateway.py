"""The glasses' WebSocket, `augenblick.v1`: what goes over it besides CloudEvents.

Glasses send text messages, each a CloudEvent in structured JSON; a `sighting.captured` has no data and the attribute `bytes`,
and the next message is that many bytes of JPEG. The gateway sends the answers as structured CloudEvents, and these notices.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from schemas.errors import Problem
from schemas.recognition import Shape

SUBPROTOCOL = "augenblick.v1"


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
