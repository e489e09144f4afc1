"""What is locked and read for a whole group: nobody works with what somebody else in the group has changed meanwhile."""

import asyncio

from streams.core.database import Database
from streams.core.groups import GroupCommit
from streams.core.outbox import Transaction
from streams.core.sealing import Sealer
from streams.payments import store
from tests.integration.payments.conftest import a_case
from tests.support.rows import Rows


async def test_the_second_of_a_group_sees_what_the_first_has_done(database: Database, sealer: Sealer, rows: Rows) -> None:
    case = await a_case(database, sealer, rows)
    work = case.work()
    group = GroupCommit(database, "payments", prepare=store.prepare)
    units: list[Transaction] = []

    async def freeze(unit: Transaction) -> bool:
        units.append(unit)
        return await work.freeze_if_contradicted(case.payment_id, lambda payment, _: f"{payment.total} is wrong", unit)

    async def look(unit: Transaction) -> bool:
        units.append(unit)
        payment, _ = await store.current(unit, case.payment_id)
        return payment is not None and payment.frozen

    assert await asyncio.gather(*(group.run(each, about=case.payment_id) for each in (freeze, look))) == [True, True]
    assert units[0] is units[1], "they were one group"


async def test_what_was_only_looked_at_is_there_for_the_next(database: Database, sealer: Sealer, rows: Rows) -> None:
    case = await a_case(database, sealer, rows)
    work = case.work()
    group = GroupCommit(database, "payments", prepare=store.prepare)

    async def open_it(unit: Transaction) -> str | None:
        assert not await work.freeze_if_contradicted(case.payment_id, lambda *_: None, unit)
        plan = await work.open(case.payment_id, unit)
        return plan.attempt.kind if plan else None

    assert await asyncio.gather(*(group.run(open_it, about=case.payment_id) for _ in range(2))) == ["authorise", None]
