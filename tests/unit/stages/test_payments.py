"""What an outcome means for a payment, and when to ask again."""

from datetime import UTC, datetime, timedelta

import pytest

from schemas.money import Money
from schemas.payments import (
    PAYMENT_MOVES,
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
from streams.payments import service

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OUTCOMES: list[tuple[Outcome, PaymentState | None, bool]] = [
    (Succeeded(reference="r", total=Money.of(1, "EUR"), captured=True), PaymentState.CAPTURED, True),
    (Succeeded(reference="r", total=Money.of(1, "EUR"), captured=False), PaymentState.AUTHORISED, True),
    (Declined(reference="r", code="card_declined", message=""), PaymentState.DECLINED, True),
    (RefusedByProvider(reference=None, code="no", message=""), PaymentState.FAILED, True),
    (Cancelled(reference="r"), PaymentState.CANCELLED, True),
    (Actionable(reference="r", url=None), PaymentState.ACTION_REQUIRED, False),
    (Unknown(reference="r", reason="timeout"), PaymentState.UNKNOWN, False),
    (Pending(reference="r"), None, False),
    (NotSubmitted(reference="r"), None, False),
]


@pytest.mark.parametrize(("outcome", "state", "final"), OUTCOMES)
def test_every_outcome_has_its_state(outcome: Outcome, state: PaymentState | None, final: bool) -> None:
    assert service.move(outcome)[0] is state
    assert service.is_final(outcome) is final


@pytest.mark.parametrize("outcome", [outcome for outcome, _, _ in OUTCOMES])
def test_every_move_that_an_outcome_can_make_is_allowed(outcome: Outcome) -> None:
    state, _ = service.move(outcome)
    for before in (PaymentState.SUBMITTING, PaymentState.UNKNOWN, PaymentState.ACTION_REQUIRED):
        if state is not None and state is not before:
            assert (before, state) in PAYMENT_MOVES


def test_nothing_leads_out_of_an_end() -> None:
    ends = {PaymentState.DECLINED, PaymentState.FAILED, PaymentState.CANCELLED, PaymentState.EXPIRED, PaymentState.REFUNDED}
    assert not {before for before, _ in PAYMENT_MOVES} & ends


def test_what_is_not_known_is_asked_ever_more_rarely_and_never_guessed() -> None:
    pauses = [service.ask_again_at(asked, NOW, NOW) for asked in range(12)]
    waits = [(at - NOW).total_seconds() for at in pauses if at]
    assert waits == sorted(waits) and waits[0] == 5 and waits[-1] == 86_400
    assert service.ask_again_at(3, NOW, NOW + service.GIVE_UP_AFTER + timedelta(seconds=1)) is None
