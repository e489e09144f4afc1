"""A Kafka and a PostgreSQL that may be stopped, workers that may be killed, and what became of every event."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from infra.local.stack import LocalStack
from schemas.events import Event, new_event, to_kafka
from schemas.ids import DeviceId, JourneyId
from schemas.payments import WearChanged, WearState
from schemas.topics import TOPICS, Topic
from streams.core import topics as administration
from streams.core.database import Database
from streams.core.producer import Producer
from streams.core.supervisor import ProcessSpec, RestartPolicy
from tests.chaos.topics import own_topic
from tests.support.waiting import eventually

CHECKOUT = Path(__file__).parents[2]
DEVICES = [DeviceId.new() for _ in range(50)]


def event(source: str = "/plain", device: int = 0) -> Event:
    context = {"journeyid": JourneyId.new(), "deviceid": DEVICES[device % len(DEVICES)]}
    return new_event("wear.changed", WearChanged(state=WearState.WORN), source=source, **context)


@dataclass
class Arena:
    stack: LocalStack
    database: Database
    environment: dict[str, str]
    producer: Producer
    root: Path
    killed: list[int] = field(default_factory=list)

    def new_topic(self) -> Topic:
        topic = own_topic(f"chaos.{uuid4().hex[:8]}")
        administration.ensure(self.environment["KAFKA_BOOTSTRAP_SERVERS"], (topic,))
        return topic

    # Workers.

    async def start(self, name: str, *argv: str, instance: str = "0", **environment: str) -> str:
        """A process under the stack's supervisor, ready when this returns; returns its name."""
        ready_file = self.root / f"{name}.ready"
        spec = ProcessSpec(
            name=name,
            argv=[sys.executable, "-m", *argv],
            log_file=self.stack.layout.log_file(name),
            environment={
                **self.environment,
                "AUGENBLICK_READY_FILE": str(ready_file),
                "AUGENBLICK_WORKER_INSTANCE": instance,
                **environment,
            },
            working_directory=CHECKOUT,
            before_start=partial(ready_file.unlink, missing_ok=True),
            ready=partial(_exists, ready_file),
            ready_timeout_seconds=120,
            stop_timeout_seconds=60,
            restart=RestartPolicy(maximum_restarts=1000),
        )
        await self.stack.supervisor.start([spec])
        return name

    async def run(self, *argv: str, within_s: float = 120.0) -> int:
        """A process that ends by itself, or by its own SIGKILL; returns how."""
        environment = {**os.environ, **self.environment}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", *argv, env=environment, cwd=CHECKOUT)
        try:
            async with asyncio.timeout(within_s):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def consumer(self, topic: Topic, *options: str, instance: str = "0", **environment: str) -> str:
        name = f"{topic.name}-{instance}"
        return await self.start(name, "tests.chaos.workers.consume", topic.name, *options, instance=instance, **environment)

    async def kill(self, name: str) -> None:
        self.killed.append(await self.stack.supervisor.kill_process(name))

    async def back(self, name: str) -> None:
        await self.stack.supervisor.wait_until_ready(name, 120)

    async def stop(self, *names: str) -> None:
        for name in names:
            await self.stack.supervisor.stop_process(name)

    # Events.

    async def send(self, topic: Topic, events: Iterable[Event]) -> None:
        """Straight to Kafka, acknowledged."""
        sent = []
        for each in events:
            headers, value = to_kafka(each)
            sent.append(self.producer.deliver(topic.name, value=value, key=str(each.deviceid).encode(), headers=headers))
        await asyncio.gather(*sent)

    # What became of them.

    async def rows(self, topic: Topic) -> Counter[str]:
        """How often each event had its effect."""
        return await self._counted("SELECT event_id FROM chaos_rows WHERE consumer = :consumer", topic)

    async def done(self, topic: Topic) -> int:
        return sum((await self.rows(topic)).values())

    async def tries(self, topic: Topic) -> Counter[str]:
        """How often each event was begun, whatever came of it."""
        return await self._counted("SELECT event_id FROM chaos_tries WHERE consumer = :consumer", topic)

    async def dead_letters(self, topic: Topic) -> dict[tuple[int, int], str]:
        """Reason by partition and offset."""
        query = text('SELECT partition, "offset", reason FROM dead_letters WHERE consumer = :consumer')
        async with self.database.transaction() as connection:
            found = await connection.execute(query, {"consumer": f"chaos-{topic.name}"})
            return {(row.partition, row.offset): row.reason for row in found}

    async def _counted(self, query: str, topic: Topic) -> Counter[str]:
        async with self.database.transaction() as connection:
            return Counter((await connection.execute(text(query), {"consumer": f"chaos-{topic.name}"})).scalars())

    def behind(self, topic: Topic) -> int:
        """Records the group has not acknowledged."""
        servers = self.environment["KAFKA_BOOTSTRAP_SERVERS"]
        return sum(entry.behind for entry in administration.lag(servers, {f"chaos-{topic.name}": (topic,)}))

    def end(self, topic: Topic) -> int:
        """Records in the topic."""
        servers = self.environment["KAFKA_BOOTSTRAP_SERVERS"]
        return sum(entry.behind for entry in administration.lag(servers, {f"nobody-{uuid4()}": (topic,)}))

    async def all_handled_once(
        self, topic: Topic, sent: Iterable[Event], *, perhaps: Iterable[Event] = (), within_s: float = 120.0
    ) -> None:
        """Every event that was sent has its row, none has two, and all of the topic is acknowledged. `perhaps`: whose sending
        was interrupted; they may have a row."""
        expected, possible = {str(each.id) for each in sent}, {str(each.id) for each in perhaps}

        async def complete() -> bool:
            return expected <= set(await self.rows(topic))

        try:
            await eventually(complete, within_s=within_s)
        except AssertionError:
            missing = expected - set(await self.rows(topic))
            raise AssertionError(f"{len(missing)} of {len(expected)} events were lost, {sorted(missing)[:3]}") from None

        async def acknowledged() -> bool:
            return self.behind(topic) == 0

        await eventually(acknowledged, within_s=60, what="the acknowledgement of all")
        rows = await self.rows(topic)
        assert {each for each, times in rows.items() if times > 1} == set(), "done twice"
        if topic not in TOPICS:  # the platform's own are shared by the tests
            assert set(rows) - expected - possible == set(), "done, and never sent"


async def _exists(path: Path) -> bool:
    return path.exists()
