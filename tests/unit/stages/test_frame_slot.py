"""Newest frame wins: whatever comes in whatever order, each frame has one end, and one is under way at a time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Event
from schemas.gateway import DropReason
from schemas.ids import EventId, JourneyId
from streams.gateway.slot import FrameSlot

START = datetime(2026, 11, 22, tzinfo=UTC)
BUDGET = timedelta(seconds=1)


def frame(at: datetime) -> Event:
    return Event(
        id=EventId.new(), source="/d", type="sighting.captured", time=at, journeyid=JourneyId.new(), deadline=at + BUDGET
    )


def test_a_newer_frame_replaces_the_one_that_waits() -> None:
    slot, (first, second, third) = FrameSlot(), [frame(START) for _ in range(3)]
    assert slot.offer(first) is first
    assert slot.offer(second) is None
    assert slot.offer(third) is None
    assert slot.take_dropped() == [(second, DropReason.SUPERSEDED)]
    assert slot.answered(first.id, START) is third


def test_a_late_frame_makes_room() -> None:
    slot, first = FrameSlot(), frame(START)
    slot.offer(first)
    assert slot.expire(START + timedelta(seconds=0.5)) is None
    later = frame(START + timedelta(seconds=0.9))
    slot.offer(later)
    assert slot.expire(START + BUDGET) is later
    assert slot.take_dropped() == [(first, DropReason.TOO_LATE)]


def test_an_answer_to_another_frame_changes_nothing() -> None:
    slot, first = FrameSlot(), frame(START)
    slot.offer(first)
    assert slot.answered("another", START) is None
    assert slot.under_way is first


@given(st.lists(st.sampled_from(["frame", "answer", "wait"]), max_size=60))
def test_each_frame_has_exactly_one_end(steps: list[str]) -> None:
    slot, now = FrameSlot(), START
    offered: list[str] = []
    started: list[str] = []
    answered: list[str] = []
    for step in steps:
        sent = None
        if step == "frame":
            offered.append((new := frame(now)).id)
            sent = slot.offer(new)
        elif step == "answer" and slot.under_way is not None:
            answered.append(slot.under_way.id)
            sent = slot.answered(slot.under_way.id, now)
        else:
            now += timedelta(seconds=0.4)
            sent = slot.expire(now)
        if sent is not None:
            assert slot.under_way is sent
            started.append(sent.id)
    dropped = [event.id for event, _ in slot.take_dropped()]
    left = [event.id for event in (slot.under_way, slot.waiting) if event is not None]
    assert sorted(answered + dropped + left) == sorted(offered)
    assert len(set(started)) == len(started)
