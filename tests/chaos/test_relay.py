"""The relay killed in the worst moment: what it sent is sent again, and has its effect once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import text

from schemas.events import Event
from schemas.topics import GLASSES_INTENTS
from streams.core.handling import transaction
from tests.chaos.arena import Arena, event
from tests.support.waiting import eventually

UNPUBLISHED = text("SELECT count(*) FROM outbox WHERE published_at IS NULL")


async def publish(arena: Arena, events: list[Event]) -> None:
    async with transaction(arena.database) as unit:
        for each in events:
            unit.publish(each, key=str(each.deviceid))


async def unpublished(arena: Arena) -> int:
    async with arena.database.transaction() as connection:
        return int((await connection.execute(UNPUBLISHED)).scalar_one())


async def test_killed_between_send_and_mark_it_sends_again_and_the_inbox_drops_it(arena: Arena) -> None:
    events = [event("/plain", number) for number in range(30)]
    await publish(arena, events)
    before = arena.end(GLASSES_INTENTS)

    relay = await arena.run("tests.chaos.workers.dying_relay")
    assert relay == -signal.SIGKILL
    assert arena.end(GLASSES_INTENTS) - before == len(events), "all of it was sent"
    assert await unpublished(arena) == len(events), "nothing of it was marked"

    successor = await arena.start("relay", "infra.cli", "run", "relay")

    async def all_marked() -> bool:
        return await unpublished(arena) == 0

    await eventually(all_marked)
    assert arena.end(GLASSES_INTENTS) - before == 2 * len(events), "all of it was sent again"
    worker = await arena.consumer(GLASSES_INTENTS)
    await arena.all_handled_once(GLASSES_INTENTS, events)
    tries = await arena.tries(GLASSES_INTENTS)
    assert {tries[each.id] for each in events} == {1}, "the inbox drops the second before the handler sees it"
    await arena.stop(worker, successor)


async def test_a_second_relay_takes_over_from_a_killed_one_and_keeps_every_key_in_order(arena: Arena) -> None:
    events = [event("/plain", number) for number in range(600)]
    relays = [await arena.start(f"relay-{number}", "infra.cli", "run", "relay") for number in range(2)]
    start = await ends(arena)
    publishing = asyncio.create_task(publish_bit_by_bit(arena, events))
    await eventually(lambda: at_least_marked(arena, events, 100))
    await arena.kill(relays[0])
    await eventually(lambda: at_least_marked(arena, events, 300))
    await arena.back(relays[0])
    await arena.kill(relays[1])
    await publishing
    await eventually(lambda: at_least_marked(arena, events, len(events)))

    written = await records_since(arena, start)
    first = {device: list(dict.fromkeys(ids)) for device, ids in written.items()}
    expected: dict[str, list[str]] = {}
    for each in events:
        expected.setdefault(str(each.deviceid), []).append(str(each.id))
    assert first == expected
    await arena.back(relays[1])
    await arena.stop(*relays)


async def publish_bit_by_bit(arena: Arena, events: list[Event]) -> None:
    for start in range(0, len(events), 5):
        await publish(arena, events[start : start + 5])


async def at_least_marked(arena: Arena, events: list[Event], wanted: int) -> bool:
    query = text("SELECT count(*) FROM outbox WHERE published_at IS NOT NULL AND headers ->> 'ce_id' = ANY(:ids)")
    async with arena.database.transaction() as connection:
        found = await connection.execute(query, {"ids": [str(each.id) for each in events]})
        return int(found.scalar_one()) >= wanted


async def ends(arena: Arena) -> dict[TopicPartition, int]:
    """Where each partition of the topic ends now."""
    async with reader(arena) as consumer:
        return await consumer.end_offsets(consumer.assignment())  # type: ignore[no-any-return]


async def records_since(arena: Arena, start: dict[TopicPartition, int]) -> dict[str, list[str]]:
    """By key, the ids of the events that were written since, in their order."""
    written: dict[str, list[str]] = {}
    async with reader(arena) as consumer:
        end = await consumer.end_offsets(consumer.assignment())
        for partition in consumer.assignment():
            consumer.seek(partition, start[partition])
            while await consumer.position(partition) < end[partition]:
                for record in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, []):
                    written.setdefault(record.key.decode(), []).append(dict(record.headers)["ce_id"].decode())
    return written


@asynccontextmanager
async def reader(arena: Arena) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(bootstrap_servers=arena.environment["KAFKA_BOOTSTRAP_SERVERS"], enable_auto_commit=False)
    await consumer.start()
    try:
        consumer.assign([TopicPartition(GLASSES_INTENTS.name, number) for number in range(GLASSES_INTENTS.partitions)])
        yield consumer
    finally:
        await consumer.stop()
