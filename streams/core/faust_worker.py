"""Running a consumer on a Faust agent, the safe way only (docs/adr/0002): bytes in, `noack`, concurrency 1, a crashing
supervisor, static membership, no tables, no web server; and nothing of value is published by Faust."""

import asyncio
import logging
from functools import partial
from typing import Any, cast

import faust
from faust.contrib.asgi import faust_app_running
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as aiokafka_driver
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from mode import CrashingSupervisor

from schemas.errors import AugenblickError
from streams.core import ready
from streams.core.bootstrap import Parts
from streams.core.consume import ConsumeLoop, Consumer
from streams.core.database import Database
from streams.core.deadletters import Record
from streams.core.settings import Settings

log = logging.getLogger(__name__)

_SESSION_S = 30  # how long a worker may be gone before others get its partitions


class _Thread(AIOKafkaConsumerThread):
    """Faust fixes how long a fetch may wait at 1.5 s. A broker that answers a waiting fetch only at its end, as librdkafka's
    in-process broker does, needs a shorter one."""

    logger = logging.getLogger("faust")

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = transport.fetch_wait_ms  # noqa: SLF001 (there is no other way in)
        transport.made = consumer
        return consumer


class _Consumer(aiokafka_driver.Consumer):
    logger = logging.getLogger("faust")

    def _new_consumer_thread(self) -> AIOKafkaConsumerThread:
        return _Thread(self, loop=self.loop, beacon=self.beacon)


class _Transport(aiokafka_driver.Transport):
    Consumer = _Consumer

    def __init__(self, app: faust.App, fetch_wait_ms: int) -> None:
        super().__init__(app.conf.broker_consumer, app)
        self.fetch_wait_ms = fetch_wait_ms
        self.made: Any = None

    @property
    def group_is_lost(self) -> bool:
        """aiokafka gives its group up for good at an error it does not know (a broker that has just begun and does not know
        itself yet is one), and Faust never asks it: the worker would wait for partitions for ever."""
        coordinator = getattr(self.made, "_coordinator", None)
        coordinating = getattr(coordinator, "_coordination_task", None)
        return coordinating is not None and coordinating.done()


class _NoTables(TableManager):
    """Faust gives tables a second to register, at every start. There are none: a worker that was killed is back sooner."""

    logger = logging.getLogger("faust")

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


class _App(faust.App):
    def _create_directories(self) -> None:
        """None: nothing is kept in files."""


class WorkerCrashed(AugenblickError):
    """The worker cannot go on; its events are unacknowledged and wait for its successor."""


def build_app(consumer: Consumer, database: Database, bootstrap_servers: str, settings: Settings) -> faust.App:
    app = _App(
        consumer.name,
        broker=[f"aiokafka://{address.strip()}" for address in bootstrap_servers.split(",")],
        autodiscover=False,
        processing_guarantee="at_least_once",
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        TableManager=_NoTables,
        web_enabled=False,
        producer_threaded=False,
        stream_wait_empty=True,
        stream_buffer_maxsize=256,
        consumer_auto_offset_reset="earliest",
        # Static membership: a worker that comes back within the session timeout gets its partitions back at once.
        consumer_group_instance_id=f"{consumer.name}-{settings.worker_instance}",
        consumer_max_fetch_size=4 * 1024 * 1024,
        broker_commit_interval=1.0,
        broker_commit_livelock_soft_timeout=300,
        broker_session_timeout=_SESSION_S,
        broker_heartbeat_interval=3,
        broker_request_timeout=60,
        broker_max_poll_interval=300,
        producer_request_timeout=30,
    )
    app.transport = _Transport(app, settings.kafka_fetch_wait_ms)
    channel = app.topic(
        *(topic.name for topic in consumer.topics),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        internal=False,
        allow_empty=True,
    )

    async def handle(stream: Any) -> None:
        async with asyncio.TaskGroup() as tasks:
            loop = ConsumeLoop(consumer, database, tasks)
            async for event in stream.noack().events():
                message = event.message
                record = Record(
                    topic=message.topic,
                    partition=message.partition,
                    offset=message.offset,
                    key=message.key,
                    value=message.value,
                    headers=tuple(message.headers or ()),
                )
                await loop.take(record, partial(stream.ack, event))

    app.agent(channel, name=consumer.name, concurrency=1, supervisor_strategy=CrashingSupervisor)(handle)
    return app


async def run_consumer(consumer: Consumer, parts: Parts) -> None:
    """Until cancelled. Raises WorkerCrashed when the agent cannot go on."""
    await parts.database().ping()  # what is slow the first time is not left to the first event
    app = build_app(consumer, parts.database(), parts.kafka(), parts.settings)
    transport = cast(_Transport, app.transport)
    running = asyncio.create_task(_run(app, consumer))
    try:
        # Looked at beside it: an app whose group is lost early does not even get so far as to run.
        while not running.done() and (app.should_stop or not transport.group_is_lost):
            await asyncio.wait([running], timeout=0.2)
    finally:
        lost = not running.done()
        running.cancel()
        await asyncio.wait([running])
    if not running.cancelled():
        running.result()
    ended = "its consumer group is lost" if lost else app.crash_reason or "its consumer ended"
    raise WorkerCrashed(f"{consumer.name} stopped: {ended}")


async def _run(app: faust.App, consumer: Consumer) -> None:
    async with faust_app_running(app, stop_timeout=20):
        announced = False
        while not app.should_stop:
            if not announced and app.consumer.assignment():
                log.info("%s is reading %s", consumer.name, ", ".join(topic.name for topic in consumer.topics))
                ready.announce()
                announced = True
            await asyncio.sleep(0.05 if not announced else 0.2)
