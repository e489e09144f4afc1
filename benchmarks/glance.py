"""Glance to answer: `python -m benchmarks.glance [N]`.

Ours: mock glasses on the real WebSocket, everything running, N frames in a row, from sending the frame to having the offers.
Peer: the same frame over the same Kafka and the same Triton without the platform: produce, a bare aiokafka consumer, `codes`,
produce, a bare aiokafka consumer. What lies between the two is what the platform adds: the door and its checks, two stages that
lose nothing, the shop, conversion, translation, the offers' rows and the trace.
"""

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from benchmarks.figures import Latency, print_latencies
from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.glasses import Glasses
from infra.sandbox.providers import DEFAULT as PROVIDER
from infra.sandbox.world import World
from schemas.topics import Topic
from streams.core import topics
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.sightings.triton import Models

_WARM_UP = 20


async def ours(gateway: str, world: World, frame: bytes, count: int) -> Latency:
    wearer = await world.wearer()
    samples = []
    async with Glasses.connected(gateway, wearer.id, wearer.key) as glasses:
        await glasses.wear()
        for _ in range(_WARM_UP + count):
            began = perf_counter()
            answer = await glasses.look(frame)
            samples.append((perf_counter() - began) * 1000)
            assert answer["type"] == "offers.found", answer
    return Latency("augenblick", samples[_WARM_UP:])


async def bare(kafka: str, triton: str, frame: bytes, count: int) -> Latency:
    run = uuid4().hex[:8]
    there, back = (Topic(f"bench.{run}.{name}", "none", timedelta(hours=1), partitions=1) for name in ("there", "back"))
    await asyncio.to_thread(topics.ensure, kafka, (there, back))
    samples = []
    async with AsyncExitStack() as closing:
        producer = await closing.enter_async_context(
            AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, max_request_size=4 * 1024 * 1024)
        )
        worker, answers = [
            await closing.enter_async_context(AIOKafkaConsumer(topic.name, bootstrap_servers=kafka, auto_offset_reset="earliest"))
            for topic in (there, back)
        ]
        models = Models(triton)
        closing.push_async_callback(models.close)

        async def work() -> None:
            async for record in worker:
                codes = await models.codes(record.value, 5.0)
                await producer.send_and_wait(back.name, codes.result.read[0].text.encode())

        working = asyncio.create_task(work())
        closing.callback(working.cancel)
        for _ in range(_WARM_UP + count):
            began = perf_counter()
            await producer.send_and_wait(there.name, frame)
            await answers.getone()
            samples.append((perf_counter() - began) * 1000)
    return Latency("bare Kafka and Triton", samples[_WARM_UP:])


async def main(count: int) -> None:
    frame = sessions.picture("milk")
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as root:
        async with LocalStack(Path(root)) as stack:
            platform = await stack.start_platform(providers=[PROVIDER])
            database = Database(create_engine(platform.environment["DATABASE_URL"]))
            world = World(
                database, Sealer(platform.environment["AUGENBLICK_SECRET_KEY"]), PROVIDER, platform.provider_address(PROVIDER)
            )
            await world.settle("http://127.0.0.1:9/")
            await asyncio.sleep(3)  # what starting has stirred up settles
            platform_latency = await ours(f"ws://{platform.gateway_address}/v1/glasses", world, frame, count)
            floor = await bare(stack.environment["KAFKA_BOOTSTRAP_SERVERS"], stack.environment["TRITON_URL"], frame, count)
            await database.close()
    print_latencies(
        f"glance to answer, a barcode on a {len(frame) // 1024} KB frame, one after the other", platform_latency, floor
    )


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
