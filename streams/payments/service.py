"""What an outcome means for a payment, and when to ask again. Plain functions on plain values."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from schemas.errors import Rejected
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Cancelled,
    Declined,
    Mismatched,
    NotSubmitted,
    Outcome,
    PaymentState,
    Pending,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

# While a worker is at it, everybody else keeps away for this long: longer than waiting for its turn and any call may take, with
# time to spare for a slow commit. What would not be over in time is not begun: no call takes longer than SUBMIT_TAKES.
LEASE = timedelta(seconds=60)
CALL_S = 30.0
SUBMIT_TAKES = timedelta(seconds=22)

# How often a reservation is looked after, which may end by itself.
WATCH_EVERY = timedelta(days=1)

# What no worker has taken up by then is the janitor's.
TAKE_UP_WITHIN = timedelta(seconds=10)

# When to ask about what is not known: after the first call, then ever more rarely; the last pause repeats for a week.
ASK_AGAIN_AFTER_S = (5.0, 30.0, 300.0, 3600.0, 21_600.0, 86_400.0)
GIVE_UP_AFTER = timedelta(days=7)

# A request of ours that the provider did not know this long after it was last sent will not arrive any more.
ARRIVES_WITHIN = timedelta(minutes=2)


def ask_again_at(
    outcome: Outcome,
    asked: int,
    begun_at: datetime,
    now: datetime,
    *,
    schedule: Sequence[float],
    ask_every: timedelta | None,
    refusal_counts_at: datetime | None = None,
) -> datetime | None:
    """When the provider is asked next, or None when a person has to look: it stays unknown, which is the truth. `ask_every`:
    while the payer is to act, where there is a payer who is. `refusal_counts_at`: from when on no earlier request can be on its
    way."""
    if isinstance(outcome, Mismatched):
        return None
    if isinstance(outcome, Actionable) and ask_every is not None:
        return now + ask_every
    if now - begun_at > GIVE_UP_AFTER:
        return None
    next_at = now + timedelta(seconds=schedule[min(asked, len(schedule) - 1)])
    if isinstance(outcome, Unknown) and outcome.refused and refusal_counts_at is not None and refusal_counts_at > now:
        return min(next_at, refusal_counts_at)
    return next_at


@dataclass(frozen=True)
class Change:
    """What becomes of a payment. `state` None: it stays as it is, because nothing new is known. `failed`: the command came to
    nothing, and the payment is as it was."""

    state: PaymentState | None = None
    reason: str | None = None
    captured: Money | None = None
    refunded: Money | None = None
    failed: bool = False


def change(kind: str, outcome: Outcome, state: PaymentState, captured: Money, refunded: Money) -> Change:
    """What an outcome of a command of this kind makes of a payment that is in `state`."""
    if kind == "authorise":
        return _authorised(outcome, state)
    match kind, outcome:
        case _, Pending() | NotSubmitted() | Unknown() | Actionable() | Mismatched():
            return Change()
        case "capture", Succeeded(total=taken):
            return Change(PaymentState.CAPTURED, captured=taken)
        case "capture" | "cancel", Cancelled(reason=reason):
            return Change(PaymentState.CANCELLED, reason)
        case "refund", Succeeded(total=given_back):
            total = refunded + given_back
            end = PaymentState.REFUNDED if total == captured else PaymentState.PARTIALLY_REFUNDED
            return Change(end, refunded=total)
        case _, Declined(code=code) | RefusedByProvider(code=code):
            return Change(reason=code, failed=True)
        case _:
            return Change(reason=outcome.kind, failed=True)


def _authorised(outcome: Outcome, state: PaymentState) -> Change:
    match outcome:
        case Succeeded(captured=True, total=taken):
            return Change(PaymentState.CAPTURED, captured=taken)
        case Succeeded():
            return Change(PaymentState.AUTHORISED)
        case Declined(code=code):
            return Change(PaymentState.DECLINED, code)
        case RefusedByProvider(code=code):
            return Change(PaymentState.FAILED, code)
        case Cancelled(reason="not_confirmed_in_time") if state is PaymentState.ACTION_REQUIRED:
            return Change(PaymentState.EXPIRED, outcome.reason)  # only who was asked to act can have let it expire
        case Cancelled(reason=reason):
            return Change(PaymentState.CANCELLED, reason)
        case Actionable():
            return Change(PaymentState.ACTION_REQUIRED)
        case Unknown() | Mismatched():
            return Change(PaymentState.UNKNOWN, outcome.reason)
        case Pending() | NotSubmitted():
            return Change()


def is_final(outcome: Outcome) -> bool:
    """Whether the attempt ends with it."""
    return isinstance(outcome, Succeeded | Declined | RefusedByProvider | Cancelled)


def must_be_possible(
    kind: str, amount: Money | None, state: PaymentState, total: Money, captured: Money, refunded: Money
) -> Money | None:
    """The amount of a command that may begin now: all there is, where none is named. Raises Rejected("payment-state") or
    Rejected("amount-too-large")."""
    allowed, most = {
        "capture": ({PaymentState.AUTHORISED}, total),
        "cancel": ({PaymentState.AUTHORISED, PaymentState.APPROVED}, None),
        "refund": ({PaymentState.CAPTURED, PaymentState.PARTIALLY_REFUNDED}, captured - refunded),
    }[kind]
    if state not in allowed:
        raise Rejected("payment-state", f"a payment that is {state} has nothing to {kind}")
    if most is None:
        return None
    if amount is None:
        return most
    if amount.currency != most.currency:
        raise Rejected("request-invalid", f"the payment is in {most.currency}")
    if most < amount:
        raise Rejected("amount-too-large", f"{most} is all there is to {kind}")
    return amount


def contradiction(kind: str, amount: Money | None, note: str | None, payment: "Booked", *, ordered: bool) -> str | None:
    """What a verified notification says that cannot be, by our books, or None. A payment's amount is the whole, or what was
    captured of it. `ordered`: a refund may be one that we asked for. A reversal takes back what our books have as moved."""
    if kind == "reversal":
        return f"the provider reports {note or 'a reversal'}" if payment.captured.minor else None
    if kind == "refund":
        return None if ordered else f"the provider reports a refund{f' of {amount}' if amount else ''} that nobody asked for"
    if amount is not None and amount not in (payment.total, payment.captured) and not payment.may_be_partial:
        return f"the provider's notification says {amount} instead of {payment.total}"
    return None


class Booked(Protocol):
    """What our books say of a payment."""

    @property
    def total(self) -> Money: ...

    @property
    def captured(self) -> Money: ...

    @property
    def state(self) -> PaymentState: ...

    @property
    def may_be_partial(self) -> bool:
        """A capture is under way, of which a part may have been taken."""
        ...


def is_to_be_asked_about(kind: str, state: PaymentState) -> bool:
    """Whether a notification about a payment without a running command is a reason to ask the provider: what was only reserved
    may have ended by itself, and what ended without money may have been paid after all."""
    return kind in ("payment", "reversal") and state in WATCHED


WATCHED = frozenset(
    {PaymentState.AUTHORISED, PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED}
)
