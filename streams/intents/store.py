"""The intents' SQL."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import ApprovalClaims, PaymentState, ProposalTerms, WearState
from schemas.tables import approvals, devices, offers, payments, proposals
from streams.intents.service import SUBMIT_WITHIN, Device, StoredOffer, StoredProposal


async def lock_device(connection: AsyncConnection, device_id: str) -> Device | None:
    """Everything that one device intends happens one after the other."""
    row = (await connection.execute(select(devices).where(devices.c.id == device_id).with_for_update())).one_or_none()
    if row is None:
        return None
    return Device(
        id=row.id,
        public_key=row.public_key,
        locale=row.locale,
        wear_state=WearState(row.wear_state),
        revoked=row.revoked_at is not None,
        has_payer=row.payer_sealed is not None,
        wear_changed_at=row.wear_changed_at,
        link=row.link,
    )


async def set_wear_state(connection: AsyncConnection, device_id: str, state: WearState, at: datetime | None) -> None:
    """`at` by the device's clock; None where it was not the device that said so."""
    values: dict[str, object] = {"wear_state": state}
    if at is not None:
        values["wear_changed_at"] = func.greatest(at, devices.c.wear_changed_at)
    await connection.execute(update(devices).where(devices.c.id == device_id).values(values))


async def find_offer(connection: AsyncConnection, offer_id: OfferId) -> StoredOffer | None:
    row = (await connection.execute(select(offers).where(offers.c.id == offer_id))).one_or_none()
    if row is None:
        return None
    return StoredOffer(
        id=OfferId(row.id),
        journey_id=row.journey_id,
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        merchant_name=row.merchant_name,
        gtin=row.gtin,
        title=row.title,
        price=Money.of(row.price_minor, row.price_currency),
        expires_at=row.expires_at,
        evidence=row.evidence,
    )


async def add_proposal(connection: AsyncConnection, terms: ProposalTerms, digest: str, offer: StoredOffer) -> None:
    await connection.execute(
        insert(proposals).values(
            id=terms.proposal_id,
            journey_id=offer.journey_id,
            device_id=terms.device_id,
            offer_id=offer.id,
            merchant_id=terms.merchant_id,
            total_minor=terms.total.minor,
            total_currency=terms.total.currency,
            terms=terms.model_dump(mode="json"),
            digest=digest,
            nonce=terms.nonce,
            expires_at=terms.expires_at,
        )
    )


def _proposal(row: Row[Any]) -> StoredProposal:
    return StoredProposal(
        id=ProposalId(row.id),
        journey_id=row.journey_id,
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        terms=ProposalTerms.model_validate(row.terms, strict=False),
        digest=row.digest,
        state=row.state,
        expires_at=row.expires_at,
        created_at=row.created_at,
    )


async def lock_proposal(connection: AsyncConnection, proposal_id: ProposalId) -> StoredProposal | None:
    row = (await connection.execute(select(proposals).where(proposals.c.id == proposal_id).with_for_update())).one_or_none()
    return _proposal(row) if row else None


async def lock_open_proposals(connection: AsyncConnection, device_id: str) -> Sequence[StoredProposal]:
    query = select(proposals).where(proposals.c.device_id == device_id, proposals.c.state == "open").with_for_update()
    return [_proposal(row) for row in await connection.execute(query)]


async def lock_expired_proposals(connection: AsyncConnection, now: datetime, limit: int) -> Sequence[tuple[StoredProposal, str]]:
    """With the locale of each one's device. Those that another janitor has are left to it."""
    query = (
        select(proposals, devices.c.locale)
        .join(devices, devices.c.id == proposals.c.device_id)
        .where(proposals.c.state == "open", proposals.c.expires_at <= now)
        .order_by(proposals.c.expires_at)
        .limit(limit)
        .with_for_update(of=proposals, skip_locked=True)
    )
    return [(_proposal(row), row.locale) for row in await connection.execute(query)]


async def close_proposal(connection: AsyncConnection, proposal_id: ProposalId, state: str, reason: str | None) -> None:
    await connection.execute(update(proposals).where(proposals.c.id == proposal_id).values(state=state, state_reason=reason))


async def add_payment(
    connection: AsyncConnection,
    proposal: StoredProposal,
    claims: ApprovalClaims,
    jws: str,
    provider: str,
    locale: str,
) -> PaymentId:
    """The approval and the approved payment. Both are unique per proposal and nonce: a second yes is no second payment."""
    signed_at = datetime.fromtimestamp(claims.iat, UTC)
    approval = {"proposal_id": proposal.id, "nonce": claims.nonce, "presence": claims.presence, "jws": jws}
    await connection.execute(insert(approvals).values(**approval, signed_at=signed_at))
    payment_id = PaymentId.new()
    await connection.execute(
        insert(payments).values(
            id=payment_id,
            proposal_id=proposal.id,
            order_id=OrderId.new(),
            journey_id=proposal.journey_id,
            device_id=proposal.device_id,
            merchant_id=proposal.merchant_id,
            total_minor=proposal.terms.total.minor,
            total_currency=proposal.terms.total.currency,
            state=PaymentState.APPROVED,
            provider=provider,
            locale=locale,
            submit_by=datetime.fromtimestamp(claims.exp, UTC) + SUBMIT_WITHIN,
        )
    )
    return payment_id
