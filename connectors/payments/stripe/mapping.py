"""Stripe's words ↔ ours. Pure: plain values in, plain values out.

Amounts: Stripe takes integers in "the currency's minor unit", with exceptions to ISO 4217 of its own
(https://docs.stripe.com/currencies, sections "Zero-decimal currencies", "Three-decimal currencies" and "Special cases",
read 2026-11):

- zero-decimal: the list below. MGA is on it, though ISO gives it two digits.
- three-decimal: the last digit must be 0.
- ISK and UGX became zero-decimal, but are still sent with two digits, which must be 00.
- HUF and TWD are zero-decimal for payouts only; payments have two digits, so they are no exception here.

Currencies with other than two digits in ISO that Stripe does not list are refused: guessing would be wrong by a factor of ten.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from schemas.money import Money, exponent
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Command,
    Declined,
    NotSubmitted,
    Outcome,
    Pending,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

NAME = "stripe"

ZERO_DECIMAL = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMAL = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
WHOLE_UNITS_WITH_TWO_DIGITS = frozenset({"ISK", "UGX"})

Json = Mapping[str, Any]

# Stripe's ids of customers, means of payment and keys, and anything as long as a card number.
_SECRET = re.compile(r"\b(?:cus|pm|card|src|tok|ba|seti|sk|rk|pk)_\w+|\d(?:[ -]?\d){11,}")


class NotRepresentable(ValueError):
    """An amount that the other side has no way to write."""


def to_stripe(money: Money) -> tuple[int, str]:
    """(amount, currency) as Stripe wants them. Raises NotRepresentable; nothing is rounded."""
    digits = _stripe_digits(money.currency)
    scaled = money.major.scaleb(digits)
    step = 100 if money.currency in WHOLE_UNITS_WITH_TWO_DIGITS else 10 if money.currency in THREE_DECIMAL else 1
    if scaled != int(scaled) or int(scaled) % step:
        raise NotRepresentable(f"Stripe cannot take {money}: it has more decimal digits than Stripe takes in {money.currency}")
    return int(scaled), money.currency.lower()


def from_stripe(amount: object, currency: object) -> Money:
    """Raises NotRepresentable where it is not an amount of money in a currency we know."""
    if not isinstance(amount, int) or isinstance(amount, bool) or not isinstance(currency, str):
        raise NotRepresentable("the amount or the currency cannot be read")
    code = currency.upper()
    try:
        return Money.from_major(Money(minor=amount, currency=code).major.scaleb(exponent(code) - _stripe_digits(code)), code)
    except ValueError as error:
        raise NotRepresentable("the amount or the currency cannot be read") from error


def _stripe_digits(currency: str) -> int:
    if currency in ZERO_DECIMAL:
        return 0
    if currency in THREE_DECIMAL:
        return 3
    if currency in WHOLE_UNITS_WITH_TWO_DIGITS or exponent(currency) == 2:
        return 2
    raise NotRepresentable(f"how Stripe writes amounts in {currency} is not documented")


def metadata(command: Command) -> dict[str, str]:
    """By these ids an object at Stripe is recognised as ours; they are checked in every answer."""
    ids: dict[str, str] = {
        "payment_id": command.payment_id,
        "attempt_id": command.attempt_id,
        "journey_id": command.journey_id,
    }
    return {**ids, "order_id": command.order_id, "description": command.description} if isinstance(command, Authorise) else ids


def read_intent(intent: Json, command: Authorise | Capture | Cancel) -> Outcome:
    """What a PaymentIntent says of the command. Whatever does not fit is Unknown, with the reason."""
    reference = command.reference
    if (reason := _foreign(intent, "id", command)) is not None:
        return Unknown(reference=reference, reason=reason)
    if isinstance(command, Authorise):
        return _read_authorised(intent, command)
    if isinstance(command, Capture):
        return _read_captured(intent, command)
    return _read_cancelled(intent, command)


def _read_authorised(intent: Json, command: Authorise) -> Outcome:
    reference = command.reference
    if (reason := _other_amount(intent, "amount", command.total)) is not None:
        return Unknown(reference=reference, reason=reason)
    match intent.get("status"):
        case "succeeded":
            reason = _other_amount(intent, "amount_received", command.total, optional=True)
            taken = Succeeded(reference=reference, total=command.total, captured=True)
            return taken if reason is None else Unknown(reference=reference, reason=reason)
        case "requires_capture":
            reason = _other_amount(intent, "amount_capturable", command.total, optional=True)
            reserved = Succeeded(reference=reference, total=command.total, captured=False)
            return reserved if reason is None else Unknown(reference=reference, reason=reason)
        case "processing":
            return Pending(reference=reference)
        case "requires_action":
            return Actionable(reference=reference, url=_action_url(intent))
        case "requires_payment_method" | "requires_confirmation" as status:
            error = intent.get("last_payment_error")
            if status == "requires_payment_method" and isinstance(error, Mapping):
                return declined(reference, error)
            return NotSubmitted(reference=reference)
        case "canceled":
            return Cancelled(reference=reference)
        case other:
            return _undocumented(reference, other)


def _read_captured(intent: Json, command: Capture) -> Outcome:
    reference = command.reference
    match intent.get("status"):
        case "succeeded":
            # Without amount_received (which Stripe itself always sends) only a capture of everything can be told.
            field = "amount_received" if "amount_received" in intent else "amount"
            reason = _other_amount(intent, field, command.amount)
            taken = Succeeded(reference=reference, total=command.amount, captured=True)
            return taken if reason is None else Unknown(reference=reference, reason=reason)
        case "requires_capture":
            reason = _other_currency(intent, command.amount)
            return NotSubmitted(reference=reference) if reason is None else Unknown(reference=reference, reason=reason)
        case "canceled":
            return Cancelled(reference=reference)
        case "processing":
            return Pending(reference=reference)
        case "requires_payment_method" | "requires_confirmation" | "requires_action":
            return _wrong_state(reference, "Nothing is reserved that could be taken.")
        case other:
            return _undocumented(reference, other)


def _read_cancelled(intent: Json, command: Cancel) -> Outcome:
    reference = command.reference
    match intent.get("status"):
        case "canceled":
            return Cancelled(reference=reference)
        case "requires_payment_method" | "requires_confirmation" | "requires_action" | "requires_capture":
            return NotSubmitted(reference=reference)
        case "processing":
            return Pending(reference=reference)
        case "succeeded":
            return _wrong_state(reference, "The money was taken; it can only be refunded.")
        case other:
            return _undocumented(reference, other)


def refundable(intent: Json, command: Refund) -> Unknown | RefusedByProvider | None:
    """Why the payment cannot be refunded, or None where it can."""
    reason = _foreign(intent, "id", command) or _other_currency(intent, command.amount)
    if reason is not None:
        return Unknown(reference=command.reference, reason=reason)
    if intent.get("status") != "succeeded":
        return _wrong_state(command.reference, "No money was taken that could be given back.")
    return None


def read_refunds(refunds: Sequence[Json], command: Refund) -> Outcome:
    """What all refunds of a payment say of this one, which is known by the attempt's id in its metadata."""
    ours = [refund for refund in refunds if _metadata(refund).get("attempt_id") == command.attempt_id]
    if len(ours) > 1:
        return Unknown(reference=command.reference, reason=f"there are {len(ours)} refunds for this one attempt")
    return read_refund(ours[0], command) if ours else NotSubmitted(reference=command.reference)


def read_refund(refund: Json, command: Refund) -> Outcome:
    """What a Refund says of the command. The outcome's reference stays the payment's, under which it is asked for again."""
    reference = command.reference
    reason = _foreign(refund, "payment_intent", command) or _other_amount(refund, "amount", command.amount)
    if reason is None and _metadata(refund).get("attempt_id") != command.attempt_id:
        reason = "the refund is of another attempt"
    if reason is not None:
        return Unknown(reference=reference, reason=reason)
    match refund.get("status"):
        case "succeeded":
            return Succeeded(reference=reference, total=command.amount, captured=True)
        case "pending":
            return Pending(reference=reference)
        case "requires_action":
            return Actionable(reference=reference, url=None)
        case "failed":
            code = refund.get("failure_reason")
            return Declined(reference=reference, code=str(code or "refund_failed"), message="The refund could not be paid out.")
        case "canceled":
            return Cancelled(reference=reference)
        case other:
            return _undocumented(reference, other)


def declined(reference: str | None, error: Json) -> Declined:
    """From Stripe's error object; the issuer's own code where Stripe passes it on."""
    code = error.get("decline_code") or error.get("code") or "card_declined"
    message = error.get("message") or "The card was declined."
    return Declined(reference=reference, code=without_secrets(code), message=without_secrets(message))


def without_secrets(text: object) -> str:
    """A message of Stripe's, fit to be stored and shown: it may name customers and cards."""
    return _SECRET.sub("…", str(text))[:300]


def event_reference(event: Json) -> str | None:
    """The PaymentIntent that a webhook is about, or None where it is about something else."""
    data = event.get("data")
    about = data.get("object") if isinstance(data, Mapping) else None
    if not isinstance(about, Mapping):
        return None
    found = about.get("id") if about.get("object") == "payment_intent" else about.get("payment_intent")
    return found if isinstance(found, str) and found.startswith("pi_") else None


def _foreign(answer: Json, field: str, command: Command) -> str | None:
    """Why an answer is not about the command's payment, or None where it is."""
    if command.reference is None or answer.get(field) != command.reference:
        return "the answer is about another reference"
    if _metadata(answer).get("payment_id") != command.payment_id:
        return "the answer is about another payment"
    return None


def _metadata(answer: Json) -> Json:
    found = answer.get("metadata")
    return found if isinstance(found, Mapping) else {}


def _other_amount(answer: Json, field: str, expected: Money, *, optional: bool = False) -> str | None:
    """`optional`: Stripe always sends the field, but a server that stands in for it may not."""
    if optional and answer.get(field) is None:
        return None
    try:
        seen = from_stripe(answer.get(field), answer.get("currency"))
    except NotRepresentable as error:
        return f"{field}: {error}"
    return None if seen == expected else f"{field} is {seen} instead of {expected}"


def _other_currency(answer: Json, expected: Money) -> str | None:
    seen = answer.get("currency")
    return None if isinstance(seen, str) and seen.upper() == expected.currency else f"the currency is not {expected.currency}"


def _action_url(intent: Json) -> str | None:
    action = intent.get("next_action")
    redirect = action.get("redirect_to_url") if isinstance(action, Mapping) else None
    url = redirect.get("url") if isinstance(redirect, Mapping) else None
    return url if isinstance(url, str) else None


def _wrong_state(reference: str | None, message: str) -> RefusedByProvider:
    return RefusedByProvider(reference=reference, code="payment_intent_unexpected_state", message=message)


def _undocumented(reference: str | None, status: object) -> Unknown:
    return Unknown(reference=reference, reason=f"status {str(status)[:40]!r} is not documented")
