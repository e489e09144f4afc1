"""Which offsets may be acknowledged when events are finished out of order."""

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
