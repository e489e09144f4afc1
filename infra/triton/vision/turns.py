"""How long a frame waited for its turn, and whether looking at it still makes sense.

Under more load than a model can bear, frames are taken in the order they came, so that each that is still wanted when its turn
comes has next to no time left: without this, what is worked on is answered too late, and nearly all work is for nothing.
"""

import statistics
import time
from collections import deque
from collections.abc import Callable

IDLE_S = 0.05
"""An instance that had nothing to do for so long had no frame waiting: one that comes now has just been sent. A busy machine may
take as long from one frame to the next that waits."""
REMEMBERED = 16
ON_THE_WAY_MS = 10.0  # for the answer, which has to be there in time


class Turns:
    """Of one instance of a model, which looks at one frame after the other."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter, wall: Callable[[], float] = time.time) -> None:
        self._clock, self._wall = clock, wall
        self._busy_since = self._ended = -IDLE_S
        self._began = 0.0
        self._taken: deque[float] = deque(maxlen=REMEMBERED)

    def begin(self, sent_at_ms: float | None) -> float:
        """How many milliseconds the frame has waited; `sent_at_ms` is the caller's clock, since 1970. That clock may be wrong, so
        it is never believed further back than this instance has been busy."""
        self._began = self._clock()
        if self._began - self._ended >= IDLE_S:
            self._busy_since = self._began
        if sent_at_ms is None:
            return 0.0
        busy_ms = (self._began - self._busy_since) * 1000
        return max(0.0, min(self._wall() * 1000 - sent_at_ms, busy_ms))

    def end(self, *, answered: bool) -> None:
        self._ended = self._clock()
        if answered:
            self._taken.append(self._ended - self._began)

    def too_late(self, left_ms: float, waited_ms: float) -> bool:
        """Whether to make room for a newer frame: this one has waited for more than half of its time, and less is left than
        twice what looking at one takes. A frame that came when there was nothing to do is tried while it has any time at all."""
        if left_ms <= 0:
            return True
        enough_ms = 2000 * statistics.median(self._taken) + ON_THE_WAY_MS if self._taken else 0.0
        return waited_ms > left_ms and left_ms < enough_ms
