"""payments.events → a numbered message, and a delivery for each of the merchant's endpoints that wants to hear of it."""

from schemas.events import Event
from schemas.payments import PaymentChanged
from schemas.topics import PAYMENTS_EVENTS
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
    sequence = await store.next_sequence(unit.connection, change.order_id)
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
    await store.add_deliveries(unit.connection, message.id, addressees)
    await store.notify(unit.connection)
    await close_when_complete(unit, change.order_id)


async def run(parts: Parts) -> None:
    consumer = Consumer(
        name="webhooks",
        topics=(PAYMENTS_EVENTS,),
        handling=Transactional("webhooks", parts.database(), fan_out),
        event_types=service.EVENT_TYPES,
        window=parts.settings.window,
    )
    await run_consumer(consumer, parts)
