"""glasses.intents → proposals, approvals, wear state → glasses.answers and payments.commands."""

from datetime import UTC, datetime

from schemas.errors import Rejected
from schemas.events import Event
from schemas.ids import JourneyId
from schemas.payments import (
    ApprovalClaims,
    PaymentApproved,
    PaymentDue,
    PaymentRequested,
    ProposalDeclined,
    Proposed,
    WearChanged,
    WearState,
)
from schemas.topics import GLASSES_INTENTS
from streams.core import wording
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Transactional
from streams.core.outbox import Transaction
from streams.intents import approval, closing, payees, policy, service, store
from streams.intents.closing import SOURCE
from streams.intents.service import GATEWAY, Account, Device, Purchase, StoredProposal
from streams.intents.store import Subject


class Intents:
    async def handle(self, event: Event, unit: Transaction) -> None:
        """A refusal is an answer to the wearer, not a failure; only what cannot be read becomes a dead letter."""
        device = await store.device_of(unit, str(event.deviceid))
        if device is None:
            raise Rejected("device-unknown", "an intent of a device that is not paired", instance=event.deviceid)
        try:
            match event.type:
                case "wear.changed":
                    await self._wear_changed(event, device, unit)
                case "payment.requested":
                    await self._requested(event, device, unit)
                case "payment.approved":
                    await self._approved(event, device, unit)
                case "proposal.declined":
                    await self._declined(event, device, unit)
        except Rejected as refusal:
            if refusal.problem.code == "event-invalid":
                raise
            problem = refusal.problem.model_copy(update={"instance": refusal.problem.instance or event.id})
            unit.publish(event.follow("intent.refused", problem, source=SOURCE, subject=event.id), key=device.id)

    async def _wear_changed(self, event: Event, device: Device, unit: Transaction) -> None:
        change = event.decode(WearChanged)
        if not service.wear_counts(change, device, event.source, event.time):
            return
        by_device = event.source != GATEWAY
        await store.set_wear_state(unit.connection, device.id, change.state, event.time if by_device else None)
        if change.state is not WearState.WORN:
            await closing.close_all(unit, device.id, change.state.value, device.locale)

    async def _requested(self, event: Event, device: Device, unit: Transaction) -> None:
        request, now = event.decode(PaymentRequested), datetime.now(UTC)
        service.may_pay(device)
        wanted = await _purchase(request, device, unit, now)
        conditions = await store.conditions_of(unit, device, wanted.merchant_id)
        policy.check_age(conditions.rules, event.time, now)
        spent = await store.find_spent(
            unit.connection, conditions.rules, device.id, wanted.merchant_id, wanted.total.currency, now
        )
        terms = service.propose(wanted, device, conditions, spent, now)
        account, capture = service.account_for(conditions, terms.total), conditions.rules.capture
        await closing.close_all(unit, device.id, "superseded", device.locale)
        digest = service.proposal_digest(terms)
        await store.add_proposal(unit.connection, terms, digest, wanted, account, capture=capture)
        journey = JourneyId(wanted.journey_id)
        unit.record(journey, "recognised", wanted.evidence, only_first=True)
        named = {"offer_id": wanted.offer_id, "payee_code_id": wanted.payee_code_id}
        content = {
            "proposal_id": terms.proposal_id,
            **{name: value for name, value in named.items() if value is not None},
            "digest": digest,
            "account_id": account.id,
            "capture": capture,
        }
        unit.record(journey, "proposed", content)
        proposed = event.model_copy(update={"journeyid": journey}).follow(
            "payment.proposed", Proposed(terms=terms, digest=digest), source=SOURCE, subject=event.id
        )
        unit.publish(proposed, key=device.id)

    async def _approved(self, event: Event, device: Device, unit: Transaction) -> None:
        data, now = event.decode(PaymentApproved), datetime.now(UTC)
        found = await store.proposal_of(unit, data.proposal_id)
        proposal = service.may_be_approved(found, device, now)
        claims = approval.verify(
            data.approval, proposal.terms, proposal.digest, device.id, device.public_key, proposal.created_at, now
        )
        account = await _account(event, device, proposal, claims, unit, now)
        payment_id = await store.approve(
            unit.connection, proposal, claims, jws=data.approval, account=account, locale=device.locale
        )
        journey = JourneyId(proposal.journey_id)
        unit.record(
            journey,
            "approved",
            {"payment_id": payment_id, "digest": proposal.digest, "presence": claims.presence, "approval": data.approval},
        )
        due = event.model_copy(update={"journeyid": journey}).follow(
            "payment.due", PaymentDue(payment_id=payment_id), source=SOURCE, subject=payment_id
        )
        unit.publish(due, key=payment_id)

    async def _declined(self, event: Event, device: Device, unit: Transaction) -> None:
        proposal = await store.proposal_of(unit, event.decode(ProposalDeclined).proposal_id)
        if proposal is None or proposal.device_id != device.id:
            raise Rejected("proposal-unknown", "no such proposal was made to these glasses")
        if proposal.state != "open":
            raise Rejected("proposal-closed", f"the proposal is {proposal.state}", instance=proposal.id)
        await closing.close(unit, proposal, "declined", "declined_by_wearer", device.locale)


async def _purchase(request: PaymentRequested, device: Device, unit: Transaction, now: datetime) -> Purchase:
    """What is to be paid, whichever way it was asked for. Raises Rejected."""
    if request.payee_code_id is None:
        assert request.offer_id is not None
        return service.purchase(request, await store.offer_of(unit, request.offer_id), device, now)
    payee = await payees.propose_payee(unit.connection, request, device, now)
    return Purchase(
        journey_id=payee.journey_id,
        merchant_id=payee.merchant_id,
        payee=payee.payee_name,
        total=payee.total,
        text=wording.say(payee.text_key, device.locale, **payee.text_values),
        evidence=payee.evidence,
        payee_code_id=payee.payee_code_id,
    )


async def _account(
    event: Event, device: Device, proposal: StoredProposal, claims: ApprovalClaims, unit: Transaction, now: datetime
) -> Account:
    """What takes the money, if the rules still allow it. Raises Rejected."""
    connection, currency = unit.connection, proposal.terms.total.currency
    conditions = await store.conditions_of(unit, device, proposal.merchant_id)
    if policy.limits_days(conditions.rules.merchant, currency):
        await store.lock_merchant(connection, proposal.merchant_id)
    spent = await store.find_spent(connection, conditions.rules, device.id, proposal.merchant_id, currency, now)
    said_at = min(event.time, datetime.fromtimestamp(claims.iat, UTC))
    return service.may_be_paid(proposal, conditions, spent, claims.presence, said_at, now)


def _about(event: Event) -> Subject | None:
    """None where it cannot be read: its handling says what is wrong with it."""
    offer_id = proposal_id = None
    try:
        match event.type:
            case "payment.requested":
                offer_id = event.decode(PaymentRequested).offer_id
            case "payment.approved":
                proposal_id = event.decode(PaymentApproved).proposal_id
            case "proposal.declined":
                proposal_id = event.decode(ProposalDeclined).proposal_id
    except Rejected:
        return None
    return Subject(str(event.deviceid), offer_id, proposal_id)


async def run(parts: Parts) -> None:
    consumer = Consumer(
        name="intents",
        topics=(GLASSES_INTENTS,),
        handling=Transactional("intents", parts.database(), Intents().handle, about=_about, prepare=store.prepare),
        event_types=frozenset({"wear.changed", "payment.requested", "payment.approved", "proposal.declined"}),
        window=parts.settings.group_window,
    )
    await run_consumer(consumer, parts)
