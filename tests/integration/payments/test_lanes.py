"""A provider that hangs keeps no other waiting."""

import asyncio
from time import perf_counter

from schemas.money import Money
from schemas.payments import Command, Outcome, Payer
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.payments.accounts import Account
from streams.payments.agent import Payments
from streams.payments.calls import Calls
from streams.payments.janitor import Janitor
from streams.payments.work import PaymentWork
from tests.integration.payments.conftest import a_case
from tests.support.payments import Case, Provider
from tests.support.rows import Rows


class Hanging(Provider):
    """Answers when it is let go."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.released = asyncio.Event()
        self.under_way = 0

    async def submit(self, command: Command, key: str) -> Outcome:
        self.under_way += 1
        await self.released.wait()
        return await super().submit(command, key)


class ByProvider:
    def __init__(self, **providers: Provider) -> None:
        self._providers = providers

    def connector(self, account: Account) -> Provider:
        return self._providers[account.provider]


async def cases(database: Database, sealer: Sealer, rows: Rows, provider: str, count: int) -> list[Case]:
    made = []
    for _ in range(count):
        case = await a_case(database, sealer, rows)
        glasses = await rows.glasses(payer=Payer(provider=provider, customer="c", payment_method="m"))
        payment = await rows.approved_payment(Money.of(100, "SEK"), glasses=glasses, provider=provider)
        case.payment_id = payment.id
        case.due = case.another_due()
        made.append(case)
    return made


async def test_the_healthy_providers_payments_go_on(database: Database, sealer: Sealer, rows: Rows) -> None:
    hanging, healthy = Hanging(), Provider()
    slow = await cases(database, sealer, rows, "hanging", 12)
    quick = await cases(database, sealer, rows, "healthy", 6)
    work = PaymentWork(database, ByProvider(hanging=hanging, healthy=healthy), sealer, worker="lanes-0")
    calls = Calls("payments", database, work, at_once=4)
    payments = Payments(database, work, calls)
    try:
        for case in slow:
            await asyncio.wait_for(payments(case.due), 20)
        async with asyncio.timeout(20):
            while hanging.under_way < 4:
                await asyncio.sleep(0.01)
        assert calls.busy == ["hanging"]
        started = perf_counter()
        for case in quick:
            await payments(case.due)
        while healthy.charged < 6:
            await asyncio.sleep(0.01)
            assert perf_counter() - started < 30, "the healthy provider's payments wait for the other's"
        assert hanging.under_way == 4, "no more than its lane holds"
    finally:
        hanging.released.set()
        await calls.finish()
    assert [await case.state() for case in (*slow, *quick)] == ["captured"] * 18
    assert hanging.charged == 12


async def test_the_janitor_passes_over_a_provider_whose_lane_is_full(database: Database, sealer: Sealer, rows: Rows) -> None:
    hanging, healthy = Hanging(), Provider()
    slow = await cases(database, sealer, rows, "hanging", 3)
    quick = await cases(database, sealer, rows, "healthy", 2)
    work = PaymentWork(database, ByProvider(hanging=hanging, healthy=healthy), sealer, worker="lanes-1")
    for case in (*slow, *quick):
        await case.change("updated_at = now() - interval '1 hour'")
    calls = Calls("janitor", database, work, at_once=2)
    janitor = Janitor(database, work, calls)
    try:
        async with asyncio.timeout(20):
            while healthy.charged < 2:
                await janitor.round()
                await asyncio.sleep(0.01)
        assert hanging.under_way <= 2
    finally:
        hanging.released.set()
        await calls.finish()


async def test_a_lane_that_is_too_full_leaves_the_rest_on_record(database: Database, sealer: Sealer, rows: Rows) -> None:
    hanging = Hanging()
    slow = await cases(database, sealer, rows, "hanging", 10)
    work = PaymentWork(database, ByProvider(hanging=hanging), sealer, worker="lanes-2")
    calls = Calls("payments", database, work, at_once=1)  # one calling, seven waiting
    payments = Payments(database, work, calls)
    for case in slow:
        await payments(case.due)
    hanging.released.set()
    await calls.finish()
    assert sorted([await case.state() for case in slow]) == ["captured"] * 8 + ["submitting"] * 2
    for case in slow:
        await case.time_passes()
        await case.clean(work)
    assert [await case.state() for case in slow] == ["captured"] * 10
    assert hanging.charged == 10
