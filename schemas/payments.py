"""Proposals, approvals, payments and what providers say of them."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from schemas.ids import AccountId, AttemptId, JourneyId, MerchantId, OfferId, OrderId, PayeeCodeId, PaymentId, ProposalId
from schemas.money import Amount, Currency, Money, PositiveMoney
from schemas.recognition import Sha256, Shape

_YEAR_9999 = 253_402_300_799


class WearState(StrEnum):
    """Whether a person wears the glasses and they are connected. Only `worn` lets anything be paid."""

    WORN = "worn"
    DOFFED = "doffed"
    FOLDED = "folded"
    LINK_LOST = "link_lost"


class PresenceMethod(StrEnum):
    """How the wearer said yes."""

    PRESS = "press"
    VOICE = "voice"
    NOD = "nod"


class CartLine(Shape):
    """`product_id` is the merchant's own name for what has no GTIN."""

    title: str
    gtin: str | None = None
    product_id: str | None = None
    quantity: int = Field(ge=1, le=99)
    unit_price: PositiveMoney
    total: PositiveMoney


class ProposalTerms(Shape):
    """What the wearer says yes to, word for word. Its digest is what the device signs; see `proposal_digest`."""

    proposal_id: ProposalId
    device_id: str
    merchant_id: MerchantId
    payee: str = Field(description="who gets the money, as shown")
    total: PositiveMoney
    cart: tuple[CartLine, ...] = Field(max_length=20, description="empty where a payee's code is paid")
    text: str = Field(description="the words shown or spoken, in the wearer's language")
    presence: tuple[PresenceMethod, ...] = Field(min_length=1, description="ways of saying yes that are accepted")
    nonce: str = Field(pattern="^[A-Za-z0-9_-]{22,86}$")
    expires_at: AwareDatetime


class Proposed(Shape):
    """Data of `payment.proposed`."""

    terms: ProposalTerms
    digest: Sha256


class ApprovalClaims(Shape):
    """The payload of an approval: a compact JWS by the device's Ed25519 key, `typ` being `augenblick-approval+jws`."""

    proposal_id: ProposalId
    digest: Sha256
    presence: PresenceMethod
    nonce: str
    iat: int = Field(ge=0, le=_YEAR_9999, description="when the wearer said yes, in seconds since 1970 by the device's clock")
    exp: int = Field(ge=0, le=_YEAR_9999, description="until when the yes may be used, likewise")


# What devices send on glasses.intents.


class PaymentRequested(Shape):
    """Data of `payment.requested`: the wearer wants to buy what an offer showed, or to pay a payee whose code was seen. `amount`
    only where the code names none."""

    offer_id: OfferId | None = None
    quantity: int = Field(default=1, ge=1, le=99)
    payee_code_id: PayeeCodeId | None = None
    amount: PositiveMoney | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.offer_id is None) == (self.payee_code_id is None):
            raise ValueError("name either an offer or a payee's code")
        if self.payee_code_id is None and self.amount is not None:
            raise ValueError("an offer has its own price: `amount` is for payees' codes")
        return self


class PaymentApproved(Shape):
    """Data of `payment.approved`."""

    proposal_id: ProposalId
    approval: str = Field(max_length=4096, pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$")


class ProposalDeclined(Shape):
    """Data of `proposal.declined`: the wearer said no."""

    proposal_id: ProposalId


class WearChanged(Shape):
    """Data of `wear.changed`. `link` is the gateway's: which connection was lost, so that the end of an old one does not take
    a newer one's authority away."""

    state: WearState
    link: str | None = Field(default=None, max_length=100)


# What devices hear on glasses.answers.


class ProposalClosed(Shape):
    """Data of `proposal.closed`: nothing will be charged for it."""

    proposal_id: ProposalId
    state: Literal["cancelled", "declined", "expired"]
    reason: str = Field(
        description="a code: doffed, folded, link_lost, declined_by_wearer, expired, superseded, key_changed, revoked, "
        "payee_removed"
    )
    text: str = Field(description="the same in the wearer's language")


# Payments.


class PaymentState(StrEnum):
    PROPOSED = "proposed"
    APPROVED = "approved"
    SUBMITTING = "submitting"
    ACTION_REQUIRED = "action_required"
    AUTHORISED = "authorised"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DECLINED = "declined"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


_S = PaymentState
_OUTCOMES = (_S.ACTION_REQUIRED, _S.AUTHORISED, _S.CAPTURED, _S.DECLINED, _S.FAILED, _S.CANCELLED)

# The moves a payment may make. The migrations write the same table into the database, where a trigger refuses any other.
PAYMENT_MOVES: frozenset[tuple[PaymentState, PaymentState]] = frozenset(
    {
        (_S.PROPOSED, _S.APPROVED),
        (_S.PROPOSED, _S.CANCELLED),
        (_S.PROPOSED, _S.EXPIRED),
        (_S.APPROVED, _S.SUBMITTING),
        (_S.APPROVED, _S.CANCELLED),
        (_S.SUBMITTING, _S.UNKNOWN),
        *((_S.SUBMITTING, outcome) for outcome in _OUTCOMES),
        *((_S.UNKNOWN, outcome) for outcome in _OUTCOMES),
        *((_S.ACTION_REQUIRED, outcome) for outcome in _OUTCOMES if outcome is not _S.ACTION_REQUIRED),
        (_S.ACTION_REQUIRED, _S.EXPIRED),
        (_S.ACTION_REQUIRED, _S.UNKNOWN),
        (_S.AUTHORISED, _S.CAPTURED),
        (_S.AUTHORISED, _S.CANCELLED),
        (_S.AUTHORISED, _S.EXPIRED),
        (_S.CAPTURED, _S.PARTIALLY_REFUNDED),
        (_S.CAPTURED, _S.REFUNDED),
        (_S.PARTIALLY_REFUNDED, _S.REFUNDED),
    }
)

# States in which nothing more is to be expected without a new command.
SETTLED_STATES = frozenset(
    {_S.AUTHORISED, _S.CAPTURED, _S.PARTIALLY_REFUNDED, _S.REFUNDED, _S.DECLINED, _S.FAILED, _S.CANCELLED, _S.EXPIRED}
)


class PaymentChanged(Shape):
    """Data of `payment.authorised`, `payment.captured`, … on payments.events, and of the merchants' webhooks."""

    payment_id: PaymentId
    order_id: OrderId
    journey_id: JourneyId
    merchant_id: MerchantId
    state: PaymentState
    previous_state: PaymentState
    total: PositiveMoney
    cart: tuple[CartLine, ...]
    provider: str
    provider_reference: str | None = None
    reason: str | None = Field(default=None, description="a code, where the state alone does not say why")
    occurred_at: AwareDatetime
    captured: Amount = Field(description="taken so far")
    refunded: Amount = Field(description="given back so far")
    command: "CommandResult | None" = Field(default=None, description="of the capture, cancellation or refund this is about")


class CommandResult(Shape):
    """What a merchant or an operator asked for, and what came of it. `succeeded` is false in `payment.command_failed` only."""

    attempt_id: AttemptId
    kind: Literal["capture", "cancel", "refund"]
    amount: PositiveMoney | None = None
    succeeded: bool


class PaymentUpdated(Shape):
    """Data of `payment.updated`: the same for the wearer, without what is the merchant's."""

    payment_id: PaymentId
    proposal_id: ProposalId
    order_id: OrderId
    state: PaymentState
    total: PositiveMoney
    text: str = Field(description="in the wearer's language")
    action_url: str | None = None


class ReceiptClosed(Shape):
    """Data of `receipt.closed`: the journey's record is complete; `digest` is its last link."""

    payment_id: PaymentId
    entries: int
    digest: Sha256


class PaymentDue(Shape):
    """Data of `payment.due` on payments.commands: an approved payment is to be taken, or another command on it is waiting. The
    worker reads the rest from the database, so that the command carries nothing that could go stale or leak."""

    payment_id: PaymentId


class ProviderNotified(Shape):
    """Data of `provider.notified` on payments.commands: a provider's notification, verified and on record, is to be looked at."""

    payment_id: PaymentId
    account_id: AccountId
    event_id: str


# Who may pay how much, and how.


class Limit(Shape):
    """In one currency. `presence_above`: from more than this amount on, only `presence` counts as a yes."""

    currency: Currency
    per_payment: int | None = Field(default=None, gt=0, description="minor units")
    per_day: int | None = Field(default=None, gt=0, description="minor units, over any 24 hours")
    presence_above: int | None = Field(default=None, ge=0, description="minor units")
    presence: tuple[PresenceMethod, ...] = Field(default=(PresenceMethod.PRESS,), min_length=1)


class PaymentPolicy(Shape):
    """A merchant's or a device's rules. Where both have some, both hold. A currency without a limit is not limited, unless
    `other_currencies` is false."""

    limits: tuple[Limit, ...] = Field(default=(), max_length=50)
    other_currencies: bool = True
    confirm_after_s: int | None = Field(default=None, ge=1, le=3600, description="an intent older than this is asked for again")
    capture: bool = Field(default=True, description="merchants only: false reserves the money until the merchant takes it")

    @model_validator(mode="after")
    def _one_per_currency(self) -> Self:
        if len({limit.currency for limit in self.limits}) != len(self.limits):
            raise ValueError("two limits are for one currency")
        return self


# Commands and outcomes: what the platform and a payment connector say to each other.


class Payer(Shape):
    """Who pays, as the provider knows them: references, never card data. Kept sealed; not shown in logs."""

    provider: str
    customer: str = Field(repr=False)
    payment_method: str = Field(repr=False)


class _Command(Shape):
    """`total` is what the whole payment is for, whatever part of it the command is about."""

    payment_id: PaymentId
    attempt_id: AttemptId
    journey_id: JourneyId
    total: PositiveMoney


class Authorise(_Command):
    """Take (or, with `capture=False`, reserve) the money."""

    kind: Literal["authorise"] = "authorise"
    order_id: OrderId
    payee: str
    description: str = Field(max_length=200)
    payer: Payer
    capture: bool = True
    reference: str | None = Field(default=None, description="from `open`; `submit` demands it")


class Capture(_Command):
    """Take what was reserved: all of it, or less."""

    kind: Literal["capture"] = "capture"
    reference: str
    amount: PositiveMoney


class Cancel(_Command):
    """Give up what was reserved or not yet done."""

    kind: Literal["cancel"] = "cancel"
    reference: str


class Refund(_Command):
    """Give back some or all of what was taken."""

    kind: Literal["refund"] = "refund"
    reference: str
    amount: PositiveMoney


Command = Annotated[Authorise | Capture | Cancel | Refund, Field(discriminator="kind")]


class _Outcome(Shape):
    reference: str | None = Field(description="the provider's own, under which it can be asked again")


class Succeeded(_Outcome):
    """Done: `total` was taken (or, where `captured` is false, reserved; or given back). Checked against the command."""

    kind: Literal["succeeded"] = "succeeded"
    total: PositiveMoney
    captured: bool


class Pending(_Outcome):
    """The provider is still at it: ask later."""

    kind: Literal["pending"] = "pending"


class NotSubmitted(_Outcome):
    """The provider knows the reference, and nothing was ever submitted under it: submitting now does it once."""

    kind: Literal["not_submitted"] = "not_submitted"


class Actionable(_Outcome):
    """The payer must act first (3-D Secure, a confirmation on the phone). What is not done within `within_s` is cancelled."""

    kind: Literal["action_required"] = "action_required"
    url: str | None
    within_s: int = Field(default=600, ge=1)


class Declined(_Outcome):
    """The payer's bank or wallet said no; nothing moved. `code` is the provider's."""

    kind: Literal["declined"] = "declined"
    code: str
    message: str


class RefusedByProvider(_Outcome):
    """The provider did not accept the command itself; nothing moved."""

    kind: Literal["rejected"] = "rejected"
    code: str
    message: str


class Cancelled(_Outcome):
    """It was cancelled, at the provider or before it came so far; nothing is held any more."""

    kind: Literal["cancelled"] = "cancelled"
    reason: Literal["cancelled_at_provider", "too_late", "not_confirmed_in_time", "denied_party", "payer_missing"] = (
        "cancelled_at_provider"
    )


class Unknown(_Outcome):
    """It may have happened. `reason` says what was seen instead of an answer. `refused`: the code of a refusal that does not
    count yet, because an earlier request of the same attempt may still be on its way."""

    kind: Literal["unknown"] = "unknown"
    reason: str
    refused: str | None = None


class Mismatched(_Outcome):
    """The provider answered with authority, about another amount, currency, reference or account than was asked for: the payment
    is frozen until a person has looked. `reason` says what differs, in words without secrets."""

    kind: Literal["mismatched"] = "mismatched"
    reason: str


Outcome = Annotated[
    Succeeded | Pending | NotSubmitted | Actionable | Declined | RefusedByProvider | Cancelled | Unknown | Mismatched,
    Field(discriminator="kind"),
]


class Opened(Shape):
    """The provider's reference for a payment that has not moved any money yet."""

    kind: Literal["opened"] = "opened"
    reference: str


class ProviderEvent(Shape):
    """A provider's notification, verified: a hint to ask `fetch(reference)`, never proof of success on its own. `event_id` is the
    same in every repetition. `amount` is what it says was paid (`kind` payment) or given back by this one refund (refund), where
    it says so: another than was asked for freezes the payment. A `reversal` takes back what had moved: a dispute, a refund that
    failed after all."""

    provider: str
    event_id: str = Field(min_length=1, max_length=200)
    kind: Literal["payment", "refund", "reversal"]
    reference: str = Field(min_length=1, max_length=200)
    amount: Money | None = None
    attempt_id: str | None = Field(default=None, max_length=200, description="ours, where the provider repeats it")
    note: str | None = Field(default=None, max_length=100, description="the provider's own word for what happened")
    occurred_at: AwareDatetime


class StatementLine(Shape):
    """One movement in a provider's own books: money taken (`payment`) or given back (`refund`). `attempt_id` is ours where the
    provider repeats it. `amount` is positive either way."""

    kind: Literal["payment", "refund"]
    reference: str
    attempt_id: str | None = None
    amount: PositiveMoney
    occurred_at: AwareDatetime
