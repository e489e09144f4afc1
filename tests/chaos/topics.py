"""Topics of one test alone."""

from datetime import timedelta

from schemas.topics import Topic


def own_topic(name: str) -> Topic:
    return Topic(name, key="device", retention=timedelta(days=1), partitions=4)
