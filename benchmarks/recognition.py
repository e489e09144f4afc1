"""Recognition as the wearer has it: `python -m benchmarks.recognition latency [N] | overload [SECONDS] [DEVICES] [INTENT]`.

latency     frame in → recognition event out, for a frame with a code, one after the other: from sending the frame on the glasses'
            WebSocket to the event on `recognition.results`. Peer: the same frame over the same Kafka and the same Triton without
            the platform (benchmarks/glance.py).
overload    first the sustainable rate: what DEVICES pairs of glasses are answered in time that send the next frame as soon as
            the last was answered. Then four times as many frames, at fixed times, whether or not they are answered; newest frame
            wins. Says how many were answered within the deadline and how old they were then, what was shed where, whether the
            newest frame came next each time, and how much memory the processes took. INTENT: `price` asks OCR as well.

Everything runs on the same machine as what measures it: glasses, platform, Kafka, PostgreSQL and Triton.
"""

import asyncio
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter

import httpx
import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Latency, print_latencies, print_rates
from benchmarks.glance import bare
from infra.local.platform import Platform
from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.glasses import Glasses, Message
from infra.sandbox.providers import DEFAULT as PROVIDER
from infra.sandbox.world import Device as Wearer
from infra.sandbox.world import World
from schemas.events import from_kafka
from schemas.topics import RECOGNITION_RESULTS
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer

_WARM_UP = 20
_BAR_MS = 120.0
_TIMES = 4
_ANSWERS = {"offers.found", "payees.found", "choice.offered", "look.again"}
_DEADLINE = timedelta(milliseconds=1500)
_MS = timedelta(milliseconds=1)
_ON_THE_WAY = timedelta(milliseconds=100)  # a frame that was captured later than this before may not have arrived


class Results:
    """When each sighting's event came out on `recognition.results`."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reading(self, kafka: str) -> AsyncIterator[None]:
        consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, fetch_max_wait_ms=50)
        await consumer.start()
        partitions = [TopicPartition(RECOGNITION_RESULTS.name, number) for number in range(RECOGNITION_RESULTS.partitions)]
        consumer.assign(partitions)
        await consumer.seek_to_end(*partitions)
        for partition in partitions:
            await consumer.position(partition)
        task = asyncio.create_task(self._read(consumer))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        async for record in consumer:
            now, event = perf_counter(), from_kafka(record.headers, record.value)
            async with self._changed:
                self.at[event.subject or ""] = now
                self._changed.notify_all()

    async def of(self, sighting: str) -> float:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: sighting in self.at)
        return self.at[sighting]


@dataclass(frozen=True)
class Running:
    stack: LocalStack
    platform: Platform
    world: World

    @property
    def gateway(self) -> str:
        return f"ws://{self.platform.gateway_address}/v1/glasses"

    @property
    def kafka(self) -> str:
        return self.stack.environment["KAFKA_BOOTSTRAP_SERVERS"]


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(prefix="augenblick-bench-") as root:
        async with LocalStack(Path(root), components=("kafka", "postgres", "triton")) as stack:
            platform = await stack.start_platform(providers=[PROVIDER])
            database = Database(create_engine(platform.environment["DATABASE_URL"]))
            key, address = platform.environment["AUGENBLICK_SECRET_KEY"], platform.provider_address(PROVIDER)
            world = World(database, Sealer(key), PROVIDER, address)
            await world.settle("http://127.0.0.1:9/")
            await asyncio.sleep(3)  # what starting has stirred up settles
            yield Running(stack, platform, world)
            await database.close()


async def latency(count: int) -> None:
    frame = sessions.picture("milk")
    async with running() as there:
        results, wearer, samples = Results(), await there.world.wearer(), []
        async with results.reading(there.kafka), Glasses.connected(there.gateway, wearer.id, wearer.key) as glasses:
            await glasses.wear()
            for _ in range(_WARM_UP + count):
                began, before = perf_counter(), len(glasses.received)
                sighting = await glasses.send_frame(frame, "identify")
                samples.append((await results.of(sighting) - began) * 1000)
                await glasses.expect(lambda message: message["type"] in _ANSWERS, after=before)
        floor = await bare(there.kafka, there.stack.environment["TRITON_URL"], frame, count)
    ours = Latency("frame in → recognition event out", samples[_WARM_UP:])
    cores = psutil.cpu_count()
    print_latencies(f"a barcode on a {len(frame) // 1024} KB frame, {cores} cores, one after the other", ours, floor)
    Console().print(f"p95 {ours.percentile(95):.1f} ms; the bar is {_BAR_MS:g} ms, {ours.percentile(95) / _BAR_MS:.2f} of it")


@dataclass
class Device:
    """What one pair of glasses sent and heard, by the platform's own times, so that a slow measurer does not count: `sent` is
    when each frame was captured, `answered` when its answer was made. `accepted` is in the order of being let through."""

    sent: dict[str, datetime] = field(default_factory=dict)
    accepted: list[str] = field(default_factory=list)
    answered: dict[str, datetime] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def hear(self, message: Message) -> None:
        match message["type"]:
            case "gateway.accepted" if message["id"] in self.sent:
                self.accepted.append(message["id"])
            case "gateway.dropped":
                self.dropped[message["reason"]] += 1
            case "gateway.problem":
                self.refused[message["problem"]["code"]] += 1
            case answer if answer in _ANSWERS:
                self.answered.setdefault(message["data"]["sighting_id"], datetime.fromisoformat(message["time"]))

    def newest_came_next(self) -> list[bool]:
        """Of each frame that was let through after an answer: whether no newer one had come by then."""
        found = []
        for before, after in pairwise(self.accepted):
            if (done := self.answered.get(before)) is not None:
                newer = [at for at in self.sent.values() if self.sent[after] < at <= done - _ON_THE_WAY]
                found.append(not newer)
        return found


async def _send(glasses: Glasses, frame: bytes, intent: str) -> tuple[str, datetime]:
    captured = datetime.now(UTC)
    sighting = await glasses.send_frame(frame, intent, capturedat=captured.isoformat())
    return sighting, captured


async def closed_loop(all_glasses: list[Glasses], frame: bytes, intent: str, seconds: float) -> float:
    """Answers a second that came within the deadline, each pair of glasses with one frame under way."""
    ends = perf_counter() + seconds
    in_time = 0

    async def one(glasses: Glasses) -> None:
        nonlocal in_time
        while perf_counter() < ends:
            heard = len(glasses.received)
            sighting, captured = await _send(glasses, frame, intent)
            said = await glasses.expect(partial(_is_about, sighting), 30, after=heard)
            in_time += said["type"] in _ANSWERS and datetime.fromisoformat(said["time"]) - captured < _DEADLINE

    began = perf_counter()
    await asyncio.gather(*(one(glasses) for glasses in all_glasses))
    return in_time / (perf_counter() - began)


def _is_about(sighting: str, message: Message) -> bool:
    if message["type"] in _ANSWERS:
        return bool(message["data"]["sighting_id"] == sighting)
    return message["type"] in {"gateway.dropped", "gateway.problem"} and message["id"] == sighting


async def open_loop(all_glasses: list[Glasses], frame: bytes, intent: str, rate: float, seconds: float) -> list[Device]:
    devices = [Device() for _ in all_glasses]
    heard = [len(glasses.received) for glasses in all_glasses]
    pause, began = len(all_glasses) / rate, perf_counter()

    async def one(number: int, glasses: Glasses, device: Device) -> None:
        due = began + number * pause / len(all_glasses)
        while due < began + seconds:
            await asyncio.sleep(max(due - perf_counter(), 0))
            sighting, captured = await _send(glasses, frame, intent)
            device.sent[sighting] = captured
            due += pause

    await asyncio.gather(*(one(number, *pair) for number, pair in enumerate(zip(all_glasses, devices, strict=True))))
    await asyncio.sleep(_DEADLINE.total_seconds() + 1.5)
    for glasses, device, before in zip(all_glasses, devices, heard, strict=True):
        for _, message in glasses.received[before:]:
            device.hear(message)
    return devices


def memory_mib() -> dict[str, float]:
    """Resident, by what the process is; a page that several share counts for each."""
    found: dict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = process.cmdline()
            name = line[-1] if "infra.cli" in line else process.name()
            found[name] += process.memory_info().rss / 2**20
    return found


async def _watch_memory(samples: list[dict[str, float]]) -> None:
    while True:
        samples.append(memory_mib())
        await asyncio.sleep(5)


async def shed_by_triton(url: str) -> float:
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        text = (await client.get(url)).text
    lines = [line for line in text.splitlines() if line.startswith("augenblick_frames_shed_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def overload(seconds: float, count: int, intent: str) -> None:
    frame = sessions.picture("milk")
    async with running() as there:
        metrics = there.stack.environment["TRITON_METRICS_URL"]
        wearers = [await there.world.wearer() for _ in range(count)]
        async with _connected(there.gateway, wearers) as all_glasses:
            await closed_loop(all_glasses, frame, intent, 5)  # warm-up
            sustainable = await closed_loop(all_glasses, frame, intent, max(seconds / 3, 10))
            samples: list[dict[str, float]] = []
            results, before = Results(), await shed_by_triton(metrics)
            watching = asyncio.create_task(_watch_memory(samples))
            async with results.reading(there.kafka):
                devices = await open_loop(all_glasses, frame, intent, _TIMES * sustainable, seconds)
            watching.cancel()
            shed = await shed_by_triton(metrics) - before
    _print_overload(devices, results, sustainable, seconds, shed)
    _print_memory(samples)


@asynccontextmanager
async def _connected(gateway: str, wearers: Sequence[Wearer]) -> AsyncIterator[list[Glasses]]:
    async with AsyncExitStack() as closing:
        yield [await closing.enter_async_context(Glasses.connected(gateway, one.id, one.key)) for one in wearers]


def _print_overload(devices: list[Device], results: Results, sustainable: float, seconds: float, shed: float) -> None:
    sent = sum(len(device.sent) for device in devices)
    accepted = {sighting for device in devices for sighting in device.accepted}
    ages = [(at - device.sent[id]) / _MS for device in devices for id, at in device.answered.items() if id in device.sent]
    dropped: Counter[str] = sum((device.dropped for device in devices), Counter())
    refused: Counter[str] = sum((device.refused for device in devices), Counter())
    newest = [each for device in devices for each in device.newest_came_next()]
    print_rates(
        f"{len(devices)} pairs of glasses, {seconds:g} s",
        ("answered under overload", len(ages) / seconds),
        ("sustainable: each waits for its answer", sustainable),
        (f"offered: {_TIMES} × as many", sent / seconds),
    )
    print_latencies(
        "age of a frame when its answer comes", Latency("under overload", ages), Latency("the deadline", [1500.0] * 2)
    )
    table = Table("where", "frames", "of those sent", title="what became of them")
    rows = {
        "sent": sent,
        "gateway's slot: superseded by a newer one": dropped["superseded"],
        "gateway's slot: too late": dropped["too_late"],
        "gateway's door: too old when it came": refused.total(),
        "let through to Kafka": len(accepted),
        "sightings: past their deadline, not looked at": len(accepted - results.at.keys()),
        "Triton's models: caller gone": shed,
        "answered": len(ages),
        "answered within the deadline": sum(age <= _DEADLINE / _MS for age in ages),
    }
    for name, number in rows.items():
        table.add_row(name, f"{number:,.0f}", f"{number / sent:.1%}")
    Console().print(table)
    Console().print(f"newest frame next: {sum(newest) / max(len(newest), 1):.1%} of {len(newest):,} that were let through")


def _print_memory(samples: list[dict[str, float]]) -> None:
    middle, last = samples[len(samples) // 2], samples[-1]
    table = Table("process", "begin MiB", "middle MiB", "end MiB", "end ÷ middle", title="resident memory under overload")
    total = [sum(each.values()) for each in (samples[0], middle, last)]
    for name in sorted(last, key=lambda name: -last[name])[:8]:
        begin, half = samples[0].get(name, 0.0), middle.get(name, 0.0)
        table.add_row(name, f"{begin:.0f}", f"{half:.0f}", f"{last[name]:.0f}", f"{last[name] / max(half, 1):.2f}")
    table.add_row("all", *(f"{each:.0f}" for each in total), f"{total[2] / total[1]:.2f}")
    Console().print(table)


def main(arguments: list[str]) -> None:
    match arguments:
        case ["latency", *rest]:
            uvloop.run(latency(int(rest[0]) if rest else 200))
        case ["overload", *rest]:
            seconds, count, intent = [*rest, *("60", "64", "price")[len(rest) :]]
            uvloop.run(overload(float(seconds), int(count), intent))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
