"""CloudEvents 1.0: the envelope, its bindings, and the catalogue of everything that is said on the topics.

Kafka: binary mode (attributes are `ce_` headers, the value is the data). HTTP and WebSocket: structured JSON; HTTP also
binary mode. Specification: https://github.com/cloudevents/spec/tree/v1.0.2.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer, ValidationError

from schemas import topics
from schemas.commerce import OffersFound, PayeesFound
from schemas.errors import Problem, Rejected, field_errors
from schemas.ids import DeviceId, EventId, JourneyId
from schemas.payments import (
    PaymentApproved,
    PaymentChanged,
    PaymentDue,
    PaymentRequested,
    PaymentUpdated,
    ProposalClosed,
    ProposalDeclined,
    Proposed,
    ProviderNotified,
    ReceiptClosed,
    WearChanged,
)
from schemas.recognition import ChoiceMade, Intent, PayeesSeen, Recognition, Sha256, Unclear, Undecided
from schemas.topics import Topic

JSON = "application/json"
JPEG = "image/jpeg"
STRUCTURED = "application/cloudevents+json"

# CloudEvents forbids control characters in attributes (section 3, type String); PostgreSQL cannot store one of them.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"

Timestamp = Annotated[AwareDatetime, PlainSerializer(lambda at: at.astimezone(UTC).isoformat().replace("+00:00", "Z"))]
DataModel = TypeVar("DataModel", bound=BaseModel)
ModelClass = type[DataModel]  # inside Event, `type` is the attribute


class Event(BaseModel):
    """One CloudEvent. The fields after `data` are our extensions; all are text on the wire, as the specification wants."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    specversion: Literal["1.0"] = "1.0"
    id: str = Field(min_length=1, max_length=100, pattern=PRINTABLE)
    source: str = Field(min_length=1, max_length=200, pattern=PRINTABLE)
    type: str = Field(min_length=1, max_length=100, pattern=PRINTABLE)
    time: Timestamp
    subject: str | None = Field(default=None, min_length=1, max_length=200, pattern=PRINTABLE)
    datacontenttype: str = Field(default=JSON, max_length=100, pattern=PRINTABLE)
    dataschema: str | None = Field(default=None, max_length=200, pattern=PRINTABLE)
    data: bytes = Field(default=b"", repr=False)

    journeyid: JourneyId
    deviceid: DeviceId | None = None
    capturedat: Timestamp | None = None
    deadline: Timestamp | None = None
    region: str | None = Field(default=None, pattern="^[A-Z]{2}$")
    locale: str | None = Field(default=None, pattern="^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$")
    intent: Intent | None = None
    framedigest: Sha256 | None = None
    traceparent: str | None = Field(default=None, pattern="^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")

    def decode(self, model: ModelClass[DataModel]) -> DataModel:
        """The data as `model`, strictly. Raises Rejected("event-invalid") with every field that does not fit."""
        try:
            return model.model_validate_json(self.data)
        except ValidationError as error:
            raise Rejected(
                "event-invalid",
                f"the data of this {self.type} does not fit its schema",
                instance=self.id,
                errors=field_errors(error.errors(include_url=False, include_input=False), at="/data"),
            ) from error

    def follow(self, type: str, data: BaseModel, *, source: str, id: str | None = None, subject: str | None = None) -> "Event":
        """An event that follows from this one, in the same journey. With `id` derived by `derived_id` a repetition of the
        work makes the same event again instead of another."""
        context = {name: value for name in _CONTEXT if (value := getattr(self, name)) is not None}
        return new_event(type, data, source=source, id=id, subject=subject, **context)


_CONTEXT = ("journeyid", "deviceid", "capturedat", "deadline", "region", "locale", "currency", "intent", "framedigest")


def new_event(type: str, data: BaseModel, *, source: str, id: str | None = None, **context: Any) -> Event:
    """An event of the catalogue, now. `context` holds its extensions; `journeyid` is needed."""
    return Event(
        id=id or EventId.new(),
        source=source,
        type=type,
        time=datetime.now(UTC),
        dataschema=CATALOGUE[type].dataschema,
        data=data.model_dump_json(exclude_none=True).encode(),
        **context,
    )


_ATTRIBUTES = tuple(name for name in Event.model_fields if name not in ("data", "datacontenttype"))


def _attributes(event: Event) -> dict[str, str]:
    return event.model_dump(mode="json", include=set(_ATTRIBUTES), exclude_none=True)


def validated(attributes: Mapping[str, Any]) -> Event:
    """An event from its attributes and `data` (bytes). Raises Rejected("message-malformed")."""
    try:
        return Event.model_validate(attributes)
    except ValidationError as error:
        raise Rejected(
            "message-malformed",
            "this is not a CloudEvent of ours",
            errors=field_errors(error.errors(include_url=False, include_input=False)),
        ) from error


# Kafka, binary mode.


def to_kafka(event: Event, *, traceparent: str | None = None) -> tuple[list[tuple[str, bytes]], bytes]:
    """Headers and value of the Kafka record; with `traceparent` instead of the event's own, where one is given."""
    attributes = _attributes(event)
    if traceparent is not None:
        attributes["traceparent"] = traceparent
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    return [*headers, ("content-type", event.datacontenttype.encode())], event.data


def from_kafka(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> Event:
    """Raises Rejected("message-malformed"). Headers that are not of CloudEvents are ignored, as the binding demands;
    unknown attributes are refused."""
    attributes: dict[str, Any] = {"data": value or b""}
    try:
        for name, raw in headers:
            if name.startswith("ce_"):
                attributes[name[3:]] = _text(raw)
            elif name == "content-type":
                attributes["datacontenttype"] = _text(raw)
    except UnicodeDecodeError as error:
        raise Rejected("message-malformed", "a header is not UTF-8 text") from error
    return validated(attributes)


def _text(raw: bytes | None) -> str:
    """A header's text. Kafka allows headers without a value."""
    if raw is None:
        raise Rejected("message-malformed", "a header has no value")
    return raw.decode()


# Structured JSON, for HTTP and the WebSocket.


def to_structured(event: Event) -> dict[str, Any]:
    """The event as a JSON object; data that is not JSON goes as `data_base64`."""
    document: dict[str, Any] = {**_attributes(event), "datacontenttype": event.datacontenttype}
    if event.datacontenttype == JSON:
        document["data"] = json.loads(event.data) if event.data else None
    else:
        document["data_base64"] = base64.b64encode(event.data).decode()
    return document


def from_structured(document: Any) -> Event:
    """From a parsed JSON value. Raises Rejected("message-malformed")."""
    return validated(attributes_of_structured(document))


def attributes_of_structured(document: Any) -> dict[str, Any]:
    """The same, before it is validated: attributes, and `data` as bytes."""
    if not isinstance(document, dict):
        raise Rejected("message-malformed", "a CloudEvent is a JSON object")
    attributes = dict(document)
    if "data" in attributes and "data_base64" in attributes:
        raise Rejected("message-malformed", "an event has either `data` or `data_base64`")
    if "data_base64" in attributes:
        try:
            attributes["data"] = base64.b64decode(attributes.pop("data_base64"), validate=True)
        except (ValueError, TypeError) as error:
            raise Rejected("message-malformed", "`data_base64` is not base64") from error
    elif "data" in attributes:
        attributes["data"] = json.dumps(attributes["data"], separators=(",", ":"), ensure_ascii=False).encode()
    return attributes


# HTTP, binary mode.


def to_http(event: Event) -> tuple[dict[str, str], bytes]:
    headers = {f"ce-{name}": quote(value, safe=" !#$&'()*+,/:;=?@[]~") for name, value in _attributes(event).items()}
    return {**headers, "content-type": event.datacontenttype}, event.data


def from_http(headers: Mapping[str, str], body: bytes) -> Event:
    """Raises Rejected("message-malformed"). Header names are case-insensitive."""
    return validated(attributes_of_http(headers, body))


def attributes_of_http(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The same, before it is validated: attributes, and `data` as bytes."""
    attributes: dict[str, Any] = {"data": body}
    for name, value in ((name.lower(), value) for name, value in headers.items()):
        if name.startswith("ce-"):
            attributes[name[3:]] = unquote(value)
        elif name == "content-type":
            attributes["datacontenttype"] = value.partition(";")[0].strip().lower()
    return attributes


# The catalogue.


@dataclass(frozen=True)
class EventType:
    """What an event's type means. `data` is None where the value is not JSON (frames). `from_devices` may be sent by
    glasses; everything else only by the platform."""

    name: str
    topic: Topic
    summary: str
    data: type[BaseModel] | None
    version: int = 1
    from_devices: bool = False
    content_type: str = JSON

    @property
    def dataschema(self) -> str:
        return f"urn:augenblick:{self.name}:{self.version}"


_PAYMENT_CHANGES = {
    "payment.authorised": "The money is reserved.",
    "payment.captured": "The money was taken.",
    "payment.action_required": "The payer must act first.",
    "payment.declined": "The payer's bank or wallet said no. Nothing moved.",
    "payment.failed": "The provider did not accept the payment. Nothing moved.",
    "payment.cancelled": "The payment was cancelled. Nothing moved.",
    "payment.expired": "The payment was not completed in time. Nothing moved.",
    "payment.unknown": "It may have happened; the provider is being asked until it is known.",
    "payment.partially_refunded": "Some of the money was given back.",
    "payment.refunded": "All of the money was given back.",
    "payment.command_failed": "A capture, cancellation or refund came to nothing; the payment is as it was.",
}

CATALOGUE: dict[str, EventType] = {
    entry.name: entry
    for entry in (
        EventType(
            "sighting.captured",
            topics.GLASSES_SIGHTINGS,
            "One camera frame, sent on purpose. The value is the JPEG; `intent` says what for.",
            None,
            from_devices=True,
            content_type=JPEG,
        ),
        EventType("sighting.recognised", topics.RECOGNITION_RESULTS, "The frame shows one product.", Recognition),
        EventType("sighting.unclear", topics.RECOGNITION_RESULTS, "Look again; nothing is guessed.", Unclear),
        EventType(
            "sighting.undecided", topics.RECOGNITION_RESULTS, "It is one of a few products; the wearer knows which.", Undecided
        ),
        EventType("choice.offered", topics.GLASSES_ANSWERS, "The wearer is asked which product it is.", Undecided),
        EventType("choice.made", topics.RECOGNITION_RESULTS, "The wearer said which.", ChoiceMade, from_devices=True),
        EventType("payees.seen", topics.RECOGNITION_RESULTS, "The frame shows codes that ask to pay somebody.", PayeesSeen),
        EventType(
            "payees.found", topics.GLASSES_ANSWERS, "Whom the codes seen ask to pay, by the registry's names.", PayeesFound
        ),
        EventType("offers.found", topics.GLASSES_ANSWERS, "What it is, what it costs, and where.", OffersFound),
        EventType("look.again", topics.GLASSES_ANSWERS, "The wearer is asked to look again, with a hint.", Unclear),
        EventType("payment.requested", topics.GLASSES_INTENTS, "The wearer wants to pay.", PaymentRequested, from_devices=True),
        EventType("payment.approved", topics.GLASSES_INTENTS, "The wearer's signed yes.", PaymentApproved, from_devices=True),
        EventType("proposal.declined", topics.GLASSES_INTENTS, "The wearer's no.", ProposalDeclined, from_devices=True),
        EventType("wear.changed", topics.GLASSES_INTENTS, "Put on, doffed, folded, link lost.", WearChanged, from_devices=True),
        EventType("payment.proposed", topics.GLASSES_ANSWERS, "What the wearer is asked to approve.", Proposed),
        EventType("proposal.closed", topics.GLASSES_ANSWERS, "A proposal ended; nothing is charged.", ProposalClosed),
        EventType("intent.refused", topics.GLASSES_ANSWERS, "An intent was refused, and why.", Problem),
        EventType("payment.updated", topics.GLASSES_ANSWERS, "A payment's state, for the wearer.", PaymentUpdated),
        EventType("receipt.closed", topics.GLASSES_ANSWERS, "The journey's record is complete.", ReceiptClosed),
        EventType("payment.due", topics.PAYMENTS_COMMANDS, "A payment has a command that waits to be carried out.", PaymentDue),
        EventType("provider.notified", topics.PAYMENTS_COMMANDS, "A provider says that something happened.", ProviderNotified),
        *(EventType(name, topics.PAYMENTS_EVENTS, summary, PaymentChanged) for name, summary in _PAYMENT_CHANGES.items()),
    )
}


def derived_id(cause: str, role: str) -> EventId:
    """The id of the event that `role` makes from the event `cause`: the same whenever the work is repeated.

    Keeps the cause's timestamp, so that ids still sort by time, and replaces the random part by a digest.
    """
    digest = hashlib.sha256(f"{cause}\x00{role}".encode()).digest()
    try:
        head = EventId(cause).uuid.bytes[:6]
    except ValueError:
        head = bytes(6)
    value = bytearray(head + digest[:10])
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return EventId.from_uuid(UUID(bytes=bytes(value)))
