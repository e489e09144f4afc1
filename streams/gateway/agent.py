"""glasses and makers → glasses.sightings, glasses.intents; glasses.answers → glasses."""

import asyncio

from aiokafka import AIOKafkaConsumer

from streams.core.bootstrap import Parts
from streams.core.web import serve
from streams.gateway.answers import Answers
from streams.gateway.app import build_app
from streams.gateway.links import Links
from streams.gateway.publish import Publisher

# Above the limit for frames, so that a frame that is too large gets an answer; beyond it the connection is closed (1009).
_MESSAGE_LIMIT = 32 * 1024 * 1024


async def run(parts: Parts) -> None:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=parts.kafka(),
        enable_auto_commit=False,
        fetch_max_wait_ms=parts.settings.kafka_fetch_wait_ms,
    )
    parts.closing.push_async_callback(consumer.stop)
    parts.database(verified=True)
    answers = Answers(consumer)
    await answers.start()
    links = Links(parts.database())
    app = build_app(parts, Publisher(await parts.producer()), answers, links)
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(work) for work in (answers.run(), links.watch())]
        await serve(
            app,
            parts.settings.gateway_host,
            parts.settings.gateway_port,
            ws_max_size=_MESSAGE_LIMIT,
            ws_ping_interval=10,
            ws_ping_timeout=10,
        )
        for task in beside:
            task.cancel()
