"""Records that nothing can be made of, however nasty, become dead letters and never stop the partition."""

import asyncio
from uuid import uuid4

import pytest
from sqlalchemy import select

from schemas.events import new_event, to_kafka
from schemas.ids import JourneyId
from schemas.payments import WearChanged, WearState
from schemas.tables import dead_letters
from schemas.topics import GLASSES_INTENTS
from streams.core.consume import ConsumeLoop, Consumer
from streams.core.database import Database
from streams.core.deadletters import Record
from streams.core.handling import Transactional

GOOD, VALUE = to_kafka(new_event("wear.changed", WearChanged(state=WearState.WORN), source="/test", journeyid=JourneyId.new()))
NASTY: dict[str, list[tuple[str, bytes | None]]] = {
    "no headers": [],
    "a header without a value": [*GOOD, ("ce_subject", None)],
    "a NUL in an attribute": [*GOOD, ("ce_subject", b"a\x00b")],
    "a NUL in a header of somebody else's": [*GOOD, ("x-other", b"\x00")],
    "no text": [*GOOD, ("ce_subject", b"\xff\xfe")],
    "an unknown attribute": [*GOOD, ("ce_colour", b"red")],
}


@pytest.mark.parametrize("name", NASTY)
async def test_a_nasty_record_is_buried_and_the_next_one_handled(database: Database, name: str) -> None:
    handled, acknowledged = [], []

    async def handle(event: object, unit: object) -> None:
        handled.append(event)
        if name == "a NUL in a header of somebody else's" and len(handled) <= 3:
            raise RuntimeError("a handler's own\x00 trouble")

    consumer = Consumer(name=f"poison-{uuid4()}", topics=(GLASSES_INTENTS,), handling=Transactional("poison", database, handle))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        loop = ConsumeLoop(consumer, database, tasks)
        last = to_kafka(new_event("wear.changed", WearChanged(state=WearState.WORN), source="/t", journeyid=JourneyId.new()))
        for offset, (headers, value) in enumerate([(NASTY[name], VALUE), (NASTY[name], None), last]):

            async def acknowledge(offset: int = offset) -> None:
                acknowledged.append(offset)

            await loop.take(Record(GLASSES_INTENTS.name, 0, offset, b"key", value, tuple(headers)), acknowledge)
    assert acknowledged == [0, 1, 2]
    async with database.transaction() as connection:
        query = select(dead_letters.c.offset).where(dead_letters.c.consumer == consumer.name)
        buried = set((await connection.execute(query)).scalars())
    assert 0 in buried or name == "a NUL in a header of somebody else's"
    assert 2 not in buried
