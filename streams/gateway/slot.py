"""Newest frame wins: one frame of a device is under way at a time; of those that wait, only the newest is kept."""

from dataclasses import dataclass, field
from datetime import datetime

from schemas.events import Event
from schemas.gateway import DropReason


@dataclass
class FrameSlot:
    """A device's place for frames. Says what to send and what was dropped; does neither itself."""

    under_way: Event | None = None
    waiting: Event | None = None
    dropped: list[tuple[Event, DropReason]] = field(default_factory=list)

    def offer(self, frame: Event) -> Event | None:
        """A new frame: returns it if it may go now. What it replaces is dropped."""
        if self.under_way is None:
            self.under_way = frame
            return frame
        if self.waiting is not None:
            self.dropped.append((self.waiting, DropReason.SUPERSEDED))
        self.waiting = frame
        return None

    def answered(self, sighting_id: str, now: datetime) -> Event | None:
        """An answer came: returns the frame that may go next."""
        if self.under_way is None or self.under_way.id != sighting_id:
            return None
        return self._next(now)

    def expire(self, now: datetime) -> Event | None:
        """Time has passed: gives up the frame under way if its deadline has; returns the frame that may go next."""
        if self.under_way is None or not _late(self.under_way, now):
            return None
        self.dropped.append((self.under_way, DropReason.TOO_LATE))
        return self._next(now)

    def _next(self, now: datetime) -> Event | None:
        self.under_way, self.waiting = self.waiting, None
        if self.under_way is not None and _late(self.under_way, now):
            self.dropped.append((self.under_way, DropReason.TOO_LATE))
            self.under_way = None
        return self.under_way

    def take_dropped(self) -> list[tuple[Event, DropReason]]:
        dropped, self.dropped = self.dropped, []
        return dropped


def _late(frame: Event, now: datetime) -> bool:
    return frame.deadline is not None and frame.deadline <= now
