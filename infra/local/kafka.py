"""Apache Kafka: one node that is broker and controller (KRaft), or librdkafka's in-process broker where there is no Java."""

import base64
import dataclasses
import sys
import tempfile
import uuid
from pathlib import Path

from infra.local.checks import kafka_answers
from infra.local.commands import run_command
from infra.local.component import Address
from infra.local.java import JavaProgram
from infra.local.layout import INFRA, Layout
from infra.local.ports import LOOPBACK, choose_ports
from streams.core.supervisor import NEVER_RESTART, ProcessSpec

DEFINITION = INFRA / "kafka"
PROGRAM = JavaProgram("kafka", DEFINITION)
MAXIMUM_MESSAGE_BYTES = 4 * 1024 * 1024
MEMORY_FLAGS = ("-Xms64m", "-Xmx256m", "-Xss512k", "-XX:MaxDirectMemorySize=64m")
IN_MEMORY_NOTE = (
    "Kafka is librdkafka's in-process broker: it keeps everything in memory, and nothing in its topics survives a restart. "
    "For Apache Kafka: {remedy}."
)


def server_properties(broker_port: int, controller_port: int, data: Path) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{broker_port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{broker_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        # Topics come from streams/core/topology.py. A mistyped name must be an error, not a new topic.
        "auto.create.topics.enable": "false",
        "message.max.bytes": MAXIMUM_MESSAGE_BYTES,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # One node.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        # After a crash the node may not come back before its old session has ended, so let that be soon.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 2000,
        # Small: threads and buffers for one person's load.
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 2,
        "num.recovery.threads.per.data.dir": 2,
        "log.cleaner.threads": 1,
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "log.segment.bytes": 64 * 1024 * 1024,
        "log.retention.hours": 168,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


class Kafka:
    name = "kafka"
    ports: tuple[str, ...] = ("kafka", "kafka-controller")

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        await PROGRAM.fetch()
        await _archive_classes()
        self._layout = layout
        self._port = ports["kafka"]
        self._data = layout.data / "kafka"
        self._properties = layout.run / "kafka.properties"
        self._properties.write_text(server_properties(self._port, ports["kafka-controller"], self._data))
        await _format(self._data, self._properties)

    def spec(self) -> ProcessSpec:
        return _broker(self._properties, self._layout.log_file(self.name), f"{LOOPBACK}:{self._port}")

    def environment(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{self._port}"}

    def addresses(self) -> list[Address]:
        return [Address(self.name, "Apache Kafka", f"{LOOPBACK}:{self._port}")]


class InMemoryKafka:
    """librdkafka's in-process broker in a process of its own. It chooses its port itself, anew at every start, and it creates a
    topic when a client asks for it."""

    name = "kafka"
    ports: tuple[str, ...] = ()

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        self._log_file = layout.log_file(self.name)
        self._address_file = layout.run / "kafka.address"

    def spec(self) -> ProcessSpec:
        async def ready() -> None:
            if not self._address_file.exists():
                raise ConnectionError("the broker has not said where it listens yet")
            await kafka_answers(self._address())

        return ProcessSpec(
            name=self.name,
            argv=[sys.executable, "-m", "infra.local.mock_broker", str(self._address_file)],
            log_file=self._log_file,
            working_directory=INFRA.parent,
            ready=ready,
            ready_timeout_seconds=60,
            before_start=lambda: self._address_file.unlink(missing_ok=True),
            # What it held is gone with it, and a new one would listen elsewhere: starting it again would hide a loss.
            restart=NEVER_RESTART,
            remedy="Install the 'local' extra of this package (confluent-kafka), or Java and Maven for Apache Kafka.",
        )

    def environment(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self._address(),
            "AUGENBLICK_KAFKA_IN_MEMORY": "1",
            # It answers a waiting fetch at the end of its wait only, even if something came meanwhile.
            "AUGENBLICK_KAFKA_FETCH_WAIT_MS": "20",
        }

    def addresses(self) -> list[Address]:
        return [Address(self.name, "librdkafka's in-process broker (in memory)", self._address())]

    def _address(self) -> str:
        return self._address_file.read_text().strip()


def _broker(properties: Path, log_file: Path, address: str, *flags: str) -> ProcessSpec:
    return ProcessSpec(
        name="kafka",
        argv=[*_java(*flags), "kafka.Kafka", str(properties)],
        log_file=log_file,
        ready=lambda: kafka_answers(address),
        ready_timeout_seconds=180,
        stop_timeout_seconds=20,
        remedy="Run `augenblick doctor`. If the data is damaged and you can do without it, delete data/kafka beside the logs.",
    )


def _java(*flags: str) -> list[str]:
    return PROGRAM.java(*MEMORY_FLAGS, f"-Dlog4j2.configurationFile={DEFINITION / 'log4j2.xml'}", *flags)


async def _format(data: Path, properties: Path) -> None:
    """Gives an empty data directory its cluster id. A directory that has one is left alone."""
    if (data / "meta.properties").exists():
        return
    # Kafka refuses an id that begins with a dash, which is the 62nd of 64 digits.
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    tool = [*_java("-XX:-UsePerfData"), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)]
    await run_command(tool, timeout_seconds=60)


async def _archive_classes() -> None:
    if PROGRAM.classes_are_archived:
        return
    with tempfile.TemporaryDirectory(prefix="augenblick-kafka-") as temporary:
        directory = Path(temporary)
        ports = choose_ports(["broker", "controller"], directory / "ports.json")
        properties = directory / "kafka.properties"
        properties.write_text(server_properties(ports["broker"], ports["controller"], directory / "data"))
        await _format(directory / "data", properties)
        broker = _broker(properties, directory / "log", f"{LOOPBACK}:{ports['broker']}", PROGRAM.archive_flag())
        await PROGRAM.archive_classes(dataclasses.replace(broker, stop_timeout_seconds=60))
