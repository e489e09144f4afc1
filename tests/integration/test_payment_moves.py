"""The database refuses what a payment must not do, whoever asks."""

from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import JourneyId
from schemas.payments import PAYMENT_MOVES, PaymentState
from schemas.tables import payment_moves, payments, receipt_entries
from streams.core import receipts
from streams.core.database import Database
from tests.support.rows import ApprovedPayment, Rows

STATE = PaymentState


def ways() -> dict[PaymentState, list[PaymentState]]:
    """For each state, one way from `approved` to it; `proposed` is where payments may begin as well, and nothing leads to it."""
    found: dict[PaymentState, list[PaymentState]] = {STATE.APPROVED: []}
    edge = [STATE.APPROVED]
    while edge:
        come = edge.pop(0)
        for to in STATE:
            if (come, to) in PAYMENT_MOVES and to not in found:
                found[to] = [*found[come], to]
                edge.append(to)
    return found


async def refused(connection: AsyncConnection, change: Callable[[], Awaitable[object]]) -> bool:
    """Whether the database refuses; the transaction goes on either way."""
    savepoint = await connection.begin_nested()
    try:
        await change()
    except DBAPIError as error:
        await savepoint.rollback()
        assert getattr(error.orig, "sqlstate", None) == "23514", error  # check_violation
        return True
    await savepoint.commit()
    return False


async def move(connection: AsyncConnection, payment: ApprovedPayment, to: PaymentState) -> None:
    """With the money that moves with it: all of it is taken, and a part or all of it given back."""
    values: dict[str, object] = {"state": to}
    if to in {STATE.CAPTURED, STATE.PARTIALLY_REFUNDED, STATE.REFUNDED}:
        values["captured_minor"] = payment.total.minor
    if to in {STATE.PARTIALLY_REFUNDED, STATE.REFUNDED}:
        values["refunded_minor"] = payment.total.minor if to is STATE.REFUNDED else 1
    await connection.execute(update(payments).where(payments.c.id == payment.id).values(values))


async def test_the_moves_of_the_code_are_those_of_the_database(database: Database) -> None:
    async with database.transaction() as connection:
        rows = await connection.execute(select(payment_moves.c.from_state, payment_moves.c.to_state))
        assert {(row.from_state, row.to_state) for row in rows} == PAYMENT_MOVES


@pytest.mark.parametrize("start", sorted(ways()))
async def test_every_move_is_made_or_refused_as_the_table_says(rows: Rows, start: PaymentState) -> None:
    payment = await rows.approved_payment()
    async with rows.database.transaction() as connection:
        for step in ways()[start]:
            await move(connection, payment, step)
        for to in STATE:
            trial = await connection.begin_nested()
            allowed = not await refused(connection, lambda to=to: move(connection, payment, to))  # type: ignore[misc]
            await trial.rollback()
            assert allowed == (to is start or (start, to) in PAYMENT_MOVES), f"{start} → {to}"


async def test_a_payment_begins_as_proposed_or_approved_only(rows: Rows) -> None:
    payment = await rows.approved_payment()
    async with rows.database.transaction() as connection:
        row = (await connection.execute(select(payments).where(payments.c.id == payment.id))).mappings().one()
        await connection.execute(delete(payments).where(payments.c.id == payment.id))
        for begin in STATE:
            trial = await connection.begin_nested()
            again = insert(payments).values({**row, "state": begin})
            accepted = not await refused(connection, lambda again=again: connection.execute(again))  # type: ignore[misc]
            await trial.rollback()
            assert accepted == (begin in {STATE.PROPOSED, STATE.APPROVED}), begin


async def test_what_a_payment_is_for_cannot_change(rows: Rows) -> None:
    payment, other = await rows.approved_payment(), await rows.approved_payment()
    changes = {
        "total_minor": payment.total.minor - 1,
        "total_currency": "USD",
        "merchant_id": other.merchant_id,
        "proposal_id": other.proposal_id,
    }
    async with rows.database.transaction() as connection:
        for name, value in changes.items():
            change = update(payments).where(payments.c.id == payment.id).values({name: value})
            assert await refused(connection, lambda change=change: connection.execute(change)), name  # type: ignore[misc]


@pytest.mark.parametrize(
    "values",
    [
        {"captured_minor": 1},  # nothing was taken in this state
        {"state": STATE.CAPTURED},  # and nothing is captured without money
        {"state": STATE.CAPTURED, "captured_minor": 1300},  # more than was owed
        {"state": STATE.CAPTURED, "captured_minor": 1299, "refunded_minor": 1},
        {"state": STATE.CAPTURED, "captured_minor": -1},
    ],
)
async def test_money_and_state_go_together(rows: Rows, values: dict[str, object]) -> None:
    payment = await rows.approved_payment()
    async with rows.database.transaction() as connection:
        await move(connection, payment, STATE.SUBMITTING)
        change = update(payments).where(payments.c.id == payment.id).values(values)
        assert await refused(connection, lambda: connection.execute(change))


async def test_money_that_moved_stays_moved(rows: Rows) -> None:
    payment = await rows.approved_payment()
    async with rows.database.transaction() as connection:
        for step in (STATE.SUBMITTING, STATE.CAPTURED, STATE.PARTIALLY_REFUNDED):
            await move(connection, payment, step)
        for values in ({"refunded_minor": 0}, {"captured_minor": 1298}, {"account_id": None}, {"refunded_minor": 1300}):
            change = update(payments).where(payments.c.id == payment.id).values(values)
            assert await refused(connection, lambda change=change: connection.execute(change)), values  # type: ignore[misc]


async def test_what_a_payment_is_for_cannot_change_together_with_an_allowed_move(rows: Rows) -> None:
    payment = await rows.approved_payment()
    change = update(payments).where(payments.c.id == payment.id)
    async with rows.database.transaction() as connection:
        assert await refused(
            connection, lambda: connection.execute(change.values(state=STATE.SUBMITTING, total_minor=payment.total.minor + 1))
        )
        assert not await refused(connection, lambda: connection.execute(change.values(state=STATE.SUBMITTING)))


async def test_nothing_is_paid_that_costs_nothing(rows: Rows) -> None:
    payment = await rows.approved_payment()
    async with rows.database.transaction() as connection:
        row = (await connection.execute(select(payments).where(payments.c.id == payment.id))).mappings().one()
        await connection.execute(delete(payments).where(payments.c.id == payment.id))
        for nothing in (0, -1):
            again = insert(payments).values({**row, "total_minor": nothing})
            assert await refused(connection, lambda again=again: connection.execute(again))  # type: ignore[misc]


async def test_a_receipt_is_only_ever_added_to(database: Database) -> None:
    journey = JourneyId.new()
    entry = receipt_entries.c.journey_id == journey
    async with database.transaction() as connection:
        await receipts.append(connection, journey, "recognised", {"gtin": "09521234567899"})
    async with database.transaction() as connection:
        change = update(receipt_entries).where(entry).values(kind="approved")
        assert await refused(connection, lambda: connection.execute(change))
        assert await refused(connection, lambda: connection.execute(delete(receipt_entries).where(entry)))
        assert await receipts.verify(connection, journey) == []
