"""Holding a provider's statement against our books: what agrees, what does not, and what lies at a day's edge."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Literal
from zoneinfo import ZoneInfo

import pytest

from schemas.money import Money
from schemas.payments import StatementLine
from streams.payments.reconciliation import Comparison, Day, Movement, compare

SHANGHAI = ZoneInfo("Asia/Shanghai")
DAY = Day(date(2026, 11, 22), SHANGHAI)
NOON = DAY.begin + timedelta(hours=12)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
_numbers = count(1)


def ours(
    minor: int = 650,
    currency: str = "CNY",
    *,
    kind: Literal["payment", "refund"] = "payment",
    reference: str = "ref",
    at: datetime = NOON,
    lasted: timedelta = SECOND,
    attempt: str | None = None,
) -> Movement:
    attempt = attempt or f"att_{next(_numbers)}"
    return Movement(kind, "pay_1", attempt, frozenset({attempt}), reference, Money.of(minor, currency), at - lasted, at)


def theirs(
    minor: int = 650,
    currency: str = "CNY",
    *,
    kind: Literal["payment", "refund"] = "payment",
    reference: str = "ref",
    at: datetime = NOON,
    attempt: str | None = None,
) -> StatementLine:
    return StatementLine(kind=kind, reference=reference, attempt_id=attempt, amount=Money.of(minor, currency), occurred_at=at)


def kinds(compared: Comparison) -> list[str]:
    return [difference.kind for difference in compared.differences]


def test_a_day_begins_at_the_providers_midnight() -> None:
    assert (DAY.begin, DAY.end) == (datetime(2026, 11, 21, 16, tzinfo=UTC), datetime(2026, 11, 22, 16, tzinfo=UTC))
    # The clock goes back: a day of 25 hours.
    long = Day(date(2026, 10, 25), ZoneInfo("Europe/Berlin"))
    assert long.end - long.begin == timedelta(hours=25)


def test_what_agrees() -> None:
    compared = compare(
        DAY,
        [ours(650), ours(200, kind="refund"), ours(1299, "EUR", reference="b")],
        [theirs(1299, "EUR", reference="b"), theirs(200, kind="refund"), theirs(650)],
    )
    assert (compared.agreed, compared.differences, compared.undecided) == (3, (), ())
    assert compared.ours == compared.theirs == {"CNY": 450, "EUR": 1299}


def test_nothing_agrees_with_nothing() -> None:
    assert compare(DAY, [], []) == Comparison((), (), 0, {}, {})


@pytest.mark.parametrize(
    ("our_books", "their_books", "expected"),
    [
        ([ours()], [], ["missing"]),
        ([], [theirs()], ["extra"]),
        ([ours(650)], [theirs(651)], ["differing"]),
        ([ours(650)], [theirs(650, "EUR")], ["differing"]),
        ([ours(reference="a")], [theirs(reference="b")], ["missing", "extra"]),
        ([ours(kind="refund")], [theirs(kind="payment")], ["missing", "extra"]),
        ([ours()], [theirs(), theirs()], ["extra"]),  # taken twice
        ([ours(kind="refund"), ours(kind="refund")], [theirs(kind="refund")], ["missing"]),
        ([ours(650, attempt="att_a")], [theirs(600, attempt="att_a")], ["differing"]),
        ([ours(attempt="att_a", kind="refund")], [theirs(kind="refund", attempt="by hand")], ["missing", "extra"]),
    ],
)
def test_what_does_not(our_books: list[Movement], their_books: list[StatementLine], expected: list[str]) -> None:
    compared = compare(DAY, our_books, their_books, after=())
    assert kinds(compared) == expected
    assert compared.theirs.get("CNY", 0) == sum(
        line.amount.minor * (1 if line.kind == "payment" else -1) for line in their_books if line.amount.currency == "CNY"
    )


def test_the_totals_differ_by_what_differs() -> None:
    compared = compare(
        DAY,
        [ours(650, reference="a"), ours(100, reference="missing"), ours(300, reference="other")],
        [theirs(650, reference="a"), theirs(70, reference="extra"), theirs(310, reference="other")],
        after=(),
    )
    assert (compared.ours, compared.theirs, compared.agreed) == ({"CNY": 1050}, {"CNY": 1030}, 1)


def test_several_refunds_are_known_by_their_attempts() -> None:
    first, second = ours(300, kind="refund", attempt="att_1st"), ours(200, kind="refund", attempt="att_2nd")
    swapped = [theirs(200, kind="refund", attempt="att_1st"), theirs(300, kind="refund", attempt="att_2nd")]
    assert kinds(compare(DAY, [first, second], swapped)) == ["differing", "differing"]


def test_several_refunds_without_attempts_are_matched_by_amount_in_order() -> None:
    made = [ours(minor, kind="refund", at=NOON + number * MINUTE) for number, minor in enumerate((300, 200, 300))]
    lines = [theirs(minor, kind="refund", at=NOON + number * MINUTE) for number, minor in enumerate((200, 300, 300))]
    assert compare(DAY, made, lines).agreed == 3
    short = compare(DAY, made, [lines[0], lines[1], theirs(250, kind="refund", at=NOON)])
    [difference] = short.differences
    assert difference.kind == "differing"
    assert difference.ours is not None and difference.ours.amount.minor == 300


def test_a_capture_may_stand_under_its_reservation() -> None:
    attempt_ids = frozenset({"att_reserved", "att_captured"})
    captured = Movement(
        "payment", "pay_1", "att_captured", attempt_ids, "ref", Money.of(650, "CNY"), NOON - timedelta(days=2), NOON
    )
    two_days_ago = theirs(at=NOON - timedelta(days=2), attempt="att_reserved")
    assert kinds(compare(DAY, [captured], [], before=[two_days_ago])) == []
    assert kinds(compare(DAY, [captured], [theirs(attempt="att_reserved")])) == []
    then = Day(DAY.date - timedelta(days=2), SHANGHAI)
    compared = compare(then, [captured], [two_days_ago])
    assert (compared.agreed, compared.differences) == (1, ())


# The day's edges.

LATE, EARLY = DAY.end - 2 * SECOND, DAY.begin + 2 * SECOND


def test_what_we_know_since_after_midnight_may_have_moved_before() -> None:
    known = ours(at=EARLY, lasted=10 * SECOND)
    moved = theirs(at=DAY.begin - 3 * SECOND)
    assert kinds(compare(DAY, [known], [], before=[moved])) == []
    assert kinds(compare(DAY, [known], [], before=[])) == ["missing"]
    # On the day before it is no extra, either.
    assert kinds(compare(DAY.before, [known], [moved])) == []


def test_what_was_lost_for_days_stands_where_it_moved() -> None:
    """The answer never came, and the janitor has known only since today."""
    known = ours(at=NOON, lasted=timedelta(days=3))
    assert kinds(compare(DAY, [known], [], before=[theirs(at=NOON - timedelta(days=2))])) == []


def test_the_provider_may_book_it_after_midnight() -> None:
    known, line = ours(at=LATE), theirs(at=DAY.end + 5 * MINUTE)
    assert kinds(compare(DAY, [known], [], after=[line])) == []
    assert kinds(compare(DAY, [known], [], after=[])) == ["missing"]
    waiting = compare(DAY, [known], [], after=None)
    assert (kinds(waiting), waiting.undecided) == ([], (known,))
    assert kinds(compare(DAY.next, [known], [line])) == []


def test_a_quarter_of_an_hour_is_all_that_clocks_may_differ() -> None:
    known = ours(at=LATE)
    assert kinds(compare(DAY, [known], [], after=[theirs(at=DAY.end + 20 * MINUTE)])) == ["missing"]
    noon = ours(at=NOON)
    assert kinds(compare(DAY, [noon], [], after=[theirs(at=DAY.end + MINUTE)])) == ["missing"]
    assert kinds(compare(DAY, [noon], [], after=None)) == ["missing"]


def test_what_moved_twice_around_midnight_is_not_hidden_by_it() -> None:
    known = ours(at=DAY.begin - 5 * SECOND)
    twice = [theirs(at=DAY.begin - 6 * SECOND), theirs(at=DAY.begin + SECOND)]
    assert kinds(compare(DAY.before, [known], twice[:1])) == []
    assert kinds(compare(DAY, [known], twice[1:], before=twice[:1])) == ["extra"]


def test_yesterdays_refund_is_not_taken_for_todays() -> None:
    noon_yesterday = theirs(300, kind="refund", at=NOON - timedelta(days=1))
    today = ours(300, kind="refund", at=EARLY, lasted=SECOND)
    line = theirs(300, kind="refund", at=EARLY)
    assert compare(DAY, [today], [line], before=[noon_yesterday]).agreed == 1


@pytest.mark.parametrize("many", [20_000])
def test_a_busy_day_takes_seconds(many: int) -> None:
    made: Sequence[Movement] = [ours(reference=f"r{number}") for number in range(many)]
    lines = [theirs(reference=f"r{number}") for number in range(1, many + 1)]
    began = datetime.now(UTC)
    compared = compare(DAY, made, lines)
    assert (compared.agreed, kinds(compared)) == (many - 1, ["missing", "extra"])
    assert datetime.now(UTC) - began < timedelta(seconds=10)
