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
from datetime import UTC, datetime
from typing import Any, Literal

from connectors.payments.stripe import codes
from connectors.payments.stripe.codes import Verdict
from schemas.money import Money, exponent
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Command,
    Declined,
    Mismatched,
    NotSubmitted,
    Outcome,
    Pending,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
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
_SECRET = re.compile(r"\b(?:cus|pm|card|src|tok|ba|seti|sk|rk|pk|whsec)_\w+|\bpi_\w+_secret_\w+|\d(?:[ -]?\d){11,}")
_EVENT_TYPE = re.compile(r"[a-z_.]{1,80}", re.ASCII)
_MOST_LETTERS = 200


class NotRepresentable(ValueError):
    """An amount that the other side has no way to write."""


class Foreign(Exception):
    """An authentic event of another account or mode than ours."""


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


def read_intent(intent: Json, command: Authorise | Capture | Cancel, *, live: bool) -> Outcome:
    """What a PaymentIntent says of the command. `live`: whether our key moves real money, as the answer must, too. What is about
    something else than the command is Mismatched, what cannot be read or is not documented Unknown."""
    if (reason := _foreign(intent, "id", command, live=live)) is not None:
        return reason
    if isinstance(command, Authorise):
        return _read_authorised(intent, command)
    if isinstance(command, Capture):
        return _read_captured(intent, command)
    return _read_cancelled(intent, command)


def _read_authorised(intent: Json, command: Authorise) -> Outcome:
    reference = command.reference
    match intent.get("status"):
        case "succeeded":
            taken = Succeeded(reference=reference, total=command.total, captured=True)
            return _other_amount(intent, "amount_received", command.total, command, optional=True) or taken
        case "requires_capture":
            reserved = Succeeded(reference=reference, total=command.total, captured=False)
            return _other_amount(intent, "amount_capturable", command.total, command, optional=True) or reserved
        case "processing":
            return Pending(reference=reference)
        case "requires_action":
            return Actionable(reference=reference, url=_action_url(intent))
        case "requires_payment_method" | "requires_confirmation" as status:
            error = intent.get("last_payment_error")
            if status == "requires_payment_method" and isinstance(error, Mapping):
                return _read_failed(reference, error)
            return NotSubmitted(reference=reference)
        case "canceled":
            return Cancelled(reference=reference)
        case other:
            return _undocumented(reference, "status", other)


def _read_failed(reference: str | None, error: Json) -> Outcome:
    """The last try took nothing, and `error` says why."""
    if codes.verdict(error) is Verdict.PAYER_MUST_ACT:
        # It was tried without the payer, which does not count: submitting now asks them.
        return NotSubmitted(reference=reference)
    return read_error(reference, error)


def _read_captured(intent: Json, command: Capture) -> Outcome:
    reference = command.reference
    match intent.get("status"):
        case "succeeded":
            taken = Succeeded(reference=reference, total=command.amount, captured=True)
            if intent.get("amount_received") is None and command.amount != command.total:
                # Stripe always says it; a server that stands in for it may not, and then only a capture of all can be told.
                return Unknown(reference=reference, reason="the answer does not say how much was taken")
            return _other_amount(intent, "amount_received", command.amount, command, optional=True) or taken
        case "requires_capture":
            return NotSubmitted(reference=reference)
        case "canceled":
            return Cancelled(reference=reference)
        case "processing":
            return Pending(reference=reference)
        case "requires_payment_method" | "requires_confirmation" | "requires_action":
            return _wrong_state(reference, "Nothing is reserved that could be taken.")
        case other:
            return _undocumented(reference, "status", other)


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
            return _undocumented(reference, "status", other)


def refundable(intent: Json, command: Refund, *, live: bool) -> Unknown | Mismatched | RefusedByProvider | None:
    """Why the payment cannot be refunded, or None where it can."""
    if (reason := _foreign(intent, "id", command, live=live)) is not None:
        return reason
    if intent.get("status") != "succeeded":
        return _wrong_state(command.reference, "No money was taken that could be given back.")
    return None


def read_refunds(refunds: Sequence[Json], command: Refund) -> Outcome:
    """What all refunds of a payment say of this one, which is known by the attempt's id in its metadata."""
    ours = [refund for refund in refunds if _metadata(refund).get("attempt_id") == command.attempt_id]
    if len(ours) > 1:
        return Mismatched(reference=command.reference, reason=f"there are {len(ours)} refunds for this one attempt")
    return read_refund(ours[0], command) if ours else NotSubmitted(reference=command.reference)


def read_refund(refund: Json, command: Refund) -> Outcome:
    """What a Refund says of the command. The outcome's reference stays the payment's, under which it is asked for again. Refunds
    do not say whether they are live; the payment's PaymentIntent does."""
    reference = command.reference
    reason = _foreign(refund, "payment_intent", command) or _other_amount(refund, "amount", command.amount, command)
    if reason is not None:
        return reason
    if _metadata(refund).get("attempt_id") != command.attempt_id:
        return Mismatched(reference=reference, reason="the refund is of another attempt")
    match refund.get("status"):
        case "succeeded":
            return Succeeded(reference=reference, total=command.amount, captured=True)
        case "pending":
            return Pending(reference=reference)
        case "requires_action":
            return Actionable(reference=reference, url=None)
        case "failed":
            why = refund.get("failure_reason")
            if why is not None and str(why) not in codes.REFUND_FAILURES:
                return _undocumented(reference, "failure reason", why)
            return Declined(reference=reference, code=str(why or "refund_failed"), message="The refund could not be paid out.")
        case "canceled":
            return Cancelled(reference=reference)
        case other:
            return _undocumented(reference, "status", other)


def read_error(reference: str | None, error: Json) -> Declined | RefusedByProvider | Unknown:
    """What an error object of Stripe's says where nothing else is known of the payment."""
    match codes.verdict(error):
        case Verdict.DECLINED | Verdict.PAYER_MUST_ACT:
            # The issuer's own code where Stripe passes it on. Both are from closed lists: verdict has looked.
            reason = str(error.get("decline_code"))
            code = reason if reason in codes.DECLINE_CODES else str(error["code"])
            message = without_secrets(error.get("message") or "The means of payment was declined.")
            return Declined(reference=reference, code=code, message=message)
        case Verdict.REFUSED:
            # The message may name anything.
            about = error.get("param")
            message = f"Stripe refused the request{f' because of {without_secrets(about)}' if about else ''}."
            return RefusedByProvider(reference=reference, code=str(error.get("code") or error["type"]), message=message)
        case Verdict.NOT_NOW:
            return Unknown(reference=reference, reason=f"Stripe answers {error.get('code')}")
        case None:
            return _undocumented(reference, "error code", error.get("decline_code") or error.get("code"))


def without_secrets(text: object) -> str:
    """A message of Stripe's, fit to be stored and shown: it may name customers and cards."""
    return _SECRET.sub("…", str(text))[:300]


def read_event(event: Json, *, live: bool, account: str | None) -> ProviderEvent | None:
    """What a webhook is about, or None where it is about no PaymentIntent. `account`: ours, where we know it. Raises Foreign
    where the event is somebody else's, and ValueError, KeyError, TypeError or AttributeError where it cannot be read."""
    if event["object"] != "event" or not isinstance(event["livemode"], bool):
        raise ValueError("not an event")
    if event["livemode"] is not live:
        raise Foreign("live and test mode differ")
    # Only events of accounts connected to a platform name one.
    if event.get("account") is not None and event["account"] != account:
        raise Foreign("the account is another")
    about = event["data"]["object"]
    reference = about.get("id") if about.get("object") == "payment_intent" else about.get("payment_intent")
    if not isinstance(reference, str) or not reference.startswith("pi_"):
        return None
    kind = str(event.get("type"))
    return ProviderEvent(
        provider=NAME,
        event_id=event["id"],
        kind=_kind_of_event(kind, about),
        reference=reference,
        # A Charge's is that of the payment, whatever the event is about.
        attempt_id=attempt_of(about) if about.get("object") == "refund" else None,
        amount=_amount_of_event(kind, about),
        note=kind if _EVENT_TYPE.fullmatch(kind) else None,
        occurred_at=datetime.fromtimestamp(event["created"], UTC),
    )


def _kind_of_event(kind: str, about: Json) -> Literal["payment", "refund", "reversal"]:
    """A refund may fail after it succeeded: the bank sends the money back. A dispute takes it, whatever we think of it."""
    if kind.startswith("charge.dispute."):
        return "reversal"
    if kind.startswith(("refund.", "charge.refund")):
        failed = about.get("object") == "refund" and about.get("status") == "failed"
        return "reversal" if failed or kind == "refund.failed" else "refund"
    return "payment"


def _amount_of_event(kind: str, about: Json) -> Money | None:
    """What moved, or is disputed, where the event is about one movement. `charge.refunded` has the sum of all refunds only. How
    much of a reservation should be taken, a capture says that may still be on its way: only who asks about it can compare."""
    if kind == "payment_intent.succeeded" and about.get("capture_method") != "manual":
        field = "amount_received"
    elif about.get("object") == "dispute" or (about.get("object") == "refund" and about.get("status") == "succeeded"):
        field = "amount"
    else:
        return None
    try:
        return from_stripe(about.get(field), about.get("currency"))
    except NotRepresentable:
        return None  # whoever asks about the reference finds out


def charge_line(charge: Json, *, live: bool) -> StatementLine | None:
    """What a Charge took, or None where it took nothing. Raises ValueError, KeyError or TypeError where it cannot be read."""
    if charge["livemode"] is not live:
        raise ValueError("live and test mode differ")
    if charge["status"] != "succeeded" or charge["captured"] is not True:
        return None
    # Stripe always says how much was captured; a server that stands in for it may not.
    field = "amount" if charge.get("amount_captured") is None else "amount_captured"
    return _line("payment", charge, from_stripe(charge[field], charge["currency"]), charge.get("payment_intent") or charge["id"])


def refund_line(refund: Json, charge: Json | None) -> StatementLine | None:
    """What a Refund gave back; likewise. `charge`: its Charge, which must be given where the refund names no attempt of ours."""
    if refund["status"] != "succeeded" or (charge is not None and _is_release(refund, charge)):
        return None
    reference = refund.get("payment_intent") or (charge or {}).get("payment_intent") or refund["charge"]
    return _line("refund", refund, from_stripe(refund["amount"], refund["currency"]), reference)


def _is_release(refund: Json, charge: Json) -> bool:
    """Giving up a reservation, or what is left of one when a part was taken, is a Refund to Stripe, though nobody gets money."""
    if charge["captured"] is not True:
        return True
    taken = charge.get("amount_captured")
    return taken is not None and attempt_of(refund) is None and refund["amount"] == charge["amount"] - taken


def attempt_of(movement: Json) -> str | None:
    """The id of our attempt that a Charge or Refund was made by."""
    found = _metadata(movement).get("attempt_id")
    return found if isinstance(found, str) and len(found) <= _MOST_LETTERS else None


def _line(kind: str, movement: Json, amount: Money, reference: str) -> StatementLine | None:
    if amount.minor == 0:
        return None
    return StatementLine.model_validate(
        {
            "kind": kind,
            "reference": reference,
            "attempt_id": attempt_of(movement),
            "amount": amount,
            "occurred_at": datetime.fromtimestamp(movement["created"], UTC),
        }
    )


def _foreign(answer: Json, field: str, command: Command, *, live: bool | None = None) -> Unknown | Mismatched | None:
    """Why an answer is not about the command's payment, or None where it is."""
    reference = command.reference
    seen = answer.get(field)
    if not isinstance(seen, str) or not isinstance(answer.get("metadata"), Mapping):
        return Unknown(reference=reference, reason="the answer has no reference, or no metadata")
    if seen != reference:
        return Mismatched(reference=reference, reason="the answer is about another reference")
    if _metadata(answer).get("payment_id") != command.payment_id:
        return Mismatched(reference=reference, reason="the answer is about another payment")
    if live is None:
        return None
    if not isinstance(answer.get("livemode"), bool):
        return Unknown(reference=reference, reason="the answer does not say whether it is live")
    if answer["livemode"] is not live:
        return Mismatched(reference=reference, reason=f"the answer is {'a test' if live else 'live'}, and our key is not")
    return _other_amount(answer, "amount", command.total, command)


def _metadata(answer: Json) -> Json:
    found = answer.get("metadata")
    return found if isinstance(found, Mapping) else {}


def _other_amount(
    answer: Json, field: str, expected: Money, command: Command, *, optional: bool = False
) -> Unknown | Mismatched | None:
    """`optional`: Stripe always sends the field, but a server that stands in for it may not."""
    if optional and answer.get(field) is None:
        return None
    try:
        seen = from_stripe(answer.get(field), answer.get("currency"))
    except NotRepresentable as error:
        return Unknown(reference=command.reference, reason=f"{field}: {error}")
    if seen == expected:
        return None
    return Mismatched(reference=command.reference, reason=f"{field} is {seen} instead of {expected}")


def _action_url(intent: Json) -> str | None:
    """The bank's page. Anything but https is no page to send a payer to."""
    action = intent.get("next_action")
    redirect = action.get("redirect_to_url") if isinstance(action, Mapping) else None
    url = redirect.get("url") if isinstance(redirect, Mapping) else None
    return url if isinstance(url, str) and url.startswith("https://") else None


def _wrong_state(reference: str | None, message: str) -> RefusedByProvider:
    return RefusedByProvider(reference=reference, code="payment_intent_unexpected_state", message=message)


def _undocumented(reference: str | None, what: str, seen: object) -> Unknown:
    return Unknown(reference=reference, reason=f"{what} {without_secrets(seen)[:40]!r} is not documented")
