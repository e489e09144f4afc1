"""A proposal and the wearer's yes to it, for tests of what counts as one."""

from datetime import UTC, datetime
from typing import Any

from infra.sandbox.glasses import DeviceKey
from schemas.ids import AccountId, DeviceId, MerchantId, OfferId
from schemas.money import Money
from schemas.payments import ApprovalClaims, CartLine, ProposalTerms, WearState
from streams.intents import approval, service
from streams.intents.policy import Rules, Spent
from streams.intents.service import Account, Conditions, Device, Purchase, StoredProposal

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = DeviceKey()
TOTAL = Money.of(1590, "EUR")
DEVICE = Device(
    id=DeviceId.new(),
    public_key=KEY.public,
    locale="de-DE",
    wear_state=WearState.WORN,
    revoked=False,
    payer_provider="stripe",
)
ACCOUNT = Account(AccountId.new(), "stripe", frozenset({"EUR", "SEK"}))
FREE = Conditions(ACCOUNT, Rules())
WANTED = Purchase(
    journey_id="jrn",
    merchant_id=MerchantId.new(),
    payee="Eckladen",
    total=TOTAL,
    text="15,90 € an Eckladen zahlen?",
    evidence={},
    cart=(CartLine(title="Milch", gtin="09520000010010", quantity=10, unit_price=Money.of(159, "EUR"), total=TOTAL),),
    offer_id=OfferId.new(),
)
TERMS = service.propose(WANTED, DEVICE, FREE, Spent(), NOW)
DIGEST = service.proposal_digest(TERMS)
STORED = StoredProposal(
    id=TERMS.proposal_id,
    journey_id="jrn",
    device_id=DEVICE.id,
    merchant_id=TERMS.merchant_id,
    account_id=ACCOUNT.id,
    capture=True,
    terms=TERMS,
    digest=DIGEST,
    state="open",
    expires_at=TERMS.expires_at,
    created_at=NOW,
)


def signed(presence: str = "press", key: DeviceKey = KEY, **changes: Any) -> str:
    """The yes; `changes` falsify its claims."""
    at = int(NOW.timestamp())
    changes = {"iat": at, "exp": at + 30, **changes}
    return key.approve({"terms": TERMS.model_dump(mode="json", exclude_none=True)}, presence, **changes)


def verify(text: str, *, key: bytes = KEY.public, terms: ProposalTerms = TERMS, now: datetime = NOW) -> ApprovalClaims:
    return approval.verify(text, terms, service.proposal_digest(terms), DEVICE.id, key, NOW, now)
