"""The drill: N payments through mock glasses while roles and servers die, stand still and come back, and the payment provider has
the worst of days; then four books are compared. Nothing may be lost, doubled or left unknown.

Everything runs in a root of its own, whatever the environment says: a drill never touches a server, an account or a shop of
somebody's own.
"""

import asyncio
import dataclasses
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

from infra.local import kafka
from infra.local.platform import Platform, process_name
from infra.local.ports import choose_ports
from infra.local.stack import LocalStack
from infra.sandbox import books, faults, providers, proxy
from infra.sandbox.books import Approval, Book, Books, Fault, Finding
from infra.sandbox.desk import Desk
from infra.sandbox.disturbances import KILLABLE, Disturbance, Disturber, Line, Purchases
from infra.sandbox.on_call import Operator
from infra.sandbox.receiver import Receiver
from infra.sandbox.sessions import picture
from infra.sandbox.shopper import Shopper, Tally
from infra.sandbox.world import Device, Merchant, World
from schemas.errors import Misconfigured
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.core.supervisor import ProcessEvent, ProcessSpec
from streams.payments.accounts import Accounts
from streams.payments.work import PaymentWork

PICTURES = ("milk", "juice", "oat-drink")
PROXY = "provider-proxy"

_QUIET_WITHIN_S = 180.0
_LOOK_S = 0.25
_SLOW_ANSWER_S = 2.0
_ROUNDS = 10
_WITHOUT_MONEY = 8
"""One wearer of so many has a means of payment that is declined."""

_PAYMENTS_PER_TROUBLE = 60
"""How many payments there are for each time that the provider hangs, is cut off, and is slow."""

_SETTINGS = {
    # Two cores that also start processes are slow now and then; a drill measures loss, not speed.
    "AUGENBLICK_GLANCE_BUDGET_MS": "3000",
    # What a killed dispatcher had in hand is due again after twice this time.
    "AUGENBLICK_WEBHOOK_TIMEOUT_S": "2",
    "AUGENBLICK_WEBHOOK_SCHEDULE_S": "0.5,1,2,4,8,8,8",
    "AUGENBLICK_JANITOR_SCHEDULE_S": "0.5,1,2,3",
    # Twice as long as a request is ever held up on the sandbox's lines.
    "AUGENBLICK_PROVIDER_REQUEST_LIVES_S": "20",
}


@dataclass(frozen=True)
class Plan:
    """`faults`: the share of the provider's answers that are faulty."""

    payments: int
    kills: int
    seed: int
    devices: int
    provider: str = providers.DEFAULT
    faults: float = 0.0
    kafka_restarts: int = 0
    postgres_restarts: int = 0

    @property
    def troubles(self) -> int:
        return max(1, self.payments // _PAYMENTS_PER_TROUBLE) if self.faults else 0


@dataclass
class Report:
    """`states`: how the payments ended; `frozen`: how many an answer about another amount froze, each released by the operator;
    `faults_done`: by the provider, or by the proxy before it."""

    plan: Plan
    findings: list[Finding]
    entries: dict[Book, int]
    sums: dict[Book, dict[str, tuple[int, int]]]
    disturbances: list[Disturbance]
    tally: Tally
    approvals: int
    states: dict[str, int]
    refunds: dict[str, int]
    frozen: int
    faults_done: dict[str, int]
    paying_s: float
    quiet_s: float
    total_s: float
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings and self.carried_out

    @property
    def carried_out(self) -> bool:
        wanted = {"kafka": self.plan.kafka_restarts, "postgres": self.plan.postgres_restarts}
        return self.killed(*KILLABLE) == self.plan.kills and all(self.killed(name) == count for name, count in wanted.items())

    def killed(self, *whom: str) -> int:
        return sum(each.what == "killed" and each.whom in whom for each in self.disturbances)

    def counts(self, book: Book) -> dict[Fault, int]:
        found = Counter(finding.fault for finding in self.findings if finding.book is book)
        return {fault: found[fault] for fault in Fault}

    def document(self) -> dict[str, Any]:
        back = [each.back_s for each in self.disturbances if each.what == "killed" and each.whom in KILLABLE]
        paid = sorted(self.tally.glance_to_paid_s)
        return {
            "ok": self.ok,
            **dataclasses.asdict(self.plan),
            "books": [
                {
                    "book": book.value,
                    "entries": self.entries[book],
                    "taken": {currency: taken for currency, (taken, _) in self.sums[book].items()},
                    "given_back": {currency: back for currency, (_, back) in self.sums[book].items()},
                    **{fault.value: n for fault, n in self.counts(book).items()},
                }
                for book in Book
            ],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "states": self.states,
            "refunds": self.refunds,
            "frozen_and_released_by_the_operator": self.frozen,
            "unknown_at_first": self.tally.unknown_at_first,
            "killed": {
                "total": self.killed(*KILLABLE),
                **{name: self.killed(name) for name in (*KILLABLE, "kafka", "postgres")},
            },
            "disturbed": dict(Counter(f"{each.whom} {each.what}" for each in self.disturbances if each.what != "killed")),
            "faults_done": self.faults_done,
            "back_s": {"median": round(median(back), 2), "longest": round(max(back), 2)} if back else None,
            "approvals": self.approvals,
            "glances": self.tally.glances,
            "repeated_events": self.tally.repeated_events,
            "reconnections": self.tally.reconnections,
            "glance_to_paid_s": {"median": round(median(paid), 2), "longest": round(paid[-1], 2)} if paid else None,
            "paying_s": round(self.paying_s, 1),
            "quiet_s": round(self.quiet_s, 1),
            "total_s": round(self.total_s, 1),
            "payments_per_s": round(self.tally.purchases / self.paying_s, 2),
            "notes": self.notes,
        }


async def run(plan: Plan, root: Path | None, tell: Callable[[str], None]) -> Report:
    """The whole drill. `tell` hears how it goes. Raises Misconfigured, or what keeps it from being carried out."""
    if root is not None and (root / "data").exists():
        raise Misconfigured(f"{root} holds data of an earlier run, which would be in its books: choose a new directory.")
    if plan.kafka_restarts and (problem := kafka.PROGRAM.problem()):
        raise Misconfigured(f"Only Apache Kafka can be killed and come back with all it had. {problem}")
    # What the operator's questions log stands in the report.
    logging.getLogger("streams").addHandler(logging.NullHandler())
    place = root or Path(tempfile.mkdtemp(prefix="augenblick-drill-"))
    report: Report | None = None
    try:
        report = await _drill(plan, place, tell)
        return report
    finally:
        if root is None and report is not None and report.ok:
            shutil.rmtree(place, ignore_errors=True)
        else:
            tell(f"logs and data are kept in {place}")


async def _drill(plan: Plan, root: Path, tell: Callable[[str], None]) -> Report:
    began = perf_counter()
    tell("starting")
    # An empty configuration: whatever servers the environment names are not looked at.
    stack = LocalStack(root, components=("kafka", "postgres", "triton"), configured={}, on_event=_silent)
    async with stack:
        receiver = Receiver(stack.layout)
        platform = await stack.start_platform(receiver.spec(), settings=_SETTINGS, providers=[plan.provider])
        async with _arranged(plan, stack, platform, receiver, tell) as drill:
            report = await drill.run()
    report.total_s = perf_counter() - began
    report.notes = list(stack.notes)
    return report


@dataclass(frozen=True)
class _Provider:
    """`address`: where its books are read; `line`: what lies between us and it."""

    address: str
    line: Line


async def _provider(plan: Plan, stack: LocalStack, platform: Platform) -> _Provider:
    module, address = providers.find(plan.provider), platform.provider_address(plan.provider)
    usual = {"rate": plan.faults, "slow_s": _SLOW_ANSWER_S}
    if module.HAS_FAULTS:
        line = Line(process_name(plan.provider), address, usual, tuple(faults.Fault))
        return _Provider(address, line)
    # It has no faults of its own, and forgets everything at its end: a proxy before it has them, and comes and goes.
    port = choose_ports([PROXY], stack.layout.run / "ports.json")[PROXY]
    at = proxy.address(port)
    spec = ProcessSpec(
        name=PROXY,
        argv=proxy.argv(port, address),
        log_file=stack.layout.log_file(PROXY),
        ready=partial(proxy.is_ready, at),
    )
    await stack.supervisor.start([spec])
    return _Provider(address, Line(PROXY, at, usual, proxy.KINDS))


@asynccontextmanager
async def _arranged(
    plan: Plan, stack: LocalStack, platform: Platform, receiver: Receiver, tell: Callable[[str], None]
) -> AsyncIterator["_Drill"]:
    environment = platform.environment
    # Verified: the drill's own connections die with PostgreSQL as everybody's do.
    database = Database(create_engine(environment["DATABASE_URL"], verified=True))
    sealer = Sealer(environment["AUGENBLICK_SECRET_KEY"])
    accounts = Accounts(sealer, environment["AUGENBLICK_PUBLIC_URL"])
    try:
        provider = await _provider(plan, stack, platform)
        public_url = environment["AUGENBLICK_PUBLIC_URL"]
        world = World(database, sealer, plan.provider, provider.line.address, public_url=public_url)
        merchants = list(await world.settle(receiver.url))
        receiver.trust([merchant.webhook_secret for merchant in merchants])
        poor = {number for number in range(plan.devices) if number % _WITHOUT_MONEY == 1}
        devices = [await world.wearer(kind="declined" if number in poor else "ok") for number in range(plan.devices)]
        await provider.line.set_faults(seed=plan.seed)
        await provider.line.as_usual()
        operator = Operator(database, PaymentWork(database, accounts, sealer, worker="operator"))
        yield _Drill(plan, stack, platform, database, receiver, provider, operator, merchants, devices, tell)
    finally:
        await accounts.close()
        await database.close()


class _Drill:
    def __init__(
        self,
        plan: Plan,
        stack: LocalStack,
        platform: Platform,
        database: Database,
        receiver: Receiver,
        provider: _Provider,
        operator: Operator,
        merchants: list[Merchant],
        devices: list[Device],
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._stack = stack
        self._platform = platform
        self._database = database
        self._receiver = receiver
        self._provider = provider
        self._operator = operator
        self._devices = devices
        self._tell = tell
        self._approvals: list[Approval] = []
        self._tally = Tally()
        self._purchases = Purchases()
        self._over = asyncio.Event()
        self._random = Random(plan.seed)  # noqa: S311 -- a drill is to be repeatable, not unguessable
        self._disturber = Disturber(stack.supervisor, self._purchases, self._random, tell)
        self._desk = Desk(f"http://{platform.gateway_address}", merchants, Random(self._random.random()))  # noqa: S311

    async def run(self) -> Report:
        plan = self._plan
        started = perf_counter()
        self._tell(f"{plan.payments} payments by {plan.devices} wearers, {plan.kills} kills (seed {plan.seed})")
        paid, unfinished = await self._pay()
        quiet = perf_counter()
        found = await self._read_books(unfinished)
        return Report(
            plan=plan,
            findings=books.reconcile(found),
            entries=found.entries(),
            sums=found.sums(),
            disturbances=self._disturber.done,
            tally=self._tally,
            approvals=len(self._approvals),
            states=dict(Counter(payment.state for payment in found.payments)),
            refunds=_refunds(found),
            frozen=self._operator.released,
            faults_done=await self._provider.line.faults_done(),
            paying_s=paid - started,
            quiet_s=quiet - paid,
            total_s=0.0,
        )

    async def _pay(self) -> tuple[float, dict[str, int]]:
        """When the last purchase was made, and what is left undone when nothing moves any more."""
        plan = self._plan
        turns = iter(range(plan.payments))
        gateway = f"ws://{self._platform.gateway_address}/v1/glasses"
        frames = [picture(name) for name in PICTURES]
        servers = {"kafka": plan.kafka_restarts, "postgres": plan.postgres_restarts}
        try:
            async with asyncio.TaskGroup() as tasks:
                disturbing = tasks.create_task(
                    self._disturber.run(
                        plan.payments, kills=plan.kills, servers=servers, line=self._provider.line, troubles=plan.troubles
                    )
                )
                for device in self._devices:
                    own = Random(self._random.random())  # noqa: S311
                    shopper = Shopper(gateway, device, frames, own, self._approvals, self._tally, self._bought, self._over)
                    tasks.create_task(shopper.shop(turns))
                reporting = tasks.create_task(self._report_progress())
                await self._purchases.reach(plan.payments)
                await disturbing
                await self._desk.finish()
                reporting.cancel()
                paid = perf_counter()
                unfinished = await self._bring_to_rest()
                self._over.set()
        except ExceptionGroup as errors:
            raise _first(errors) from errors
        return paid, unfinished

    async def _bought(self, approval: Approval) -> None:
        self._desk.sold(approval)
        await self._purchases.one_more()

    async def _report_progress(self) -> None:
        while True:
            self._tell(f"{self._tally.purchases} of {self._plan.payments} paid")
            await asyncio.sleep(2)

    async def _bring_to_rest(self) -> dict[str, int]:
        """Until nothing is left to do but for a person; then the operator's work, and what follows from it."""
        for _ in range(_ROUNDS):
            self._tell("waiting until all is quiet")
            await self._until_quiet(frozen=False)
            if not await self._operator.release(self._tell):
                break
        return await self._until_quiet()

    async def _until_quiet(self, *, frozen: bool = True) -> dict[str, int]:
        """What is left undone when nothing is left to do, or when patience ends."""
        accepted = [approval.event_id for approval in self._approvals if approval.accepted]
        unfinished: dict[str, int] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_WITHIN_S):
                while True:
                    async with self._database.transaction() as connection:
                        unfinished = await books.read_unfinished(connection, accepted, frozen=frozen)
                    if not any(unfinished.values()):
                        break
                    await asyncio.sleep(_LOOK_S)
        return unfinished

    async def _read_books(self, unfinished: dict[str, int]) -> Books:
        async with self._database.transaction() as connection:
            payments = await books.read_payments(connection)
            refunds = await books.read_refunds(connection)
            broken = await books.broken_receipts(connection, payments)
        return Books(
            approvals=self._approvals,
            payments=payments,
            movements=books.read_movements(await providers.find(self._plan.provider).moved(self._provider.address)),
            webhooks=books.read_webhooks(await self._receiver.received()),
            refunds=refunds,
            wishes=self._desk.wishes,
            unfinished=unfinished,
            broken_receipts=broken,
            wrongly_frozen=self._operator.wrongly_frozen,
        )


def _refunds(found: Books) -> dict[str, int]:
    """`refused`: by us, for a good reason; of the others what came of them."""
    outcomes = Counter(str(refund.outcome) for refund in found.refunds)
    return {"asked_for": len(found.wishes), "refused": sum(wish.refused is not None for wish in found.wishes), **outcomes}


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """What came first is the cause; whatever else ran was only stopped by it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _silent(event: ProcessEvent) -> None:
    """Deaths are what a drill is about."""
