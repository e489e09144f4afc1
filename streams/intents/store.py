"""The intents' SQL."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, bindparam, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import AccountId, MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import ApprovalClaims, PaymentPolicy, PaymentState, ProposalTerms, WearState
from schemas.tables import approvals, devices, merchants, offers, payment_policies, payments, proposals, provider_accounts
from streams.core.statements import Statement
from streams.intents import policy
from streams.intents.policy import Rules, Spent
from streams.intents.service import SUBMIT_WITHIN, Account, Conditions, Device, Purchase, StoredOffer, StoredProposal

_MERCHANT_LOCK_CLASS = 0xDA11  # names the merchants with a daily limit among the users of advisory locks
_LOCK_MERCHANT = text("SELECT pg_advisory_xact_lock(:lock_class, hashtext(:merchant_id))")

# Payments in these states cost nothing.
_COST_NOTHING = (PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED)

_merchants_policy, _devices_policy = payment_policies.alias("merchants_policy"), payment_policies.alias("devices_policy")

_CONDITIONS = Statement(
    select(provider_accounts.c.id, provider_accounts.c.provider, provider_accounts.c.currencies)
    .add_columns(_merchants_policy.c.policy.label("merchants_policy"), _devices_policy.c.policy.label("devices_policy"))
    .select_from(merchants)
    .outerjoin(
        provider_accounts,
        and_(
            provider_accounts.c.merchant_id == merchants.c.id,
            provider_accounts.c.provider == bindparam("provider"),
            provider_accounts.c.removed_at.is_(None),
        ),
    )
    .outerjoin(_merchants_policy, _merchants_policy.c.subject == merchants.c.id)
    .outerjoin(_devices_policy, _devices_policy.c.subject == bindparam("device_id"))
    .where(merchants.c.id == bindparam("merchant_id"))
)

_LOCK_DEVICE = Statement(
    select(devices).where(devices.c.id == bindparam("device")).with_for_update(key_share=True)  # rows may still refer to it
)
_FIND_OFFER = Statement(select(offers).where(offers.c.id == bindparam("offer")))
_LOCK_PROPOSAL = Statement(select(proposals).where(proposals.c.id == bindparam("proposal")).with_for_update())
_LOCK_OPEN_PROPOSALS = Statement(
    select(proposals).where(proposals.c.device_id == bindparam("device"), proposals.c.state == "open").with_for_update()
)
_ADD_PROPOSAL = Statement(
    insert(proposals),
    columns=(
        "id",
        "journey_id",
        "device_id",
        "offer_id",
        "payee_code_id",
        "merchant_id",
        "account_id",
        "capture",
        "total_minor",
        "total_currency",
        "terms",
        "digest",
        "nonce",
        "expires_at",
    ),
)
_CLOSE_PROPOSAL = Statement(
    update(proposals).where(proposals.c.id == bindparam("proposal")).values(state=bindparam("to"), state_reason=bindparam("why"))
)
_ADD_APPROVAL = Statement(insert(approvals), columns=("proposal_id", "nonce", "presence", "jws", "signed_at"))
_ADD_PAYMENT = Statement(
    insert(payments),
    columns=(
        "id",
        "proposal_id",
        "order_id",
        "journey_id",
        "device_id",
        "merchant_id",
        "total_minor",
        "total_currency",
        "state",
        "provider",
        "account_id",
        "capture",
        "locale",
        "submit_by",
    ),
)


async def lock_device(connection: AsyncConnection, device_id: str) -> Device | None:
    """Everything that one device intends happens one after the other."""
    row = await _LOCK_DEVICE.first(connection, device=device_id)
    if row is None:
        return None
    return Device(
        id=row.id,
        public_key=row.public_key,
        locale=row.locale,
        wear_state=WearState(row.wear_state),
        revoked=row.revoked_at is not None,
        payer_provider=row.payer_provider,
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
    row = await _FIND_OFFER.first(connection, offer=offer_id)
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


async def find_conditions(connection: AsyncConnection, device: Device, merchant_id: MerchantId) -> Conditions:
    """As they are now; one of the wearer's provider at most."""
    row = await _CONDITIONS.first(connection, provider=device.payer_provider, device_id=device.id, merchant_id=merchant_id)
    account = None
    if row.id is not None:
        currencies = frozenset(row.currencies) if row.currencies is not None else None
        account = Account(AccountId(row.id), row.provider, currencies)
    return Conditions(account, Rules(merchant=_policy(row.merchants_policy), device=_policy(row.devices_policy)))


def _policy(stored: dict[str, Any] | None) -> PaymentPolicy | None:
    return PaymentPolicy.model_validate(stored, strict=False) if stored is not None else None


async def find_spent(
    connection: AsyncConnection, rules: Rules, device_id: str, merchant_id: MerchantId, currency: str, now: datetime
) -> Spent:
    """What the last 24 hours' payments cost that are not known to have come to nothing; asked only where a rule limits it. A
    refund gives no room back, and a partial capture is counted in full."""
    since = now - policy.DAY
    of_merchant = of_device = 0
    if policy.limits_days(rules.merchant, currency):
        of_merchant = await _spent(connection, payments.c.merchant_id == merchant_id, currency, since)
    if policy.limits_days(rules.device, currency):
        of_device = await _spent(connection, payments.c.device_id == device_id, currency, since)
    return Spent(merchant=of_merchant, device=of_device)


async def _spent(connection: AsyncConnection, whose: ColumnElement[bool], currency: str, since: datetime) -> int:
    query = select(func.coalesce(func.sum(payments.c.total_minor), 0)).where(
        whose,
        payments.c.created_at > since,
        payments.c.total_currency == currency,
        payments.c.state.not_in(_COST_NOTHING),
    )
    return int((await connection.execute(query)).scalar_one())


async def lock_merchant(connection: AsyncConnection, merchant_id: MerchantId) -> None:
    """Until the transaction ends, nobody else approves a payment to this merchant, whose day is limited: two devices at once
    shall not both find room for what is room for one. Groups of transactions may come to wait for each other this way: the
    database notices, and the consume loop does it again."""
    await connection.execute(_LOCK_MERCHANT, {"lock_class": _MERCHANT_LOCK_CLASS, "merchant_id": str(merchant_id)})


async def add_proposal(
    connection: AsyncConnection, terms: ProposalTerms, digest: str, wanted: Purchase, account: Account, *, capture: bool
) -> None:
    await _ADD_PROPOSAL.run(
        connection,
        id=terms.proposal_id,
        journey_id=wanted.journey_id,
        device_id=terms.device_id,
        offer_id=wanted.offer_id,
        payee_code_id=wanted.payee_code_id,
        merchant_id=terms.merchant_id,
        account_id=account.id,
        capture=capture,
        total_minor=terms.total.minor,
        total_currency=terms.total.currency,
        terms=terms.model_dump(mode="json"),
        digest=digest,
        nonce=terms.nonce,
        expires_at=terms.expires_at,
    )


def _proposal(row: Row[Any]) -> StoredProposal:
    return StoredProposal(
        id=ProposalId(row.id),
        journey_id=row.journey_id,
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        account_id=AccountId(row.account_id) if row.account_id else None,
        capture=row.capture,
        terms=ProposalTerms.model_validate(row.terms, strict=False),
        digest=row.digest,
        state=row.state,
        expires_at=row.expires_at,
        created_at=row.created_at,
    )


async def lock_proposal(connection: AsyncConnection, proposal_id: ProposalId) -> StoredProposal | None:
    row = await _LOCK_PROPOSAL.first(connection, proposal=proposal_id)
    return _proposal(row) if row else None


async def lock_open_proposals(connection: AsyncConnection, device_id: str) -> Sequence[StoredProposal]:
    return [_proposal(row) for row in await _LOCK_OPEN_PROPOSALS.all(connection, device=device_id)]


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
    await _CLOSE_PROPOSAL.run(connection, proposal=proposal_id, to=state, why=reason)


async def add_payment(
    connection: AsyncConnection,
    proposal: StoredProposal,
    claims: ApprovalClaims,
    jws: str,
    account: Account,
    locale: str,
) -> PaymentId:
    """The approval and the approved payment. Both are unique per proposal and nonce: a second yes is no second payment."""
    await _ADD_APPROVAL.run(
        connection,
        proposal_id=proposal.id,
        nonce=claims.nonce,
        presence=claims.presence,
        jws=jws,
        signed_at=datetime.fromtimestamp(claims.iat, UTC),
    )
    payment_id = PaymentId.new()
    await _ADD_PAYMENT.run(
        connection,
        id=payment_id,
        proposal_id=proposal.id,
        order_id=OrderId.new(),
        journey_id=proposal.journey_id,
        device_id=proposal.device_id,
        merchant_id=proposal.merchant_id,
        total_minor=proposal.terms.total.minor,
        total_currency=proposal.terms.total.currency,
        state=PaymentState.APPROVED,
        provider=account.provider,
        account_id=account.id,
        capture=proposal.capture,
        locale=locale,
        submit_by=datetime.fromtimestamp(claims.exp, UTC) + SUBMIT_WITHIN,
    )
    return payment_id
