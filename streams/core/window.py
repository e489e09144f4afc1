"""How many events are in hand at once, in what order they get their turn, and which offsets may be acknowledged when they are
finished out of order."""

import asyncio
from collections import deque
from collections.abc import Hashable


class OrderedAck:
    """Per partition, only the contiguous prefix of finished events is released, in the order of arrival.

    Acknowledging anything else would let a restart skip an event that was still in flight (see docs/adr/0002).
    """

    def __init__(self) -> None:
        self._arrived: dict[Hashable, deque[int]] = {}
        self._finished: dict[Hashable, set[int]] = {}

    def arrive(self, partition: Hashable, offset: int) -> None:
        """An event was taken in. Offsets of a partition arrive in increasing order; an older one means that the partition
        was given back to us from an earlier point, and starts anew."""
        arrived = self._arrived.setdefault(partition, deque())
        if arrived and offset <= arrived[-1]:
            arrived.clear()
            self._finished.pop(partition, None)
        arrived.append(offset)

    def finish(self, partition: Hashable, offset: int) -> list[int]:
        """An event is done for good. Returns the offsets that may be acknowledged now, oldest first."""
        arrived = self._arrived.get(partition)
        if not arrived or offset not in arrived:
            return []
        finished = self._finished.setdefault(partition, set())
        finished.add(offset)
        released: list[int] = []
        while arrived and arrived[0] in finished:
            finished.discard(arrived[0])
            released.append(arrived.popleft())
        return released

    def in_flight(self) -> int:
        return sum(len(arrived) for arrived in self._arrived.values())


class Overtaken(Exception):
    """So many newer ones came that there was no room left to wait in."""


class NewestFirst:
    """Lets `at_once` in; of those who wait, who came last is next. For answers that lose their worth while they wait: under more
    load than can be borne, first come, first served would answer everybody at the last moment, if at all. Where more than
    `waiting` would wait, who came first is `Overtaken`."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._free = at_once
        self._most = waiting
        self._waiting: dict[asyncio.Future[None], None] = {}

    async def __aenter__(self) -> None:
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting[turn] = None
        if len(self._waiting) > self._most:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            if not oldest.done():
                oldest.set_exception(Overtaken())
        try:
            await turn
        except asyncio.CancelledError:
            self._waiting.pop(turn, None)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next()  # it was given its turn at the very moment at which it gave up
            raise

    async def __aexit__(self, *_: object) -> None:
        self._next()

    def _next(self) -> None:
        while self._waiting:
            turn, _ = self._waiting.popitem()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
