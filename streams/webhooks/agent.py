"""payments.events → a numbered message, and a delivery for each of the merchant's endpoints that wants to hear of it."""

from collections.abc import Sequence

from schemas.events import Event
from schemas.ids import JourneyId, OrderId
from schemas.payments import PaymentChanged
from schemas.topics import PAYMENTS_EVENTS
from streams.core import receipts
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Transactional
from streams.core.outbox import Transaction
from streams.core.telemetry import tracing
from streams.webhooks import service, store
from streams.webhooks.closing import close_when_complete


async def fan_out(event: Event, unit: Transaction) -> None:
    """The message is made also where nobody listens: the merchant's numbers have no gaps, and it can be pulled later."""
    change = event.decode(PaymentChanged)
    locked = unit.prepared.pop(_about(event), False)
    sequence = await store.next_sequence(unit.connection, change.order_id, locked=locked)
    message = service.compose(event, change, sequence)
    await store.add_message(
        unit.connection,
        message,
        merchant_id=change.merchant_id,
        journey_id=change.journey_id,
        event_id=event.id,
        body=message.model_dump_json().encode(),
        trace=tracing.current_traceparent(),
    )
    addressees = await store.addressees(unit.connection, change.merchant_id, event.type)
    if not addressees:
        await close_when_complete(unit, change.order_id, change.journey_id if locked else None)
        return
    # What is not acknowledged yet keeps the receipt open: the dispatcher closes it.
    await store.add_deliveries(unit.connection, message.id, addressees)
    await store.notify(unit.connection)


def _about(event: Event) -> tuple[OrderId, JourneyId]:
    change = event.decode(PaymentChanged)
    return change.order_id, change.journey_id


async def _lock(unit: Transaction, about: Sequence[tuple[OrderId, JourneyId]]) -> None:
    """The orders, and then the receipts."""
    await store.lock_orders(unit.connection, [order_id for order_id, _ in about])
    await receipts.lock_all(unit.connection, [journey_id for _, journey_id in about])
    unit.prepared.update(dict.fromkeys(about, True))


async def run(parts: Parts) -> None:
    consumer = Consumer(
        name="webhooks",
        topics=(PAYMENTS_EVENTS,),
        handling=Transactional("webhooks", parts.database(), fan_out, about=_about, prepare=_lock),
        event_types=service.EVENT_TYPES,
        window=parts.settings.group_window,
    )
    await run_consumer(consumer, parts)
