"""The Kafka topics: names, what their keys are, how long they keep, and whether their values may be kept elsewhere."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Topic:
    """`key` is a word for people. `sensitive` values (frames) must never be copied out of Kafka, not even as dead letters."""

    name: str
    key: str
    retention: timedelta
    partitions: int = 4
    sensitive: bool = False


GLASSES_SIGHTINGS = Topic("glasses.sightings", key="device", retention=timedelta(minutes=5), sensitive=True)
GLASSES_INTENTS = Topic("glasses.intents", key="device", retention=timedelta(days=7))
RECOGNITION_RESULTS = Topic("recognition.results", key="device", retention=timedelta(days=1))
GLASSES_ANSWERS = Topic("glasses.answers", key="device", retention=timedelta(days=1))
PAYMENTS_COMMANDS = Topic("payments.commands", key="payment", retention=timedelta(days=30))
PAYMENTS_EVENTS = Topic("payments.events", key="payment", retention=timedelta(days=30))

TOPICS = (GLASSES_SIGHTINGS, GLASSES_INTENTS, RECOGNITION_RESULTS, GLASSES_ANSWERS, PAYMENTS_COMMANDS, PAYMENTS_EVENTS)
