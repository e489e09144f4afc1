"""Commands on a payment that a merchant or an operator gives: capture, cancel, refund. Each becomes an attempt of its own, and
the worker carries it out; two never run at once."""

import asyncio
from datetime import UTC, datetime
from time import monotonic
from typing import Literal

from connectors.ports import PaymentConnector
from schemas.errors import Rejected
from schemas.events import new_event
from schemas.ids import AttemptId, MerchantId, PaymentId
from schemas.money import Money
from schemas.payments import PaymentDue, PaymentState
from streams.core.database import Database
from streams.core.outbox import Transaction
from streams.core.telemetry import tracing
from streams.payments import service, store
from streams.payments.service import Change
from streams.payments.store import StoredPayment
from streams.payments.work import Connectors, announce

Kind = Literal["capture", "cancel", "refund"]
RequestedBy = Literal["merchant", "operator"]

_SOURCE = "/payments"

_TOUCH_S = 3.0
_LOOK_S = 0.1


async def touch(database: Database, payment_id: PaymentId, merchant_id: MerchantId | None = None) -> None:
    """Before a command on a payment of which something is not known, the provider is asked: now, not by the schedule. Waits a
    moment for the janitor's answer. With `merchant_id` only that merchant's payments."""
    async with database.transaction() as connection:
        asked = await store.ask_at_once(connection, payment_id, merchant_id)
    deadline = monotonic() + _TOUCH_S
    while asked and monotonic() < deadline:
        await asyncio.sleep(_LOOK_S)
        async with database.transaction() as connection:
            asked = await store.running_attempt(connection, payment_id) is not None


async def request(
    unit: Transaction,
    connectors: Connectors,
    payment_id: PaymentId,
    kind: Kind,
    amount: Money | None,
    *,
    requested_by: RequestedBy,
    merchant_id: MerchantId | None = None,
) -> AttemptId | None:
    """Put the command on record and have it carried out; None where it was done at once. `amount` None is all there is; with
    `merchant_id` only for that merchant's payments. Raises Rejected where it cannot be now, or ever."""
    payment, running = await store.current(unit, payment_id)
    if payment is None or merchant_id not in (None, payment.merchant_id):
        raise Rejected("not-found", "there is no such payment of yours")
    if kind == "cancel" and amount is not None:
        raise Rejected("request-invalid", "a payment is cancelled as a whole: leave the amount out")
    if payment.frozen:
        raise Rejected("payment-frozen", "an answer of the provider did not fit this payment", instance=payment.id)
    if running is not None:
        raise Rejected("payment-busy", f"its {running.kind} has not ended yet", instance=payment.id)
    whole = service.must_be_possible(kind, amount, payment.state, payment.total, payment.captured, payment.refunded)
    now = datetime.now(UTC)
    if kind == "cancel" and payment.state is PaymentState.APPROVED:
        await _cancel_before_it_began(unit, payment, requested_by, now)
        return None
    if payment.account is None:
        raise Rejected("merchant-not-payable", "the payment has no account with a provider", instance=payment.id)
    _must_be_offered(connectors.connector(payment.account), kind, whole, payment)
    attempt = await store.add_attempt(
        unit.connection,
        payment,
        kind,
        amount=whole,
        reference=payment.provider_reference,
        requested_by=requested_by,
        now=now,
        take_up_by=now + service.TAKE_UP_WITHIN,
        trace=tracing.current_traceparent(),
    )
    content = {"payment_id": payment.id, "attempt_id": attempt.id, "kind": kind, "requested_by": requested_by}
    unit.record(payment.journey_id, "command", content)
    due = PaymentDue(payment_id=payment.id)
    event = new_event("payment.due", due, source=_SOURCE, journeyid=payment.journey_id, subject=payment.id)
    unit.publish(event, key=payment.id)
    return attempt.id


def _must_be_offered(connector: PaymentConnector, kind: Kind, amount: Money | None, payment: StoredPayment) -> None:
    can = connector.capabilities
    whole = payment.total if kind == "capture" else payment.captured
    partial = {"capture": can.partial_capture, "refund": can.partial_refund, "cancel": True}[kind]
    if kind not in can.commands or (amount not in (None, whole) and not partial):
        raise Rejected("capability-not-offered", f"{connector.name} does not offer this {kind}", instance=payment.id)


async def _cancel_before_it_began(unit: Transaction, payment: StoredPayment, requested_by: RequestedBy, now: datetime) -> None:
    """No worker has taken it up, and none can once this is committed: nothing has to be said to the provider."""
    reason = f"cancelled_by_{requested_by}"
    state = PaymentState.CANCELLED
    await store.set_state(unit.connection, payment.id, state, reason=reason, reference=None, now=now)
    content = {"payment_id": payment.id, "state": state.value, "reason": reason}
    unit.record(payment.journey_id, "cancelled", content)
    announce(unit, payment, state, Change(state, reason), attempt=None, reference=None, action_url=None, now=now)
