"""Ending proposals without a payment: cancelled, declined, superseded, or never answered."""

from datetime import UTC, datetime

from schemas.events import new_event
from schemas.ids import JourneyId
from schemas.payments import ProposalClosed
from streams.core import wording
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.outbox import Transaction
from streams.intents import store
from streams.intents.service import StoredProposal

SOURCE = "/intents"
_AT_ONCE = 100


async def close(unit: Transaction, proposal: StoredProposal, state: str, reason: str, locale: str) -> None:
    """The proposal's row must be locked. The wearer is told, and the receipt says so."""
    await store.close_proposal(unit.connection, proposal.id, state, reason)
    journey = JourneyId(proposal.journey_id)
    content = {"proposal_id": proposal.id, "state": state, "reason": reason}
    unit.record(journey, "proposal_closed", content)
    data = ProposalClosed.model_validate({**content, "text": wording.say(reason, locale)})
    closed = new_event("proposal.closed", data, source=SOURCE, journeyid=journey, deviceid=proposal.device_id)
    unit.publish(closed, key=proposal.device_id)


async def close_all(unit: Transaction, device_id: str, reason: str, locale: str) -> None:
    """Cancel whatever the device could still approve. Its row must be locked, so that nothing new is proposed meanwhile."""
    for proposal in await store.open_proposals_of(unit, device_id):
        await close(unit, proposal, "cancelled", reason, locale)


async def expire(database: Database) -> int:
    """Close what nobody answered in time; returns how many."""
    async with transaction(database) as unit:
        expired = await store.lock_expired_proposals(unit.connection, datetime.now(UTC), _AT_ONCE)
        for proposal, locale in expired:
            await close(unit, proposal, "expired", "expired", locale)
    return len(expired)
