"""The whole platform, every role a process, with the world around it: a payment provider, and a merchant who listens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from infra.local.platform import Platform
from infra.local.stack import LocalStack
from infra.sandbox import localstripe
from infra.sandbox.glasses import Glasses
from infra.sandbox.receiver import Receiver
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.core.supervisor import Supervisor
from tests.support.rows import PairedGlasses, Rows, Shop


@dataclass(frozen=True)
class RunningPlatform:
    """`shop` has a catalogue to be filled (`rows.product`) and an endpoint at `receiver`."""

    stack: LocalStack
    supervisor: Supervisor
    plan: Platform
    environment: dict[str, str]
    database: Database
    rows: Rows
    shop: Shop
    receiver: Receiver

    @property
    def gateway(self) -> str:
        """For glasses."""
        return f"ws://{self.plan.gateway_address}/v1/glasses"

    @property
    def api(self) -> str:
        """For makers and merchants."""
        return f"http://{self.plan.gateway_address}"

    @property
    def console(self) -> str:
        return self.plan.console_address

    @property
    def provider(self) -> str:
        return self.plan.provider_address("stripe")

    @property
    def zipkin(self) -> str:
        """Of its web page, with a slash at the end; its API is below at `api/v2/`."""
        return self.environment["ZIPKIN_URL"]

    async def payer(self, kind: str = "ok") -> PairedGlasses:
        """New glasses whose wearer can pay: with a card that is `ok`, `declined`, or that `needs_action`."""
        seeded = await localstripe.seed_payer(self.provider, kind=kind)  # type: ignore[arg-type]
        return await self.rows.glasses(payer=seeded)

    @asynccontextmanager
    async def worn(self, glasses: PairedGlasses) -> AsyncIterator[Glasses]:
        """Connected, and on a nose."""
        async with Glasses.connected(self.gateway, glasses.device_id, glasses.key) as connected:
            await connected.wear()
            yield connected


@asynccontextmanager
async def running_platform(stack: LocalStack, settings: dict[str, str]) -> AsyncIterator[RunningPlatform]:
    """`stack` names every server; its supervisor runs the roles as well, and ends them with it."""
    receiver = Receiver(stack.layout)
    plan = await stack.start_platform(receiver.spec(), settings=settings, providers=["stripe"])
    environment = plan.environment
    database = Database(create_engine(environment["DATABASE_URL"]))
    try:
        credentials = localstripe.credentials(plan.provider_address("stripe"))
        rows = Rows(database, Sealer(environment["AUGENBLICK_SECRET_KEY"]), {"stripe": credentials})
        shop = await rows.merchant()
        _, secret = await rows.endpoint(shop, receiver.url)
        receiver.trust([secret])
        yield RunningPlatform(stack, stack.supervisor, plan, environment, database, rows, shop, receiver)
    finally:
        await database.close()
