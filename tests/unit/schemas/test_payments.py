"""The moves a payment may make."""

from schemas.payments import PAYMENT_MOVES, SETTLED_STATES, PaymentState

STATE = PaymentState
NOTHING_MOVED = {STATE.DECLINED, STATE.FAILED, STATE.CANCELLED, STATE.EXPIRED}
MONEY_MOVED = {STATE.CAPTURED, STATE.PARTIALLY_REFUNDED, STATE.REFUNDED}


def reachable(start: PaymentState) -> set[PaymentState]:
    found = {start}
    while more := {to for come, to in PAYMENT_MOVES if come in found} - found:
        found |= more
    return found


def test_every_state_can_be_reached() -> None:
    assert reachable(STATE.PROPOSED) == set(STATE)


def test_nothing_leads_out_of_an_end() -> None:
    for end in NOTHING_MOVED | {STATE.REFUNDED}:
        assert reachable(end) == {end}


def test_money_that_was_taken_is_never_forgotten() -> None:
    assert reachable(STATE.CAPTURED) == MONEY_MOVED


def test_no_money_moves_without_an_approval() -> None:
    """Every way from a proposal to money leads over `approved`, then over `submitting`."""
    for gate in (STATE.APPROVED, STATE.SUBMITTING):
        around = {STATE.PROPOSED}
        while more := {to for come, to in PAYMENT_MOVES if come in around and to is not gate} - around:
            around |= more
        assert not around & (MONEY_MOVED | {STATE.AUTHORISED})


def test_what_is_unknown_never_goes_back_to_be_submitted() -> None:
    assert STATE.SUBMITTING not in reachable(STATE.UNKNOWN)
    assert STATE.APPROVED not in reachable(STATE.SUBMITTING)


def test_unknown_is_not_settled() -> None:
    assert STATE.UNKNOWN not in SETTLED_STATES
    assert NOTHING_MOVED | MONEY_MOVED <= SETTLED_STATES


def test_no_move_stays_where_it_is() -> None:
    assert all(come is not to for come, to in PAYMENT_MOVES)
