"""Operators' commands against the sandbox's gateways, each a process with books of its own, through the real connectors."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select, update

from infra.local.ports import new_port
from infra.sandbox import providers
from infra.sandbox.providers import SandboxProvider
from schemas.ids import PaymentId
from schemas.money import Money
from schemas.tables import attempts, payments
from streams.core.handling import transaction
from streams.payments import commands
from streams.payments.accounts import Accounts
from streams.payments.work import PaymentWork
from tests.integration.payments.operated import NO_TRIGGERS, Operated
from tests.support.peers import running
from tests.support.rows import Rows

ZONES = {"alipay": "Asia/Shanghai", "wechat_pay": "Asia/Shanghai", "stripe": "UTC"}


@dataclass
class Sandbox:
    name: str
    module: SandboxProvider
    address: str
    operated: Operated
    credentials: dict[str, str]
    connectors: Accounts
    merchant_id: str = ""

    @property
    def currency(self) -> str:
        return self.module.CURRENCY or "SEK"

    async def approved(self, minor: int) -> PaymentId:
        payer = await self.module.seed_payer(self.address)
        rows = Rows(self.operated.database, self.operated.sealer, {self.name: self.credentials})
        glasses = await rows.glasses(payer=payer)
        payment = await rows.approved_payment(Money.of(minor, self.currency), glasses=glasses, provider=self.name)
        self.merchant_id = payment.merchant_id
        return payment.id

    async def carry_out(self, payment_id: PaymentId) -> str:
        """As a worker does, who asks again while the provider is at it; returns the outcome."""
        work = PaymentWork(self.operated.database, self.connectors, self.operated.sealer, schedule=(0.0,))
        for _ in range(20):
            async with transaction(self.operated.database) as unit:
                plan = await work.open(payment_id, unit)
            assert plan is not None
            outcome = await work.call(plan)
            async with transaction(self.operated.database) as unit:
                await work.settle(plan, outcome, unit)
            if outcome.kind != "pending":
                return outcome.kind
            await asyncio.sleep(0.2)
        raise AssertionError("it stays pending")

    async def paid(self, minor: int) -> PaymentId:
        payment_id = await self.approved(minor)
        assert await self.carry_out(payment_id) == "succeeded"
        return payment_id

    async def refund(self, payment_id: PaymentId, minor: int) -> None:
        async with transaction(self.operated.database) as unit:
            amount = Money.of(minor, self.currency)
            await commands.request(unit, self.connectors, payment_id, "refund", amount, requested_by="operator")
        assert await self.carry_out(payment_id) == "succeeded"

    async def state(self, payment_id: PaymentId) -> str:
        async with self.operated.database.transaction() as connection:
            return str((await connection.execute(select(payments.c.state).where(payments.c.id == payment_id))).scalar_one())

    @property
    def today(self) -> date:
        return datetime.now(ZoneInfo(ZONES[self.name])).date()

    async def reconcile(self) -> tuple[int, dict[str, Any]]:
        """Of the account that the merchants share."""
        arguments = ("reconcile", self.name, self.today.isoformat(), "--merchant", self.merchant_id, "--json")
        ran = await self.operated.run(*arguments)
        [found] = json.loads(ran.stdout)["accounts"]
        assert found["comparison"] is not None, ran.output
        return ran.exit_code, found["comparison"]


@pytest.fixture(scope="module", params=providers.NAMES)
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    module = providers.find(request.param)
    address = module.address(port := new_port())
    with running(module.argv(port), lambda: module.is_ready(address), tmp_path_factory.mktemp(request.param) / "log"):
        yield request.param, address


@pytest.fixture
async def sandbox(gateway: tuple[str, str], operated: Operated) -> AsyncIterator[Sandbox]:
    name, address = gateway
    module = providers.find(name)
    credentials = dict(await asyncio.to_thread(module.credentials, address))
    connectors = Accounts(operated.sealer, "http://127.0.0.1:9")
    yield Sandbox(name, module, address, operated, credentials, connectors)
    await connectors.close()


async def test_a_day_is_reconciled_to_the_cent(sandbox: Sandbox) -> None:
    paid = [await sandbox.paid(minor) for minor in (650, 1299, 2000)]
    for minor in (300, 200, 300):
        await sandbox.refund(paid[2], minor)
    code, compared = await sandbox.reconcile()
    moved = await sandbox.module.moved(sandbox.address)
    in_all = sum(line.amount.minor * (1 if line.kind == "payment" else -1) for line in moved)
    assert (compared["differences"], compared["undecided"], code) == ([], [], 0)
    assert compared["agreed"] == len(moved) >= 6
    assert compared["ours_minor"] == compared["theirs_minor"] == {sandbox.currency: in_all}

    # Somebody changes our books: each of it is seen in theirs.
    async with sandbox.operated.database.transaction() as connection:
        detail = {"kind": "succeeded", "total": {"minor": 651, "currency": sandbox.currency}, "captured": True}
        first = update(attempts).where(attempts.c.payment_id == paid[0])
        await connection.execute(first.values(detail=detail))
        await connection.execute(NO_TRIGGERS)
        await connection.execute(update(attempts).where(attempts.c.payment_id == paid[1]).values(outcome="declined"))
    try:
        code, compared = await sandbox.reconcile()
        found = sorted(difference["kind"] for difference in compared["differences"])
        assert (code, found) == (1, ["differing", "extra"])
    finally:
        async with sandbox.operated.database.transaction() as connection:
            await connection.execute(first.values(detail={**detail, "total": {"minor": 650, "currency": sandbox.currency}}))
            await connection.execute(NO_TRIGGERS)
            await connection.execute(update(attempts).where(attempts.c.payment_id == paid[1]).values(outcome="succeeded"))


@pytest.mark.parametrize("gateway", ["alipay", "wechat_pay"], indirect=True)  # localstripe is not ours, and loses no answers
async def test_an_answer_that_was_lost_is_extra_until_the_operator_asks(sandbox: Sandbox) -> None:
    payment_id = await sandbox.approved(777)
    await sandbox.module.set_faults(sandbox.address, rate=1.0, kinds=["answer_lost"])
    try:
        assert await sandbox.carry_out(payment_id) == "unknown"
    finally:
        await sandbox.module.set_faults(sandbox.address, rate=0.0)
    code, compared = await sandbox.reconcile()
    assert code == 1
    assert [difference["remark"] for difference in compared["differences"]] == [f"our {payment_id} is unknown"]
    resolved = await sandbox.operated.run("payments", "resolve", payment_id)
    assert (resolved.exit_code, "it is captured" in resolved.output) == (0, True), resolved.output
    assert await sandbox.state(payment_id) == "captured"
    assert (await sandbox.reconcile())[0] == 0


async def test_credentials_of_the_sandbox_are_taken_and_tried(sandbox: Sandbox, tmp_path: Any) -> None:
    shop = await Rows(sandbox.operated.database, sandbox.operated.sealer).merchant()
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(sandbox.credentials))
    provider = sandbox.name
    if provider == "stripe":
        ran = await sandbox.operated.run("connectors", "list", "--merchant", shop.merchant_id, "--json")
        [account] = json.loads(ran.stdout)["accounts"]
        assert (await sandbox.operated.run("connectors", "remove", account["id"])).exit_code == 0
    added = await sandbox.operated.run("connectors", "add", provider, "--merchant", shop.merchant_id, "--file", str(file))
    assert added.exit_code == 0, added.output
    for name in ("private_key", "api_v3_key", "api_key"):
        assert sandbox.credentials.get(name, "no such secret") not in added.output
    tried = await sandbox.operated.run("connectors", "test", "--merchant", shop.merchant_id)
    assert f"{provider} " in tried.output
    own = [line for line in tried.output.splitlines() if f" {provider} " in line]
    assert len(own) == 1 and own[0].endswith(": works"), tried.output
