"""A platform an operator looks after: payments with all they stand on, and the command line on the same database."""

import asyncio
import base64
import json
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from sqlalchemy import insert, select, text, update
from typer.testing import CliRunner

from connectors import registry
from infra.cli import app
from schemas.digests import canonical_json, sha256_hex
from schemas.errors import AugenblickError
from schemas.ids import AccountId, JourneyId, MerchantId, PaymentId
from schemas.money import Money
from schemas.payments import Payer
from schemas.tables import approvals, payments, proposals
from streams.core import receipts
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.sealing import Sealer
from streams.payments import commands
from streams.payments.accounts import Accounts
from streams.payments.work import PaymentWork
from tests.integration.payments.invented_provider import BOOKS, Books
from tests.support.rows import Rows

PROVIDER = "invented"
MODULE = "tests.integration.payments.invented_provider"
KEY = base64.b64encode(bytes(range(32))).decode()
"""The key of the fixture `sealer`."""

NO_TRIGGERS = text("SET LOCAL session_replication_role = replica")
"""As somebody who may do anything: until the transaction ends there are no triggers and no foreign keys."""


@dataclass(frozen=True)
class Paid:
    payment_id: PaymentId
    journey_id: JourneyId
    merchant_id: MerchantId
    account_id: AccountId
    account: str

    @property
    def reference(self) -> str:
        return f"inv_{self.payment_id}"

    @property
    def books(self) -> Books:
        return BOOKS[self.account]


@dataclass(frozen=True)
class Ran:
    """`output`: what a user sees of both."""

    exit_code: int
    output: str
    stdout: str


@dataclass
class Operated:
    database: Database
    url: str
    sealer: Sealer

    @property
    def connectors(self) -> Accounts:
        return Accounts(self.sealer)

    @property
    def work(self) -> PaymentWork:
        return PaymentWork(self.database, self.connectors, self.sealer)

    async def approved(self, total: Money | None = None, *, account: str | None = None, capture: bool = True) -> Paid:
        """As the wearer's yes leaves it: with its account, its approval and its receipt."""
        account = account or f"inv_{uuid4().hex[:12]}"
        rows = Rows(self.database, self.sealer, {PROVIDER: {"api_key": "invented-key", "account": account}})
        glasses = await rows.glasses(payer=Payer(provider=PROVIDER, customer="c", payment_method="m"))
        payment = await rows.approved_payment(total or Money.of(1895, "SEK"), glasses=glasses, provider=PROVIDER, capture=capture)
        async with self.database.transaction() as connection:
            its_journey = select(payments.c.journey_id).where(payments.c.id == payment.id)
            journey_id = JourneyId((await connection.execute(its_journey)).scalar_one())
            query = select(proposals.c.terms).where(proposals.c.id == payment.proposal_id)
            digest = sha256_hex(canonical_json((await connection.execute(query)).scalar_one()))
            await connection.execute(update(proposals).where(proposals.c.id == payment.proposal_id).values(digest=digest))
            jws = f"e30.{_base64({'digest': digest})}.c2ln"
            approved = {"proposal_id": payment.proposal_id, "nonce": payment.proposal_id, "presence": "press", "jws": jws}
            await connection.execute(insert(approvals).values(**approved, signed_at=text("now()")))
            said: list[tuple[str, dict[str, Any]]] = [
                ("recognised", {"gtin": "09521234567899"}),
                ("proposed", {"proposal_id": payment.proposal_id, "digest": digest}),
                ("approved", {"payment_id": payment.id, "digest": digest, "presence": "press", "approval": jws}),
            ]
            for kind, content in said:
                await receipts.append(connection, journey_id, kind, content)
        return Paid(payment.id, journey_id, payment.merchant_id, payment.account_id, account)

    async def paid(self, total: Money | None = None, *, account: str | None = None, capture: bool = True) -> Paid:
        paid = await self.approved(total, account=account, capture=capture)
        await self.carry_out(paid)
        return paid

    async def carry_out(self, paid: Paid) -> None:
        """What a worker does with the command that waits."""
        work = self.work
        async with transaction(self.database) as unit:
            plan = await work.open(paid.payment_id, unit)
        assert plan is not None
        outcome = await work.call(plan)
        async with transaction(self.database) as unit:
            await work.settle(plan, outcome, unit)

    async def command(self, paid: Paid, kind: commands.Kind, minor: int | None = None, currency: str = "SEK") -> str:
        amount = Money.of(minor, currency) if minor is not None else None
        async with transaction(self.database) as unit:
            attempt_id = await commands.request(unit, self.connectors, paid.payment_id, kind, amount, requested_by="merchant")
        assert attempt_id is not None
        await self.carry_out(paid)
        return attempt_id

    async def row(self, paid: Paid) -> Any:
        async with self.database.transaction() as connection:
            return (await connection.execute(select(payments).where(payments.c.id == paid.payment_id))).one()

    async def kinds(self, paid: Paid) -> list[str]:
        async with self.database.transaction() as connection:
            return [entry.kind for entry in await receipts.read(connection, paid.journey_id)]

    async def tamper(self, *statements: str, **values: object) -> None:
        """As somebody who may do anything to the database."""
        async with self.database.transaction() as connection:
            await connection.execute(NO_TRIGGERS)
            for statement in statements:
                await connection.execute(text(statement), values)

    async def run(self, *arguments: str, input: str | None = None, **environment: str) -> Ran:
        """`augenblick …`. An error that is meant for the user is in the output, with exit status 1, as `main` has it."""
        given = {"DATABASE_URL": self.url, "AUGENBLICK_SECRET_KEY": KEY, **environment}
        result = await asyncio.to_thread(CliRunner().invoke, app, arguments, env=given, input=input)
        if isinstance(result.exception, AugenblickError):
            return Ran(result.exit_code, f"{result.output}{result.exception}\n", result.stdout)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ran(result.exit_code, result.output, result.stdout)


def _base64(content: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def register(patch: Any) -> None:
    patch.setitem(registry.PAYMENTS, PROVIDER, MODULE)
