"""Kafka administration: topics are made from the topology, and lag is read. The only place of kafka-python."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import stamina
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import CoordinatorNotAvailableError, KafkaError, TopicAlreadyExistsError

from schemas.errors import Misconfigured
from schemas.topics import TOPICS, Topic


def _client(bootstrap_servers: str) -> KafkaAdminClient:
    try:
        return KafkaAdminClient(bootstrap_servers=bootstrap_servers.split(","))
    except KafkaError as error:
        raise Misconfigured(
            f"No Kafka broker answers at {bootstrap_servers} (KAFKA_BOOTSTRAP_SERVERS): start it, or correct the address."
        ) from error


def ensure(bootstrap_servers: str, topics: tuple[Topic, ...] = TOPICS, *, replication: int = -1) -> list[str]:
    """Create what is missing; returns the names created. What exists is left as it is."""
    admin = _client(bootstrap_servers)
    try:
        existing = set(admin.list_topics())
        missing = [topic for topic in topics if topic.name not in existing]
        if missing:
            with suppress(TopicAlreadyExistsError):  # another process may be quicker
                admin.create_topics(
                    [
                        NewTopic(
                            topic.name,
                            num_partitions=topic.partitions,
                            replication_factor=replication,
                            topic_configs=_configuration(topic),
                        )
                        for topic in missing
                    ]
                )
        return [topic.name for topic in missing]
    finally:
        admin.close()


def _configuration(topic: Topic) -> dict[str, str]:
    """Kafka deletes whole segments: without short ones, what may stay for minutes would stay for days."""
    retention_ms = int(topic.retention.total_seconds() * 1000)
    return {"retention.ms": str(retention_ms), "segment.ms": str(max(retention_ms // 5, 60_000))}


@dataclass(frozen=True)
class Lag:
    """How many records a consumer group has not acknowledged yet."""

    group: str
    topic: str
    partition: int
    behind: int


def lag(bootstrap_servers: str, groups: dict[str, tuple[Topic, ...]]) -> list[Lag]:
    admin = _client(bootstrap_servers)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers.split(","))
    try:
        found = []
        for group, topics in groups.items():
            committed = _committed(admin, group)
            partitions = [TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)]
            ends = consumer.end_offsets(partitions)
            for partition in partitions:
                offset = committed[partition].offset if partition in committed else 0
                found.append(Lag(group, partition.topic, partition.partition, ends[partition] - max(offset, 0)))
        return found
    finally:
        consumer.close()
        admin.close()


@stamina.retry(on=CoordinatorNotAvailableError, timeout=30, wait_initial=0.2)
def _committed(admin: Any, group: str) -> Any:
    """A broker that has just begun does not know yet who coordinates."""
    return admin.list_group_offsets([group])[group]
