"""Taking a payment through an attempt: open, call, settle. The worker and the janitor do the same, so that whoever takes up
what another left behind does it no differently.

Why nothing is paid twice: the provider's reference is committed before any money can move (docs/adr/0005), whoever resumes
an attempt asks about that reference first, and submits only what the provider says was never submitted, under the same key.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from connectors.ports import PaymentConnector
from schemas.errors import Misconfigured, Retryable
from schemas.events import Event, new_event
from schemas.ids import AttemptId, PaymentId
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Declined,
    NotSubmitted,
    Opened,
    Outcome,
    Payer,
    PaymentChanged,
    PaymentState,
    PaymentUpdated,
    Pending,
    Succeeded,
    Unknown,
)
from streams.core import receipts, wording
from streams.core.database import Database
from streams.core.outbox import Transaction
from streams.core.sealing import Sealer
from streams.core.telemetry import metrics, names, tracing
from streams.payments import service, store
from streams.payments.store import StoredAttempt, StoredPayment

_SOURCE = "/payments"
_SUBMITTABLE = {PaymentState.APPROVED, PaymentState.SUBMITTING, PaymentState.UNKNOWN, PaymentState.ACTION_REQUIRED}


@dataclass(frozen=True)
class Plan:
    """What is to be done. `resumed`: somebody began it before, and may have got anywhere. `opened_at`: when that was."""

    payment: StoredPayment
    attempt_id: AttemptId
    command: Authorise
    opened_at: datetime
    resumed: bool

    @property
    def is_late(self) -> bool:
        """The wearer's yes is too old for money to begin to move now."""
        return datetime.now(UTC) > self.payment.submit_by


class PaymentWork:
    def __init__(self, database: Database, connectors: Mapping[str, PaymentConnector], sealer: Sealer) -> None:
        self._database = database
        self._connectors = connectors
        self._sealer = sealer

    async def open(self, payment_id: PaymentId, unit: Transaction, *, only_if_due: bool = False) -> Plan | None:
        """Put the attempt on record, or take up the one that is running. None: there is nothing left to do, or (where asked)
        somebody else is at it."""
        payment = await store.lock_payment(unit.connection, payment_id)
        if payment is None or payment.state not in _SUBMITTABLE:
            return None
        now = datetime.now(UTC)
        if running := await store.running_attempt(unit.connection, payment.id):
            if only_if_due and running.next_ask_at > now:
                return None
            await store.lease_attempt(unit.connection, running.id, now + service.LEASE)
            return Plan(payment, running.id, self._command(payment, running), running.created_at, resumed=True)
        if payment.state is not PaymentState.APPROVED:
            return None
        command = self._command(payment, None)
        await store.open_attempt(unit.connection, command, now + service.LEASE, tracing.current_traceparent())
        await store.set_state(unit.connection, payment.id, PaymentState.SUBMITTING, reason=None, reference=None, now=now)
        return Plan(payment, command.attempt_id, command, now, resumed=False)

    def _command(self, payment: StoredPayment, attempt: StoredAttempt | None) -> Authorise:
        if payment.payer_sealed is None:
            raise Misconfigured(f"{payment.device_id} has no means of payment any more.")
        payer = Payer.model_validate(json.loads(self._sealer.open(payment.payer_sealed, f"payer:{payment.device_id}")))
        return Authorise(
            payment_id=payment.id,
            attempt_id=attempt.id if attempt else AttemptId.new(),
            journey_id=payment.journey_id,
            order_id=payment.order_id,
            total=payment.total,
            payee=payment.payee,
            description=f"{payment.payee} {payment.order_id}"[:200],
            payer=payer,
            reference=attempt.reference if attempt else None,
        )

    async def call(self, plan: Plan) -> Outcome:
        """Talk to the provider. No transaction is held meanwhile, but for committing the reference."""
        connector = self._connectors[plan.payment.provider]
        with tracing.span(f"authorise {connector.name}", attributes={names.PROVIDER: connector.name}) as span:
            outcome = await self._call(connector, plan)
            tracing.annotate(span, {names.OUTCOME: outcome.kind, names.PAYMENT: plan.payment.id})
            return outcome

    async def _call(self, connector: PaymentConnector, plan: Plan) -> Outcome:
        command, resumed = plan.command, plan.resumed
        if command.reference is None:
            if plan.is_late:
                return Cancelled(reference=None, reason="too_late")
            try:
                opened = await connector.open(command, plan.attempt_id)
            except Retryable:
                return Pending(reference=None)  # nothing moved; the janitor tries again
            if not isinstance(opened, Opened):
                return opened
            async with self._database.transaction() as connection:
                reference = await store.remember_reference(connection, command.attempt_id, opened.reference)
            command = command.model_copy(update={"reference": reference})
            # A worker that was believed dead may have opened it as well. What it put on record counts; ours is never submitted.
            resumed = reference != opened.reference
        assert command.reference is not None
        if resumed:
            found = await connector.fetch(command.reference, command)
            if isinstance(found, Actionable) and datetime.now(UTC) > plan.opened_at + service.CONFIRM_WITHIN:
                return await self._give_up(connector, command, "not_confirmed_in_time")
            if not isinstance(found, NotSubmitted):
                return found
        if plan.is_late:
            return await self._give_up(connector, command, "too_late")
        return await connector.submit(command, plan.attempt_id)

    async def _give_up(
        self, connector: PaymentConnector, command: Authorise, reason: Literal["too_late", "not_confirmed_in_time"]
    ) -> Outcome:
        """Cancel at the provider what must not be paid any more. If it was paid meanwhile, that is what is returned."""
        assert command.reference is not None
        cancel = Cancel(
            payment_id=command.payment_id,
            attempt_id=command.attempt_id,
            journey_id=command.journey_id,
            reference=command.reference,
        )
        outcome = await connector.submit(cancel, f"{command.attempt_id}-cancel")
        match outcome:
            case Cancelled():
                return outcome.model_copy(update={"reason": reason})
            case Succeeded() | Declined():
                return outcome
            case _:
                return Unknown(reference=command.reference, reason=f"it could not be cancelled: {outcome.kind}")

    async def settle(self, plan: Plan, outcome: Outcome, unit: Transaction, cause: Event | None = None) -> None:
        """Record what is known now. Does nothing where another has settled the attempt meanwhile."""
        payment = await store.lock_payment(unit.connection, plan.payment.id)
        running = await store.running_attempt(unit.connection, plan.payment.id)
        if payment is None or running is None or running.id != plan.attempt_id:
            return
        now = datetime.now(UTC)
        state, reason = service.move(outcome)
        if state is PaymentState.EXPIRED and payment.state is not PaymentState.ACTION_REQUIRED:
            state = PaymentState.CANCELLED  # only who was asked to act can have let it expire
        final = service.is_final(outcome)
        confirming = isinstance(outcome, Actionable)
        ask_at = service.ask_again_at(running.asked, running.created_at, now, confirming=confirming)
        await store.record_outcome(unit.connection, running.id, outcome, final=final, ask_at=ask_at, now=now)
        if state is None or state is payment.state:
            return
        reference = outcome.reference or running.reference
        await store.set_state(unit.connection, payment.id, state, reason=reason, reference=reference, now=now)
        content = {"payment_id": payment.id, "provider": payment.provider, "reference": reference, "state": state.value}
        await receipts.append(unit.connection, payment.journey_id, "provider_answered", content)
        self._announce(unit, payment, state, reason, reference, outcome, now)
        metrics.count("augenblick.payments", state=state, provider=payment.provider)
        if state is PaymentState.CAPTURED and cause is not None and cause.capturedat:
            metrics.record("augenblick.glance_to_paid", (now - cause.capturedat).total_seconds())

    def _announce(
        self,
        unit: Transaction,
        payment: StoredPayment,
        state: PaymentState,
        reason: str | None,
        reference: str | None,
        outcome: Outcome,
        now: datetime,
    ) -> None:
        changed = PaymentChanged(
            payment_id=payment.id,
            order_id=payment.order_id,
            journey_id=payment.journey_id,
            merchant_id=payment.merchant_id,
            state=state,
            previous_state=payment.state,
            total=payment.total,
            cart=payment.cart,
            provider=payment.provider,
            provider_reference=reference,
            reason=reason,
            occurred_at=now,
        )
        updated = PaymentUpdated(
            payment_id=payment.id,
            proposal_id=payment.proposal_id,
            order_id=payment.order_id,
            state=state,
            total=payment.total,
            text=wording.say(f"payment_{state}", payment.locale, total=wording.money(payment.total, payment.locale)),
            action_url=outcome.url if isinstance(outcome, Actionable) else None,
        )
        context = {"journeyid": payment.journey_id, "deviceid": payment.device_id, "subject": payment.id}
        unit.publish(new_event(f"payment.{state}", changed, source=_SOURCE, **context), key=payment.id)
        unit.publish(new_event("payment.updated", updated, source=_SOURCE, **context), key=payment.device_id)
