"""The drill: N payments through mock glasses while random roles are killed, then four books are compared. Nothing may be lost,
doubled or left unknown.

Everything runs in a root of its own, whatever the environment says: a drill never touches a server, an account or a shop of
somebody's own.
"""

import asyncio
import dataclasses
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

from infra.local.platform import SANDBOX_NOTE, Platform
from infra.local.stack import LocalStack
from infra.sandbox import books, localstripe
from infra.sandbox.books import Approval, Book, Books, Fault, Finding
from infra.sandbox.receiver import Receiver
from infra.sandbox.sessions import picture
from infra.sandbox.shopper import Shopper, Tally
from infra.sandbox.world import Device, World
from schemas.errors import AugenblickError, Misconfigured
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.core.supervisor import ProcessEvent, Supervisor

KILLABLE = ("sightings", "offers", "intents", "payments", "janitor", "webhooks", "dispatcher", "relay")
PICTURES = ("milk", "juice", "oat-drink")

_BACK_WITHIN_S = 60.0
_QUIET_WITHIN_S = 90.0
_LOOK_S = 0.25
_SETTINGS = {
    # Two cores that also start processes are slow now and then; a drill measures loss, not speed.
    "AUGENBLICK_GLANCE_BUDGET_MS": "3000",
    # What a killed dispatcher had in hand is due again after twice this time.
    "AUGENBLICK_WEBHOOK_TIMEOUT_S": "2",
    "AUGENBLICK_WEBHOOK_SCHEDULE_S": "0.5,1,2,4,8,8,8",
}


@dataclass(frozen=True)
class Plan:
    payments: int
    kills: int
    seed: int
    devices: int


@dataclass(frozen=True)
class Kill:
    """`back_s`: how long it took until the role worked again."""

    role: str
    back_s: float


@dataclass
class Report:
    plan: Plan
    findings: list[Finding]
    entries: dict[Book, int]
    kills: list[Kill]
    tally: Tally
    approvals: int
    paying_s: float
    quiet_s: float
    total_s: float
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings and len(self.kills) == self.plan.kills

    def counts(self, book: Book) -> dict[Fault, int]:
        found = Counter(finding.fault for finding in self.findings if finding.book is book)
        return {fault: found[fault] for fault in Fault}

    def document(self) -> dict[str, Any]:
        by_role = Counter(kill.role for kill in self.kills)
        back = [kill.back_s for kill in self.kills]
        paid = sorted(self.tally.glance_to_paid_s)
        return {
            "ok": self.ok,
            **dataclasses.asdict(self.plan),
            "books": [
                {"book": book.value, "entries": self.entries[book], **{fault.value: n for fault, n in self.counts(book).items()}}
                for book in Book
            ],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "killed": {"total": len(self.kills), **{role: by_role[role] for role in KILLABLE}},
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


class RoleGone(AugenblickError):
    """A role that was killed does not come back."""


class Killer:
    """Kills random roles as the purchases go on; no role again before it is back."""

    def __init__(self, supervisor: Supervisor, random: Random, tell: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._random = random
        self._tell = tell
        self._changed = asyncio.Condition()
        self._bought = 0
        self._away: set[str] = set()
        self.kills: list[Kill] = []

    async def bought(self) -> None:
        async with self._changed:
            self._bought += 1
            self._changed.notify_all()

    async def run(self, payments: int, kills: int) -> None:
        """Until all have been killed and are back. Raises RoleGone."""
        async with asyncio.TaskGroup() as returning:
            for due in sorted(self._random.uniform(0, payments * 0.95) for _ in range(kills)):
                async with self._changed:
                    while self._bought < due or len(self._away) == len(KILLABLE):
                        await self._changed.wait()
                # Not always right after a purchase.
                await asyncio.sleep(self._random.uniform(0, 0.3))
                role = self._random.choice([role for role in KILLABLE if role not in self._away])
                self._away.add(role)
                returning.create_task(self._kill(role))

    async def _kill(self, role: str) -> None:
        await self._ready(role)  # it may be on its way back from a crash of its own
        started = perf_counter()
        await self._supervisor.kill_process(role)
        await self._ready(role)
        self.kills.append(Kill(role, perf_counter() - started))
        self._tell(f"{role} was killed and is back after {self.kills[-1].back_s:.1f} s")
        async with self._changed:
            self._away.discard(role)
            self._changed.notify_all()

    async def _ready(self, role: str) -> None:
        try:
            await self._supervisor.wait_until_ready(role, _BACK_WITHIN_S)
        except TimeoutError:
            log = self._supervisor.status(role).log_file
            raise RoleGone(f"{role} was killed and is not back after {_BACK_WITHIN_S:g} s. Its log: {log}") from None


async def run(plan: Plan, root: Path | None, tell: Callable[[str], None]) -> Report:
    """The whole drill. `tell` hears how it goes. Raises Misconfigured, or what keeps it from being carried out."""
    if account := [name for name in os.environ if name.startswith("AUGENBLICK_STRIPE_")]:
        raise Misconfigured(f"A drill pays in the sandbox only: unset {', '.join(sorted(account))}.")
    if root is not None and (root / "data").exists():
        raise Misconfigured(f"{root} holds data of an earlier run, which would be in its books: choose a new directory.")
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
        platform = await stack.start_platform(receiver.spec(), settings=_SETTINGS)
        database = Database(create_engine(platform.environment["DATABASE_URL"]))
        try:
            world = World(database, Sealer(platform.environment["AUGENBLICK_SECRET_KEY"]), platform.provider_address)
            merchants = await world.settle(receiver.url)
            receiver.trust([merchant.webhook_secret for merchant in merchants])
            devices = [await world.wearer() for _ in range(plan.devices)]
            drill = _Drill(plan, stack, platform, database, receiver, devices, tell)
            report = await drill.run()
        finally:
            await database.close()
    report.total_s = perf_counter() - began
    report.notes = [note for note in stack.notes if note != SANDBOX_NOTE]
    return report


class _Drill:
    def __init__(
        self,
        plan: Plan,
        stack: LocalStack,
        platform: Platform,
        database: Database,
        receiver: Receiver,
        devices: list[Device],
        tell: Callable[[str], None],
    ) -> None:
        self._plan = plan
        self._stack = stack
        self._platform = platform
        self._database = database
        self._receiver = receiver
        self._devices = devices
        self._tell = tell
        self._approvals: list[Approval] = []
        self._tally = Tally()

    async def run(self) -> Report:
        random = Random(self._plan.seed)  # noqa: S311 -- a drill is to be repeatable, not unguessable
        killer = Killer(self._stack.supervisor, random, self._tell)
        started = perf_counter()
        self._tell(f"{self._plan.payments} payments by {self._plan.devices} wearers, {self._plan.kills} kills")
        await self._pay(killer, random)
        paid = perf_counter()
        self._tell("waiting until all is quiet")
        unfinished = await self._until_quiet()
        quiet = perf_counter()
        found = await self._read_books(unfinished)
        return Report(
            plan=self._plan,
            findings=books.reconcile(found),
            entries=found.entries(),
            kills=killer.kills,
            tally=self._tally,
            approvals=len(self._approvals),
            paying_s=paid - started,
            quiet_s=quiet - paid,
            total_s=0.0,
        )

    async def _pay(self, killer: Killer, random: Random) -> None:
        turns = iter(range(self._plan.payments))
        gateway = f"ws://{self._platform.gateway_address}/v1/glasses"
        frames = [picture(name) for name in PICTURES]
        try:
            async with asyncio.TaskGroup() as tasks:
                killing = tasks.create_task(killer.run(self._plan.payments, self._plan.kills))
                for device in self._devices:
                    own = Random(random.random())  # noqa: S311
                    shopper = Shopper(gateway, device, frames, own, self._approvals, self._tally, killer.bought)
                    tasks.create_task(shopper.shop(turns))
                tasks.create_task(self._report_progress(killing))
        except ExceptionGroup as errors:
            raise _first(errors) from errors

    async def _report_progress(self, killing: asyncio.Task[None]) -> None:
        while not killing.done():
            self._tell(f"{self._tally.purchases} of {self._plan.payments} paid")
            await asyncio.wait([killing], timeout=2)

    async def _until_quiet(self) -> dict[str, int]:
        """What is left undone when nothing is left to do, or when patience ends."""
        accepted = [approval.event_id for approval in self._approvals if approval.accepted]
        unfinished: dict[str, int] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(_QUIET_WITHIN_S):
                while True:
                    async with self._database.transaction() as connection:
                        unfinished = await books.read_unfinished(connection, accepted)
                    if not any(unfinished.values()):
                        break
                    await asyncio.sleep(_LOOK_S)
        return unfinished

    async def _read_books(self, unfinished: dict[str, int]) -> Books:
        async with self._database.transaction() as connection:
            payments = await books.read_payments(connection)
            broken = await books.broken_receipts(connection, payments)
        return Books(
            approvals=self._approvals,
            payments=payments,
            charges=books.read_charges(await localstripe.payment_intents(self._platform.provider_address)),
            webhooks=books.read_webhooks(await self._receiver.received()),
            unfinished=unfinished,
            broken_receipts=broken,
        )


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    """What came first is the cause; whatever else ran was only stopped by it."""
    error: Exception = errors
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _silent(event: ProcessEvent) -> None:
    """Deaths are what a drill is about."""
