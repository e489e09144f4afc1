"""glasses.intents → proposals, approvals, wear state → glasses.answers and payments.commands."""

from datetime import UTC, datetime

from schemas.errors import Rejected
from schemas.events import Event
from schemas.ids import JourneyId
from schemas.payments import (
    PaymentApproved,
    PaymentDue,
    PaymentRequested,
    ProposalDeclined,
    Proposed,
    WearChanged,
    WearState,
)
from schemas.topics import GLASSES_INTENTS
from streams.core import receipts
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Transactional
from streams.core.outbox import Transaction
from streams.intents import approval, closing, service, store
from streams.intents.closing import SOURCE
from streams.intents.service import GATEWAY, Device


class Intents:
    """`provider` takes the money of payments approved from now on."""

    def __init__(self, provider: str) -> None:
        self._provider = provider

    async def handle(self, event: Event, unit: Transaction) -> None:
        """A refusal is an answer to the wearer, not a failure; only what cannot be read becomes a dead letter."""
        device = await store.lock_device(unit.connection, str(event.deviceid))
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
            for proposal in await store.lock_open_proposals(unit.connection, device.id):
                await closing.close(unit, proposal, "cancelled", change.state.value, device.locale)

    async def _requested(self, event: Event, device: Device, unit: Transaction) -> None:
        request, now = event.decode(PaymentRequested), datetime.now(UTC)
        offer = await store.find_offer(unit.connection, request.offer_id)
        terms = service.propose(request, offer, device, now)
        assert offer is not None
        for open_proposal in await store.lock_open_proposals(unit.connection, device.id):
            await closing.close(unit, open_proposal, "cancelled", "superseded", device.locale)
        digest = service.proposal_digest(terms)
        await store.add_proposal(unit.connection, terms, digest, offer)
        journey = JourneyId(offer.journey_id)
        if not await receipts.read(unit.connection, journey):
            await receipts.append(unit.connection, journey, "recognised", {"gtin": offer.gtin, **offer.evidence})
        await receipts.append(
            unit.connection, journey, "proposed", {"proposal_id": terms.proposal_id, "offer_id": offer.id, "digest": digest}
        )
        proposed = event.model_copy(update={"journeyid": journey}).follow(
            "payment.proposed", Proposed(terms=terms, digest=digest), source=SOURCE, subject=event.id
        )
        unit.publish(proposed, key=device.id)

    async def _approved(self, event: Event, device: Device, unit: Transaction) -> None:
        data, now = event.decode(PaymentApproved), datetime.now(UTC)
        found = await store.lock_proposal(unit.connection, data.proposal_id)
        proposal = service.may_be_approved(found, device, now)
        claims = approval.verify(
            data.approval, proposal.terms, proposal.digest, device.id, device.public_key, proposal.created_at, now
        )
        await store.close_proposal(unit.connection, proposal.id, "approved", None)
        payment_id = await store.add_payment(
            unit.connection, proposal, claims, jws=data.approval, provider=self._provider, locale=device.locale
        )
        journey = JourneyId(proposal.journey_id)
        await receipts.append(
            unit.connection,
            journey,
            "approved",
            {"payment_id": payment_id, "digest": proposal.digest, "presence": claims.presence, "approval": data.approval},
        )
        due = event.model_copy(update={"journeyid": journey}).follow(
            "payment.due", PaymentDue(payment_id=payment_id), source=SOURCE, subject=payment_id
        )
        unit.publish(due, key=payment_id)

    async def _declined(self, event: Event, device: Device, unit: Transaction) -> None:
        proposal = await store.lock_proposal(unit.connection, event.decode(ProposalDeclined).proposal_id)
        if proposal is None or proposal.device_id != device.id:
            raise Rejected("proposal-unknown", "no such proposal was made to these glasses")
        if proposal.state != "open":
            raise Rejected("proposal-closed", f"the proposal is {proposal.state}", instance=proposal.id)
        await closing.close(unit, proposal, "declined", "declined_by_wearer", device.locale)


async def run(parts: Parts) -> None:
    consumer = Consumer(
        name="intents",
        topics=(GLASSES_INTENTS,),
        handling=Transactional("intents", parts.database(), Intents(parts.settings.payment_provider).handle),
        event_types=frozenset({"wear.changed", "payment.requested", "payment.approved", "proposal.declined"}),
        window=parts.settings.window,
    )
    await run_consumer(consumer, parts)
