"""glasses.sightings → Triton → recognition.results."""

import asyncio
from datetime import UTC, datetime
from typing import Protocol

from schemas.events import Event, derived_id
from schemas.recognition import Intent, PayeesSeen, Recognition, Unclear, UnclearReason, Undecided
from schemas.topics import GLASSES_SIGHTINGS
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Direct
from streams.core.settings import require
from streams.sightings import service
from streams.sightings.catalogues import Catalogues
from streams.sightings.recogniser import Look, Recogniser
from streams.sightings.service import Frame, Result
from streams.sightings.triton import Models, Unreadable

_SOURCE = "/sightings"
# Of the deadline: that recognition does not answer must be said in time, too; and shops need some of it, to tell the price.
_FOR_THE_WAY_BACK_S = 0.15
_AT_LEAST_S = 0.01
_WINDOW_FOR_EACH = 16  # frames for each that is looked at; who comes last is next, so that answers are young under any load
_TYPES: dict[type[Result], str] = {
    Recognition: "sighting.recognised",
    PayeesSeen: "payees.seen",
    Undecided: "sighting.undecided",
    Unclear: "sighting.unclear",
}


class Looks(Protocol):
    """See streams.sightings.recogniser.Recogniser."""

    async def look(self, frame: bytes, what: Frame, time_s: float, *, region: str | None = None) -> Look: ...


class Sightings:
    def __init__(self, recogniser: Looks) -> None:
        self._recogniser = recogniser

    async def handle(self, event: Event) -> list[tuple[str, Event]]:
        """One answer per frame, whatever it is."""
        what = Frame(event.id, event.framedigest or "", event.intent or Intent.IDENTIFY)
        left = (event.deadline - datetime.now(UTC)).total_seconds() if event.deadline else 1.0
        time_s = max(left - _FOR_THE_WAY_BACK_S, _AT_LEAST_S)
        result: Result
        try:
            result = (await self._recogniser.look(event.data, what, time_s, region=event.region)).result
        except Unreadable:
            result = service.unclear(what, UnclearReason.UNREADABLE_FRAME)
        following = event.follow(
            _TYPES[type(result)], result, id=derived_id(event.id, "sightings"), source=_SOURCE, subject=event.id
        )
        return [(str(event.deviceid), following)]


async def run(parts: Parts) -> None:
    models = Models(require(parts.settings.triton_url, "triton_url"))
    parts.closing.push_async_callback(models.close)
    catalogues = Catalogues(parts.database(), parts.database_url())
    await catalogues.start()
    consumer = Consumer(
        name="sightings",
        topics=(GLASSES_SIGHTINGS,),
        handling=Direct(await parts.producer(), Sightings(Recogniser(models, catalogues)).handle),
        event_types=frozenset({"sighting.captured"}),
        window=_WINDOW_FOR_EACH * parts.settings.frames_at_once,
        sheds_late=True,
        at_once=parts.settings.frames_at_once,
    )
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(catalogues.watch())
        await run_consumer(consumer, parts)
        watching.cancel()
