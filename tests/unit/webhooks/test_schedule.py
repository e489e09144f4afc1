from hypothesis import given
from hypothesis import strategies as st

from streams.webhooks.schedule import LONGEST_WISH_S, SCHEDULE_S, SLOW_DOWN_S, uniform_jitter, wait_s


def steady() -> float:
    return 1.0


def test_the_schedule_as_published() -> None:
    waits = [wait_s(number, jitter=steady) for number in range(1, 9)]
    assert waits == [5, 300, 1800, 7200, 18_000, 36_000, 36_000, None]


def test_a_schedule_of_ones_own() -> None:
    assert [wait_s(number, schedule=(0.1, 2), jitter=steady) for number in (1, 2, 3)] == [0.1, 2, None]
    assert wait_s(1, schedule=(), jitter=steady) is None


def test_slowing_down_waits_a_minute_at_least_and_never_less_than_the_schedule() -> None:
    assert wait_s(1, slow_down=True, jitter=steady) == SLOW_DOWN_S
    assert wait_s(2, slow_down=True, jitter=steady) == 300


def test_a_wish_lengthens_the_wait_but_never_shortens_it() -> None:
    assert wait_s(1, retry_after_s=90, jitter=steady) == 90
    assert wait_s(2, retry_after_s=90, jitter=steady) == 300
    assert wait_s(1, retry_after_s=float("inf"), jitter=steady) == LONGEST_WISH_S


def test_no_wish_prolongs_the_schedule() -> None:
    assert wait_s(len(SCHEDULE_S) + 1, slow_down=True, retry_after_s=5) is None


@given(st.integers(1, len(SCHEDULE_S)))
def test_jitter_is_a_fifth_either_way(number: int) -> None:
    wait = wait_s(number)
    assert wait is not None
    assert 0.8 * SCHEDULE_S[number - 1] <= wait <= 1.2 * SCHEDULE_S[number - 1]


def test_jitter_differs() -> None:
    assert len({uniform_jitter() for _ in range(20)}) > 1
