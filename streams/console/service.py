"""What the console makes of the rows: how a journey ended, how long it took, where the time went. Plain functions on plain
values."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from schemas.ids import DeadLetterId, DeviceId, Id, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import PaymentState
from streams.core.telemetry import names
from streams.core.topology import STAGES, Stage

GLANCE = "glance"
ANSWER = "push glasses.answers"
_FIRST_ANSWERS = ("offers.found", "payees.found", "choice.offered", "look.again")
_ANSWER_DUE = timedelta(seconds=30)
_SETTLING = timedelta(seconds=15)  # hops are written up to a second after they ended, and by several processes


# A journey.


class Outcome(StrEnum):
    """How a journey ended, or where it stands."""

    PAID = "paid"
    REFUNDED = "refunded"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"
    UNKNOWN = "unknown"
    PAYING = "paying"
    ACTION_REQUIRED = "payer must act"
    PROPOSED = "proposed"
    ANSWERED = "answered"
    LOOK_AGAIN = "look again"
    REFUSED = "refused"
    UNDER_WAY = "under way"
    NO_ANSWER = "no answer"

    @property
    def open(self) -> bool:
        """More is to be expected."""
        return self in _OPEN


_OPEN = frozenset({Outcome.UNKNOWN, Outcome.PAYING, Outcome.ACTION_REQUIRED, Outcome.PROPOSED, Outcome.UNDER_WAY})

_PAYMENT_OUTCOMES = {
    PaymentState.PROPOSED: Outcome.PROPOSED,
    PaymentState.APPROVED: Outcome.PAYING,
    PaymentState.SUBMITTING: Outcome.PAYING,
    PaymentState.ACTION_REQUIRED: Outcome.ACTION_REQUIRED,
    PaymentState.AUTHORISED: Outcome.PAYING,
    PaymentState.CAPTURED: Outcome.PAID,
    PaymentState.PARTIALLY_REFUNDED: Outcome.REFUNDED,
    PaymentState.REFUNDED: Outcome.REFUNDED,
    PaymentState.DECLINED: Outcome.DECLINED,
    PaymentState.FAILED: Outcome.FAILED,
    PaymentState.CANCELLED: Outcome.CANCELLED,
    PaymentState.EXPIRED: Outcome.EXPIRED,
    PaymentState.UNKNOWN: Outcome.UNKNOWN,
}

_PROPOSAL_OUTCOMES = {
    "open": Outcome.PROPOSED,
    "approved": Outcome.PAYING,
    "declined": Outcome.DECLINED,
    "cancelled": Outcome.CANCELLED,
    "expired": Outcome.EXPIRED,
}


@dataclass(frozen=True)
class Hop:
    """One finished span of a journey."""

    span_id: str
    parent_span_id: str | None
    name: str
    role: str
    started_at: datetime
    duration_ms: float
    failed: bool
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(milliseconds=self.duration_ms)

    @property
    def event_type(self) -> str | None:
        return self.attributes.get(names.EVENT_TYPE)

    @property
    def shown_attributes(self) -> dict[str, Any]:
        """Those of known names: libraries add others of their own (whole addresses, above all), which may hold secrets."""
        return {name: value for name, value in sorted(self.attributes.items()) if name in names.ATTRIBUTES}


@dataclass(frozen=True)
class ShownOffer:
    id: str
    device_id: str
    title: str
    gtin: str | None
    price: Money
    captured_at: datetime | None


@dataclass(frozen=True)
class Proposal:
    id: str
    offer_id: str
    device_id: str
    state: str
    reason: str | None
    total: Money
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Payment:
    """`captured_at` is when the money was taken, as far as it was."""

    id: str
    order_id: str
    proposal_id: str
    device_id: str
    merchant: str
    state: str
    reason: str | None
    total: Money
    provider: str
    provider_reference: str | None
    created_at: datetime
    updated_at: datetime
    captured_at: datetime | None
    refunded: Money
    frozen_reason: str | None


@dataclass(frozen=True)
class Journey:
    """Everything that followed from one glance, in short. Times are None where what they measure did not happen (or its span
    was lost). `hops` are in the order of their beginning."""

    id: JourneyId
    began_at: datetime
    outcome: Outcome
    reason: str | None
    product: str | None
    gtin: str | None
    price: Money | None
    device_id: str | None
    payment_id: str | None
    glance_to_answer_ms: float | None
    glance_to_paid_ms: float | None
    hops: tuple[Hop, ...]
    dead_letters: int

    @property
    def slowest_hop(self) -> tuple[Hop, float] | None:
        """The hop that took longest by itself, without the hops below it, and its milliseconds."""
        return max(((hop, own_ms(hop, self.hops)) for hop in self.hops), key=lambda pair: pair[1], default=None)

    def moving(self, now: datetime) -> bool:
        """Whether another look may show more."""
        return self.outcome.open or now - self.began_at < _SETTLING


def assemble(
    journey_id: JourneyId,
    *,
    hops: Sequence[Hop],
    offers: Sequence[ShownOffer],
    proposals: Sequence[Proposal],
    payments: Sequence[Payment],
    dead_letters: int,
    now: datetime,
) -> Journey:
    """`offers`, `proposals` and `payments` in the order they were made; the latest payment or proposal says how it ended."""
    payment = payments[-1] if payments else None
    proposal = next((one for one in proposals if payment and one.id == payment.proposal_id), None)
    proposal = proposal or (proposals[-1] if proposals else None)
    offer = next((one for one in offers if proposal and one.id == proposal.offer_id), offers[0] if offers else None)
    captured_at = next((one.captured_at for one in offers if one.captured_at), None)
    root = next((hop for hop in hops if hop.name == GLANCE), None)
    began_at = captured_at or (root.started_at if root else made_at(journey_id))
    answer = next((hop for hop in hops if _is_first_answer(hop)), None)
    outcome, reason = _outcome(began_at, hops, offers, proposal, payment, now)
    device = payment or proposal or offer
    return Journey(
        id=journey_id,
        began_at=began_at,
        outcome=outcome,
        reason=reason,
        product=offer.title if offer else None,
        gtin=offer.gtin if offer else None,
        price=payment.total if payment else proposal.total if proposal else offer.price if offer else None,
        device_id=device.device_id if device else None,
        payment_id=payment.id if payment else None,
        glance_to_answer_ms=_ms(answer.ended_at - began_at) if answer else None,
        glance_to_paid_ms=_ms(payment.captured_at - began_at) if payment and payment.captured_at else None,
        hops=tuple(hops),
        dead_letters=dead_letters,
    )


def _is_first_answer(hop: Hop) -> bool:
    """The push that answers the glance; without the event's type, the first push of all."""
    return hop.name == ANSWER and (hop.event_type is None or hop.event_type in _FIRST_ANSWERS)


def _outcome(
    began_at: datetime,
    hops: Sequence[Hop],
    offers: Sequence[ShownOffer],
    proposal: Proposal | None,
    payment: Payment | None,
    now: datetime,
) -> tuple[Outcome, str | None]:
    if payment:
        return _PAYMENT_OUTCOMES[PaymentState(payment.state)], payment.reason
    if proposal:
        if proposal.state == "open" and proposal.expires_at <= now:
            return Outcome.EXPIRED, proposal.reason
        return _PROPOSAL_OUTCOMES[proposal.state], proposal.reason
    said = {hop.event_type for hop in hops}
    if said & {"look.again", "sighting.unclear"}:
        return Outcome.LOOK_AGAIN, None
    if "intent.refused" in said:
        return Outcome.REFUSED, None
    if offers or said & {"offers.found", "payees.found"}:
        return Outcome.ANSWERED, None if offers or "payees.found" in said else "no_offer"
    if "choice.offered" in said:
        return Outcome.ANSWERED, "choice_offered"
    return (Outcome.UNDER_WAY if now - began_at < _ANSWER_DUE else Outcome.NO_ANSWER), None


def made_at(identifier: Id) -> datetime:
    """When an id was made: the first 48 bits of its UUIDv7 are milliseconds since 1970."""
    return datetime.fromtimestamp((identifier.uuid.int >> 80) / 1000, UTC)


def first_dead_letter_id(at: datetime) -> DeadLetterId:
    """The least id a dead letter made at that time can have. Ids sort by time, so that no index on a time is needed."""
    milliseconds = int(at.timestamp() * 1000)
    return DeadLetterId.from_uuid(UUID(int=(milliseconds << 80) | (7 << 76) | (2 << 62)))


def _ms(duration: timedelta) -> float:
    return duration.total_seconds() * 1000


def own_ms(hop: Hop, hops: Iterable[Hop]) -> float:
    """The milliseconds of a hop in which none of the hops directly below it ran."""
    below = [(child.started_at, child.ended_at) for child in hops if child.parent_span_id == hop.span_id]
    covered = timedelta()
    reached = hop.started_at
    for started, ended in sorted(below):
        begin, end = max(started, reached), min(ended, hop.ended_at)
        if end > begin:
            covered += end - begin
            reached = end
    return hop.duration_ms - _ms(covered)


# The waterfall.

WIDTH = 1000
_PAUSE = timedelta(milliseconds=400)


@dataclass(frozen=True)
class Bar:
    """A hop's place in the waterfall: `left` and `width` out of WIDTH. `pause_ms` is the stillness before it that was cut out,
    so that seconds of a person's thinking do not flatten the milliseconds of ours."""

    hop: Hop
    offset_ms: float
    left: float
    width: float
    pause_ms: float | None


def waterfall(began_at: datetime, hops: Sequence[Hop]) -> list[Bar]:
    """`hops` in the order of their beginning."""
    if not hops:
        return []
    cut = timedelta()
    busy_until = hops[0].started_at
    placed: list[tuple[Hop, timedelta, timedelta | None]] = []
    for hop in hops:
        pause = hop.started_at - busy_until
        if pause > _PAUSE:
            cut += pause
        placed.append((hop, hop.started_at - hops[0].started_at - cut, pause if pause > _PAUSE else None))
        busy_until = max(busy_until, hop.ended_at)
    length = max(_ms(start) + hop.duration_ms for hop, start, _ in placed) or 1.0
    return [
        Bar(
            hop,
            offset_ms=_ms(hop.started_at - began_at),
            left=round(min(_ms(start) / length * WIDTH, WIDTH - 2), 1),
            width=round(max(hop.duration_ms / length * WIDTH, 2), 1),
            pause_ms=_ms(pause) if pause else None,
        )
        for hop, start, pause in placed
    ]


# What the database holds for one journey.


@dataclass(frozen=True)
class Attempt:
    id: str
    payment_id: str
    kind: str
    outcome: str | None
    code: str | None
    asked: int
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class DeliveryAttempt:
    number: int
    started_at: datetime
    duration_ms: float
    status: int | None
    error: str | None


@dataclass(frozen=True)
class Delivery:
    """One webhook message to one endpoint. `address` is without user, query and fragment, which may hold secrets."""

    id: str
    message_id: str
    type: str
    order_id: str
    sequence: int
    address: str
    state: str
    created_at: datetime
    attempts: tuple[DeliveryAttempt, ...]


@dataclass(frozen=True)
class ReceiptEntry:
    position: int
    kind: str
    digest: str


@dataclass(frozen=True)
class Receipt:
    """`problems` is empty where the chain holds."""

    entries: tuple[ReceiptEntry, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class DeadLetter:
    """An event that could not be handled: why and where; never what it said."""

    id: str
    consumer: str
    topic: str
    partition: int
    offset: int
    event_id: str | None
    event_type: str | None
    journey_id: str | None
    reason: str
    detail: str
    attempts: int
    created_at: datetime


@dataclass(frozen=True)
class Message:
    order_id: str
    sequence: int
    type: str
    created_at: datetime


@dataclass(frozen=True)
class Moment:
    """One line of a payment's history."""

    at: datetime
    what: str
    detail: str | None = None


@dataclass(frozen=True)
class Records:
    """A journey's rows, each kind in the order it was made."""

    proposals: tuple[Proposal, ...]
    payments: tuple[Payment, ...]
    attempts: tuple[Attempt, ...]
    messages: tuple[Message, ...]
    deliveries: tuple[Delivery, ...]
    receipt: Receipt
    dead_letters: tuple[DeadLetter, ...]


def history(payment: Payment, records: Records) -> list[Moment]:
    """How a payment came to its state, from everything that recorded a step of it."""
    proposal = next((one for one in records.proposals if one.id == payment.proposal_id), None)
    moments = [Moment(payment.created_at, "approved by the wearer")]
    if proposal:
        moments.insert(0, Moment(proposal.created_at, "proposed"))
    for attempt in records.attempts:
        if attempt.payment_id == payment.id:
            moments.append(Moment(attempt.created_at, f"{attempt.kind} asked of {payment.provider}", attempt.id))
            if attempt.ended_at:
                asked = f"asked {attempt.asked} more times" if attempt.asked > 1 else None
                moments.append(Moment(attempt.ended_at, f"{attempt.kind}: {attempt.outcome}", attempt.code or asked))
    moments += [
        Moment(message.created_at, f"{message.type} told to the merchant", f"message {message.sequence}")
        for message in records.messages
        if message.order_id == payment.order_id
    ]
    moments.append(Moment(payment.updated_at, f"payment {payment.state.replace('_', ' ')}", payment.reason))
    return sorted(moments, key=lambda moment: moment.at)


# The flow's last hour.


@dataclass(frozen=True)
class Counted:
    """Hops by name, of the last hour. `complete` is False where there were more than were looked at."""

    by_name: dict[str, int]
    failed_by_name: dict[str, int]
    dead_by_topic: dict[str, int]
    complete: bool


@dataclass(frozen=True)
class StageNow:
    stage: Stage
    events: int
    failed: int
    dead_letters: int


def flow(counted: Counted) -> list[StageNow]:
    """Every stage that has topics, in the order of the flow."""
    stages = []
    for stage in STAGES:
        if not stage.consumes and not stage.emits:
            continue
        hops = {f"process {topic.name}" for topic in stage.consumes}
        if stage.name == "gateway":
            hops |= {GLANCE, ANSWER, *(name for name in counted.by_name if name.startswith("receive "))}
        stages.append(
            StageNow(
                stage,
                events=sum(counted.by_name.get(name, 0) for name in hops),
                failed=sum(counted.failed_by_name.get(name, 0) for name in hops),
                dead_letters=sum(counted.dead_by_topic.get(topic.name, 0) for topic in stage.consumes),
            )
        )
    return stages


@dataclass(frozen=True)
class Attention:
    """What a person should look at: frozen payments (the newest, with their journeys) and how many there are; how many payments
    have been unknown for a minute; how many notifications are for no payment of ours."""

    frozen: tuple[tuple[str, str], ...]
    frozen_count: int
    unknown_count: int
    unmatched_count: int

    def __bool__(self) -> bool:
        return bool(self.frozen_count or self.unknown_count or self.unmatched_count)


# Searching.


@dataclass(frozen=True)
class Search:
    """`kind` is the column that is searched: journey (also the beginning of an id), device, payment, order or gtin."""

    kind: str
    value: str


_JOURNEY_OR_ITS_BEGINNING = re.compile(JourneyId.prefix + "_[0-9a-z]{0,26}")


def parse_search(text: str) -> Search | None:
    """What a person typed or pasted; a trace id finds its journey. None for what is no id of any kind."""
    text = text.strip().lower()
    for kind, type in (("device", DeviceId), ("payment", PaymentId), ("order", OrderId)):
        if text.startswith(type.prefix + "_"):
            return Search(kind, text) if _is_id(type, text) else None
    if _JOURNEY_OR_ITS_BEGINNING.fullmatch(text):
        return Search("journey", text)
    if text.isascii() and text.isdigit() and len(text) in (8, 12, 13, 14):
        return Search("gtin", text.zfill(14))
    if len(text) == 32 and all(digit in "0123456789abcdef" for digit in text):
        return Search("journey", JourneyId.from_uuid(UUID(hex=text)))
    return None


def _is_id(type: type[Id], text: str) -> bool:
    try:
        type(text)
    except ValueError:
        return False
    return True
