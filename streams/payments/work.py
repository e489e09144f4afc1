"""Taking a payment's command through its attempt: open, call, settle. The worker, the janitor and the operator do the same, so
that whoever takes up what another left behind does it no differently.

Why nothing is paid twice: the provider's reference is committed before any money can move (docs/adr/0005); whoever resumes an
attempt asks about that reference first, and submits only what the provider says was never submitted, under the same key, and only
while the provider surely remembers keys. One attempt at a time runs on a payment, and is one worker's until its lease ends.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol

from connectors.ports import PaymentConnector
from schemas.errors import Misconfigured, Retryable
from schemas.events import Event, new_event
from schemas.ids import PaymentId
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Command,
    CommandResult,
    Declined,
    Mismatched,
    NotSubmitted,
    Opened,
    Outcome,
    Payer,
    PaymentChanged,
    PaymentState,
    PaymentUpdated,
    Pending,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)
from streams.core import wording
from streams.core.database import Database
from streams.core.outbox import Transaction
from streams.core.sealing import Sealer
from streams.core.telemetry import metrics, names, tracing
from streams.payments import service, store
from streams.payments.accounts import Account
from streams.payments.denied import DeniedParties
from streams.payments.service import Change
from streams.payments.store import StoredAttempt, StoredPayment

log = logging.getLogger(__name__)

_SOURCE = "/payments"
_GivenUp = Literal["too_late", "not_confirmed_in_time", "denied_party", "payer_missing"]


class LeaseLost(Exception):
    """The attempt may be somebody else's by now: nothing is submitted, and whoever has it goes on."""


class Connectors(Protocol):
    def connector(self, account: Account) -> PaymentConnector:
        """The merchant's connector. Raises Misconfigured where its credentials cannot be used."""
        ...


@dataclass(frozen=True)
class Plan:
    """What is to be done. `resumed`: somebody began it before, and may have got anywhere. `only_ask`: nothing is submitted,
    whatever the answer. `watching`: the attempt has ended; whether that still holds is asked. `by_operator`: a person looks at a
    frozen payment. `cause`: the event it is for. The attempt is this worker's until `leased_until`."""

    payment: StoredPayment
    attempt: StoredAttempt
    command: Command
    connector: PaymentConnector
    begun_at: datetime
    leased_until: datetime
    arrives_within: timedelta
    resumed: bool
    only_ask: bool = False
    watching: bool = False
    by_operator: bool = False
    cause: Event | None = None

    @property
    def may_submit_again(self) -> bool:
        """Whether the provider still knows the key, if it ever saw it."""
        return datetime.now(UTC) - self.begun_at < self.connector.capabilities.key_memory

    @property
    def submitted_lately(self) -> bool:
        """Whether an earlier request of this attempt may still be on its way."""
        last = self.attempt.submitted_at or self.begun_at
        return self.resumed and datetime.now(UTC) - last < self.arrives_within

    def waited_too_long(self, found: Actionable) -> bool:
        """Whether the payer, who was to act, has not in time."""
        waited = (datetime.now(UTC) - self.begun_at).total_seconds()
        return isinstance(self.command, Authorise) and not self.only_ask and waited > found.within_s

    @property
    def must_hurry(self) -> bool:
        """The lease would not outlast another call."""
        return datetime.now(UTC) + service.SUBMIT_TAKES > self.leased_until


class PaymentWork:
    """`worker` names who holds the leases."""

    def __init__(
        self,
        database: Database,
        connectors: Connectors,
        sealer: Sealer,
        *,
        worker: str = "worker",
        denied: DeniedParties | None = None,
        schedule: Sequence[float] = service.ASK_AGAIN_AFTER_S,
        arrives_within: timedelta = service.ARRIVES_WITHIN,
    ) -> None:
        self._database = database
        self._connectors = connectors
        self._sealer = sealer
        self.worker = worker
        self._denied = denied or DeniedParties(None)
        self._schedule = schedule
        self._arrives_within = arrives_within

    async def open(
        self,
        payment_id: PaymentId,
        unit: Transaction,
        *,
        only_if_due: bool = False,
        only_ask: bool = False,
        by_operator: bool = False,
        cause: Event | None = None,
    ) -> Plan | None:
        """Put the attempt on record, or take up the one that is running. None: there is nothing to do now, or somebody else is at
        it. `only_if_due`: nor is what the worker may still take up. `only_ask` waits for no lease, for asking harms nobody."""
        payment, attempt = await store.current(unit, payment_id)
        if payment is None or (payment.frozen and not by_operator):
            return None
        running, now = attempt, datetime.now(UTC)
        if attempt is None:
            if payment.state in service.WATCHED and (only_if_due or only_ask) and not by_operator:
                return await self._watch(payment, unit, now, cause)
            if payment.state is not PaymentState.APPROVED or only_ask:
                return None
        elif only_ask:
            if attempt.begun_at is None:
                return None
        elif (only_if_due or attempt.begun_at is not None) and (attempt.next_ask_at is None or attempt.next_ask_at > now):
            return None
        connector = self._connector(payment)
        reference_is_key = connector.capabilities.reference_is_key
        attempt = attempt or await self._begin(payment, unit, now, reference_is_key=reference_is_key)
        own = str(attempt.id) if reference_is_key else None
        reference = attempt.reference or own
        if only_ask and reference is None:
            return None  # the provider has never heard of it: there is nothing to ask about
        if running is not None and not only_ask:
            await store.lease_attempt(unit.connection, attempt, self.worker, now, now + service.LEASE, own)
        return Plan(
            payment=payment,
            attempt=attempt,
            command=self._command(payment, attempt, reference),
            connector=connector,
            begun_at=attempt.begun_at or now,
            leased_until=now + service.LEASE,
            arrives_within=self._arrives_within,
            resumed=attempt.begun_at is not None,
            only_ask=only_ask,
            by_operator=by_operator,
            cause=cause,
        )

    async def _watch(self, payment: StoredPayment, unit: Transaction, now: datetime, cause: Event | None) -> Plan | None:
        """Ask whether what ended still holds: a reservation may end by itself, what was given up may have been paid after all."""
        attempt = await store.taking_attempt(unit.connection, payment.id)
        if attempt is None:
            return None
        if payment.state is PaymentState.AUTHORISED:
            await store.watch_again(unit.connection, payment.id, now + service.WATCH_EVERY)
        return Plan(
            payment=payment,
            attempt=attempt,
            command=self._command(payment, attempt, attempt.reference),
            connector=self._connector(payment),
            begun_at=attempt.begun_at or now,
            leased_until=now + service.LEASE,
            arrives_within=self._arrives_within,
            resumed=True,
            only_ask=True,
            watching=True,
            cause=cause,
        )

    async def _begin(self, payment: StoredPayment, unit: Transaction, now: datetime, *, reference_is_key: bool) -> StoredAttempt:
        """On record, and leased. What is returned is as it was before: nobody has begun it."""
        attempt = await store.add_attempt(
            unit.connection,
            payment,
            "authorise",
            reference=None,
            requested_by="wearer",
            now=now,
            take_up_by=now + service.LEASE,
            trace=tracing.current_traceparent(),
            worker=self.worker,
            reference_is_key=reference_is_key,
        )
        await store.set_state(unit.connection, payment.id, PaymentState.SUBMITTING, reason=None, reference=None, now=now)
        return attempt

    def _connector(self, payment: StoredPayment) -> PaymentConnector:
        if payment.account is None:
            raise Misconfigured(f"{payment.id} has no account that takes its money: `augenblick connectors add`.")
        return self._connectors.connector(payment.account)

    def _command(self, payment: StoredPayment, attempt: StoredAttempt, reference: str | None) -> Command:
        common: dict[str, Any] = {
            "payment_id": payment.id,
            "attempt_id": attempt.id,
            "journey_id": payment.journey_id,
            "total": payment.total,
        }
        if attempt.kind == "authorise":
            return Authorise(
                **common,
                order_id=payment.order_id,
                payee=payment.payee,
                description=f"{payment.payee} {payment.order_id}"[:200],
                payer=self._payer(payment),
                capture=payment.capture,
                reference=reference,
            )
        common["reference"] = payment.provider_reference
        match attempt.kind:
            case "capture":
                return Capture.model_validate({**common, "amount": attempt.amount})
            case "refund":
                return Refund.model_validate({**common, "amount": attempt.amount})
            case _:
                return Cancel(**common)

    def _payer(self, payment: StoredPayment) -> Payer:
        """The wearer's means of payment; an empty one where there is none any more, or it is another provider's now: that is
        enough for asking, and nothing is submitted with it."""
        if payment.payer_sealed is not None:
            sealed = self._sealer.open(payment.payer_sealed, f"payer:{payment.device_id}")
            payer = Payer.model_validate(json.loads(sealed))
            if payer.provider == payment.provider:
                return payer
        return Payer(provider=payment.provider, customer="", payment_method="")

    async def call(self, plan: Plan) -> Outcome:
        """Talk to the provider. No transaction is held meanwhile, but for committing the reference."""
        kind = plan.command.kind
        attributes: dict[str, tracing.Attribute] = {names.PROVIDER: plan.connector.name}
        with tracing.span(f"{kind} {plan.connector.name}", attributes=attributes) as span:
            outcome = await self._call(plan)
            tracing.annotate(span, {names.OUTCOME: outcome.kind, names.PAYMENT: plan.payment.id})
            return outcome

    async def _call(self, plan: Plan) -> Outcome:
        command, connector, resumed = plan.command, plan.connector, plan.resumed
        if isinstance(command, Authorise) and (command.reference is None or not resumed):
            # Nothing can have been submitted yet.
            if reason := self._why_not(plan):
                return Cancelled(reference=None, reason=reason)
            try:
                opened = await connector.open(command, plan.attempt.id)
            except Retryable:
                return Pending(reference=None)  # nothing moved; the janitor tries again
            if not isinstance(opened, Opened):
                return opened
            reference: str | None = opened.reference
            if command.reference is None:
                async with self._database.transaction() as connection:
                    reference = await store.remember_reference(connection, plan.attempt.id, opened.reference, self.worker)
            if reference is None:
                raise LeaseLost(plan.attempt.id)
            command = command.model_copy(update={"reference": reference})
            # A worker that was believed dead may have opened it as well. What it put on record counts; ours is never submitted.
            resumed = reference != opened.reference
        assert command.reference is not None
        if resumed:
            found = await connector.fetch(command.reference, command)
            if isinstance(found, Actionable) and plan.waited_too_long(found):
                return await self._give_up(plan, command, "not_confirmed_in_time")
            if not isinstance(found, NotSubmitted) or plan.only_ask:
                return found
        if reason := self._why_not(plan):
            if isinstance(command, Authorise):
                return await self._give_up(plan, command, reason)
            return RefusedByProvider(reference=command.reference, code=reason, message="it was not sent")
        if resumed and not plan.may_submit_again:
            return RefusedByProvider(reference=command.reference, code="never_submitted", message="it never arrived")
        if plan.attempt.refused and plan.submitted_lately:
            # To send it again would only put off the moment from which on a refusal counts.
            return _not_yet_refused(command, plan.attempt.refused)
        if plan.must_hurry:
            raise LeaseLost(plan.attempt.id)
        if not resumed:
            return await connector.submit(command, plan.attempt.id)
        return await self._submit_again(plan, command)

    async def _submit_again(self, plan: Plan, command: Command) -> Outcome:
        """As the first time, and on record. A refusal may come of an earlier request that is still on its way: it counts only
        when nothing can be on its way any more."""
        async with self._database.transaction() as connection:
            if not await store.mark_submission(connection, plan.attempt.id, self.worker):
                raise LeaseLost(plan.attempt.id)
        outcome = await plan.connector.submit(command, plan.attempt.id)
        if isinstance(outcome, Declined | RefusedByProvider) and plan.submitted_lately:
            return _not_yet_refused(command, outcome.code)
        return outcome

    def _why_not(self, plan: Plan) -> _GivenUp | None:
        """Why no money must begin to move to the merchant now, or None. What has moved can always be cancelled and given back."""
        payment, command = plan.payment, plan.command
        if not isinstance(command, Authorise | Capture):
            return None
        if self._denied.includes(payment.payee, payment.merchant_id, payment.device_id):
            return "denied_party"
        if isinstance(command, Capture):
            return None
        if not command.payer.payment_method:
            return "payer_missing"
        return "too_late" if datetime.now(UTC) > payment.submit_by else None

    async def _give_up(self, plan: Plan, command: Command, reason: _GivenUp) -> Outcome:
        """Cancel at the provider what must not be paid any more. If it was paid meanwhile, that is what is returned."""
        assert command.reference is not None
        cancel = Cancel(
            payment_id=command.payment_id,
            attempt_id=command.attempt_id,
            journey_id=command.journey_id,
            total=command.total,
            reference=command.reference,
        )
        outcome = await plan.connector.submit(cancel, f"{command.attempt_id}-cancel")
        match outcome:
            case Cancelled():
                return outcome.model_copy(update={"reason": reason})
            case NotSubmitted() if not plan.submitted_lately:
                return Cancelled(reference=command.reference, reason=reason)  # and what never arrived cannot arrive any more
            case Declined() | Mismatched():
                return outcome
            case RefusedByProvider():
                # It may have been paid in this moment, and then cannot be cancelled.
                found = await plan.connector.fetch(command.reference, command)
                if isinstance(found, Succeeded | Declined | Cancelled | Mismatched):
                    return found
        return Unknown(reference=command.reference, reason=f"it could not be cancelled: {outcome.kind}")

    async def settle(self, plan: Plan, outcome: Outcome, unit: Transaction) -> None:
        """Record what is known now. Does nothing where another has settled the attempt meanwhile, or the payment was frozen."""
        payment, attempt = await store.current(unit, plan.payment.id)
        if payment is None or (payment.frozen and not plan.by_operator):
            return None
        if plan.watching:
            return await self._settle_watch(plan, payment, attempt, outcome, unit)
        if attempt is None or attempt.id != plan.attempt.id:
            return await self._settle_too_late(plan, payment, outcome, unit)
        if plan.only_ask and not service.is_final(outcome) and not isinstance(outcome, Mismatched):
            return None  # whoever is at it, or the janitor's schedule, goes on as before
        now = datetime.now(UTC)
        if isinstance(outcome, Unknown) and outcome.refused is None:
            outcome = outcome.model_copy(update={"refused": attempt.refused})
        final = service.is_final(outcome)
        if isinstance(outcome, Mismatched):
            await self._freeze(unit, payment, outcome.reason)
        elif payment.frozen and final:
            await store.thaw(unit.connection, payment.id)
        ask_at = service.ask_again_at(
            outcome,
            attempt.asked,
            plan.begun_at,
            now,
            schedule=self._schedule,
            ask_every=plan.connector.capabilities.ask_every if attempt.kind == "authorise" else None,
            refusal_counts_at=(attempt.submitted_at or plan.begun_at) + self._arrives_within,
        )
        if not final and ask_at is None and not isinstance(outcome, Mismatched):
            log.error("%s: nobody asks about its %s any more; a person has to look", payment.id, attempt.kind)
            metrics.count("augenblick.payments.given_up", provider=payment.provider)
        await store.record_outcome(unit.connection, attempt.id, outcome, final=final, ask_at=ask_at, now=now)
        change = service.change(attempt.kind, outcome, payment.state, payment.captured, payment.refunded)
        await self._apply(unit, payment, attempt, change, outcome, now, plan.cause)
        if final and PaymentState.AUTHORISED in (change.state, payment.state):
            reserved = (change.state or payment.state) is PaymentState.AUTHORISED
            await store.watch_again(unit.connection, payment.id, now + service.WATCH_EVERY if reserved else None)
        return None

    async def _settle_too_late(self, plan: Plan, payment: StoredPayment, outcome: Outcome, unit: Transaction) -> None:
        """The attempt has ended without this answer. If it says that money moved, and our books do not, a person has to look."""
        ended = await store.find_attempt(unit.connection, plan.attempt.id)
        if isinstance(outcome, Succeeded) and ended is not None and ended.outcome != outcome.kind:
            await self._freeze(unit, payment, f"its {ended.kind} succeeded after it had ended as {ended.outcome}")

    async def _settle_watch(
        self, plan: Plan, payment: StoredPayment, attempt: StoredAttempt | None, outcome: Outcome, unit: Transaction
    ) -> None:
        if attempt is not None or payment.state is not plan.payment.state:
            return  # something has begun, or ended, meanwhile
        now = datetime.now(UTC)
        reserved = payment.state is PaymentState.AUTHORISED
        match outcome:
            case Mismatched(reason=reason):
                await self._freeze(unit, payment, reason)
            case Succeeded() if reserved and outcome.captured:
                await self._freeze(unit, payment, "the provider took what was reserved, and nobody had asked for it")
            case Succeeded() if not reserved:
                await self._freeze(unit, payment, f"the provider says it was paid, and it had ended as {payment.state}")
            case Cancelled() if reserved:
                change = Change(PaymentState.EXPIRED, "reservation_ended")
                await self._apply(unit, payment, plan.attempt, change, outcome, now, plan.cause)
                await store.watch_again(unit.connection, payment.id, None)

    async def end(self, payment: StoredPayment, attempt: StoredAttempt, outcome: Outcome, unit: Transaction) -> None:
        """End the running attempt with a final outcome that a person has learned elsewhere, and thaw the payment. The caller has
        locked the payment; everybody is told as always."""
        now = datetime.now(UTC)
        if payment.frozen:
            await store.thaw(unit.connection, payment.id)
        await store.record_outcome(unit.connection, attempt.id, outcome, final=True, ask_at=None, now=now)
        change = service.change(attempt.kind, outcome, payment.state, payment.captured, payment.refunded)
        await self._apply(unit, payment, attempt, change, outcome, now, None)

    async def _freeze(self, unit: Transaction, payment: StoredPayment, reason: str) -> None:
        log.error("%s is frozen: %s", payment.id, reason)
        metrics.count("augenblick.payments.frozen", provider=payment.provider)
        await store.freeze(unit.connection, payment.id, reason)
        content = {"payment_id": payment.id, "reason": reason}
        unit.record(payment.journey_id, "frozen", content)

    async def freeze_if_contradicted(self, payment_id: PaymentId, contradicts: "Contradicts", unit: Transaction) -> bool:
        """Freeze a payment that a verified notification contradicts. True where it does."""
        payment, attempt = await store.current(unit, payment_id)
        reason = contradicts(payment, attempt) if payment else None
        if payment is None or reason is None:
            unit.prepared[payment_id] = payment, attempt  # as it was
            return False
        if not payment.frozen:
            await self._freeze(unit, payment, reason)
        return True

    async def _apply(
        self,
        unit: Transaction,
        payment: StoredPayment,
        attempt: StoredAttempt,
        change: Change,
        outcome: Outcome,
        now: datetime,
        cause: Event | None,
    ) -> None:
        moved = change.captured is not None or change.refunded is not None
        if change.state is None and not change.failed:
            return
        if change.state is payment.state and not moved:
            return
        state = change.state or payment.state
        reference = outcome.reference or attempt.reference or payment.provider_reference
        if not change.failed:
            await store.set_state(
                unit.connection,
                payment.id,
                state,
                reason=change.reason,
                reference=reference if attempt.kind == "authorise" else None,
                now=now,
                captured=change.captured,
                refunded=change.refunded,
            )
        content = {
            "payment_id": payment.id,
            "provider": payment.provider,
            "reference": reference,
            "state": state.value,
            "attempt_id": attempt.id,
            "kind": attempt.kind,
            "outcome": outcome.kind,
        }
        if attempt.amount is not None:
            content["amount_minor"] = attempt.amount.minor  # type: ignore[assignment]
        unit.record(payment.journey_id, "provider_answered", content)
        after = replace(payment, captured=change.captured or payment.captured, refunded=change.refunded or payment.refunded)
        url = outcome.url if isinstance(outcome, Actionable) else None
        announce(unit, after, state, change, attempt=attempt, reference=reference, action_url=url, now=now)
        metrics.count("augenblick.payments", state=state, provider=payment.provider)
        if state is PaymentState.CAPTURED and cause is not None and cause.capturedat:
            metrics.record("augenblick.glance_to_paid", (now - cause.capturedat).total_seconds())


def _not_yet_refused(command: Command, code: str) -> Unknown:
    reason = f"refused ({code}) while an earlier request may be on its way"
    return Unknown(reference=command.reference, reason=reason, refused=code)


class Contradicts(Protocol):
    def __call__(self, payment: StoredPayment, running: StoredAttempt | None) -> str | None: ...


def announce(
    unit: Transaction,
    payment: StoredPayment,
    state: PaymentState,
    change: Change,
    *,
    attempt: StoredAttempt | None,
    reference: str | None,
    action_url: str | None,
    now: datetime,
) -> None:
    """Tell the merchant, and of what has moved the wearer. `payment` has the new amounts and the former state."""
    command = None
    if attempt is not None and attempt.kind != "authorise":
        command = CommandResult(
            attempt_id=attempt.id,
            kind=attempt.kind,  # type: ignore[arg-type] # the database's check and the shape's list are the same
            amount=attempt.amount,
            succeeded=not change.failed,
        )
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
        reason=change.reason,
        occurred_at=now,
        captured=payment.captured,
        refunded=payment.refunded,
        command=command,
    )
    context = {"journeyid": payment.journey_id, "deviceid": payment.device_id, "subject": payment.id}
    name = "payment.command_failed" if change.failed else f"payment.{state}"
    unit.publish(new_event(name, changed, source=_SOURCE, **context), key=payment.id)
    if change.failed:
        return
    updated = PaymentUpdated(
        payment_id=payment.id,
        proposal_id=payment.proposal_id,
        order_id=payment.order_id,
        state=state,
        total=payment.total,
        text=wording.say(
            f"payment_{state}",
            payment.locale,
            total=wording.money(payment.total, payment.locale),
            refunded=wording.money(payment.refunded, payment.locale),
        ),
        action_url=action_url,
    )
    unit.publish(new_event("payment.updated", updated, source=_SOURCE, **context), key=payment.device_id)
