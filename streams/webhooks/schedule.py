"""When a delivery is tried again, as data and one pure function."""

import random
from collections.abc import Callable, Sequence

SCHEDULE_S: tuple[float, ...] = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 10 * 3600)
"""Seconds after each failed attempt: eight attempts in a little over a day. `AUGENBLICK_WEBHOOK_SCHEDULE_S` replaces it."""

JITTER = 0.2
SLOW_DOWN_S = 60.0
LONGEST_WISH_S = 24 * 3600.0


def uniform_jitter() -> float:
    """A factor around 1, so that deliveries that failed together do not come back together."""
    return random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 -- spreads load, guards nothing


def wait_s(
    failed_attempts: int,
    *,
    slow_down: bool = False,
    retry_after_s: float | None = None,
    schedule: Sequence[float] = SCHEDULE_S,
    jitter: Callable[[], float] = uniform_jitter,
) -> float | None:
    """How long to wait after this many failed attempts (1 and more); None when it was the last.

    An endpoint that asked for less (`slow_down`: 429 or a timeout) is left alone for a minute at least. Its Retry-After may
    make the wait longer, by a day at most, never shorter.
    """
    if failed_attempts > len(schedule):
        return None
    wait = schedule[failed_attempts - 1] * jitter()
    if slow_down:
        wait = max(wait, SLOW_DOWN_S)
    if retry_after_s is not None:
        wait = max(wait, min(retry_after_s, LONGEST_WISH_S))
    return wait
