"""The stage's decisions, on plain values: what a message says, what an answer means, whose turn it is, when a journey is done."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from schemas.events import CATALOGUE, Event, derived_id
from schemas.ids import DeliveryId, EndpointId, MessageId
from schemas.payments import SETTLED_STATES, PaymentChanged, PaymentState
from schemas.topics import PAYMENTS_EVENTS
from schemas.webhooks import WebhookMessage
from streams.webhooks import schedule

EVENT_TYPES = frozenset(entry.name for entry in CATALOGUE.values() if entry.topic is PAYMENTS_EVENTS)
"""What merchants can hear of."""

CLOSING_STATES = frozenset(state.value for state in SETTLED_STATES - {PaymentState.AUTHORISED})
"""In these a payment is done for the wearer. A reservation is not: its capture is still to come."""


def message_id(event_id: str) -> MessageId:
    """The same for the same event, so that handling it again makes the same message again, not another."""
    return MessageId.from_uuid(derived_id(event_id, "webhooks").uuid)


def compose(event: Event, change: PaymentChanged, sequence: int) -> WebhookMessage:
    return WebhookMessage(
        id=message_id(event.id),
        type=event.type,
        timestamp=event.time,
        order_id=change.order_id,
        sequence=sequence,
        data=change,
    )


@dataclass(frozen=True)
class Answer:
    """What came of one attempt: an HTTP status with the beginning of its body, or else what went wrong, in words."""

    status: int | None = None
    excerpt: str | None = None
    retry_after_s: float | None = None
    error: str | None = None
    timed_out: bool = False


@dataclass(frozen=True)
class Delivered:
    """The merchant has it."""

    result = "delivered"


@dataclass(frozen=True)
class Retry:
    after_s: float
    result = "retried"


@dataclass(frozen=True)
class GivenUp:
    """The schedule is at its end."""

    result = "failed"


@dataclass(frozen=True)
class EndpointGone:
    """The endpoint said 410: it wants no more. What is open is held until the merchant enables it again."""

    result = "endpoint_gone"


Decision = Delivered | Retry | GivenUp | EndpointGone


def decide(
    answer: Answer,
    failed_before: int,
    waits: Sequence[float] = schedule.SCHEDULE_S,
    jitter: Callable[[], float] = schedule.uniform_jitter,
) -> Decision:
    """What follows from an answer. Only a 2xx acknowledges: a redirection is a failure, for it may lead anywhere."""
    if answer.status is not None and 200 <= answer.status < 300:
        return Delivered()
    if answer.status == 410:
        return EndpointGone()
    wait = schedule.wait_s(
        failed_before + 1,
        slow_down=answer.status == 429 or answer.timed_out,
        retry_after_s=answer.retry_after_s,
        schedule=waits,
        jitter=jitter,
    )
    return GivenUp() if wait is None else Retry(wait)


def choose(
    due: Sequence[tuple[DeliveryId, EndpointId]], under_way: Mapping[EndpointId, int], *, free: int, per_endpoint: int
) -> list[DeliveryId]:
    """Of what is due (longest first), as much as there is room for: a slow endpoint takes only its own share."""
    taken = Counter(under_way)
    chosen: list[DeliveryId] = []
    for delivery_id, endpoint_id in due:
        if len(chosen) == free:
            break
        if taken[endpoint_id] < per_endpoint:
            taken[endpoint_id] += 1
            chosen.append(delivery_id)
    return chosen
