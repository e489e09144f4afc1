"""The database or the broker away for ten seconds: work stops, and goes on."""

import asyncio
from dataclasses import dataclass, field

from aiokafka.errors import KafkaError
from sqlalchemy.exc import OperationalError

from schemas.events import Event
from schemas.topics import GLASSES_INTENTS, Topic
from streams.core.handling import transaction
from tests.chaos.arena import Arena, event
from tests.support.waiting import eventually

OUTAGE_S = 10.0


@dataclass
class Sent:
    """`sure`: acknowledged by the broker, or committed. `perhaps`: the attempt ended with an error."""

    sure: list[Event] = field(default_factory=list)
    perhaps: list[Event] = field(default_factory=list)


@dataclass
class Traffic:
    """Events straight to a topic, and events through the outbox, all the while."""

    arena: Arena
    topic: Topic
    direct: Sent = field(default_factory=Sent)
    outbox: Sent = field(default_factory=Sent)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def flow(self) -> None:
        await asyncio.gather(self._flow(self.direct, self._send), self._flow(self.outbox, self._commit))

    async def _flow(self, sent: Sent, way: object) -> None:
        while not self.over.is_set():
            batch = [event("/plain", number) for number in range(10)]
            try:
                await way(batch)  # type: ignore[operator]
                sent.sure.extend(batch)
            except (KafkaError, OperationalError, TimeoutError):
                sent.perhaps.extend(batch)
            await asyncio.sleep(0.05)  # some load, and not all there could be

    async def _send(self, batch: list[Event]) -> None:
        async with asyncio.timeout(2):
            await self.arena.send(self.topic, batch)

    async def _commit(self, batch: list[Event]) -> None:
        async with transaction(self.arena.database) as unit:
            for each in batch:
                unit.publish(each, key=str(each.deviceid))

    async def more(self) -> None:
        """Both ways work now."""
        direct, outbox = len(self.direct.sure), len(self.outbox.sure)

        async def both_grew() -> bool:
            return len(self.direct.sure) > direct + 10 and len(self.outbox.sure) > outbox + 10

        await eventually(both_grew, within_s=120, what="traffic")


async def survive(arena: Arena, component: str) -> None:
    """Traffic, ten seconds without the component, traffic; then all of it must have had its effect, once."""
    topic = arena.new_topic()
    worker, reader = await arena.consumer(topic), await arena.consumer(GLASSES_INTENTS)
    relay = await arena.start("relay", "infra.cli", "run", "relay")
    traffic = Traffic(arena, topic)
    flow = asyncio.create_task(traffic.flow())
    await traffic.more()
    await arena.stack.supervisor.stop_process(component)
    await asyncio.sleep(OUTAGE_S)
    await arena.stack.supervisor.start_process(component)
    await traffic.more()
    traffic.over.set()
    await flow

    assert traffic.direct.perhaps or traffic.outbox.perhaps, "nobody noticed the outage"
    await arena.all_handled_once(topic, traffic.direct.sure, perhaps=traffic.direct.perhaps, within_s=120)
    await arena.all_handled_once(GLASSES_INTENTS, traffic.outbox.sure, perhaps=traffic.outbox.perhaps, within_s=120)
    assert await arena.dead_letters(topic) == {}
    await arena.stop(worker, reader, relay)


async def test_the_database_is_away_for_ten_seconds_and_nothing_is_lost(arena: Arena) -> None:
    await survive(arena, "postgres")


async def test_the_broker_is_away_for_ten_seconds_and_nothing_is_lost(arena: Arena) -> None:
    await survive(arena, "kafka")


async def test_a_worker_whose_group_nobody_coordinates_ends_and_can_be_started_again(arena: Arena) -> None:
    """It would otherwise wait for ever, alive and idle: the client library gives its group up without telling anybody."""
    topic = arena.new_topic()
    assert await arena.run("tests.chaos.workers.uncoordinated", topic.name, within_s=90) == 1
