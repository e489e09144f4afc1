"""librdkafka's in-process Kafka broker as a program: writes its address to the file it is given and runs until it is ended.

    python -m infra.local.mock_broker ADDRESS_FILE

It exists for machines without Java. It speaks Kafka's protocol (produce, fetch, consumer groups, idempotence) and keeps all in
memory.
"""

import signal
import sys
import threading
from pathlib import Path

PARTITIONS = 4


def main() -> None:
    from confluent_kafka import Producer

    (address_file,) = sys.argv[1:]
    stop = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: stop.set())
    owner = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "ignored", "message.max.bytes": 4 * 1024 * 1024})
    brokers = owner.list_topics(timeout=10).brokers.values()
    address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    unfinished = Path(address_file + ".unfinished")
    unfinished.write_text(address)
    unfinished.replace(address_file)
    sys.stdout.write(f"librdkafka's in-process broker listens on {address}. Nothing survives its end.\n")
    sys.stdout.flush()
    # With a limit, because a wait without one is not interrupted by signals on every system.
    while not stop.wait(1.0):
        owner.poll(0)


if __name__ == "__main__":
    main()
