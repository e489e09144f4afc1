"""Sending events to Kafka outside a transaction: idempotent, acknowledged by all replicas before it counts as sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError
from opentelemetry.trace import SpanKind

from schemas.events import CATALOGUE, Event, to_kafka
from streams.core.telemetry import metrics, names, tracing


class Producer:
    def __init__(self, kafka: AIOKafkaProducer) -> None:
        self._kafka = kafka

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
            headers, value = to_kafka(event.model_copy(update={"traceparent": tracing.current_traceparent()}))
            try:
                async with asyncio.timeout(15):
                    await self._kafka.send_and_wait(topic, value=value, key=key.encode(), headers=headers)
            except TimeoutError as error:
                raise KafkaTimeoutError(f"no acknowledgement for {event.type} within 15 s") from error
        metrics.record("messaging.client.operation.duration", perf_counter() - started, topic=topic)


def kafka_producer(bootstrap_servers: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        acks="all",
        linger_ms=0,
        max_request_size=4 * 1024 * 1024,
        request_timeout_ms=15_000,
    )


@asynccontextmanager
async def running_producer(bootstrap_servers: str) -> AsyncIterator[Producer]:
    kafka = kafka_producer(bootstrap_servers)
    try:
        await kafka.start()
        yield Producer(kafka)
    finally:
        await kafka.stop()
