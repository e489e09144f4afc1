"""The intents' SQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Row, Text, and_, any_, bindparam, func, insert, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import AccountId, MerchantId, OfferId, OrderId, PaymentId, ProposalId
from schemas.money import Money
from schemas.payments import ApprovalClaims, PaymentPolicy, PaymentState, ProposalTerms, WearState
from schemas.tables import approvals, devices, offers, payments, proposals
from streams.core.outbox import Transaction
from streams.core.statements import Statement, together
from streams.intents import policy
from streams.intents.policy import Rules, Spent
from streams.intents.service import SUBMIT_WITHIN, Account, Conditions, Device, Purchase, StoredOffer, StoredProposal

_MERCHANT_LOCK_CLASS = 0xDA11  # names the merchants with a daily limit among the users of advisory locks
_LOCK_MERCHANT = text("SELECT pg_advisory_xact_lock(:lock_class, hashtext(:merchant_id))")

# Payments in these states cost nothing.
_COST_NOTHING = (PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED)

_CONDITIONS = Statement(
    text("""
    SELECT asked.device_id, asked.merchant_id, account.id, account.provider, account.currencies,
        merchants_policy.policy AS merchants_policy, devices_policy.policy AS devices_policy
    FROM unnest(CAST(:device_ids AS text[]), CAST(:merchant_ids AS text[]), CAST(:providers AS text[]))
        AS asked (device_id, merchant_id, provider)
    LEFT JOIN provider_accounts AS account ON account.merchant_id = asked.merchant_id
        AND account.provider = asked.provider AND account.removed_at IS NULL
    LEFT JOIN payment_policies AS merchants_policy ON merchants_policy.subject = asked.merchant_id
    LEFT JOIN payment_policies AS devices_policy ON devices_policy.subject = asked.device_id
    """)
)
_LOCK_DEVICES = Statement(
    select(devices)
    .where(devices.c.id == any_(bindparam("device_ids", type_=ARRAY(Text))))
    .order_by(devices.c.id)
    .with_for_update(key_share=True)  # rows may still refer to it
)
_FIND_OFFERS = Statement(select(offers).where(offers.c.id == any_(bindparam("offer_ids", type_=ARRAY(Text)))))
_LOCK_PROPOSALS = Statement(
    select(proposals)
    .where(
        or_(
            proposals.c.id == any_(bindparam("proposal_ids", type_=ARRAY(Text))),
            and_(proposals.c.device_id == any_(bindparam("device_ids", type_=ARRAY(Text))), proposals.c.state == "open"),
        )
    )
    .order_by(proposals.c.id)
    .with_for_update()
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
_APPROVAL = ("proposal_id", "nonce", "presence", "jws", "signed_at")
_PAYMENT = (
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
)
_APPROVE = Statement(
    insert(payments)
    .values({name: bindparam(f"payment_{name}") for name in _PAYMENT})
    .add_cte(
        update(proposals)
        .where(proposals.c.id == bindparam("payment_proposal_id"))
        .values(state="approved", state_reason=None)
        .returning(proposals.c.id)
        .cte("closed"),
        insert(approvals)
        .values({name: bindparam(f"approval_{name}") for name in _APPROVAL})
        .returning(approvals.c.proposal_id)
        .cte("said"),
    )
)


async def lock_devices(connection: AsyncConnection, device_ids: Sequence[str]) -> Sequence[Device]:
    """Everything that one device intends happens one after the other. Everybody locks several in the order of their ids."""
    return [_device(row) for row in await _LOCK_DEVICES.all(connection, device_ids=[str(each) for each in device_ids])]


def _device(row: Row[Any]) -> Device:
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


async def lock_device(connection: AsyncConnection, device_id: str) -> Device | None:
    found = await lock_devices(connection, [device_id])
    return found[0] if found else None


@dataclass(frozen=True)
class Subject:
    """What an intent is about: a device, and the offer it wants to pay or the proposal it answers."""

    device_id: str
    offer_id: OfferId | None = None
    proposal_id: ProposalId | None = None


async def prepare(unit: Transaction, subjects: Sequence[Subject]) -> None:
    """Lock and read what these intents will look at, for `device_of`, `offer_of`, `proposal_of`, `open_proposals_of` and
    `conditions_of`: devices first, then proposals. None of it changes in the transaction but by the intent itself."""
    asking = {each.device_id: list[StoredProposal]() for each in subjects if each.offer_id}
    answered = {each.proposal_id for each in subjects if each.proposal_id}
    locked, wanted, open_or_answered = await together(
        unit.connection,
        _LOCK_DEVICES.with_values(device_ids=[str(each.device_id) for each in subjects]),
        _FIND_OFFERS.with_values(offer_ids=[str(each.offer_id) for each in subjects if each.offer_id]),
        _LOCK_PROPOSALS.with_values(proposal_ids=[str(each) for each in answered], device_ids=[str(each) for each in asking]),
    )
    found = {device.id: device for device in map(_device, locked)}
    unit.prepared.update(found)
    known = [each for each in subjects if each.device_id in found]
    if not known:
        return
    offered = {offer.id: offer for offer in map(_offer, wanted)}
    unit.prepared.update(offered)
    proposed = {each.id: each for each in map(_proposal, open_or_answered)}
    for proposal in proposed.values():
        if proposal.id in answered:
            unit.prepared[proposal.id] = proposal
        if proposal.device_id in asking and proposal.state == "open":
            asking[proposal.device_id].append(proposal)
    unit.prepared.update({("open", device_id): theirs for device_id, theirs in asking.items()})
    payees = set()
    for each in known:
        about = offered.get(each.offer_id) if each.offer_id else proposed.get(each.proposal_id) if each.proposal_id else None
        if about is not None:
            payees.add((found[each.device_id], about.merchant_id))
    conditions = await _find_conditions(unit.connection, list(payees))
    unit.prepared.update({("conditions", *pair): theirs for pair, theirs in conditions.items()})


async def device_of(unit: Transaction, device_id: str) -> Device | None:
    """The device, locked."""
    if device_id not in unit.prepared:
        return await lock_device(unit.connection, device_id)
    return unit.prepared.pop(device_id)  # type: ignore[no-any-return]


async def offer_of(unit: Transaction, offer_id: OfferId) -> StoredOffer | None:
    if offer_id not in unit.prepared:
        return (await find_offers(unit.connection, [offer_id])).get(offer_id)
    return unit.prepared.pop(offer_id)  # type: ignore[no-any-return]


async def proposal_of(unit: Transaction, proposal_id: ProposalId) -> StoredProposal | None:
    """The proposal, locked."""
    if proposal_id not in unit.prepared:
        return next(iter(await _lock_proposals(unit.connection, [proposal_id], [])), None)
    return unit.prepared.pop(proposal_id)  # type: ignore[no-any-return]


async def open_proposals_of(unit: Transaction, device_id: str) -> Sequence[StoredProposal]:
    """What the device could still approve, locked."""
    if ("open", device_id) not in unit.prepared:
        return await _lock_proposals(unit.connection, [], [device_id])
    return unit.prepared.pop(("open", device_id))  # type: ignore[no-any-return]


async def conditions_of(unit: Transaction, device: Device, merchant_id: MerchantId) -> Conditions:
    """As they are now; one of the wearer's provider at most."""
    if ("conditions", device.id, merchant_id) not in unit.prepared:
        return (await _find_conditions(unit.connection, [(device, merchant_id)]))[device.id, merchant_id]
    return unit.prepared.pop(("conditions", device.id, merchant_id))  # type: ignore[no-any-return]


async def set_wear_state(connection: AsyncConnection, device_id: str, state: WearState, at: datetime | None) -> None:
    """`at` by the device's clock; None where it was not the device that said so."""
    values: dict[str, object] = {"wear_state": state}
    if at is not None:
        values["wear_changed_at"] = func.greatest(at, devices.c.wear_changed_at)
    await connection.execute(update(devices).where(devices.c.id == device_id).values(values))


async def find_offers(connection: AsyncConnection, offer_ids: Sequence[OfferId]) -> dict[OfferId, StoredOffer]:
    if not offer_ids:
        return {}
    rows = await _FIND_OFFERS.all(connection, offer_ids=[str(offer_id) for offer_id in offer_ids])
    return {offer.id: offer for offer in map(_offer, rows)}


def _offer(row: Row[Any]) -> StoredOffer:
    return StoredOffer(
        id=OfferId(row.id),
        journey_id=row.journey_id,
        device_id=row.device_id,
        merchant_id=MerchantId(row.merchant_id),
        merchant_name=row.merchant_name,
        gtin=row.gtin,
        product_id=row.product_id,
        title=row.title,
        price=Money.of(row.price_minor, row.price_currency),
        expires_at=row.expires_at,
        evidence=row.evidence,
    )


async def _find_conditions(
    connection: AsyncConnection, pairs: Sequence[tuple[Device, MerchantId]]
) -> dict[tuple[str, MerchantId], Conditions]:
    if not pairs:
        return {}
    rows = await _CONDITIONS.all(
        connection,
        device_ids=[str(device.id) for device, _ in pairs],
        merchant_ids=[str(merchant_id) for _, merchant_id in pairs],
        providers=[device.payer_provider for device, _ in pairs],
    )
    return {(row.device_id, MerchantId(row.merchant_id)): _conditions(row) for row in rows}


def _conditions(row: Any) -> Conditions:
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
    _ADD_PROPOSAL.later(
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


async def _lock_proposals(
    connection: AsyncConnection, proposal_ids: Sequence[ProposalId], device_ids: Sequence[str]
) -> Sequence[StoredProposal]:
    """These, and the open ones of these devices, in the order of their ids."""
    if not proposal_ids and not device_ids:
        return []
    rows = await _LOCK_PROPOSALS.all(
        connection,
        proposal_ids=[str(proposal_id) for proposal_id in proposal_ids],
        device_ids=[str(device_id) for device_id in device_ids],
    )
    return [_proposal(row) for row in rows]


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


async def approve(
    connection: AsyncConnection,
    proposal: StoredProposal,
    claims: ApprovalClaims,
    jws: str,
    account: Account,
    locale: str,
) -> PaymentId:
    """The proposal's end, the approval and the approved payment. The last two are unique per proposal and nonce: a second yes is
    no second payment."""
    payment_id = PaymentId.new()
    _APPROVE.later(
        connection,
        approval_proposal_id=proposal.id,
        approval_nonce=claims.nonce,
        approval_presence=claims.presence,
        approval_jws=jws,
        approval_signed_at=datetime.fromtimestamp(claims.iat, UTC),
        payment_id=payment_id,
        payment_proposal_id=proposal.id,
        payment_order_id=OrderId.new(),
        payment_journey_id=proposal.journey_id,
        payment_device_id=proposal.device_id,
        payment_merchant_id=proposal.merchant_id,
        payment_total_minor=proposal.terms.total.minor,
        payment_total_currency=proposal.terms.total.currency,
        payment_state=PaymentState.APPROVED,
        payment_provider=account.provider,
        payment_account_id=account.id,
        payment_capture=proposal.capture,
        payment_locale=locale,
        payment_submit_by=datetime.fromtimestamp(claims.exp, UTC) + SUBMIT_WITHIN,
    )
    return payment_id
