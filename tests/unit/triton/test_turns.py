"""Whose turn comes too late, by clocks that are set by hand."""

import pytest

from infra.triton.vision.turns import Turns

SENT = 1_000_000.0  # milliseconds since 1970, by the caller's clock, when a test begins


class Clocks:
    """`now` is in seconds; the caller's clock is `wrong_ms` behind the model's."""

    def __init__(self, wrong_ms: float = 0) -> None:
        self.now = 0.0
        self.wrong_ms = wrong_ms
        self.turns = Turns(lambda: self.now, lambda: (SENT + self.wrong_ms) / 1000 + self.now)

    def look(self, seconds: float, sent_at_s: float | None = None, *, answered: bool = True) -> float:
        waited = self.turns.begin(None if sent_at_s is None else SENT + sent_at_s * 1000)
        self.now += seconds
        self.turns.end(answered=answered)
        return waited


def test_a_frame_waits_from_when_it_was_sent_until_its_turn() -> None:
    clocks = Clocks()
    assert clocks.look(0.5, 0.0) == 0
    assert clocks.look(0.5, 0.2) == pytest.approx(300)
    assert clocks.look(0.5, 0.3) == pytest.approx(700)


def test_a_frame_that_says_nothing_has_not_waited() -> None:
    clocks = Clocks()
    clocks.look(0.5)
    assert clocks.look(0.5) == 0


@pytest.mark.parametrize("wrong_ms", [3_600_000.0, -3_600_000.0])
def test_a_clock_that_is_wrong_costs_no_frame_of_a_model_that_has_nothing_to_do(wrong_ms: float) -> None:
    clocks = Clocks(wrong_ms)
    for _ in range(3):
        assert clocks.look(0.1, clocks.now) == 0
        clocks.now += 0.1


def test_a_clock_that_is_wrong_is_not_believed_further_back_than_the_model_was_busy() -> None:
    clocks = Clocks(3_600_000.0)
    clocks.look(0.1, clocks.now)
    assert clocks.look(0.1, clocks.now) == pytest.approx(100)


def test_a_frame_that_waited_long_makes_room_unless_there_is_time_for_two() -> None:
    clocks = Clocks()
    for _ in range(3):
        clocks.look(0.1)
    assert not clocks.turns.too_late(left_ms=250, waited_ms=1000)
    assert clocks.turns.too_late(left_ms=200, waited_ms=1000)
    assert not clocks.turns.too_late(left_ms=200, waited_ms=150), "it has not waited for more than half of its time"
    assert not clocks.turns.too_late(left_ms=1, waited_ms=0), "it came when there was nothing to do"
    assert clocks.turns.too_late(left_ms=0, waited_ms=0)


def test_only_answers_tell_how_long_looking_takes() -> None:
    clocks = Clocks()
    clocks.look(5, answered=False)
    assert not clocks.turns.too_late(left_ms=1, waited_ms=1000)


def test_a_model_that_cannot_keep_up_answers_in_time_what_it_looks_at() -> None:
    """Four times more frames than it can look at, each with 400 ms: without shedding, every answer would be late."""
    clocks = Clocks()
    each_s, budget_ms, looked_at, in_time = 0.05, 400.0, 0, 0
    for number in range(1000):
        sent_s = number * each_s / 4
        clocks.now = max(clocks.now, sent_s)
        waited = clocks.turns.begin(SENT + sent_s * 1000)
        shed = clocks.turns.too_late(budget_ms - waited, waited)
        clocks.now += 0.0003 if shed else each_s
        clocks.turns.end(answered=not shed)
        looked_at += not shed
        in_time += not shed and clocks.now - sent_s <= budget_ms / 1000
    assert in_time == looked_at
    assert looked_at >= 0.95 * 1000 / 4, "and it is never idle"
