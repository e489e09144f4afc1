"""The end of a receipt: when a payment is done and merchants have acknowledged everything they were told of it."""

from functools import partial

from schemas.events import new_event
from schemas.ids import JourneyId, OrderId
from schemas.payments import ReceiptClosed
from streams.core import receipts
from streams.core.outbox import Transaction
from streams.core.receipts import Head
from streams.webhooks import service, store
from streams.webhooks.store import Unclosed

SOURCE = "/webhooks"


async def close_when_complete(unit: Transaction, order_id: OrderId, locked: JourneyId | None = None) -> bool:
    """Adds the entry `closed` and tells the wearer, once per payment. Belongs at the end of a transaction that added messages or
    ended deliveries of the order. `locked`: the order's journey, where the caller has locked its receipt already.

    The receipt is locked before it looks, so that of two transactions which each end one of the last two deliveries, the later
    one sees the other's.
    """
    journey_id = locked or await store.journey_of(unit.connection, order_id)
    if journey_id is None:
        return False
    if locked is None:
        await receipts.lock(unit.connection, journey_id)
    payment = await store.to_be_closed(unit.connection, order_id, service.CLOSING_STATES)
    if payment is None or payment in unit.prepared:
        return False
    unit.prepared[payment] = True  # the entry is written with the transaction's end, and seen by nobody before
    content = {"payment_id": payment.payment_id, "state": payment.state}
    unit.record(journey_id, "closed", content, then=partial(_tell, unit, payment))
    return True


def _tell(unit: Transaction, payment: Unclosed, closed: Head) -> None:
    data = ReceiptClosed(payment_id=payment.payment_id, entries=closed.position, digest=closed.digest)
    event = new_event(
        "receipt.closed",
        data,
        source=SOURCE,
        subject=payment.payment_id,
        journeyid=payment.journey_id,
        deviceid=payment.device_id,
    )
    unit.publish(event, key=payment.device_id)
