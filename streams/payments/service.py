"""What an outcome means for a payment, and when to ask again. Plain functions on plain values."""

from datetime import datetime, timedelta

from schemas.payments import (
    Actionable,
    Cancelled,
    Declined,
    NotSubmitted,
    Outcome,
    PaymentState,
    Pending,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

# While a worker is at it, the janitor keeps away for this long: longer than any call may take.
LEASE = timedelta(seconds=45)

# When to ask about what is not known: after the first call, then ever more rarely; the last pause repeats for a week.
ASK_AGAIN_AFTER = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=5),
    timedelta(hours=1),
    timedelta(hours=6),
    timedelta(days=1),
)
GIVE_UP_AFTER = timedelta(days=7)


# A payer who has to confirm at the bank does it now or not at all.
CONFIRM_WITHIN = timedelta(minutes=10)
ASK_FOR_CONFIRMATION_EVERY = timedelta(seconds=4)


def ask_again_at(asked: int, opened_at: datetime, now: datetime, *, confirming: bool = False) -> datetime | None:
    """When the provider is asked next, or None when a person has to look: it stays unknown, which is the truth."""
    if confirming:
        return now + ASK_FOR_CONFIRMATION_EVERY
    if now - opened_at > GIVE_UP_AFTER:
        return None
    return now + ASK_AGAIN_AFTER[min(asked, len(ASK_AGAIN_AFTER) - 1)]


def move(outcome: Outcome) -> tuple[PaymentState | None, str | None]:
    """The state an outcome leads to and its reason; None where the payment stays as it is, because nothing new is known."""
    match outcome:
        case Succeeded():
            return (PaymentState.CAPTURED if outcome.captured else PaymentState.AUTHORISED), None
        case Declined():
            return PaymentState.DECLINED, outcome.code
        case RefusedByProvider():
            return PaymentState.FAILED, outcome.code
        case Cancelled():
            state = PaymentState.EXPIRED if outcome.reason == "not_confirmed_in_time" else PaymentState.CANCELLED
            return state, outcome.reason
        case Actionable():
            return PaymentState.ACTION_REQUIRED, None
        case Unknown():
            return PaymentState.UNKNOWN, outcome.reason
        case Pending() | NotSubmitted():
            return None, None


def is_final(outcome: Outcome) -> bool:
    """Whether the attempt ends with it."""
    return isinstance(outcome, Succeeded | Declined | RefusedByProvider | Cancelled)
