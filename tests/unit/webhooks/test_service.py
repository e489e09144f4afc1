from datetime import UTC, datetime

import pytest

from schemas.events import new_event
from schemas.ids import DeliveryId, EndpointId, EventId, JourneyId, MerchantId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import PaymentChanged, PaymentState
from streams.webhooks import service
from streams.webhooks.service import (
    Answer,
    Decision,
    Delivered,
    EndpointGone,
    GivenUp,
    Retry,
    choose,
    compose,
    decide,
    message_id,
)

WAITS = (5.0, 300.0)


def decided(answer: Answer, failed_before: int = 0) -> Decision:
    return decide(answer, failed_before, WAITS, lambda: 1.0)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_acknowledges(status: int) -> None:
    assert decided(Answer(status=status)) == Delivered()


@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 401, 404, 500, 503, 999])
def test_nothing_else_does(status: int) -> None:
    assert decided(Answer(status=status)) == Retry(5.0)


def test_410_ends_the_endpoint_at_any_time() -> None:
    assert decided(Answer(status=410)) == decided(Answer(status=410), failed_before=9) == EndpointGone()


def test_too_many_requests_and_timeouts_slow_down() -> None:
    assert decided(Answer(status=429)) == decided(Answer(error="No answer", timed_out=True)) == Retry(60.0)
    assert decided(Answer(error="No connection")) == Retry(5.0)


def test_a_wish_is_heeded() -> None:
    assert decided(Answer(status=503, retry_after_s=77.0)) == Retry(77.0)


def test_after_the_last_wait_it_is_given_up() -> None:
    assert decided(Answer(status=500), failed_before=1) == Retry(300.0)
    assert decided(Answer(status=500), failed_before=2) == GivenUp()
    assert decided(Answer(status=200), failed_before=2) == Delivered()


def test_the_messages_id_follows_from_the_events() -> None:
    event_id = EventId.new()
    assert message_id(event_id) == message_id(event_id) != message_id(EventId.new())
    assert message_id("an id of somebody else's form") == message_id("an id of somebody else's form")


def test_a_message_says_what_the_event_said() -> None:
    total = Money.of(1299, "EUR")
    change = PaymentChanged(
        payment_id=PaymentId.new(),
        order_id=OrderId.new(),
        journey_id=JourneyId.new(),
        merchant_id=MerchantId.new(),
        state=PaymentState.FAILED,
        previous_state=PaymentState.SUBMITTING,
        total=total,
        cart=(),
        provider="stripe",
        provider_reference=None,
        occurred_at=datetime.now(UTC),
        captured=Money.of(0, "EUR"),
        refunded=Money.of(0, "EUR"),
    )
    event = new_event("payment.failed", change, source="/test", journeyid=change.journey_id)
    message = compose(event, event.decode(PaymentChanged), 3)
    assert (message.type, message.sequence, message.order_id) == ("payment.failed", 3, change.order_id)
    assert (message.timestamp, message.data) == (event.time, change)


def test_merchants_hear_of_every_change_of_a_payment_and_of_nothing_else() -> None:
    assert {name.removeprefix("payment.") for name in service.EVENT_TYPES} == {
        state.value
        for state in PaymentState
        if state not in {PaymentState.PROPOSED, PaymentState.APPROVED, PaymentState.SUBMITTING}
    } | {"command_failed"}


A, B = EndpointId.new(), EndpointId.new()


def ids(count: int) -> list[DeliveryId]:
    return [DeliveryId.new() for _ in range(count)]


def test_room_is_shared_among_endpoints() -> None:
    many, few = ids(10), ids(2)
    due = [*((delivery, A) for delivery in many), *((delivery, B) for delivery in few)]
    assert choose(due, {}, free=32, per_endpoint=4) == [*many[:4], *few]
    assert choose(due, {A: 3}, free=32, per_endpoint=4) == [*many[:1], *few]
    assert choose(due, {A: 4}, free=1, per_endpoint=4) == few[:1]
    assert choose(due, {}, free=3, per_endpoint=4) == many[:3]
    assert choose(due, {}, free=0, per_endpoint=4) == []
