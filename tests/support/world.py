"""The whole platform, every role a process, with the world around it: a payment provider, and a merchant who listens."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from infra.local.checks import tcp_answers
from infra.local.platform import Platform
from infra.local.ports import LOOPBACK, choose_ports
from infra.local.stack import LocalStack
from infra.sandbox import localstripe
from infra.sandbox.glasses import Glasses
from streams.core.database import Database, create_engine
from streams.core.sealing import Sealer
from streams.core.supervisor import ProcessSpec, Supervisor
from tests.support.rows import PairedGlasses, Rows, Shop


@dataclass(frozen=True)
class Receiver:
    """The merchant's webhook receiver."""

    url: str
    secret_file: Path
    record_file: Path

    def received(self) -> list[dict[str, Any]]:
        """Every line of its record, first to last."""
        if not self.record_file.exists():
            return []
        return [json.loads(line) for line in self.record_file.read_text().splitlines()]

    def trust(self, secret: str) -> None:
        self.secret_file.write_text(secret + "\n")


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
        return self.plan.provider_address

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


def receiver_spec(stack: LocalStack, port: int) -> tuple[Receiver, ProcessSpec]:
    receiver = Receiver(
        f"http://{LOOPBACK}:{port}/webhooks", stack.layout.run / "merchant.secret", stack.layout.run / "merchant.record"
    )
    spec = ProcessSpec(
        name="merchant",
        argv=[
            *(sys.executable, "-m", "infra.sandbox.merchant", "--port", str(port)),
            *("--secret-file", str(receiver.secret_file), "--record", str(receiver.record_file)),
        ],
        log_file=stack.layout.log_file("merchant"),
        ready=partial(tcp_answers, LOOPBACK, port),
    )
    return receiver, spec


@asynccontextmanager
async def running_platform(stack: LocalStack, settings: dict[str, str]) -> AsyncIterator[RunningPlatform]:
    """`stack` names every server; its supervisor runs the roles as well, and ends them with it."""
    ports = choose_ports(["merchant"], stack.layout.run / "ports.json")
    receiver, receiving = receiver_spec(stack, ports["merchant"])
    plan = await stack.start_platform(receiving, settings=settings)
    environment = plan.environment
    database = Database(create_engine(environment["DATABASE_URL"]))
    try:
        rows = Rows(database, Sealer(environment["AUGENBLICK_SECRET_KEY"]))
        shop = await rows.merchant()
        _, secret = await rows.endpoint(shop, receiver.url)
        receiver.trust(secret)
        yield RunningPlatform(stack, stack.supervisor, plan, environment, database, rows, shop, receiver)
    finally:
        await database.close()
