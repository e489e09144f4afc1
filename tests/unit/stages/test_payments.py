"""What an outcome means for a payment, and when to ask again."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from schemas.errors import Rejected
from schemas.money import Money
from schemas.payments import (
    PAYMENT_MOVES,
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
from streams.payments import service
from streams.payments.service import ASK_AGAIN_AFTER_S, Change

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OUTCOMES: list[tuple[Outcome, PaymentState | None, bool]] = [
    (Succeeded(reference="r", total=Money.of(1, "EUR"), captured=True), PaymentState.CAPTURED, True),
    (Succeeded(reference="r", total=Money.of(1, "EUR"), captured=False), PaymentState.AUTHORISED, True),
    (Declined(reference="r", code="card_declined", message=""), PaymentState.DECLINED, True),
    (RefusedByProvider(reference=None, code="no", message=""), PaymentState.FAILED, True),
    (Cancelled(reference="r"), PaymentState.CANCELLED, True),
    (Actionable(reference="r", url=None), PaymentState.ACTION_REQUIRED, False),
    (Unknown(reference="r", reason="timeout"), PaymentState.UNKNOWN, False),
    (Mismatched(reference="r", reason="amount"), PaymentState.UNKNOWN, False),
    (Pending(reference="r"), None, False),
    (NotSubmitted(reference="r"), None, False),
]


def changed(outcome: Outcome, before: PaymentState, kind: str = "authorise", captured: int = 0, refunded: int = 0) -> Change:
    return service.change(kind, outcome, before, Money.of(captured, "EUR"), Money.of(refunded, "EUR"))


@pytest.mark.parametrize(("outcome", "state", "final"), OUTCOMES)
def test_every_outcome_has_its_state(outcome: Outcome, state: PaymentState | None, final: bool) -> None:
    assert changed(outcome, PaymentState.SUBMITTING).state is state
    assert service.is_final(outcome) is final


@pytest.mark.parametrize("outcome", [outcome for outcome, _, _ in OUTCOMES])
def test_every_move_that_an_outcome_can_make_is_allowed(outcome: Outcome) -> None:
    for before in (PaymentState.SUBMITTING, PaymentState.UNKNOWN, PaymentState.ACTION_REQUIRED):
        state = changed(outcome, before).state
        if state is not None and state is not before:
            assert (before, state) in PAYMENT_MOVES


def test_nothing_leads_out_of_an_end() -> None:
    ends = {PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED, PaymentState.REFUNDED}
    assert not {before for before, _ in PAYMENT_MOVES} & ends


def ask(outcome: Outcome, asked: int = 0, now: datetime = NOW) -> datetime | None:
    every = timedelta(seconds=4)
    return service.ask_again_at(outcome, asked, NOW, now, schedule=ASK_AGAIN_AFTER_S, ask_every=every)


def test_what_is_not_known_is_asked_ever_more_rarely_and_never_guessed() -> None:
    unknown = Unknown(reference="r", reason="timeout")
    waits = [(at - NOW).total_seconds() for asked in range(12) if (at := ask(unknown, asked))]
    assert waits == sorted(waits) and waits[0] == 5 and waits[-1] == 86_400 and len(waits) == 12
    assert ask(unknown, 3, NOW + service.GIVE_UP_AFTER + timedelta(seconds=1)) is None


def test_a_payer_who_is_to_act_is_asked_about_often_and_what_does_not_fit_never() -> None:
    assert ask(Actionable(reference="r", url=None), 50) == NOW + timedelta(seconds=4)
    assert ask(Mismatched(reference="r", reason="amount")) is None


# Captures, cancellations and refunds.

TAKEN = Succeeded(reference="r", total=Money.of(300, "EUR"), captured=True)


def test_refunds_add_up_to_the_whole() -> None:
    first = changed(TAKEN, PaymentState.CAPTURED, "refund", captured=1000)
    assert (first.state, first.refunded) == (PaymentState.PARTIALLY_REFUNDED, Money.of(300, "EUR"))
    last = changed(TAKEN, PaymentState.PARTIALLY_REFUNDED, "refund", captured=1000, refunded=700)
    assert (last.state, last.refunded) == (PaymentState.REFUNDED, Money.of(1000, "EUR"))


@pytest.mark.parametrize("kind", ["capture", "cancel", "refund"])
@pytest.mark.parametrize("outcome", [outcome for outcome, _, final in OUTCOMES if not final])
def test_a_command_whose_end_is_not_known_changes_nothing(kind: str, outcome: Outcome) -> None:
    assert changed(outcome, PaymentState.CAPTURED, kind, captured=1000) == Change()


@pytest.mark.parametrize("kind", ["capture", "cancel", "refund"])
def test_a_refused_command_leaves_the_payment_as_it_is(kind: str) -> None:
    no = RefusedByProvider(reference="r", code="no", message="")
    assert changed(no, PaymentState.CAPTURED, kind, captured=1000) == Change(reason="no", failed=True)


def test_a_reservation_that_is_gone_is_cancelled() -> None:
    for kind in ("capture", "cancel"):
        assert changed(Cancelled(reference="r"), PaymentState.AUTHORISED, kind).state is PaymentState.CANCELLED


@pytest.mark.parametrize(
    ("kind", "state", "minor", "code"),
    [
        ("capture", PaymentState.CAPTURED, None, "payment-state"),
        ("capture", PaymentState.AUTHORISED, 1001, "amount-too-large"),
        ("refund", PaymentState.AUTHORISED, None, "payment-state"),
        ("refund", PaymentState.REFUNDED, 1, "payment-state"),
        ("refund", PaymentState.PARTIALLY_REFUNDED, 701, "amount-too-large"),
        ("cancel", PaymentState.CAPTURED, None, "payment-state"),
        ("cancel", PaymentState.UNKNOWN, None, "payment-state"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, state: PaymentState, minor: int | None, code: str) -> None:
    amount = Money.of(minor, "EUR") if minor else None
    with pytest.raises(Rejected) as refused:
        service.must_be_possible(kind, amount, state, Money.of(1000, "EUR"), Money.of(1000, "EUR"), Money.of(300, "EUR"))
    assert refused.value.problem.code == code


def test_without_an_amount_it_is_all_there_is() -> None:
    total, captured, refunded = Money.of(1000, "EUR"), Money.of(900, "EUR"), Money.of(300, "EUR")

    def whole(kind: str, state: PaymentState) -> Money | None:
        return service.must_be_possible(kind, None, state, total, captured, refunded)

    assert whole("capture", PaymentState.AUTHORISED) == total
    assert whole("refund", PaymentState.PARTIALLY_REFUNDED) == Money.of(600, "EUR")
    assert whole("cancel", PaymentState.AUTHORISED) is None


@dataclass(frozen=True)
class Booked:
    total: Money = field(default_factory=lambda: Money.of(1000, "EUR"))
    captured: Money = field(default_factory=lambda: Money.of(900, "EUR"))
    state: PaymentState = PaymentState.CAPTURED
    may_be_partial: bool = False


@pytest.mark.parametrize(
    ("kind", "minor", "ordered", "booked", "contradicts"),
    [
        ("payment", 1000, True, Booked(), False),
        ("payment", 900, True, Booked(), False),  # what was captured of it
        ("payment", 999, True, Booked(), True),
        ("payment", 500, True, Booked(may_be_partial=True), False),  # a capture of a part is under way
        ("payment", None, True, Booked(), False),
        ("refund", 300, True, Booked(), False),
        ("refund", 300, False, Booked(), True),
        ("refund", None, False, Booked(), True),
        ("reversal", None, True, Booked(), True),
        ("reversal", None, True, Booked(captured=Money.of(0, "EUR"), state=PaymentState.AUTHORISED), False),
    ],
)
def test_what_a_notification_may_not_say(kind: str, minor: int | None, ordered: bool, booked: Booked, contradicts: bool) -> None:
    amount = Money.of(minor, "EUR") if minor else None
    found = service.contradiction(kind, amount, "charge.dispute.created", booked, ordered=ordered)
    assert (found is not None) is contradicts


def test_another_currency_contradicts() -> None:
    assert service.contradiction("payment", Money.of(1000, "SEK"), None, Booked(), ordered=True)


@pytest.mark.parametrize("state", list(PaymentState))
def test_what_may_have_changed_by_itself_is_asked_about(state: PaymentState) -> None:
    moved_or_moving = {
        "captured",
        "partially_refunded",
        "refunded",
        "unknown",
        "submitting",
        "action_required",
        "approved",
        "proposed",
    }
    assert service.is_to_be_asked_about("payment", state) is (state.value not in moved_or_moving)
    assert not service.is_to_be_asked_about("refund", state)
