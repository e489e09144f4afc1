"""What an intent leads to. Plain functions on plain values; who calls them has read and locked what they look at."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Rejected
from schemas.ids import MerchantId, OfferId, ProposalId
from schemas.money import Money
from schemas.payments import CartLine, PaymentRequested, PresenceMethod, ProposalTerms, WearChanged, WearState
from streams.core import wording

PROPOSAL_LIVES = timedelta(seconds=60)
# How long after the approval's own end its payment may still be submitted. What outlasts that (a broker or provider that was
# away) is cancelled: money must not move when nobody expects it any more.
SUBMIT_WITHIN = timedelta(minutes=2)
GATEWAY = "/gateway"  # the source of what the gateway itself says of a device


@dataclass(frozen=True)
class Device:
    id: str
    public_key: bytes
    locale: str
    wear_state: WearState
    revoked: bool
    has_payer: bool
    wear_changed_at: datetime | None = None
    link: str | None = None


@dataclass(frozen=True)
class StoredOffer:
    id: OfferId
    journey_id: str
    device_id: str
    merchant_id: MerchantId
    merchant_name: str
    gtin: str
    title: str
    price: Money
    expires_at: datetime
    evidence: dict[str, Any]


@dataclass(frozen=True)
class StoredProposal:
    id: ProposalId
    journey_id: str
    device_id: str
    merchant_id: MerchantId
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
    if not device.has_payer:
        raise Rejected("payer-missing", "no means of payment is set up for these glasses")


def propose(request: PaymentRequested, offer: StoredOffer | None, device: Device, now: datetime) -> ProposalTerms:
    """The terms to be approved. Raises Rejected where there is nothing to propose."""
    may_pay(device)
    if offer is None or offer.device_id != device.id:
        raise Rejected("offer-unknown", "no such offer was shown on these glasses", instance=request.offer_id)
    if offer.expires_at <= now:
        raise Rejected("offer-expired", "this price was seen too long ago", instance=request.offer_id)
    total = offer.price * request.quantity
    line = CartLine(title=offer.title, gtin=offer.gtin, quantity=request.quantity, unit_price=offer.price, total=total)
    return ProposalTerms(
        proposal_id=ProposalId.new(),
        device_id=device.id,
        merchant_id=offer.merchant_id,
        payee=offer.merchant_name,
        total=total,
        cart=(line,),
        text=wording.say(
            "proposal",
            device.locale,
            total=wording.money(total, device.locale),
            payee=offer.merchant_name,
            quantity=request.quantity,
            title=offer.title,
        ),
        presence=tuple(PresenceMethod),
        nonce=secrets.token_urlsafe(24),
        expires_at=(now + PROPOSAL_LIVES).replace(microsecond=0),
    )


def proposal_digest(terms: ProposalTerms) -> str:
    """What the device signs: SHA-256 of the canonical JSON of the terms as they were sent."""
    return sha256_hex(canonical_json(terms.model_dump(mode="json")))


def may_be_approved(proposal: StoredProposal | None, device: Device, now: datetime) -> StoredProposal:
    """The proposal, if this device may approve it now. Raises Rejected."""
    if proposal is None or proposal.device_id != device.id:
        raise Rejected("proposal-unknown", "no such proposal was made to these glasses")
    if proposal.state != "open":
        raise Rejected("proposal-closed", f"the proposal is {proposal.state}", instance=proposal.id)
    if proposal.expires_at <= now:
        raise Rejected("proposal-expired", "the proposal has expired", instance=proposal.id)
    may_pay(device)
    return proposal
