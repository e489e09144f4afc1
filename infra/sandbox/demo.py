"""The demo: recorded sessions replayed by mock glasses on real components, and a table of every journey and hop."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from infra.local.platform import Platform
from infra.local.stack import LocalStack
from infra.local.state import StackState, remove_state, write_state
from infra.sandbox import providers, sessions
from infra.sandbox.glasses import Glasses
from infra.sandbox.receiver import Receiver
from infra.sandbox.sessions import Replayed, Session
from infra.sandbox.world import World
from schemas.ids import JourneyId
from schemas.payments import StatementLine
from schemas.tables import attempts, payments, provider_notifications
from streams.console import store as console
from streams.console.service import Journey, Records
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer

Progress = Callable[[str], None]

_SPANS_ARRIVE_S = 0.8  # after they end; see streams/core/telemetry/setup.py
_SPANS_WITHIN_S = 30.0
_NOTIFIED_WITHIN_S = 2.5


@dataclass(frozen=True)
class Notification:
    """One that the provider sent, verified. `after`: how long before it was looked at, None where it was not."""

    kind: str
    repeated: int
    after: timedelta | None


@dataclass(frozen=True)
class Confirmed:
    """What the payer did on the phone. `next_question`: when the janitor would have asked the provider of its own accord."""

    at: datetime
    next_question: datetime
    heard: datetime


@dataclass(frozen=True)
class Told:
    """One session's end: what the wearer was told, what the operators see, what the provider said and what the merchant got.
    `moved` is what the provider's own books have more since the session began."""

    replayed: Replayed
    journey: Journey
    records: Records
    trace: str | None
    webhooks: list[dict[str, Any]]
    notifications: list[Notification]
    moved: list[StatementLine]
    confirmed: Confirmed | None

    @property
    def charges(self) -> int:
        return sum(line.kind == "payment" for line in self.moved)


@dataclass(frozen=True)
class Demonstration:
    provider: str
    told: list[Told]
    notes: list[str]
    addresses: dict[str, str]
    ready_after_s: float


@dataclass(frozen=True)
class _Played:
    replayed: Replayed
    moved: list[StatementLine]
    confirmed: Confirmed | None


class Demo:
    """One run in a stack of its own below `root`, paid with the sandbox's `provider`. Use it as a context: everything it starts
    ends with it."""

    def __init__(self, root: Path, progress: Progress, provider: str = providers.DEFAULT) -> None:
        self._progress = progress
        self._provider = provider
        # The sandbox's people and shops never go into a database of the user's own.
        self._stack = LocalStack(root, configured={name: os.environ[name] for name in os.environ if name != "DATABASE_URL"})

    async def __aenter__(self) -> "Demo":
        self._began = time.monotonic()
        self._progress("starting Kafka, PostgreSQL, Triton and Zipkin")
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._progress("stopping")
        remove_state(self._stack.layout.run)
        await self._stack.__aexit__(*exception)

    async def run(self) -> Demonstration:
        """Raises sessions.UnexpectedAnswer where the platform does not do what the sessions' records say."""
        receiver = Receiver(self._stack.layout)
        self._progress("starting the platform")
        platform = await self._stack.start_platform(receiver.spec(), providers=[self._provider])
        ready_after = time.monotonic() - self._began
        environment = platform.environment
        database = Database(create_engine(environment["DATABASE_URL"]))
        address = platform.provider_address(self._provider)
        try:
            sealer = Sealer(environment["AUGENBLICK_SECRET_KEY"])
            world = World(database, sealer, self._provider, address, public_url=environment["AUGENBLICK_PUBLIC_URL"])
            receiver.trust([merchant.webhook_secret for merchant in await world.settle(receiver.url)])
            played = await self._replay(world, database, address, f"ws://{platform.gateway_address}/v1/glasses")
            await asyncio.sleep(_SPANS_ARRIVE_S)
            told = [await self._told(database, each, platform, receiver) for each in played]
        finally:
            await database.close()
        self._let_commands_find_it()
        addresses = {address.what: address.address for address in self._stack.addresses}
        return Demonstration(self._provider, told, self._stack.notes, addresses, ready_after)

    def _let_commands_find_it(self) -> None:
        """`augenblick payments show` and the like work on a demo that is kept up."""
        process = psutil.Process()
        state = StackState(pid=process.pid, created_at=process.create_time(), phase="ready", environment=self._stack.environment)
        write_state(self._stack.layout.run, state)

    async def _replay(self, world: World, database: Database, address: str, gateway: str) -> list[_Played]:
        """Session after session. Before them a glance that is not shown, for the first one of a process is always slow."""
        recorded = [sessions.load(name) for name in sessions.NAMES]
        paying = recorded[sessions.NAMES.index("pay")]
        warm_up = paying.model_copy(update={"steps": paying.steps[:-1]})
        played = []
        for session in (warm_up, *recorded):
            self._progress(session.title)
            played.append(await self._play(session, world, database, address, gateway))
        return played[1:]

    async def _play(self, session: Session, world: World, database: Database, address: str, gateway: str) -> _Played:
        provider = providers.find(self._provider)
        before = await provider.moved(address)
        wearer = await world.wearer(session.wearer, session.payer)
        phone = _Phone(database, provider, address)
        async with Glasses.connected(gateway, wearer.id, wearer.key) as glasses:
            replayed = await sessions.replay(session, glasses, phone.confirm)
            confirmed = phone.confirmed(glasses)
            if replayed.ended == "captured":
                await glasses.expect(lambda message: message["type"] == "receipt.closed", timeout_s=20)
        known = {(line.kind, line.reference, line.attempt_id) for line in before}
        after = await provider.moved(address)
        return _Played(replayed, [line for line in after if (line.kind, line.reference, line.attempt_id) not in known], confirmed)

    async def _told(self, database: Database, played: _Played, platform: Platform, receiver: Receiver) -> Told:
        replayed = played.replayed
        journey_id = JourneyId(replayed.journey_id)
        awaited = {"glance", "process recognition.results", "push glasses.answers"}
        if replayed.ended == "captured":
            awaited |= {"process payments.commands", "process payments.events", "deliver webhook"}
        async with asyncio.timeout(_SPANS_WITHIN_S):
            while True:
                async with database.transaction() as connection:
                    journey = await console.journey(connection, journey_id)
                    records = await console.records(connection, journey_id)
                if journey is not None and awaited <= {hop.name for hop in journey.hops}:
                    break
                await asyncio.sleep(0.1)
        page = platform.environment.get("AUGENBLICK_TRACE_PAGE")
        paid = [payment.id for payment in records.payments]
        return Told(
            replayed,
            journey,
            records,
            page.format(trace_id=journey_id.uuid.hex) if page else None,
            webhooks=[line for line in await receiver.received() if line.get("payment") in paid],
            notifications=await _notifications(database, paid) if paid else [],
            moved=played.moved,
            confirmed=played.confirmed,
        )


class _Phone:
    """The wearer's, where the wallet asks."""

    # Whoever asks the provider of its own accord must have done so a moment ago, or nobody could tell what moved the payment.
    _NOT_ASKED_FOR = timedelta(seconds=3)

    def __init__(self, database: Database, provider: providers.SandboxProvider, address: str) -> None:
        self._database = database
        self._provider = provider
        self._address = address
        self._acted: tuple[datetime, datetime] | None = None

    async def confirm(self, journey_id: str) -> None:
        while True:
            reference, next_question = await self._waiting(journey_id)
            if next_question is None or next_question - datetime.now(UTC) > self._NOT_ASKED_FOR:
                break
            await asyncio.sleep(0.1)
        self._acted = (datetime.now(UTC), next_question or datetime.max.replace(tzinfo=UTC))
        await self._provider.confirm(self._address, reference)

    def confirmed(self, glasses: Glasses) -> Confirmed | None:
        if self._acted is None:
            return None
        heard = next(
            at
            for at, message in glasses.received
            if message["type"] == "payment.updated" and message["data"]["state"] == "captured"
        )
        return Confirmed(*self._acted, heard)

    async def _waiting(self, journey_id: str) -> tuple[str, datetime | None]:
        query = (
            select(payments.c.provider_reference, attempts.c.next_ask_at)
            .join(attempts, attempts.c.payment_id == payments.c.id)
            .where(payments.c.journey_id == journey_id)
        )
        async with self._database.transaction() as connection:
            row = (await connection.execute(query)).one()
        return str(row.provider_reference), row.next_ask_at


async def _notifications(database: Database, payment_ids: Sequence[str]) -> list[Notification]:
    """Once the first has come and all were looked at, or after a while: not every provider notifies of every payment."""
    columns = provider_notifications.c
    query = select(columns.kind, columns.repeated, columns.received_at, columns.processed_at)
    query = query.where(columns.payment_id.in_(payment_ids)).order_by(columns.received_at)
    until = time.monotonic() + _NOTIFIED_WITHIN_S
    while True:
        async with database.transaction() as connection:
            rows = (await connection.execute(query)).all()
        if (rows and all(row.processed_at for row in rows)) or time.monotonic() > until:
            break
        await asyncio.sleep(0.1)
    return [
        Notification(row.kind, row.repeated, row.processed_at - row.received_at if row.processed_at else None) for row in rows
    ]
