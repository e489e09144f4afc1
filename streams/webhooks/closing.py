"""The end of a receipt: when a payment is done and merchants have acknowledged everything they were told of it."""

from schemas.events import new_event
from schemas.ids import OrderId
from schemas.payments import ReceiptClosed
from streams.core import receipts
from streams.core.outbox import Transaction
from streams.webhooks import service, store

SOURCE = "/webhooks"


async def close_when_complete(unit: Transaction, order_id: OrderId) -> bool:
    """Adds the entry `closed` and tells the wearer, once per payment. Belongs at the end of a transaction that added messages
    or ended deliveries of the order.

    The receipt is locked before it looks, so that of two transactions which each end one of the last two deliveries, the later
    one sees the other's.
    """
    journey_id = await store.journey_of(unit.connection, order_id)
    if journey_id is None:
        return False
    await receipts.lock(unit.connection, journey_id)
    payment = await store.to_be_closed(unit.connection, order_id, service.CLOSING_STATES)
    if payment is None:
        return False
    content = {"payment_id": payment.payment_id, "state": payment.state}
    digest = await receipts.append(unit.connection, journey_id, "closed", content)
    entries = await store.entries_of(unit.connection, journey_id)
    data = ReceiptClosed(payment_id=payment.payment_id, entries=entries, digest=digest)
    event = new_event(
        "receipt.closed", data, source=SOURCE, subject=payment.payment_id, journeyid=journey_id, deviceid=payment.device_id
    )
    unit.publish(event, key=payment.device_id)
    return True
