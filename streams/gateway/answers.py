"""Answers from Kafka to whoever waits for them. Every gateway reads all of glasses.answers, from now on, and passes on what is
for its own devices; a plain aiokafka consumer without a group, for there is nothing to acknowledge."""

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.errors import Rejected
from schemas.events import Event, from_kafka
from schemas.topics import GLASSES_ANSWERS

log = logging.getLogger(__name__)

_QUEUE = 64  # answers a slow reader may be behind before it misses some
_REMEMBERED = 4096


@dataclass(eq=False)
class Listener:
    """One reader of one device's answers."""

    queue: asyncio.Queue[Event] = field(default_factory=lambda: asyncio.Queue(_QUEUE))

    async def events(self) -> AsyncIterator[Event]:
        while True:
            yield await self.queue.get()


class Answers:
    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._listeners: dict[str, set[Listener]] = defaultdict(set)
        self._seen: OrderedDict[str, None] = OrderedDict()

    @contextmanager
    def listen(self, device_id: str) -> Iterator[Listener]:
        listener = Listener()
        self._listeners[device_id].add(listener)
        try:
            yield listener
        finally:
            self._listeners[device_id].discard(listener)
            if not self._listeners[device_id]:
                del self._listeners[device_id]

    async def start(self) -> None:
        """Afterwards every answer that is published will be seen."""
        await self._consumer.start()
        partitions = [TopicPartition(GLASSES_ANSWERS.name, number) for number in range(GLASSES_ANSWERS.partitions)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)
        for partition in partitions:
            await self._consumer.position(partition)

    async def run(self) -> None:
        async for record in self._consumer:
            try:
                event = from_kafka(record.headers, record.value)
            except Rejected as error:
                log.warning("an answer at %s/%s cannot be read: %s", record.partition, record.offset, error)
                continue
            if event.deviceid in self._listeners and self._is_new(event.id):
                for listener in self._listeners[event.deviceid]:
                    self._put(listener, event)

    def _is_new(self, event_id: str) -> bool:
        """The relay publishes at least once; the glasses shall hear once."""
        if event_id in self._seen:
            return False
        self._seen[event_id] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return True

    def _put(self, listener: Listener, event: Event) -> None:
        try:
            listener.queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("a reader of %s is %s answers behind; the oldest is dropped", event.deviceid, _QUEUE)
            listener.queue.get_nowait()
            listener.queue.put_nowait(event)
