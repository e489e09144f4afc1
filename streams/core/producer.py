"""Sending events to Kafka outside a transaction: idempotent, acknowledged by all replicas before it counts as sent."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import perf_counter
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    ProducerFenced,
    UnknownProducerId,
)
from aiokafka.structs import RecordMetadata
from opentelemetry.trace import SpanKind

from schemas.events import CATALOGUE, Event, to_kafka
from streams.core.telemetry import metrics, names, tracing

log = logging.getLogger(__name__)

_TIMEOUT_S = 15.0

# After these an idempotent producer never sends again: aiokafka gives up a batch that has its sequence number already (a broker
# that was away for longer than the request timeout is enough), and the broker refuses everything after the gap.
_POISONED = (OutOfOrderSequenceNumber, UnknownProducerId, InvalidProducerEpoch, ProducerFenced)


class Producer:
    """Replaces the producer underneath where that has become unusable. Use `running_producer`."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._kafka = kafka_producer(bootstrap_servers)
        self._replacing = asyncio.Lock()

    async def start(self) -> None:
        await self._kafka.start()

    async def stop(self) -> None:
        await self._kafka.stop()

    async def send(self, event: Event, *, key: str) -> None:
        """Returns when the broker has it. Raises aiokafka's KafkaError; KafkaTimeoutError after 15 s."""
        topic = CATALOGUE[event.type].topic.name
        started = perf_counter()
        attributes: dict[str, tracing.Attribute] = {
            names.JOURNEY: event.journeyid,
            names.MESSAGING_SYSTEM: "kafka",
            names.MESSAGING_OPERATION: "send",
            names.MESSAGING_DESTINATION: topic,
            names.EVENT_TYPE: event.type,
            names.EVENT_ID: event.id,
            names.BODY_SIZE: len(event.data),
        }
        with tracing.span(f"send {topic}", kind=SpanKind.PRODUCER, attributes=attributes):
            headers, value = to_kafka(event, traceparent=tracing.current_traceparent())
            await self.deliver(topic, key=key.encode(), value=value, headers=headers)
        metrics.record("messaging.client.operation.duration", perf_counter() - started, topic=topic)

    async def deliver(self, topic: str, **record: Any) -> RecordMetadata:
        """A record as it is (`key`, `value`, `headers`, `partition` as aiokafka has them). Returns where the broker put it;
        raises like `send`."""
        kafka = self._kafka
        try:
            return await self._deliver(kafka, topic, record)
        except _POISONED:
            await self._replace(kafka)
            return await self._deliver(self._kafka, topic, record)

    async def _deliver(self, kafka: AIOKafkaProducer, topic: str, record: dict[str, Any]) -> RecordMetadata:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await kafka.send_and_wait(topic, **record)
        except TimeoutError as error:
            raise KafkaTimeoutError(f"no acknowledgement on {topic} within {_TIMEOUT_S:g} s") from error

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        async with self._replacing:
            if self._kafka is not broken:
                return  # somebody was quicker
            log.warning("the producer has lost its place in a partition; another takes over")
            fresh = kafka_producer(self._bootstrap_servers)
            try:
                await fresh.start()
            except BaseException:
                await fresh.stop()
                raise
            self._kafka = fresh
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(1):
                await broken.stop()


def kafka_producer(bootstrap_servers: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_request_size=4 * 1024 * 1024,
        request_timeout_ms=int(_TIMEOUT_S * 1000),
    )


@asynccontextmanager
async def running_producer(bootstrap_servers: str) -> AsyncIterator[Producer]:
    producer = Producer(bootstrap_servers)
    try:
        await producer.start()
        yield producer
    finally:
        await producer.stop()
