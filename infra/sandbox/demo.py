"""The demo: recorded sessions replayed by mock glasses on real components, and a table of every journey and hop."""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.local.platform import Platform
from infra.local.stack import LocalStack
from infra.sandbox import localstripe, sessions
from infra.sandbox.glasses import Glasses
from infra.sandbox.receiver import Receiver
from infra.sandbox.sessions import Replayed
from infra.sandbox.world import World
from schemas.ids import JourneyId
from streams.console import store as console
from streams.console.service import Journey, Records
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer

Progress = Callable[[str], None]

_SPANS_ARRIVE_S = 0.8  # after they end; see streams/core/telemetry/setup.py
_SPANS_WITHIN_S = 10.0


@dataclass(frozen=True)
class Told:
    """One session's end: what the wearer was told, what the operators see, what the merchant got, and how often the provider's
    own books say that something was charged for it."""

    replayed: Replayed
    journey: Journey
    records: Records
    trace: str | None
    webhooks: list[dict[str, Any]]
    charges: int


@dataclass(frozen=True)
class Demonstration:
    told: list[Told]
    notes: list[str]
    addresses: dict[str, str]
    ready_after_s: float


class Demo:
    """One run in a stack of its own below `root`. Use it as a context: everything it starts ends with it."""

    def __init__(self, root: Path, progress: Progress) -> None:
        self._progress = progress
        # The sandbox's people and shops never go into a database of the user's own.
        self._stack = LocalStack(root, configured={name: os.environ[name] for name in os.environ if name != "DATABASE_URL"})

    async def __aenter__(self) -> "Demo":
        self._began = time.monotonic()
        self._progress("starting Kafka, PostgreSQL, Triton and Zipkin")
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *exception: Any) -> None:
        self._progress("stopping")
        await self._stack.__aexit__(*exception)

    async def run(self) -> Demonstration:
        """Raises sessions.UnexpectedAnswer where the platform does not do what the sessions' records say."""
        receiver = Receiver(self._stack.layout)
        self._progress("starting the platform")
        platform = await self._stack.start_platform(receiver.spec())
        ready_after = time.monotonic() - self._began
        database = Database(create_engine(platform.environment["DATABASE_URL"]))
        try:
            world = World(database, Sealer(platform.environment["AUGENBLICK_SECRET_KEY"]), platform.provider_address)
            receiver.trust([merchant.webhook_secret for merchant in await world.settle(receiver.url)])
            replays = await self._replay(world, f"ws://{platform.gateway_address}/v1/glasses")
            await asyncio.sleep(_SPANS_ARRIVE_S)
            told = [await self._told(database, replayed, platform, receiver) for replayed in replays]
        finally:
            await database.close()
        addresses = {address.what: address.address for address in self._stack.addresses}
        return Demonstration(told, self._stack.notes, addresses, ready_after)

    async def _replay(self, world: World, gateway: str) -> list[Replayed]:
        """Session after session. Before them a glance that is not shown, for the first one of a process is always slow."""
        recorded = [sessions.load(name) for name in sessions.NAMES]
        paying = recorded[sessions.NAMES.index("pay")]
        warm_up = paying.model_copy(update={"steps": paying.steps[:-1]})
        replays = []
        for session in (warm_up, *recorded):
            self._progress(session.title)
            wearer = await world.wearer(session.wearer)
            async with Glasses.connected(gateway, wearer.id, wearer.key) as glasses:
                replays.append(await sessions.replay(session, glasses))
                if replays[-1].ended == "captured":
                    await glasses.expect(lambda message: message["type"] == "receipt.closed", timeout_s=20)
        return replays[1:]

    async def _told(self, database: Database, replayed: Replayed, platform: Platform, receiver: Receiver) -> Told:
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
        payments = {payment.id for payment in records.payments}
        books = await localstripe.payment_intents(platform.provider_address)
        return Told(
            replayed,
            journey,
            records,
            page.format(trace_id=journey_id.uuid.hex) if page else None,
            webhooks=[line for line in await receiver.received() if line.get("payment") in payments],
            charges=sum(
                intent["metadata"].get("journey_id") == journey_id and intent["status"] == "succeeded" for intent in books
            ),
        )
