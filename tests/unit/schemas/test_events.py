"""CloudEvents: what is written can be read again, by us and by the official library, over Kafka and HTTP."""

import json
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings import http as peer_http
from cloudevents.core.bindings import kafka as peer_kafka
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as PeerEvent
from hypothesis import given
from hypothesis import strategies as st

from schemas import events
from schemas.errors import Rejected
from schemas.events import CATALOGUE, JPEG, JSON, STRUCTURED, Event, derived_id, new_event
from schemas.ids import DeviceId, EventId, JourneyId
from schemas.payments import WearChanged, WearState
from schemas.recognition import Intent

FORMAT = JSONFormat()

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(min_value=datetime(1990, 1, 1), max_value=datetime(2100, 1, 1), timezones=zones)  # noqa: DTZ001 (naive by contract)
# Any text that Unicode has, but for halves of characters.
# CloudEvents allows neither control characters nor lone surrogates in attributes.
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
traces = st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
contents = st.dictionaries(words, values, max_size=4).map(
    lambda value: (JSON, json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode())
) | st.binary(min_size=1, max_size=200).map(lambda value: (JPEG, value))


@st.composite
def any_events(draw: st.DrawFn) -> Event:
    def perhaps(strategy: st.SearchStrategy[Any]) -> Any:
        return draw(st.none() | strategy)

    content_type, data = draw(contents)
    return Event(
        id=draw(words),
        source=draw(words),
        type=draw(words),
        time=draw(times),
        subject=perhaps(words),
        datacontenttype=content_type,
        dataschema=perhaps(words),
        data=data,
        journeyid=JourneyId.from_uuid(draw(st.uuids())),
        deviceid=perhaps(st.uuids().map(DeviceId.from_uuid)),
        capturedat=perhaps(times),
        deadline=perhaps(times),
        region=perhaps(st.text(string.ascii_uppercase, min_size=2, max_size=2)),
        locale=perhaps(st.sampled_from(["de", "de-DE", "zh-Hans-CN", "sv-SE", "gsw-CH"])),
        currency=perhaps(st.text(string.ascii_uppercase, min_size=3, max_size=3)),
        intent=perhaps(st.sampled_from(Intent)),
        framedigest=perhaps(hexadecimal),
        traceparent=perhaps(traces),
    )


# Among ourselves.


@given(any_events())
def test_over_kafka_and_back_is_the_same(event: Event) -> None:
    headers, value = events.to_kafka(event)
    assert events.from_kafka(headers, value) == event
    assert all(name == "content-type" or name.startswith("ce_") for name, _ in headers)


@given(any_events())
def test_over_http_and_back_is_the_same(event: Event) -> None:
    headers, body = events.to_http(event)
    assert events.from_http(headers, body) == event
    assert events.from_http({name.upper(): value for name, value in headers.items()}, body) == event
    # As HTTP demands it of header values: printable ASCII, nothing that could begin another header.
    assert all(32 < ord(character) < 127 for value in headers.values() for character in value.replace(" ", "_"))


@given(any_events())
def test_as_one_json_document_and_back_is_the_same(event: Event) -> None:
    assert events.from_structured(json.loads(json.dumps(events.to_structured(event)))) == event


# With the official library.


def compare(peer: Any, event: Event) -> None:
    """The peer understood what we meant."""
    attributes = dict(peer.get_attributes())
    assert attributes.pop("time") == event.time
    ours = event.model_dump(mode="json", exclude={"data", "time"}, exclude_none=True)
    assert attributes == ours
    data = peer.get_data()
    if event.datacontenttype == JSON:
        assert data == json.loads(event.data)
    else:
        assert (data.encode() if isinstance(data, str) else data) == event.data


def same(back: Event, event: Event) -> None:
    """We understood what the peer meant; it writes JSON with other spaces."""
    assert back.model_copy(update={"data": b""}) == event.model_copy(update={"data": b""})
    if event.datacontenttype == JSON:
        assert json.loads(back.data) == json.loads(event.data)
    else:
        assert back.data == event.data


@given(any_events())
def test_the_official_library_reads_our_kafka_records_and_we_read_its(event: Event) -> None:
    headers, value = events.to_kafka(event)
    peer = peer_kafka.from_binary(peer_kafka.KafkaMessage(dict(headers), None, value), FORMAT, PeerEvent)
    compare(peer, event)
    written = peer_kafka.to_binary(peer, FORMAT)
    same(events.from_kafka(written.headers.items(), written.value), event)


@given(any_events())
def test_the_official_library_reads_our_http_requests_and_we_read_its(event: Event) -> None:
    headers, body = events.to_http(event)
    peer = peer_http.from_binary(peer_http.HTTPMessage(headers, body), FORMAT, PeerEvent)
    compare(peer, event)
    written = peer_http.to_binary(peer, FORMAT)
    same(events.from_http(written.headers, written.body), event)


@given(any_events())
def test_the_official_library_reads_our_documents_and_we_read_its(event: Event) -> None:
    body = json.dumps(events.to_structured(event)).encode()
    message = peer_http.HTTPMessage({"content-type": STRUCTURED}, body)
    peer = peer_http.from_structured(message, FORMAT, PeerEvent)
    compare(peer, event)
    written = peer_http.to_structured(peer, FORMAT)
    same(events.from_structured(json.loads(written.body)), event)


# What is refused.


def good() -> dict[str, Any]:
    event = new_event("wear.changed", WearChanged(state=WearState.WORN), source="/test", journeyid=JourneyId.new())
    return dict(events.to_structured(event))


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "0.3"},
        {"id": ""},
        {"id": 7},
        {"source": None},
        {"type": ["wear.changed"]},
        {"time": "yesterday"},
        {"time": "2026-11-22T10:00:00"},
        {"journeyid": "jrn_1"},
        {"deviceid": str(JourneyId.new())},
        {"region": "Germany"},
        {"traceparent": "00-0-0-00"},
        {"surprise": "1"},
        {"data_base64": "e30="},
    ],
)
def test_what_is_no_event_of_ours_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Rejected) as refused:
        events.from_structured({**good(), **changes})
    assert refused.value.problem.code == "message-malformed"


@pytest.mark.parametrize("document", [None, [], "event", 1, {}])
def test_what_is_no_object_is_refused(document: Any) -> None:
    with pytest.raises(Rejected):
        events.from_structured(document)


@given(st.lists(st.tuples(words, st.binary(max_size=40)), max_size=8), st.none() | st.binary(max_size=100))
def test_whatever_comes_from_kafka_is_read_or_refused(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    with pytest.raises(Rejected):
        events.from_kafka([("ce_id", b"\xff"), *headers], value)
    with pytest.raises(Rejected):
        events.from_kafka(headers, value)


@given(st.binary(max_size=100))
def test_data_that_does_not_fit_is_refused_without_repeating_it(data: bytes) -> None:
    event = events.from_structured(good()).model_copy(update={"data": b'{"state": "asleep", "secret": "4242"}' + data})
    with pytest.raises(Rejected) as refused:
        event.decode(WearChanged)
    assert refused.value.problem.code == "event-invalid"
    assert "4242" not in json.dumps(refused.value.problem.body())


# What follows from an event.


def test_what_follows_keeps_the_journey() -> None:
    first = events.from_structured({**good(), "deviceid": str(DeviceId.new()), "locale": "de-DE", "currency": "EUR"})
    following = first.follow("wear.changed", WearChanged(state=WearState.DOFFED), source="/next")
    assert (following.journeyid, following.deviceid, following.locale) == (first.journeyid, first.deviceid, "de-DE")
    assert following.id != first.id
    assert following.time >= first.time.astimezone(UTC)


@given(st.uuids().map(EventId.from_uuid), words, words)
def test_a_derived_id_follows_from_cause_and_role_alone(cause: EventId, role: str, other: str) -> None:
    assert derived_id(cause, role) == derived_id(cause, role)
    assert (derived_id(cause, role) == derived_id(cause, other)) == (role == other)
    assert derived_id(cause, role).uuid.bytes[:6] == cause.uuid.bytes[:6]


def test_the_catalogue_names_each_type_once_and_devices_send_only_what_is_theirs() -> None:
    assert all(name == entry.name for name, entry in CATALOGUE.items())
    sent = {name for name, entry in CATALOGUE.items() if entry.from_devices}
    assert sent == {
        "sighting.captured",
        "choice.made",
        "payment.requested",
        "payment.approved",
        "proposal.declined",
        "wear.changed",
    }
