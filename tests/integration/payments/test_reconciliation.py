"""Reconciling real rows with a provider's statements: each kind of difference, the day's edges, accounts that are one."""

import json
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import update

from schemas.money import Money
from schemas.payments import Cancelled, StatementLine, Unknown
from schemas.tables import attempts
from streams.payments import accounts
from tests.integration.payments.invented_provider import BOOKS, Books
from tests.integration.payments.operated import NO_TRIGGERS, PROVIDER, Operated, Paid, Ran

SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = date(2026, 3, 10)
NOON = datetime.combine(DAY, time(12), SHANGHAI)
MIDNIGHT = datetime.combine(DAY, time(), SHANGHAI)
SECOND = timedelta(seconds=1)


def line(
    paid: Paid | str,
    minor: int = 1895,
    currency: str = "SEK",
    *,
    at: datetime = NOON,
    attempt: str | None = None,
    kind: Literal["payment", "refund"] = "payment",
) -> StatementLine:
    reference = paid if isinstance(paid, str) else paid.reference
    return StatementLine(
        kind=kind, reference=reference, attempt_id=attempt, amount=Money.of(minor, currency), occurred_at=at.astimezone(UTC)
    )


def books(account: str, *lines: StatementLine) -> Books:
    """The provider's statements have these lines, each on its day."""
    found = BOOKS.setdefault(account, Books())
    for one in lines:
        found.statements.setdefault(one.occurred_at.astimezone(SHANGHAI).date(), []).append(one)
    return found


async def moved(operated: Operated, paid: Paid, at: datetime, *, lasted: timedelta = SECOND, kind: str = "authorise") -> Paid:
    """As if it had been then."""
    async with operated.database.transaction() as connection:
        then = update(attempts).where(attempts.c.payment_id == paid.payment_id, attempts.c.kind == kind)
        await connection.execute(NO_TRIGGERS)
        await connection.execute(then.values(begun_at=at - lasted, created_at=at - lasted, ended_at=at))
    return paid


async def on_that_day(operated: Operated, account: str, count: int = 1, **options: Any) -> list[Paid]:
    return [await moved(operated, await operated.paid(account=account, **options), NOON) for _ in range(count)]


async def reconcile(operated: Operated, account: str, day: date = DAY, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit status, and what was found of the account."""
    ran = await operated.run("reconcile", PROVIDER, day.isoformat(), "--json", *arguments)
    found = [each for each in json.loads(ran.stdout)["accounts"] if each["external_id"] == account]
    assert len(found) == 1, ran.output
    return ran.exit_code, found[0]["comparison"] or found[0]


def kinds(compared: dict[str, Any]) -> list[str]:
    return [difference["kind"] for difference in compared["differences"]]


@pytest.fixture
def account() -> str:
    """A provider's account that no other test has."""
    return f"inv_{uuid4().hex[:12]}"


def of(paid: Paid) -> tuple[str, str]:
    return "--merchant", paid.merchant_id


async def test_books_that_agree(operated: Operated, account: str) -> None:
    first, second = await on_that_day(operated, account, 2)
    refund = await operated.command(second, "refund", 500)
    await moved(operated, second, NOON, kind="refund")
    books(account, line(first), line(second), line(second, 500, kind="refund", attempt=refund))
    code, compared = await reconcile(operated, account, DAY, *of(first))
    assert (code, compared["agreed"], compared["differences"], compared["undecided"]) == (0, 3, [], [])
    assert compared["ours_minor"] == compared["theirs_minor"] == {"SEK": 2 * 1895 - 500}
    assert BOOKS[account].asked_for == [DAY]
    ran = await operated.run("reconcile", PROVIDER, DAY.isoformat(), *of(first))
    assert (ran.exit_code, f"{PROVIDER} on {DAY}: 3 agree, nothing differs." in ran.output) == (0, True), ran.output
    assert "32.90" in ran.output


async def test_each_difference_is_told(operated: Operated, account: str) -> None:
    agreeing, missing, amount, currency = await on_that_day(operated, account, 4)
    books(account, line(agreeing), line(amount, 1800), line(currency, 1895, "EUR"), line("inv_by_hand", 100))
    merchant = of(agreeing)
    code, compared = await reconcile(operated, account, DAY, *merchant)
    assert (code, compared["agreed"], sorted(kinds(compared))) == (1, 1, ["differing", "differing", "extra", "missing"])
    assert compared["ours_minor"] == {"SEK": 4 * 1895}
    assert compared["theirs_minor"] == {"EUR": 1895, "SEK": 1895 + 1800 + 100}
    ran = await operated.run("reconcile", PROVIDER, DAY.isoformat(), *merchant)
    for said in (
        f"missing    payment 18.95 SEK of {missing.payment_id}",
        "extra      payment 1.00 SEK (inv_by_hand)",
        f"differing  payment of {amount.payment_id}",
        "ours 18.95 SEK, the provider's 18.00 SEK",
        "the provider's 18.95 EUR",
        "1 agree, 1 missing, 1 extra, 2 differing.",
    ):
        assert said in ran.output, ran.output


async def test_money_that_moved_for_an_unknown_payment_is_extra_and_says_so(operated: Operated, account: str) -> None:
    [paid] = await on_that_day(operated, account)
    lost = await operated.approved(account=account)
    BOOKS[account].submit = lambda command: Unknown(reference=lost.reference, reason="no answer")
    await operated.carry_out(lost)
    books(account, line(paid), line(lost))
    code, compared = await reconcile(operated, account, DAY, *of(paid))
    [difference] = compared["differences"]
    assert (code, difference["kind"], difference["remark"]) == (1, "extra", f"our {lost.payment_id} is unknown")


async def test_what_was_reversed_is_no_difference(operated: Operated, account: str) -> None:
    """A cancellation came when it was just paid: the provider has both, and we have neither."""
    [paid] = await on_that_day(operated, account)
    cancelled = await operated.approved(account=account)
    BOOKS[account].submit = lambda command: Cancelled(reference=cancelled.reference)
    await operated.carry_out(cancelled)
    taken, back = line(cancelled), line(cancelled, kind="refund", at=NOON + SECOND)
    known = books(account, line(paid), taken, back)
    code, compared = await reconcile(operated, account, DAY, *of(paid))
    assert (code, compared["differences"], len(compared["reversed"])) == (0, [], 2)
    ran = await operated.run("reconcile", PROVIDER, DAY.isoformat(), *of(paid))
    assert "2 lines of cancelled payments cancel each other out" in ran.output
    # What was taken and not given back is a difference, and what was given back of a payment that is paid.
    known.statements[DAY] = [line(paid), taken]
    code, compared = await reconcile(operated, account, DAY, *of(paid))
    assert (code, compared["differences"][0]["remark"]) == (1, f"our {cancelled.payment_id} is cancelled")
    known.statements[DAY] = [line(paid), line(paid), line(paid, kind="refund")]
    assert kinds((await reconcile(operated, account, DAY, *of(paid)))[1]) == ["extra", "extra"]
    # Around midnight.
    known.statements.clear()
    books(account, line(cancelled, at=MIDNIGHT - SECOND), line(cancelled, at=MIDNIGHT + SECOND, kind="refund"))
    books(account, line(paid))
    for day in (DAY, DAY - timedelta(days=1)):
        assert (await reconcile(operated, account, day, *of(paid)))[0] == 0


async def test_several_refunds_of_one_payment(operated: Operated, account: str) -> None:
    [paid] = await on_that_day(operated, account)
    made = [await operated.command(paid, "refund", minor) for minor in (300, 200, 300)]
    await moved(operated, paid, NOON, kind="refund")
    refunds = [line(paid, minor, kind="refund", attempt=attempt) for attempt, minor in zip(made, (300, 200, 300), strict=True)]
    known = books(account, line(paid), *refunds)
    assert (await reconcile(operated, account, DAY, *of(paid)))[1]["agreed"] == 4
    known.statements[DAY] = [line(paid), *(line(paid, minor, kind="refund") for minor in (200, 300))]
    code, compared = await reconcile(operated, account, DAY, *of(paid))
    assert (code, compared["agreed"], kinds(compared)) == (1, 3, ["missing"])
    known.statements[DAY] = [line(paid), *refunds, refunds[0]]
    code, compared = await reconcile(operated, account, DAY, *of(paid))
    assert (code, kinds(compared)) == (1, ["extra"])


async def test_reservations_move_nothing_and_partial_captures_what_they_took(operated: Operated, account: str) -> None:
    [untouched, cancelled, captured] = await on_that_day(operated, account, 3, capture=False)
    await operated.command(cancelled, "cancel")
    await operated.command(captured, "capture", 1000)
    await moved(operated, captured, NOON + timedelta(days=3), kind="capture")
    books(account, line(captured, 1000))
    merchant = of(untouched)
    # Under the reservation's day, as some providers book it; on the capture's own day it is looked for there.
    for day in (DAY, DAY + timedelta(days=3)):
        assert (await reconcile(operated, account, day, *merchant))[0] == 0
    BOOKS[account].statements.clear()
    assert (await reconcile(operated, account, DAY, *merchant))[0] == 0
    code, compared = await reconcile(operated, account, DAY + timedelta(days=3), *merchant)
    assert (code, kinds(compared), compared["ours_minor"]) == (1, ["missing"], {"SEK": 1000})


async def test_at_midnight_the_neighbouring_day_is_looked_at(operated: Operated, account: str) -> None:
    paid = await moved(operated, await operated.paid(account=account), MIDNIGHT + 2 * SECOND, lasted=4 * SECOND)
    merchant = of(paid)
    yesterday = DAY - timedelta(days=1)
    known = books(account, line(paid, at=MIDNIGHT - SECOND))
    for day in (DAY, yesterday):
        assert (await reconcile(operated, account, day, *merchant))[0] == 0
    assert set(known.asked_for) == {DAY, yesterday}
    known.statements.clear()
    assert kinds((await reconcile(operated, account, DAY, *merchant))[1]) == ["missing"]
    assert (await reconcile(operated, account, yesterday, *merchant))[0] == 0  # it is today's
    # We knew in time, the provider books it after midnight.
    await moved(operated, paid, MIDNIGHT - 5 * SECOND)
    books(account, line(paid, at=MIDNIGHT + 60 * SECOND))
    for day in (DAY, yesterday):
        assert (await reconcile(operated, account, day, *merchant))[0] == 0
    known.unavailable.add(DAY)
    code, compared = await reconcile(operated, account, yesterday, *merchant)
    assert (code, len(compared["undecided"]), compared["differences"]) == (2, 1, [])


async def test_where_the_statement_cannot_be_had_it_ends_with_2(operated: Operated, account: str) -> None:
    [paid] = await on_that_day(operated, account)
    books(account).unavailable.add(DAY)
    ran: Ran = await operated.run("reconcile", PROVIDER, DAY.isoformat(), *of(paid))
    assert (ran.exit_code, "the statement is not made yet" in ran.output) == (2, True), ran.output
    code, found = await reconcile(operated, account, date(2126, 1, 1), *of(paid))
    assert (code, "has not begun yet" in found["trouble"]) == (2, True)


async def test_merchants_that_share_an_account_are_reconciled_together(operated: Operated, account: str) -> None:
    first, second = await on_that_day(operated, account, 2)
    assert first.merchant_id != second.merchant_id
    books(account, line(first), line(second))
    ran = await operated.run("reconcile", PROVIDER, DAY.isoformat(), "--json", "--merchant", second.merchant_id)
    [found] = json.loads(ran.stdout)["accounts"]
    assert (ran.exit_code, found["comparison"]["agreed"]) == (0, 2)
    assert sorted(found["accounts"]) == sorted([first.account_id, second.account_id])
    assert BOOKS[account].asked_for == [DAY]


async def test_accounts_without_a_name_are_one_where_their_credentials_are(operated: Operated) -> None:
    one, same = await on_that_day(operated, "default", 2)
    async with operated.database.transaction() as connection:
        listed = [each for each in await accounts.listed(connection, provider=PROVIDER) if each.external_id == "default"]
    assert [[each.id for each in shared] for shared in operated.connectors.shared(listed)] == [[one.account_id, same.account_id]]
    async with operated.database.transaction() as connection:
        credentials = {"api_key": "another-key", "account": "default"}
        await accounts.add(connection, operated.sealer, same.merchant_id, PROVIDER, credentials)
        listed = [each for each in await accounts.listed(connection, provider=PROVIDER) if each.external_id == "default"]
    assert len(operated.connectors.shared(listed)) == 2


async def test_a_removed_account_is_still_reconciled(operated: Operated, account: str) -> None:
    [paid] = await on_that_day(operated, account)
    assert (await operated.run("connectors", "remove", paid.account_id)).exit_code == 0
    assert kinds((await reconcile(operated, account, DAY, *of(paid)))[1]) == ["missing"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("paypal", "2026-03-10"), "choose from"),
        ((PROVIDER, "10.3.2026"), "a day is written"),
        ((PROVIDER, "2026-02-30"), "a day is written"),
        ((PROVIDER, "2026-03-10", "--merchant", "mer_1"), "expected an id"),
    ],
)
async def test_what_is_no_day_or_provider(operated: Operated, arguments: tuple[str, ...], reason: str) -> None:
    ran = await operated.run("reconcile", *arguments)
    assert (ran.exit_code, reason in ran.output) == (2, True), ran.output
