"""However a worker ends, and whoever takes up what it left behind: the money moves once.

The provider here is worse than any real one: it forgets idempotency keys at once."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from schemas.payments import (
    Authorise,
    Command,
    NotSubmitted,
    Opened,
    Outcome,
    Payer,
    PaymentState,
    RefusedByProvider,
    Succeeded,
)
from schemas.tables import attempts, payments
from streams.core.handling import transaction
from streams.payments import store
from streams.payments.work import LeaseLost, PaymentWork
from tests.support.payments import Connected, Provider
from tests.support.rows import ApprovedPayment, Rows


class Dies(BaseException):
    """As SIGKILL: nothing that catches errors catches it."""


@dataclass
class ForgetfulProvider(Provider):
    """`dies_after` names the call whose answer the caller does not live to see."""

    dies_after: str | None = None
    together: asyncio.Barrier | None = None
    charged_once: Counter[str] = field(default_factory=Counter)

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        opened = await super().open(command, key)
        if self.together is not None:
            await self.together.wait()
        self._end("open")
        return opened

    async def submit(self, command: Command, key: str) -> Outcome:
        assert isinstance(command, Authorise)
        assert command.reference is not None
        if not self.charged_once[command.reference]:  # what is confirmed refuses to be confirmed again
            self.charged_once[command.reference] += 1
        self._end("submit")
        return Succeeded(reference=command.reference, total=command.total, captured=True)

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        assert isinstance(expected, Authorise)
        self._end("fetch")
        if self.charged_once[reference]:
            return Succeeded(reference=reference, total=expected.total, captured=True)
        return NotSubmitted(reference=reference)

    def _end(self, call: str) -> None:
        if self.dies_after == call:
            self.dies_after = None
            raise Dies


async def due(rows: Rows) -> ApprovedPayment:
    payer = Payer(provider="stripe", customer="cus_test", payment_method="pm_test")
    return await rows.approved_payment(glasses=await rows.glasses(payer=payer))


async def take(rows: Rows, provider: ForgetfulProvider, payment: ApprovedPayment) -> None:
    """What a worker does with a payment that is due."""
    work = PaymentWork(rows.database, Connected(provider), rows.sealer)
    async with transaction(rows.database) as unit:
        await store.lock_payment(unit.connection, payment.id)
        # Whoever was at it is believed dead.
        mine = update(attempts).where(attempts.c.payment_id == payment.id, attempts.c.ended_at.is_(None))
        await unit.connection.execute(mine.values(next_ask_at=datetime.now(UTC) - timedelta(seconds=1)))
        plan = await work.open(payment.id, unit)
    with suppress(LeaseLost):  # somebody was so much quicker that the attempt has ended: nothing is submitted any more
        if plan is not None:
            outcome = await work.call(plan)
            async with transaction(rows.database) as unit:
                await work.settle(plan, outcome, unit)


async def state_of(rows: Rows, payment: ApprovedPayment) -> str:
    async with rows.database.transaction() as connection:
        return str((await connection.execute(select(payments.c.state).where(payments.c.id == payment.id))).scalar_one())


async def paid_once(rows: Rows, provider: ForgetfulProvider, payment: ApprovedPayment) -> None:
    assert sum(provider.charged_once.values()) == 1
    assert await state_of(rows, payment) == PaymentState.CAPTURED
    async with rows.database.transaction() as connection:
        row = (await connection.execute(select(payments).where(payments.c.id == payment.id))).one()
        tries = (await connection.execute(select(attempts).where(attempts.c.payment_id == payment.id))).all()
    assert [row.provider_reference] == [attempt.reference for attempt in tries] == list(+provider.charged_once)


async def test_successors_that_die_as_well_change_nothing(rows: Rows) -> None:
    payment, provider = await due(rows), ForgetfulProvider()
    for call in ("open", "submit", "fetch", "fetch"):
        provider.dies_after = call
        with pytest.raises(Dies):
            await take(rows, provider, payment)
    await take(rows, provider, payment)
    await paid_once(rows, provider, payment)


async def test_a_worker_believed_dead_and_its_successor_pay_once_between_them(rows: Rows) -> None:
    """Both have opened the payment at the provider before either has put its reference on record."""
    payment, provider = await due(rows), ForgetfulProvider(together=asyncio.Barrier(3))
    await asyncio.gather(*(take(rows, provider, payment) for _ in range(3)))
    assert len(provider.opened) == 3
    await paid_once(rows, provider, payment)
