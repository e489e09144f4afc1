"""Payments: `python -m benchmarks.payments overhead [N] | rate [SECONDS] [PER_SECOND] | isolation [SECONDS]`.

overhead    what the platform adds to one payment: approval sent → provider called, provider answered → outcome published, N in a
            row. Peer: the same Kafka, the same connector and provider in one bare loop: produce, consume, call, produce, consume.
rate        paid journeys a second, from the wish to pay to the outcome, by as many wearers as keep everything busy; then the
            latency at PER_SECOND (half of what was reached, unless given). Limit: the connector and the provider alone, as fast
            as they go. Says what each process costs.
isolation   the p95 of one provider's payments, alone and while another provider (WeChat Pay's sandbox gateway) hangs.

Wishes and approvals go straight to Kafka, as the gateway puts them there; everything behind the gateway is the platform's own
processes. The provider is the Alipay sandbox gateway, which takes 20 ms for an answer and sends its notifications; every payment
is signed, verified and booked there.
"""

import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Any
from uuid import uuid4

import psutil
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, update

from benchmarks.figures import Latency, print_latencies, print_rates
from connectors import registry
from connectors.ports import PaymentConnector
from infra.local.platform import Platform
from infra.local.ports import choose_ports
from infra.local.stack import LocalStack
from infra.sandbox import alipay, providers
from infra.sandbox.glasses import DeviceKey
from schemas.events import Event, from_kafka, new_event, to_kafka
from schemas.ids import AttemptId, DeviceId, JourneyId, MerchantId, OfferId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import Authorise, Payer, PaymentApproved, PaymentRequested, Succeeded
from schemas.tables import devices, offers
from schemas.topics import GLASSES_ANSWERS, GLASSES_INTENTS, Topic
from streams.core import topics
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.core.supervisor import ProcessSpec
from streams.gateway import provisioning
from streams.payments import accounts

_PROVIDER_TAKES_S = 0.02
_WEARERS = 128  # more of them only wait longer
_PRICE = Money.of(1250, "CNY")
_ENDS = {"captured", "declined", "failed", "cancelled", "expired"}


@dataclass
class Wearer:
    device: DeviceId
    key: DeviceKey
    merchant: MerchantId
    payer: Payer


@dataclass
class Journey:
    """Times of CLOCK_MONOTONIC, in seconds."""

    wished_at: float
    approved_at: float = 0.0
    ended_at: float = 0.0
    state: str = ""


class Wearers:
    """Sends wishes and approvals, hears answers; `buy` is one journey."""

    def __init__(self, producer: AIOKafkaProducer, consumer: AIOKafkaConsumer, database: Database) -> None:
        self._producer = producer
        self._consumer = consumer
        self._database = database
        self._waiting: dict[str, asyncio.Future[Event]] = {}

    async def listen(self) -> None:
        async for record in self._consumer:
            event = from_kafka(record.headers, record.value)
            data = event.data
            if event.type in {"payment.proposed", "intent.refused"}:
                self._answer(f"wish {event.subject}", event)
            if event.type == "payment.updated" and any(f'"state":"{state}"'.encode() in data for state in _ENDS):
                self._answer(f"end {event.deviceid}", event)

    def _answer(self, key: str, event: Event) -> None:
        future = self._waiting.pop(key, None)
        if future is not None and not future.done():
            future.set_result(event)

    def _expect(self, key: str) -> asyncio.Future[Event]:
        future: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        return future

    async def _send(self, event: Event, wearer: Wearer) -> None:
        headers, value = to_kafka(event)
        await self._producer.send_and_wait(GLASSES_INTENTS.name, value, key=wearer.device.encode(), headers=headers)

    async def buy(self, wearer: Wearer, offer: OfferId, journey: JourneyId) -> Journey:
        async with asyncio.timeout(60):
            made = Journey(time.monotonic())
            context: dict[str, Any] = {"source": "/bench", "journeyid": journey, "deviceid": wearer.device}
            wish = new_event("payment.requested", PaymentRequested(offer_id=offer), **context)
            proposed = self._expect(f"wish {wish.id}")
            await self._send(wish, wearer)
            answer = await proposed
            if answer.type != "payment.proposed":
                raise RuntimeError(answer.data.decode())
            proposal = json.loads(answer.data)
            jws = wearer.key.approve(proposal)
            ended = self._expect(f"end {wearer.device}")
            approval = PaymentApproved(proposal_id=proposal["terms"]["proposal_id"], approval=jws)
            made.approved_at = time.monotonic()
            await self._send(new_event("payment.approved", approval, **context), wearer)
            end = await ended
            made.ended_at = time.monotonic()
            made.state = json.loads(end.data)["state"]
            return made


@dataclass
class World:
    stack: LocalStack
    platform: Platform
    database: Database
    sealer: Sealer
    wearers: Wearers
    provider: str
    log: Path
    merchants: list[MerchantId] = field(default_factory=list)

    async def settle(self, count: int, provider: str = "alipay", address: str = "") -> list[Wearer]:
        """So many wearers, with glasses on their noses, and a merchant whose account is with the provider at this address."""
        sandbox, address = providers.find(provider), address or self.provider
        credentials = sandbox.credentials(address)
        made = []
        async with self.database.transaction() as connection:
            maker, _ = await provisioning.add_maker(connection, "Bench")
            merchant, _ = await provisioning.add_merchant(connection, "Teahouse")
            await accounts.add(connection, self.sealer, merchant, provider, credentials)
        for _ in range(count):
            key, payer = DeviceKey(), await sandbox.seed_payer(address)
            async with self.database.transaction() as connection:
                device = await provisioning.add_device(
                    connection,
                    self.sealer,
                    public_key=key.public,
                    maker=maker,
                    locale="zh-CN",
                    currency="CNY",
                    payer=payer,
                )
                await connection.execute(update(devices).where(devices.c.id == device).values(wear_state="worn"))
            made.append(Wearer(device, key, merchant, payer))
        return made

    async def offer(self, wearers: Sequence[Wearer], count: int) -> list[tuple[Wearer, OfferId, JourneyId]]:
        """Offers that the wearers were shown, `count` for each, and each a journey of its own."""
        shown, rows = [], []
        for wearer, _ in itertools.product(wearers, range(count)):
            offer, journey = OfferId.new(), JourneyId.new()
            shown.append((wearer, offer, journey))
            rows.append(
                {
                    "id": offer,
                    "journey_id": journey,
                    "device_id": wearer.device,
                    "merchant_id": wearer.merchant,
                    "merchant_name": "Teahouse",
                    "gtin": "09521234567899",
                    "title": "Longjing",
                    "price_minor": _PRICE.minor,
                    "price_currency": _PRICE.currency,
                    "observed_at": datetime.now(UTC),
                    "expires_at": datetime.now(UTC) + timedelta(hours=1),
                    "evidence": {},
                }
            )
        for start in range(0, len(rows), 1000):
            async with self.database.transaction() as connection:
                await connection.execute(insert(offers), rows[start : start + 1000])
        return shown

    def calls(self) -> int:
        """How many the provider has answered so far."""
        return len(self.log.read_text().splitlines())

    async def call(self, number: int) -> tuple[float, float]:
        """When a call came to the provider, and when its answer left."""
        while True:
            lines = self.log.read_text().splitlines(keepends=True)
            if len(lines) > number and lines[number].endswith("\n"):
                came, left = lines[number].split()
                return float(came), float(left)
            await asyncio.sleep(0.001)


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    async with AsyncExitStack() as closing:
        root = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="augenblick-bench-")))
        stack = await closing.enter_async_context(LocalStack(root, components=("kafka", "postgres", "triton")))
        port = choose_ports(["timed-gateway"], root / "run" / "bench-ports.json")["timed-gateway"]
        log = root / "calls.log"
        address = alipay.address(port)
        gateway = ProcessSpec(
            name="alipay-sandbox",
            argv=[sys.executable, "-m", "benchmarks.timed_gateway", "--port", str(port), "--log", str(log)],
            log_file=stack.layout.log_file("alipay-sandbox"),
            ready=partial(_is_ready, address),
        )
        platform = await stack.start_platform(gateway, providers=())
        await alipay.set_faults(address, delay_s=_PROVIDER_TAKES_S)
        environment = platform.environment
        database = Database(create_engine(environment["DATABASE_URL"]))
        closing.push_async_callback(database.close)
        kafka = environment["KAFKA_BOOTSTRAP_SERVERS"]
        producer = await closing.enter_async_context(AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=0))
        consumer = await closing.enter_async_context(AIOKafkaConsumer(GLASSES_ANSWERS.name, bootstrap_servers=kafka))
        await consumer.seek_to_end()
        wearers = Wearers(producer, consumer, database)
        listening = asyncio.create_task(wearers.listen())
        closing.callback(listening.cancel)
        await asyncio.sleep(3)  # what starting has stirred up settles
        yield World(stack, platform, database, Sealer(environment["AUGENBLICK_SECRET_KEY"]), wearers, address, log)


async def _is_ready(address: str) -> bool:
    return await alipay.is_ready(address)


async def _answers(provider: providers.SandboxProvider, address: str) -> bool:
    return await provider.is_ready(address)


# What the platform adds.


async def overhead(count: int) -> None:
    async with running() as world:
        (wearer,) = await world.settle(1)
        shown = await world.offer([wearer], count + 20)
        before, after, total = [], [], []
        for number, (_, offer, journey) in enumerate(shown):
            seen = world.calls()
            made = await world.wearers.buy(wearer, offer, journey)
            assert made.state == "captured", made
            came, left = await world.call(seen)
            if number >= 20:
                before.append((came - made.approved_at) * 1000)
                after.append((made.ended_at - left) * 1000)
                total.append(before[-1] + after[-1])
        floor = await bare(world, wearer, count)
    console = Console()
    table = Table("", "p50 ms", "p95 ms", title=f"what the platform adds to a payment, {count} in a row, idle")
    for name, samples in (("approval sent → provider called", before), ("provider answered → outcome heard", after)):
        each = Latency(name, samples)
        table.add_row(name, f"{each.percentile(50):.1f}", f"{each.percentile(95):.1f}")
    console.print(table)
    print_latencies("both together", Latency("augenblick", total), floor)


async def bare(world: World, wearer: Wearer, count: int) -> Latency:
    """The same Kafka, connector and provider, and nothing else: what is lost at any moment is lost for ever."""
    kafka = world.platform.environment["KAFKA_BOOTSTRAP_SERVERS"]
    run = uuid4().hex[:8]
    there, back = (Topic(f"bench.{run}.{name}", "none", timedelta(hours=1), partitions=1) for name in ("there", "back"))
    await asyncio.to_thread(topics.ensure, kafka, (there, back))
    connector = registry.payments("alipay", alipay.credentials(world.provider))
    samples = []
    async with AsyncExitStack() as closing:
        closing.push_async_callback(connector.close)
        producer = await closing.enter_async_context(AIOKafkaProducer(bootstrap_servers=kafka))
        worker, answers = [
            await closing.enter_async_context(AIOKafkaConsumer(topic.name, bootstrap_servers=kafka, auto_offset_reset="earliest"))
            for topic in (there, back)
        ]

        async def work() -> None:
            async for _ in worker:
                await _pay(connector, wearer)
                await producer.send_and_wait(back.name, b"paid")

        working = asyncio.create_task(work())
        closing.callback(working.cancel)
        for number in range(count + 20):
            seen = world.calls()
            began = time.monotonic()
            await producer.send_and_wait(there.name, b"approved")
            await answers.getone()
            ended = time.monotonic()
            came, left = await world.call(seen)
            if number >= 20:
                samples.append((ended - began - (left - came)) * 1000)
    return Latency("bare Kafka and connector", samples)


async def _pay(connector: PaymentConnector, wearer: Wearer) -> None:
    attempt = AttemptId.new()
    order = Authorise(
        payment_id=PaymentId.new(),
        attempt_id=attempt,
        journey_id=JourneyId.new(),
        order_id=OrderId.new(),
        total=_PRICE,
        payee="Teahouse",
        description="Longjing",
        payer=wearer.payer,
        reference=attempt,
    )
    outcome = await connector.submit(order, attempt)
    assert isinstance(outcome, Succeeded), outcome


# How many.


class Meter:
    """What each process has cost in CPU time since it was made."""

    def __init__(self, world: World) -> None:
        self._processes = {p.name: psutil.Process(p.pid) for p in world.stack.supervisor.processes() if p.pid}
        self._processes["(this client)"] = psutil.Process()
        self._begun = self._read()

    def _read(self) -> Counter[str]:
        spent: Counter[str] = Counter()
        for name, process in self._processes.items():
            for each in (process, *process.children(recursive=True)) if name != "(this client)" else (process,):
                try:
                    times = each.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                spent[name] += round((times.user + times.system) * 1000)
        return spent

    def print(self, journeys: int, seconds: float) -> None:
        now = self._read()
        table = Table("process", "CPU ms a journey", "of one core", title="where the time goes")
        for name, spent in (now - self._begun).most_common():
            if spent > 50:
                table.add_row(name, f"{spent / journeys:.2f}", f"{spent / 10 / seconds:.0f} %")
        total = sum((now - self._begun).values())
        table.add_row("all", f"{total / journeys:.2f}", f"{total / 10 / seconds:.0f} %")
        Console().print(table)


async def rate(seconds: float, per_second: float | None) -> None:
    async with running() as world:
        people = await world.settle(_WEARERS)
        shown = await world.offer(people, 250)
        queues = {wearer.device: iter([each for each in shown if each[0] is wearer]) for wearer in people}
        await _closed_loop(world, queues, 8.0)  # warm-up
        meter = Meter(world)
        made, took = await _closed_loop(world, queues, seconds)
        reached = len(made) / took
        meter.print(len(made), took)
        limit = await _limit(world, people, min(seconds, 8.0))
        print_rates(
            f"paid journeys, {len(people)} wearers, {took:.0f} s",
            ("augenblick: wish → proposal → approval → paid", reached),
            ("limit: connector and provider alone", limit),
        )
        _print_times(f"at {reached:.0f}/s (as fast as it goes)", made)
        wanted = per_second or reached / 2
        made = await _open_loop(world, queues, wanted, seconds)
        _print_times(f"at {wanted:.0f}/s", made)


async def _closed_loop(world: World, queues: dict[DeviceId, Any], seconds: float) -> tuple[list[Journey], float]:
    """Every wearer buys, one thing after the other, for so long. What ended within the time counts."""
    began = time.monotonic()
    made: list[Journey] = []

    async def shop(queue: Any) -> None:
        for wearer, offer, journey in queue:
            bought = await world.wearers.buy(wearer, offer, journey)
            assert bought.state == "captured", bought
            made.append(bought)
            if time.monotonic() - began > seconds:
                return

    async with asyncio.TaskGroup() as tasks:
        for queue in queues.values():
            tasks.create_task(shop(queue))
    took = min(seconds, time.monotonic() - began)
    return [each for each in made if each.ended_at <= began + took], took


async def _open_loop(world: World, queues: dict[DeviceId, Any], per_second: float, seconds: float) -> list[Journey]:
    """So many begin each second, whatever becomes of those before; each by the wearer who has waited longest."""
    free: asyncio.Queue[Any] = asyncio.Queue()
    for queue in queues.values():
        free.put_nowait(queue)
    made: list[Journey] = []

    async def one(due: float) -> None:
        queue = await free.get()
        wearer, offer, journey = next(queue)
        bought = await world.wearers.buy(wearer, offer, journey)
        bought.wished_at = due  # waiting for a wearer to be free is waiting, too
        made.append(bought)
        free.put_nowait(queue)

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(per_second * seconds)):
            due = began + number / per_second
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(one(due))
    return made


async def _limit(world: World, people: Sequence[Wearer], seconds: float) -> float:
    connector = registry.payments("alipay", alipay.credentials(world.provider))
    began, done = time.monotonic(), 0

    async def pay(wearer: Wearer) -> None:
        nonlocal done
        while time.monotonic() - began < seconds:
            await _pay(connector, wearer)
            done += 1

    await asyncio.gather(*(pay(wearer) for wearer in people))
    await connector.close()
    return done / (time.monotonic() - began)


def _print_times(title: str, made: Sequence[Journey]) -> None:
    table = Table("", "n", "p50 ms", "p95 ms", "p99 ms", title=title)
    kinds = {
        "wish → paid": [(each.ended_at - each.wished_at) * 1000 for each in made],
        "approval → paid": [(each.ended_at - each.approved_at) * 1000 for each in made],
    }
    for name, samples in kinds.items():
        cuts = quantiles(samples, n=100, method="inclusive")
        table.add_row(name, str(len(samples)), *(f"{cuts[percent - 1]:.0f}" for percent in (50, 95, 99)))
    Console().print(table)


# One that hangs.


async def isolation(seconds: float) -> None:
    async with running() as world, AsyncExitStack() as closing:
        port = choose_ports(["hanging-gateway"], world.stack.layout.run / "hanging-ports.json")["hanging-gateway"]
        hanging = providers.find("wechat_pay")
        address = hanging.address(port)
        await world.stack.supervisor.start(
            [
                ProcessSpec(
                    name="hanging-sandbox",
                    argv=hanging.argv(port),
                    log_file=world.stack.layout.log_file("hanging-sandbox"),
                    ready=partial(_answers, hanging, address),
                )
            ]
        )
        healthy, stuck = await world.settle(16), await world.settle(48, "wechat_pay", address)
        shown = await world.offer(healthy, 400)
        queues = {wearer.device: iter([each for each in shown if each[0] is wearer]) for wearer in healthy}
        await _open_loop(world, queues, 15.0, 8.0)
        alone = await _open_loop(world, queues, 15.0, seconds)
        await hanging.set_faults(address, hang=True)
        blocked = [
            asyncio.create_task(world.wearers.buy(wearer, offer, journey))
            for wearer, offer, journey in await world.offer(stuck, 1)
        ]
        await asyncio.sleep(2)
        beside = await _open_loop(world, queues, 15.0, seconds)
        await hanging.set_faults(address, hang=False)
        for task in blocked:
            task.cancel()
        await asyncio.gather(*blocked, return_exceptions=True)
        closing.pop_all()

    def latency(name: str, made: Sequence[Journey]) -> Latency:
        return Latency(name, [(each.ended_at - each.approved_at) * 1000 for each in made])

    print_latencies(
        "approval → paid, 15/s; 48 payments hang at another provider",
        latency("while the other hangs", beside),
        latency("alone", alone),
    )


def main(what: str, *numbers: float) -> None:
    match what:
        case "overhead":
            work = overhead(int(numbers[0]) if numbers else 200)
        case "rate":
            work = rate(numbers[0] if numbers else 30.0, numbers[1] if len(numbers) > 1 else None)
        case "isolation":
            work = isolation(numbers[0] if numbers else 20.0)
        case _:
            sys.exit(__doc__)
    uvloop.run(work)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", *(float(each) for each in sys.argv[2:]))
