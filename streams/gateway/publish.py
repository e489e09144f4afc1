"""From the door to Kafka. What was accepted here is in Kafka, acknowledged by the broker."""

from schemas.errors import Rejected
from schemas.events import Event
from streams.core.producer import Producer
from streams.core.telemetry import names, tracing
from streams.gateway.service import SIGHTING


class Publisher:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer

    async def publish(self, event: Event) -> None:
        """A sighting begins its journey's trace; an intent continues it. Raises KafkaError where the broker does not answer."""
        if event.deviceid is None:
            raise Rejected("event-invalid", "an event of a device names the device", instance=event.id)
        attributes = {names.EVENT_TYPE: event.type, names.EVENT_ID: event.id}
        if event.type == SIGHTING:
            with tracing.root_span(event.journeyid, "glance", attributes):
                await self._producer.send(event, key=event.deviceid)
        else:
            with tracing.span(f"receive {event.type}", journey=event.journeyid, attributes=attributes):
                await self._producer.send(event, key=event.deviceid)
