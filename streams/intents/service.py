"""What an intent leads to. Plain functions on plain values; who calls them has read and locked what they look at."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Rejected
from schemas.ids import AccountId, MerchantId, OfferId, PayeeCodeId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, PaymentRequested, PresenceMethod, ProposalTerms, WearChanged, WearState
from streams.core import wording
from streams.intents import policy
from streams.intents.policy import Rules, Spent

PROPOSAL_LIVES = timedelta(seconds=60)
# How long after the approval's own end its payment may still be submitted. What outlasts that (a broker or provider that was
# away) is cancelled: money must not move when nobody expects it any more.
SUBMIT_WITHIN = timedelta(minutes=2)
GATEWAY = "/gateway"  # the source of what the gateway itself says of a device


@dataclass(frozen=True)
class Device:
    """`payer_provider`: whose means of payment the wearer has; None without any."""

    id: str
    public_key: bytes
    locale: str
    wear_state: WearState
    revoked: bool
    payer_provider: str | None
    wear_changed_at: datetime | None = None
    link: str | None = None


@dataclass(frozen=True)
class StoredOffer:
    id: OfferId
    journey_id: str
    device_id: str
    merchant_id: MerchantId
    merchant_name: str
    gtin: str | None
    product_id: str | None
    title: str
    price: Money
    expires_at: datetime
    evidence: dict[str, Any]


@dataclass(frozen=True)
class Purchase:
    """What the wearer wants to pay, whether an offer or a payee's code says so: one of the two ids is there. `evidence` is for
    the receipt."""

    journey_id: str
    merchant_id: MerchantId
    payee: str
    total: Money
    text: str
    evidence: dict[str, Any]
    cart: tuple[CartLine, ...] = ()
    offer_id: OfferId | None = None
    payee_code_id: PayeeCodeId | None = None


@dataclass(frozen=True)
class Account:
    """A merchant's account with a provider. `currencies` None: any."""

    id: AccountId
    provider: str
    currencies: frozenset[str] | None


@dataclass(frozen=True)
class Conditions:
    """Under which a device may pay a merchant now. `account`: the merchant's with the wearer's provider, if it has one in use."""

    account: Account | None
    rules: Rules


@dataclass(frozen=True)
class StoredProposal:
    id: ProposalId
    journey_id: str
    device_id: str
    merchant_id: MerchantId
    account_id: AccountId | None
    capture: bool
    terms: ProposalTerms
    digest: str
    state: str
    expires_at: datetime
    created_at: datetime


def wear_counts(change: WearChanged, device: Device, source: str, at: datetime) -> bool:
    """Whether a change of the wear state is to be believed. Authority is only ever taken away too early, not given too long:
    a `worn` that was said before what is known already does not count, nor does the end of a connection that a newer one has
    replaced. Times are compared within the device's clock alone."""
    if source == GATEWAY:
        return change.link is None or change.link == device.link
    return change.state is not WearState.WORN or device.wear_changed_at is None or at >= device.wear_changed_at


def may_pay(device: Device) -> None:
    """Raises Rejected where the device may not pay now."""
    if device.revoked:
        raise Rejected("device-revoked", "this device was revoked")
    if device.wear_state is not WearState.WORN:
        raise Rejected("not-worn", f"the glasses are {device.wear_state.replace('_', ' ')}")
    if device.payer_provider is None:
        raise Rejected("payer-missing", "no means of payment is set up for these glasses")


def purchase(request: PaymentRequested, offer: StoredOffer | None, device: Device, now: datetime) -> Purchase:
    """Of what an offer showed. Raises Rejected where the offer cannot be bought by this device now."""
    if offer is None or offer.device_id != device.id:
        raise Rejected("offer-unknown", "no such offer was shown on these glasses", instance=request.offer_id)
    if offer.expires_at <= now:
        raise Rejected("offer-expired", "this price was seen too long ago", instance=request.offer_id)
    total = offer.price * request.quantity
    product = {"gtin": offer.gtin} if offer.gtin else {"product_id": offer.product_id}
    line = CartLine(title=offer.title, **product, quantity=request.quantity, unit_price=offer.price, total=total)
    return Purchase(
        journey_id=offer.journey_id,
        merchant_id=offer.merchant_id,
        payee=offer.merchant_name,
        total=total,
        text=wording.say(
            "proposal",
            device.locale,
            total=wording.money(total, device.locale),
            payee=offer.merchant_name,
            quantity=request.quantity,
            title=offer.title,
        ),
        evidence={**product, **offer.evidence},
        cart=(line,),
        offer_id=offer.id,
    )


def account_for(conditions: Conditions, total: Money) -> Account:
    """What takes the money. Raises Rejected("merchant-not-payable")."""
    account = conditions.account
    if account is None:
        raise Rejected("merchant-not-payable", "the merchant does not take this means of payment")
    if account.currencies is not None and total.currency not in account.currencies:
        raise Rejected("merchant-not-payable", f"the merchant does not take {total.currency} by this means of payment")
    return account


def propose(wanted: Purchase, device: Device, conditions: Conditions, spent: Spent, now: datetime) -> ProposalTerms:
    """The terms to be approved. Raises Rejected where they would not be accepted: nobody shall be asked in vain."""
    may_pay(device)
    account_for(conditions, wanted.total)
    policy.check_amount(conditions.rules, wanted.total, spent)
    return ProposalTerms(
        proposal_id=ProposalId.new(),
        device_id=device.id,
        merchant_id=wanted.merchant_id,
        payee=wanted.payee,
        total=wanted.total,
        cart=wanted.cart,
        text=wanted.text,
        presence=policy.presence(conditions.rules, wanted.total),
        nonce=secrets.token_urlsafe(24),
        expires_at=(now + PROPOSAL_LIVES).replace(microsecond=0),
    )


def proposal_digest(terms: ProposalTerms) -> str:
    """What the device signs: SHA-256 of the canonical JSON of the terms as they were sent.

    The terms are all that the wearer can see and judge: who is paid, how much, for what, in which words, by which yes, until
    when. Through which of the merchant's accounts the money goes, and whether it is only reserved at first, is between merchant
    and provider: it is kept with the proposal when that is made, stands beside the digest in the receipt, and does not change
    afterwards.
    """
    return sha256_hex(canonical_json(terms.model_dump(mode="json", exclude_none=True)))


def may_be_approved(proposal: StoredProposal | None, device: Device, now: datetime) -> StoredProposal:
    """The proposal, if this device may approve it now. Raises Rejected.

    What counts is the wear state when the approval is handled, in the order of the device's events. A yes that was said with the
    glasses on is not taken back when they come off while its payment still waits for a worker: it was said, and the provider may
    have been asked at any moment since (docs/adr/0009).
    """
    if proposal is None or proposal.device_id != device.id:
        raise Rejected("proposal-unknown", "no such proposal was made to these glasses")
    if proposal.state != "open":
        raise Rejected("proposal-closed", f"the proposal is {proposal.state}", instance=proposal.id)
    if proposal.expires_at <= now:
        raise Rejected("proposal-expired", "the proposal has expired", instance=proposal.id)
    may_pay(device)
    return proposal


def may_be_paid(
    proposal: StoredProposal, conditions: Conditions, spent: Spent, presence: PresenceMethod, said_at: datetime, now: datetime
) -> Account:
    """What takes the money of a proposal whose approval was verified. Raises Rejected where what held when it was proposed holds
    no longer: other payments were made, a rule became stricter, the account is another. The proposal stays open meanwhile: a
    fresh yes may be one that counts."""
    total = proposal.terms.total
    policy.check_age(conditions.rules, said_at, now)
    policy.check_presence(conditions.rules, total, presence)
    policy.check_amount(conditions.rules, total, spent)
    account = account_for(conditions, total)
    if account.id != proposal.account_id:
        raise Rejected("merchant-not-payable", "the merchant's account is another by now: ask to pay again", instance=proposal.id)
    return account
