"""The consume loop: `python -m benchmarks.consume [N]`.

Ours: the safe loop on a Faust agent, each event in a transaction of its own with its inbox row, acknowledged in order after the
commit. Peers, on the same topic's copy and the same database: a bare aiokafka `getmany` loop that does the same insert, event by
event, each committed before the next; and, as a limit, one that inserts everything it got at once.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import psycopg
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.figures import print_rates
from infra.local.stack import LocalStack
from schemas.events import Event, new_event, to_kafka
from schemas.ids import DeviceId, JourneyId
from schemas.payments import WearChanged, WearState
from schemas.topics import Topic
from streams.core import topics
from streams.core.bootstrap import composed
from streams.core.consume import Consumer
from streams.core.faust_worker import run_consumer
from streams.core.handling import Transactional
from streams.core.migrate import move_to
from streams.core.outbox import Transaction
from streams.core.settings import Settings

_INSERT = "INSERT INTO inbox (consumer, event_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"


async def fill(kafka: str, topic: Topic, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=5)
    await producer.start()
    sent = []
    for number in range(count):
        data = WearChanged(state=WearState.WORN)
        event = new_event("wear.changed", data, source="/bench", journeyid=JourneyId.new(), deviceid=DeviceId.new())
        headers, value = to_kafka(event)
        sent.append(await producer.send(topic.name, value, key=str(number).encode(), headers=headers))
    await asyncio.gather(*sent)
    await producer.stop()


async def ours(settings: Settings, topic: Topic, count: int) -> float:
    handled = 0
    first = last = 0.0
    done = asyncio.Event()

    async def handle(event: Event, unit: Transaction) -> None:
        """Nothing beyond what the loop itself does: the inbox row and the commit."""
        nonlocal handled, first, last
        first = first or perf_counter()
        handled += 1
        last = perf_counter()
        if handled == count:
            done.set()

    async with composed(settings) as parts:
        name = f"bench-{uuid4().hex[:8]}"
        consumer = Consumer(
            name=name,
            topics=(topic,),
            handling=Transactional(name, parts.database(), handle),
            window=settings.window,
        )
        working = asyncio.create_task(run_consumer(consumer, parts))
        await done.wait()
        working.cancel()
        await asyncio.wait([working])
    return count / (last - first)


Insert = Callable[[psycopg.AsyncConnection, list[str]], Awaitable[None]]


async def one_by_one(connection: psycopg.AsyncConnection, event_ids: list[str]) -> None:
    for event_id in event_ids:
        await connection.execute(_INSERT, ("bare-one", event_id))
        await connection.commit()


async def all_at_once(connection: psycopg.AsyncConnection, event_ids: list[str]) -> None:
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT, [("bare-all", event_id) for event_id in event_ids])
    await connection.commit()


async def bare(kafka: str, database_url: str, topic: Topic, count: int, insert: Insert) -> float:
    consumer = AIOKafkaConsumer(
        topic.name,
        bootstrap_servers=kafka,
        group_id=f"bare-{uuid4().hex[:8]}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    connection = await psycopg.AsyncConnection.connect(database_url)
    handled, first = 0, 0.0
    while handled < count:
        batches = await consumer.getmany(timeout_ms=1000, max_records=500)
        first = first or (perf_counter() if batches else 0.0)
        for records in batches.values():
            await insert(connection, [dict(record.headers)["ce_id"].decode() for record in records])
            handled += len(records)
        await consumer.commit()
    took = perf_counter() - first
    await connection.close()
    await consumer.stop()
    return count / took


async def main(count: int) -> None:
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as root:
        async with LocalStack(Path(root), components=("kafka", "postgres")) as stack:
            kafka, database_url = stack.environment["KAFKA_BOOTSTRAP_SERVERS"], stack.environment["DATABASE_URL"]
            await asyncio.to_thread(move_to, database_url)
            topic = Topic(f"bench.{uuid4().hex[:8]}", "none", timedelta(hours=1), partitions=4)
            await asyncio.to_thread(topics.ensure, kafka, (topic,))
            await fill(kafka, topic, count)
            settings = Settings(KAFKA_BOOTSTRAP_SERVERS=kafka, DATABASE_URL=database_url)
            rate = await ours(settings, topic, count)
            single = await bare(kafka, database_url, topic, count, one_by_one)
            batched = await bare(kafka, database_url, topic, count, all_at_once)
    print_rates(
        f"consume and remember {count:,} events, one process",
        ("the safe loop (Faust)", rate),
        ("bare getmany, the same insert and commit per event", single),
        ("limit: bare getmany, one commit per batch", batched),
    )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
