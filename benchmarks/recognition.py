"""Recognition as the wearer has it: `python -m benchmarks.recognition latency [N] | overload [SECONDS] [DEVICES] [INTENT]`.

latency     frame in → recognition event out, one frame after the other: from sending the frame on the glasses' WebSocket to the
            event on `recognition.results`. First a frame with a code, where nothing is recognised by picture. Peer: the same
            frame over the same Kafka and the same Triton without the platform (benchmarks/glance.py). Then, with a catalogue of
            31 packages with pictures: codes that no picture could contradict, codes that one could, and no code at all; each
            against the first. Says also how each was answered.
overload    first the sustainable rate: what DEVICES pairs of glasses are answered in time that send the next frame as soon as
            the last was answered. Then four times as many frames, at fixed times, whether or not they are answered; newest frame
            wins. Says how many were answered within the deadline and how old they were then, what was shed where, whether the
            newest frame came next each time, and how much memory the processes took. INTENT: `price` asks OCR as well.

Everything runs on the same machine as what measures it: glasses, platform, Kafka, PostgreSQL and Triton.
"""

import asyncio
import io
import json
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
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Latency, print_latencies, print_rates
from benchmarks.glance import bare
from connectors.shops.catalogue.importer import parse_catalogue
from infra.local.platform import Platform
from infra.local.stack import LocalStack
from infra.sandbox import sessions
from infra.sandbox.glasses import Glasses, Message
from infra.sandbox.providers import DEFAULT as PROVIDER
from infra.sandbox.world import Device as Wearer
from infra.sandbox.world import World
from schemas.events import Event, from_kafka
from schemas.topics import RECOGNITION_RESULTS
from streams.catalogues.pictures import outbound_client
from streams.catalogues.service import Catalogues
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.gateway import provisioning
from streams.sightings.picture_models import TritonPictureModels
from tests.support.frames import barcode_jpeg, blank_jpeg, gtin13
from tests.support.packages import front, photo

_WARM_UP = 20
_PACKAGES = 31
_CODED = gtin13(91_357)
_BAR_MS = 120.0
_TIMES = 4
_ANSWERS = {"offers.found", "payees.found", "choice.offered", "look.again"}
_DEADLINE = timedelta(milliseconds=1500)
_MS = timedelta(milliseconds=1)
_ON_THE_WAY = timedelta(milliseconds=100)  # a frame that was captured later than this before may not have arrived


class Results:
    """When each sighting's event came out on `recognition.results`, and what was said how often."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.said: Counter[str] = Counter()
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
                self.said[_said(event)] += 1
                self._changed.notify_all()

    async def of(self, sighting: str) -> float:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: sighting in self.at)
        return self.at[sighting]


def _said(event: Event) -> str:
    """What it was recognised by, or why it was not, and who was late."""
    data = json.loads(event.data)
    late = [f"without {model}" for model in data.get("late_models", ())]
    return " ".join([data.get("evidence") or data["reason"], *late])


@dataclass(frozen=True)
class Running:
    stack: LocalStack
    platform: Platform
    database: Database
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
            yield Running(stack, platform, database, world)
            await database.close()


async def latency(count: int) -> None:
    frame, results, rows = sessions.picture("milk"), Results(), []
    async with running() as there:
        wearer = await there.world.wearer()
        async with results.reading(there.kafka), Glasses.connected(there.gateway, wearer.id, wearer.key) as glasses:
            await glasses.wear()
            plain = Latency("frame in → recognition event out", await _latencies(glasses, results, frame, "identify", count))
            floor = await bare(there.kafka, there.stack.environment["TRITON_URL"], frame, count)
            await _publish_packages(there)
            for what, intent, shown in _cases(frame):
                samples = await _latencies(glasses, results, shown, intent, count)
                rows.append((what, intent, samples, results.said.most_common(2)))
    cores = psutil.cpu_count()
    print_latencies(f"a barcode on a {len(frame) // 1024} KB frame, {cores} cores, one after the other", plain, floor)
    Console().print(f"p95 {plain.percentile(95):.1f} ms; the bar is {_BAR_MS:g} ms, {plain.percentile(95) / _BAR_MS:.2f} of it")
    table = Table(
        "in view", "for", "p50 ms", "p95 ms", "p50 ÷ above", "answered", title=f"with {_PACKAGES} pictures in a catalogue"
    )
    for what, intent, samples, said in rows:
        here = Latency(what, samples)
        figures = [
            f"{here.percentile(50):.1f}",
            f"{here.percentile(95):.1f}",
            f"{here.percentile(50) / plain.percentile(50):.1f}",
        ]
        table.add_row(what, intent, *figures, ", ".join(f"{number} {name}" for name, number in said))
    Console().print(table)


async def _latencies(glasses: Glasses, results: Results, frame: bytes, intent: str, count: int) -> list[float]:
    """In milliseconds."""
    samples = []
    for number in range(_WARM_UP + count):
        if number == _WARM_UP:
            results.said.clear()
        began, before = perf_counter(), len(glasses.received)
        sighting = await glasses.send_frame(frame, intent)
        samples.append((await results.of(sighting) - began) * 1000)
        await glasses.expect(lambda message: message["type"] in _ANSWERS, after=before)
    return samples[_WARM_UP:]


async def _publish_packages(there: Running) -> None:
    """One more merchant, whose packages are recognised by their pictures; of the first, the GTIN is known, too."""
    environment = there.platform.environment
    with tempfile.TemporaryDirectory() as folder:
        lines = ["product_id,gtin,title,language,price,currency,picture"]
        for number in range(_PACKAGES):
            front(number).save(Path(folder, f"{number}.png"))
            lines.append(f"p{number},{_CODED if number == 0 else ''},Package {number},en,2.50,EUR,{number}.png")
        Path(folder, "packages.csv").write_text("\n".join(lines))
        async with there.database.transaction() as connection:
            merchant, _ = await provisioning.add_merchant(connection, "Packages' shop")
        models = TritonPictureModels(environment["TRITON_URL"])
        async with outbound_client(allow_private=True) as client:
            directory = Path(there.stack.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])
            catalogues = Catalogues(there.database, directory=directory, models=models, client=client)
            rows = parse_catalogue(Path(folder, "packages.csv").read_bytes())
            imported = await catalogues.import_list(merchant, rows, datetime.now(UTC), beside=Path(folder))
        await models.close()
    assert imported.unrecognised == 0
    await asyncio.sleep(1)  # by then all workers use it


def _cases(milk: bytes) -> list[tuple[str, str, bytes]]:
    """What is in view, what the wearer wants, and the frame."""
    frames = {
        "a code without a picture": milk,
        "a code with a picture": barcode_jpeg(_CODED),
        "that code and its product": _with_code(photo(0, 3)),
        "a product, no code": photo(1, 3),
        "nothing": blank_jpeg(),
    }
    return [(what, intent, frame) for intent in ("identify", "price") for what, frame in frames.items()]


def _with_code(face: bytes) -> bytes:
    """The photo, and a barcode beside what it shows."""
    picture, written = Image.new("RGB", (1060, 480), "white"), io.BytesIO()
    picture.paste(Image.open(io.BytesIO(face)))
    picture.paste(Image.open(io.BytesIO(barcode_jpeg(_CODED))).crop((90, 80, 490, 300)), (650, 100))
    picture.save(written, "JPEG", quality=85)
    return written.getvalue()


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
