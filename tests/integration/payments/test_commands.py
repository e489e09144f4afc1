"""Captures, cancellations and refunds, from the asking to what is told of them."""

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from schemas.errors import Rejected
from schemas.events import from_kafka
from schemas.ids import AttemptId, MerchantId
from schemas.money import Money
from schemas.tables import attempts, outbox, receipt_entries
from streams.core import receipts
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.sealing import Sealer
from streams.payments import commands
from tests.integration.payments.conftest import a_case
from tests.support.payments import CAPABILITIES, Case, Connected, mismatch
from tests.support.rows import Rows


def sek(minor: int) -> Money:
    return Money.of(minor, "SEK")


async def ask(case: Case, kind: commands.Kind, minor: int | None = None, **more: object) -> AttemptId | None:
    """Give the command, as the merchants' API does; a worker has not seen it yet."""
    async with transaction(case.database) as unit:
        amount = sek(minor) if minor else None
        return await commands.request(
            unit,
            Connected(case.provider),
            case.payment_id,
            kind,
            amount,
            requested_by="merchant",
            **more,  # type: ignore[arg-type]
        )


async def do(case: Case, kind: commands.Kind, minor: int | None = None) -> None:
    """Give it, and have the worker handle the very event that was published."""
    await ask(case, kind, minor)
    async with case.database.transaction() as connection:
        query = select(outbox).where(outbox.c.topic == "payments.commands", outbox.c.key == case.payment_id.encode())
        row = (await connection.execute(query.order_by(outbox.c.id.desc()).limit(1))).one()
    await case.handle(from_kafka([(name, value.encode()) for name, value in row.headers.items()], row.value))


async def amounts(case: Case) -> tuple[object, ...]:
    row = await case.row()
    return row["state"], row["captured_minor"], row["refunded_minor"]


async def refused(case: Case, kind: commands.Kind, minor: int | None = None, **more: object) -> str:
    with pytest.raises(Rejected) as no:
        await ask(case, kind, minor, **more)
    return no.value.problem.code


async def test_what_was_reserved_is_taken(reserved: Case) -> None:
    await do(reserved, "capture")
    assert await amounts(reserved) == ("captured", 1895, 0)
    assert reserved.provider.submitted == ["authorise", "capture"]
    assert await reserved.published() == ["payment.authorised", "payment.captured"]
    _, told = (await reserved.events())[-1]
    command = told["command"]
    assert isinstance(command, dict)
    assert (command["kind"], command["succeeded"], told["captured"]) == ("capture", True, {"minor": 1895, "currency": "SEK"})


async def test_less_than_was_reserved_is_taken_and_given_back_in_parts(reserved: Case) -> None:
    await do(reserved, "capture", 1000)
    assert await amounts(reserved) == ("captured", 1000, 0)
    await do(reserved, "refund", 300)
    assert await amounts(reserved) == ("partially_refunded", 1000, 300)
    await do(reserved, "refund", 200)
    assert await amounts(reserved) == ("partially_refunded", 1000, 500)
    assert await refused(reserved, "refund", 501) == "amount-too-large"
    await do(reserved, "refund")
    assert await amounts(reserved) == ("refunded", 1000, 1000)
    assert await refused(reserved, "refund") == "payment-state"
    assert sorted(reserved.provider.refunds.values()) == [200, 300, 500]
    assert (await reserved.published())[2:] == ["payment.partially_refunded"] * 2 + ["payment.refunded"]
    async with reserved.database.transaction() as connection:
        journey = (await reserved.row())["journey_id"]
        assert await receipts.verify(connection, journey) == []  # type: ignore[arg-type]
        kinds = await connection.execute(select(receipt_entries.c.kind).where(receipt_entries.c.journey_id == journey))
        assert sorted(kinds.scalars()) == ["command"] * 4 + ["provider_answered"] * 5


async def test_what_was_reserved_is_given_up(reserved: Case) -> None:
    await do(reserved, "cancel")
    assert await amounts(reserved) == ("cancelled", 0, 0)
    assert await refused(reserved, "capture") == "payment-state"


async def test_what_no_worker_has_begun_is_cancelled_without_a_call(case: Case) -> None:
    assert await ask(case, "cancel") is None
    assert await case.handle() == "handled"
    row = await case.row()
    assert (row["state"], row["state_reason"], case.provider.opened) == ("cancelled", "cancelled_by_merchant", [])
    assert await case.published() == ["payment.cancelled"]


async def test_each_command_is_an_attempt_with_its_own_key_and_request_digest(reserved: Case) -> None:
    await do(reserved, "capture")
    await do(reserved, "refund", 100)
    await do(reserved, "refund", 100)
    async with reserved.database.transaction() as connection:
        rows = (await connection.execute(select(attempts).where(attempts.c.payment_id == reserved.payment_id))).all()
    assert len({row.id for row in rows}) == 4
    assert {row.kind for row in rows} == {"authorise", "capture", "refund"}
    assert len({row.request_digest for row in rows}) == 3, "equal requests have equal digests, and other keys"
    assert all(row.outcome == "succeeded" and row.ended_at for row in rows)


async def test_two_commands_never_run_at_once(reserved: Case) -> None:
    await ask(reserved, "capture")
    assert await refused(reserved, "cancel") == "payment-busy"
    with pytest.raises(DBAPIError):
        async with reserved.database.transaction() as connection:
            row = {"id": "att_other", "payment_id": reserved.payment_id, "kind": "cancel", "request_digest": ""}
            await connection.execute(attempts.insert().values(row))


async def test_of_commands_given_at_once_one_is_taken(reserved: Case) -> None:
    results = await asyncio.gather(*(ask(reserved, "capture") for _ in range(6)), return_exceptions=True)
    taken = [result for result in results if isinstance(result, AttemptId)]
    no = [result.problem.code for result in results if isinstance(result, Rejected)]
    assert (len(taken), no) == (1, ["payment-busy"] * 5)


async def test_a_refused_refund_leaves_the_payment_as_it_was_and_is_told(case: Case) -> None:
    await case.handle()
    case.provider.decline_refunds = True
    await do(case, "refund", 500)
    assert await amounts(case) == ("captured", 1895, 0)
    headers, told = (await case.events())[-1]
    assert (headers["ce_type"], told["reason"]) == ("payment.command_failed", "insufficient_balance")
    case.provider.decline_refunds = False
    await do(case, "refund", 500)
    assert await amounts(case) == ("partially_refunded", 1895, 500)


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """No janitor runs, and is not waited for as long as one would be."""
    monkeypatch.setattr(commands, "_TOUCH_S", 0.2)


@pytest.mark.usefixtures("nobody_answers")
async def test_a_refund_whose_answer_was_lost_is_found_and_not_made_twice(case: Case) -> None:
    await case.handle()
    case.provider.lose_answers = 1
    await do(case, "refund", 700)
    assert await amounts(case) == ("captured", 1895, 0)
    assert await refused(case, "refund", 700) == "payment-busy"
    await commands.touch(case.database, case.payment_id)
    await case.clean()
    assert await amounts(case) == ("partially_refunded", 1895, 700)
    assert list(case.provider.refunds.values()) == [700]
    assert case.provider.submitted.count("refund") == 1


@pytest.mark.usefixtures("nobody_answers")
async def test_a_touch_asks_now_and_leaves_alone_what_a_worker_has_in_hand(case: Case) -> None:
    await case.handle()
    case.provider.lose_answers = 1
    await do(case, "refund", 700)
    await case.clean()
    assert case.provider.asked == 0, "the schedule says later"
    await commands.touch(case.database, case.payment_id)
    await case.clean()
    assert case.provider.asked == 1


async def test_a_command_whose_event_was_lost_is_found_by_the_janitor(reserved: Case) -> None:
    await ask(reserved, "capture")
    await reserved.clean()
    assert await reserved.state() == "authorised", "its worker may still come"
    await reserved.time_passes()
    await reserved.clean()
    assert await amounts(reserved) == ("captured", 1895, 0)


async def test_a_refund_that_does_not_fit_freezes_the_payment(case: Case) -> None:
    await case.handle()
    case.provider.says = mismatch()
    await do(case, "refund", 700)
    row = await case.row()
    assert (row["state"], row["refunded_minor"], row["frozen_at"] is not None) == ("captured", 0, True)
    assert await refused(case, "refund", 100) == "payment-frozen"


async def test_other_merchants_payments_are_not_there(reserved: Case) -> None:
    assert await refused(reserved, "capture", merchant_id=MerchantId.new()) == "not-found"
    own = MerchantId(str((await reserved.row())["merchant_id"]))
    assert await ask(reserved, "capture", merchant_id=own) is not None


async def test_what_the_provider_does_not_offer_is_refused(database: Database, sealer: Sealer, rows: Rows) -> None:
    case = await a_case(database, sealer, rows)
    await case.handle()
    case.provider.capabilities = replace(CAPABILITIES, partial_refund=False)
    assert await refused(case, "refund", 100) == "capability-not-offered"
    case.provider.capabilities = replace(CAPABILITIES, commands=frozenset({"authorise"}))
    assert await refused(case, "refund") == "capability-not-offered"


async def test_an_amount_in_another_currency_is_refused(reserved: Case) -> None:
    with pytest.raises(Rejected):
        async with transaction(reserved.database) as unit:
            await commands.request(
                unit, Connected(reserved.provider), reserved.payment_id, "capture", Money.of(1, "EUR"), requested_by="merchant"
            )
