"""More events than can be handled: the newest are, who waited too long is passed over, and everything is acknowledged."""

import asyncio
from datetime import UTC, datetime, timedelta

from schemas.events import Event, new_event, to_kafka
from schemas.ids import JourneyId
from schemas.payments import WearChanged, WearState
from schemas.topics import GLASSES_INTENTS
from streams.core.consume import ConsumeLoop, Consumer
from streams.core.database import Database
from streams.core.deadletters import Record
from streams.core.handling import HANDLED

AT_ONCE, WINDOW, EVENTS = 2, 8, 60
TAKES = 8
"""Handling one takes until so many more have come: four times as many come as can be handled. Measured in events, that is so on
every machine."""


async def test_under_more_than_can_be_borne_the_newest_are_handled_young_and_nothing_waits_for_ever(database: Database) -> None:
    ages: dict[int, int] = {}
    inside = most_inside = come = 0
    another = asyncio.Condition()

    async def one_comes() -> None:
        nonlocal come
        async with another:
            come += 1
            another.notify_all()
        for _ in range(50):  # whoever can go on does
            await asyncio.sleep(0)

    async def handle(event: Event) -> str:
        nonlocal inside, most_inside
        inside += 1
        most_inside = max(most_inside, inside)
        begun = come
        async with another:
            await another.wait_for(lambda: come >= begun + TAKES)
        inside -= 1
        number = int(event.id.removeprefix("n"))
        ages[number] = come - number
        return HANDLED

    consumer = Consumer(
        name="overload", topics=(GLASSES_INTENTS,), handling=handle, window=WINDOW, at_once=AT_ONCE, sheds_late=True
    )
    acknowledged: list[int] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        loop = ConsumeLoop(consumer, database, tasks)
        for number in range(EVENTS):
            event = new_event("wear.changed", WearChanged(state=WearState.WORN), source="/t", journeyid=JourneyId.new())
            deadline = datetime.now(UTC) + timedelta(seconds=60)
            headers, value = to_kafka(event.model_copy(update={"id": f"n{number}", "deadline": deadline}))

            async def acknowledge(offset: int = number) -> None:
                acknowledged.append(offset)

            # It does not keep the next one back until one of those that wait was handled: that would be for ever.
            await loop.take(Record(GLASSES_INTENTS.name, 0, number, f"key{number}".encode(), value, tuple(headers)), acknowledge)
            await one_comes()
        while len(acknowledged) < EVENTS:
            await one_comes()
    assert acknowledged == list(range(EVENTS))
    assert most_inside == AT_ONCE
    assert EVENTS - 1 in ages
    assert EVENTS // 4 <= len(ages) <= EVENTS - WINDOW, "some are passed over"
    assert sorted(ages.values())[len(ages) // 2] <= TAKES + TAKES // AT_ONCE, "handled at once, or as soon as there was a turn"
