"""What a device may send, and what the gateway adds to it. Plain functions on plain values."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from schemas.digests import sha256_hex
from schemas.errors import Rejected
from schemas.events import CATALOGUE, JPEG, Event, validated
from schemas.ids import EventId, JourneyId
from schemas.recognition import Intent
from streams.gateway import frames
from streams.gateway.store import PairedDevice

_AHEAD = timedelta(seconds=5)
_INTENT_LIVES = timedelta(seconds=60)
SIGHTING = "sighting.captured"
_BEGINS_A_JOURNEY = {SIGHTING, "wear.changed"}


def stamped(attributes: Mapping[str, Any], device: PairedDevice, now: datetime) -> Event:
    """The event with what a device may leave out, and with what only the gateway may say. Raises Rejected."""
    ours = {
        "source": f"/devices/{device.id}",
        "deviceid": device.id,
        "region": device.region,
        "locale": device.locale,
        "currency": device.currency,
        "framedigest": None,
        "deadline": None,
        "dataschema": None,
        "traceparent": None,
    }
    usual = {"specversion": "1.0", "time": attributes.get("capturedat") or now.isoformat(), "journeyid": JourneyId.new()}
    event = {**usual, **attributes, **ours}
    if attributes.get("type") in _BEGINS_A_JOURNEY:
        event["journeyid"] = usual["journeyid"]  # a new one: nobody writes into another's
    return validated({name: value for name, value in event.items() if value is not None})


def admit(event: Event, device: PairedDevice, budget: timedelta, now: datetime) -> Event:
    """The event as it goes to Kafka. Raises Rejected for what a device must not send, or not now."""
    entry = CATALOGUE.get(event.type)
    if entry is None or not entry.from_devices:
        raise Rejected("event-type-unknown", f"devices do not send {event.type[:60]!r}", instance=event.id)
    try:
        EventId(event.id)
    except ValueError as error:
        raise Rejected("event-invalid", f"the event's id: {error}", instance=event.id) from error
    if max(event.time, event.capturedat or event.time) > now + _AHEAD:
        raise Rejected("event-in-future", "the event lies more than 5 s ahead of our clock", instance=event.id)
    if event.type == SIGHTING:
        return _admit_sighting(event, budget, now)
    if event.time < now - _INTENT_LIVES:
        raise Rejected("event-too-old", "the wearer's intent is more than 60 s old", instance=event.id)
    assert entry.data is not None
    event.decode(entry.data)
    return event.model_copy(update={"dataschema": entry.dataschema})


def _admit_sighting(event: Event, budget: timedelta, now: datetime) -> Event:
    captured = event.capturedat or event.time
    deadline = captured + budget
    if deadline <= now:
        raise Rejected("event-too-old", "the frame was captured too long ago to be answered in time", instance=event.id)
    if event.datacontenttype != JPEG:
        raise Rejected("frame-not-jpeg", f"a frame's content type is {JPEG}", instance=event.id)
    frames.check(event.data)
    return event.model_copy(
        update={
            "capturedat": captured,
            "deadline": deadline,
            "intent": event.intent or Intent.IDENTIFY,
            "framedigest": sha256_hex(event.data),
            "dataschema": CATALOGUE[SIGHTING].dataschema,
        }
    )
