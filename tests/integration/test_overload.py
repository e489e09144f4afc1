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

AT_ONCE, WINDOW, EVENTS, EACH_S = 2, 8, 60, 0.02


async def test_under_more_than_can_be_borne_the_newest_are_handled_young_and_nothing_waits_for_ever(database: Database) -> None:
    ages: dict[int, float] = {}
    inside = most_inside = 0
    began = asyncio.get_running_loop().time()

    async def handle(event: Event) -> str:
        nonlocal inside, most_inside
        inside += 1
        most_inside = max(most_inside, inside)
        await asyncio.sleep(EACH_S)
        inside -= 1
        number = int(event.id.removeprefix("n"))
        ages[number] = asyncio.get_running_loop().time() - began - sent[number]
        return HANDLED

    consumer = Consumer(
        name="overload", topics=(GLASSES_INTENTS,), handling=handle, window=WINDOW, at_once=AT_ONCE, sheds_late=True
    )
    sent: dict[int, float] = {}
    acknowledged: list[int] = []
    async with asyncio.TaskGroup() as tasks:
        loop = ConsumeLoop(consumer, database, tasks)
        for number in range(EVENTS):  # four times as many as can be handled
            event = new_event("wear.changed", WearChanged(state=WearState.WORN), source="/t", journeyid=JourneyId.new())
            deadline = datetime.now(UTC) + timedelta(seconds=0.5)
            headers, value = to_kafka(event.model_copy(update={"id": f"n{number}", "deadline": deadline}))
            sent[number] = asyncio.get_running_loop().time() - began

            async def acknowledge(offset: int = number) -> None:
                acknowledged.append(offset)

            before = asyncio.get_running_loop().time()
            await loop.take(Record(GLASSES_INTENTS.name, 0, number, f"key{number}".encode(), value, tuple(headers)), acknowledge)
            assert asyncio.get_running_loop().time() - before < 0.25, "the next one is not kept back by those that wait"
            await asyncio.sleep(EACH_S / AT_ONCE / 4)
    assert acknowledged == list(range(EVENTS))
    assert most_inside == AT_ONCE
    assert EVENTS - 1 in ages
    assert 5 <= len(ages) <= EVENTS - WINDOW, "some are passed over"
    assert sorted(ages.values())[len(ages) // 2] < 0.2
