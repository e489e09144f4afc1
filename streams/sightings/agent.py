"""glasses.sightings → Triton → recognition.results."""

from datetime import UTC, datetime

from schemas.events import Event, derived_id
from schemas.recognition import Intent, PayeesSeen, Recognition, Unclear, UnclearReason
from schemas.topics import GLASSES_SIGHTINGS
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Direct
from streams.core.settings import require
from streams.sightings import service
from streams.sightings.triton import Recogniser, TritonRecogniser, Unavailable, Unreadable

_SOURCE = "/sightings"
_FOR_THE_WAY_BACK_S = 0.15  # of the deadline: that recognition does not answer must be said in time, too
_AT_LEAST_S = 0.01
_TYPES = {Recognition: "sighting.recognised", PayeesSeen: "payees.seen", Unclear: "sighting.unclear"}


class Sightings:
    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser

    async def handle(self, event: Event) -> list[tuple[str, Event]]:
        """One answer per frame, whatever it is."""
        intent, digest = event.intent or Intent.IDENTIFY, event.framedigest or ""
        left = (event.deadline - datetime.now(UTC)).total_seconds() if event.deadline else 1.0
        left = max(left - _FOR_THE_WAY_BACK_S, _AT_LEAST_S)
        try:
            codes = await self._recogniser.codes(event.data, left)
            result = service.decide(event.id, digest, intent, codes, self._recogniser.model)
        except Unreadable:
            result = service.unclear(event.id, digest, intent, UnclearReason.UNREADABLE_FRAME)
        except Unavailable:
            result = service.unclear(event.id, digest, intent, UnclearReason.RECOGNITION_UNAVAILABLE)
        following = event.follow(
            _TYPES[type(result)], result, id=derived_id(event.id, "sightings"), source=_SOURCE, subject=event.id
        )
        return [(str(event.deviceid), following)]


async def run(parts: Parts) -> None:
    recogniser = TritonRecogniser(require(parts.settings.triton_url, "triton_url"))
    parts.closing.push_async_callback(recogniser.close)
    consumer = Consumer(
        name="sightings",
        topics=(GLASSES_SIGHTINGS,),
        handling=Direct(await parts.producer(), Sightings(recogniser).handle),
        event_types=frozenset({"sighting.captured"}),
        window=parts.settings.window,
        sheds_late=True,
    )
    await run_consumer(consumer, parts)
