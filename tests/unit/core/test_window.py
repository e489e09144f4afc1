"""The ordered acknowledgement: whatever the order in which events finish, nothing is acknowledged beyond one that has not."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from streams.core.window import NewestFirst, OrderedAck, Overtaken


@given(
    offsets=st.lists(st.integers(0, 10_000), unique=True, min_size=1, max_size=30).map(sorted),
    order=st.randoms(use_true_random=False),
)
def test_only_contiguous_prefixes_are_released_each_offset_once(offsets: list[int], order: object) -> None:
    """Offsets have gaps: transactions and compaction leave them."""
    window, released, finished = OrderedAck(), list[int](), set[int]()
    for offset in offsets:
        window.arrive("p", offset)
    for offset in _shuffled(offsets, order):
        finished.add(offset)
        released += window.finish("p", offset)
        prefix = next((place for place, each in enumerate(offsets) if each not in finished), len(offsets))
        assert released == offsets[:prefix]
    assert released == offsets
    assert window.in_flight() == 0


@given(order=st.randoms(use_true_random=False), partitions=st.integers(2, 4), count=st.integers(1, 10))
def test_partitions_do_not_wait_for_each_other(order: object, partitions: int, count: int) -> None:
    window = OrderedAck()
    events = [(partition, offset) for partition in range(partitions) for offset in range(count)]
    for partition, offset in events:
        window.arrive(partition, offset)
    blocked = (0, 0)
    released: dict[int, list[int]] = {partition: [] for partition in range(partitions)}
    for partition, offset in _shuffled([each for each in events if each != blocked], order):
        released[partition] += window.finish(partition, offset)
    assert released == {0: [], **{partition: list(range(count)) for partition in range(1, partitions)}}
    assert window.finish(*blocked) == list(range(count))


@given(offset=st.integers(0, 100))
def test_what_never_arrived_or_is_finished_again_releases_nothing(offset: int) -> None:
    window = OrderedAck()
    assert window.finish("p", offset) == []
    window.arrive("p", offset)
    assert window.finish("p", offset + 1) == []
    assert window.finish("p", offset) == [offset]
    assert window.finish("p", offset) == []


class Redelivery(RuleBasedStateMachine):
    """Partitions that are taken away and given back from where they were acknowledged, while work on them goes on."""

    PARTITIONS = 3

    def __init__(self) -> None:
        super().__init__()
        self.window = OrderedAck()
        self.next = [0] * self.PARTITIONS
        self.acknowledged = [-1] * self.PARTITIONS
        self.finished: list[set[int]] = [set() for _ in range(self.PARTITIONS)]
        self.under_way: list[tuple[int, int]] = []

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def arrive(self, partition: int) -> None:
        offset = self.next[partition]
        self.window.arrive(partition, offset)
        self.under_way.append((partition, offset))
        self.next[partition] = offset + 1

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.under_way:
            self._finish(self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1))))

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def given_back_from_the_last_acknowledged(self, partition: int) -> None:
        self.next[partition] = self.acknowledged[partition] + 1

    def _finish(self, work: tuple[int, int]) -> None:
        partition, offset = work
        self.finished[partition].add(offset)
        released = self.window.finish(partition, offset)
        assert released == sorted(set(released))
        if released:
            self.acknowledged[partition] = max(self.acknowledged[partition], released[-1])

    @invariant()
    def nothing_is_acknowledged_beyond_what_is_unfinished(self) -> None:
        for partition in range(self.PARTITIONS):
            assert set(range(self.acknowledged[partition] + 1)) <= self.finished[partition]

    def teardown(self) -> None:
        """When all work is done and each partition was read to where it was once, all of it is acknowledged."""
        for partition in range(self.PARTITIONS):
            furthest = max(self.finished[partition] | {offset for p, offset in self.under_way if p == partition}, default=-1)
            while self.next[partition] <= furthest:
                self.arrive(partition)
        for work in self.under_way:
            self._finish(work)
        for partition in range(self.PARTITIONS):
            assert self.acknowledged[partition] == self.next[partition] - 1
        assert self.window.in_flight() == 0


TestRedelivery = Redelivery.TestCase
TestRedelivery.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def _shuffled(items: Sequence[object], order: object) -> list:  # type: ignore[type-arg]
    shuffled = list(items)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    return shuffled


async def test_of_those_who_wait_the_newest_is_next() -> None:
    turns, came = NewestFirst(1, waiting=9), list[int]()

    async def one(number: int) -> None:
        async with turns:
            came.append(number)
            await asyncio.sleep(0.001)

    await asyncio.gather(*(one(number) for number in range(5)))
    assert came == [0, 4, 3, 2, 1]


async def test_turns_are_neither_lost_nor_made_by_those_who_give_up() -> None:
    turns, inside, most = NewestFirst(2, waiting=200), 0, 0

    async def one(patience_s: float) -> None:
        nonlocal inside, most
        async with asyncio.timeout(patience_s), turns:
            inside += 1
            most = max(most, inside)
            try:
                await asyncio.sleep(0.02)
            finally:
                inside -= 1

    patience = [(number * 7 % 13) / 50 for number in range(200)]
    outcomes = await asyncio.gather(*map(one, patience), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(None), TimeoutError}
    assert (inside, most) == (0, 2)
    async with asyncio.timeout(1), turns, turns:  # both turns are there again
        pass


async def test_a_turn_given_to_one_who_gives_up_goes_to_the_next() -> None:
    turns = NewestFirst(1, waiting=9)
    await turns.__aenter__()
    came = list[str]()

    async def one(name: str) -> None:
        async with turns:
            came.append(name)

    first, last = asyncio.create_task(one("first")), asyncio.create_task(one("last"))
    await asyncio.sleep(0)
    await turns.__aexit__()  # last has its turn, and does not know it yet
    last.cancel()
    await asyncio.wait([first, last])
    assert came == ["first"]


async def test_where_too_many_wait_the_oldest_is_overtaken() -> None:
    turns, came = NewestFirst(1, waiting=2), list[int]()

    async def one(number: int) -> None:
        async with turns:
            came.append(number)
            await asyncio.sleep(0.001)

    outcomes = await asyncio.gather(*(one(number) for number in range(6)), return_exceptions=True)
    assert came == [0, 5, 4]
    assert [type(outcome) for outcome in outcomes[1:4]] == [Overtaken] * 3
