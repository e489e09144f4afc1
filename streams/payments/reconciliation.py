"""Reconciliation: a provider's own list of what moved on a day, held against ours.

A movement of ours happened at some moment between the attempt's beginning and its end: for most a second apart, for one whose
answer was lost maybe days. A capture may stand under the moment of its reservation. So a line of theirs fits a movement of ours
if it lies between the two, give or take a quarter of an hour by which clocks and books may differ; and a movement near a day's
edge is also looked for in the statements of the days it touches before it is called missing.

`compare` is plain; `reconcile` asks the provider; the SQL is at the end.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.ports import PaymentConnector
from schemas.errors import Rejected, Retryable
from schemas.ids import AccountId
from schemas.money import Money
from schemas.payments import PaymentState, StatementLine
from schemas.tables import attempts, payments
from streams.core.database import Database

EDGE = timedelta(minutes=15)


@dataclass(frozen=True)
class Day:
    """From `begin` up to, and without, `end`: a day in the provider's books."""

    date: date
    zone: ZoneInfo

    @property
    def begin(self) -> datetime:
        return datetime.combine(self.date, time(), self.zone).astimezone(UTC)

    @property
    def end(self) -> datetime:
        return self.next.begin

    @property
    def next(self) -> "Day":
        return Day(self.date + timedelta(days=1), self.zone)

    @property
    def before(self) -> "Day":
        return Day(self.date - timedelta(days=1), self.zone)


@dataclass(frozen=True)
class Movement:
    """Money that moved by our books. `attempt_ids`: the provider may know it by any of them. It happened between `begun_at` and
    `ended_at`."""

    kind: Literal["payment", "refund"]
    payment_id: str
    attempt_id: str
    attempt_ids: frozenset[str]
    reference: str
    amount: Money
    begun_at: datetime
    ended_at: datetime

    def may_be(self, line: StatementLine) -> bool:
        """Whether the line's moment fits."""
        return self.begun_at - EDGE <= line.occurred_at <= self.ended_at + EDGE

    def touches(self, day: Day) -> bool:
        return self.begun_at - EDGE < day.end and day.begin <= self.ended_at + EDGE

    def is_of(self, day: Day) -> bool:
        """Whether it is counted on this day, for it is known since then."""
        return day.begin <= self.ended_at < day.end


@dataclass(frozen=True)
class Difference:
    """`missing`: ours, which the provider does not have. `extra`: the provider's, which we do not know. `differing`: of another
    amount or currency. `remark`: what else is known of it."""

    kind: Literal["missing", "extra", "differing"]
    ours: Movement | None
    theirs: StatementLine | None
    remark: str | None = None


@dataclass(frozen=True)
class Comparison:
    """`undecided`: neither in this day's statement nor before, and the next day's cannot be had yet. The totals count what stands
    in this day's books, payments less refunds, in minor units by currency. `reversed`: lines of payments that ended without money
    on our side, taken and given back at once by the provider's."""

    differences: tuple[Difference, ...]
    undecided: tuple[Movement, ...]
    agreed: int
    ours: dict[str, int]
    theirs: dict[str, int]
    reversed: tuple[StatementLine, ...] = ()


def compare(
    day: Day,
    ours: Sequence[Movement],
    lines: Sequence[StatementLine],
    *,
    before: Sequence[StatementLine] = (),
    after: Sequence[StatementLine] | None = None,
) -> Comparison:
    """`ours`: every movement that touches the day. `lines`: the day's statement; `before` and `after`: lines of the days before
    it and after, where movements touch those, too. `after` None: it cannot be had."""
    left = _Left(movement for movement in ours if movement.touches(day))
    for line in sorted(before, key=_moment):
        left.take(line, _IN_TIME)
    agreed: list[tuple[Movement, StatementLine]] = []
    unmatched = sorted(lines, key=_moment)
    # What is surely the same first, so that nothing else takes its place.
    for certainty in _CERTAINTIES:
        still: list[StatementLine] = []
        for line in unmatched:
            if (movement := left.take(line, (certainty,))) is not None:
                agreed.append((movement, line))
            else:
                still.append(line)
        unmatched = still
    missing = [movement for movement in left if movement.is_of(day)]
    late = _Left(movement for movement in missing if movement.touches(day.next))
    for line in sorted(after or (), key=_moment):
        if (movement := late.take(line, _IN_TIME)) is not None:
            missing.remove(movement)
    undecided = tuple(late) if after is None else ()
    missing = [movement for movement in missing if movement not in undecided]
    differing = [(movement, line) for movement, line in agreed if movement.amount != line.amount]
    return Comparison(
        differences=(
            *(Difference("missing", movement, None) for movement in missing),
            *(Difference("extra", None, line) for line in unmatched),
            *(Difference("differing", movement, line) for movement, line in differing),
        ),
        undecided=undecided,
        agreed=len(agreed) - len(differing),
        ours=_totals([*(movement for movement, _ in agreed), *missing]),
        theirs=_totals(lines),
    )


_Certainty = Callable[[Movement, StatementLine], bool]


def _by_attempt(movement: Movement, line: StatementLine) -> bool:
    return line.attempt_id in movement.attempt_ids


def _by_reference(movement: Movement, line: StatementLine) -> bool:
    # A refund that names an attempt is that one's, or was not made by us. A payment is taken once, whatever the line names.
    return movement.reference == line.reference and (line.kind == "payment" or line.attempt_id is None)


def _same_amount(movement: Movement, line: StatementLine) -> bool:
    return _by_reference(movement, line) and movement.amount == line.amount


def _by_attempt_in_time(movement: Movement, line: StatementLine) -> bool:
    return _by_attempt(movement, line) and movement.may_be(line)


def _same_amount_in_time(movement: Movement, line: StatementLine) -> bool:
    return _same_amount(movement, line) and movement.may_be(line)


_CERTAINTIES = (_by_attempt, _same_amount_in_time, _same_amount, _by_reference)
_IN_TIME = (_by_attempt_in_time, _same_amount_in_time)  # for lines of other days, which may be about other movements


class _Left:
    """Movements that nothing of the provider's was found for yet, first to last."""

    def __init__(self, movements: Iterable[Movement]) -> None:
        self._all = dict.fromkeys(sorted(movements, key=lambda movement: (movement.ended_at, movement.attempt_id)))
        self._by_name: defaultdict[tuple[str, str], list[Movement]] = defaultdict(list)
        for movement in self._all:
            for name in (movement.reference, *movement.attempt_ids):
                self._by_name[movement.kind, name].append(movement)

    def __iter__(self) -> Iterator[Movement]:
        return iter(self._all)

    def take(self, line: StatementLine, certainties: Sequence[_Certainty]) -> Movement | None:
        """The first one that the line is about, which is then no longer left."""
        named = [movement for name in (line.attempt_id, line.reference) if name for movement in self._by_name[line.kind, name]]
        for certainty in certainties:
            for movement in named:
                if movement in self._all and certainty(movement, line):
                    del self._all[movement]
                    return movement
        return None


def _moment(line: StatementLine) -> datetime:
    return line.occurred_at


def _totals(moved: Iterable[Movement | StatementLine]) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for one in moved:
        totals[one.amount.currency] += one.amount.minor if one.kind == "payment" else -one.amount.minor
    return dict(sorted(totals.items()))


# Asking.


@dataclass
class Statements:
    """One account's statements, each asked for once."""

    connector: PaymentConnector
    _had: dict[date, Sequence[StatementLine]] = field(default_factory=dict)

    async def of(self, day: Day) -> Sequence[StatementLine]:
        if day.date not in self._had:
            self._had[day.date] = await self.connector.statement(day.date)
        return self._had[day.date]


async def reconcile(
    database: Database, connector: PaymentConnector, account_ids: Sequence[AccountId], wanted: date, now: datetime
) -> Comparison:
    """Our accounts that are one at the provider, on one day in the provider's time zone. Raises Retryable or Misconfigured where
    the statement cannot be had, Rejected where the provider has none or the day is still to come."""
    zone = connector.capabilities.statement_zone
    if zone is None:
        raise Rejected("capability-not-offered", f"{connector.name} has no statements")
    day = Day(wanted, ZoneInfo(zone))
    if now < day.begin:
        raise Rejected("request-invalid", f"{wanted} has not begun yet in the provider's time zone, {zone}")
    async with database.transaction() as connection:
        ours = await movements(connection, account_ids, day)
    statements = Statements(connector)
    lines = await statements.of(day)
    before = await _lines_before(statements, day, ours)
    compared = compare(day, ours, lines, before=before)
    if compared.undecided and day.end <= now:
        after = await _if_there(statements, day.next)
        compared = compare(day, ours, lines, before=before, after=after)
    known = await _known_of_extra(database, account_ids, compared)
    around = [*lines, *await _lines_around(statements, day, compared, known, now)]
    return _with_what_is_known(compared, known, around)


async def _lines_before(statements: Statements, day: Day, ours: Sequence[Movement]) -> Sequence[StatementLine]:
    """Of the days before that a movement touches."""
    found: list[StatementLine] = []
    earlier = day.before
    while any(movement.touches(earlier) for movement in ours):
        found += await statements.of(earlier)
        earlier = earlier.before
    return found


async def _if_there(statements: Statements, day: Day) -> Sequence[StatementLine] | None:
    """A day that is not over may have no statement yet."""
    try:
        return await statements.of(day)
    except (Retryable, Rejected):
        return None


async def _known_of_extra(
    database: Database, account_ids: Sequence[AccountId], compared: Comparison
) -> dict[str, list["KnownPayment"]]:
    references = {each.theirs.reference for each in compared.differences if each.kind == "extra" and each.theirs}
    if not references:
        return {}
    async with database.transaction() as connection:
        return await known_payments(connection, account_ids, sorted(references))


async def _lines_around(
    statements: Statements, day: Day, compared: Comparison, known: Mapping[str, Sequence["KnownPayment"]], now: datetime
) -> Sequence[StatementLine]:
    """Of the neighbouring days, where what is extra at an edge of this one may have been reversed."""
    moments = [
        each.theirs.occurred_at
        for each in compared.differences
        if each.kind == "extra" and each.theirs and _ended_without_money(each.theirs, known)
    ]
    found: list[StatementLine] = []
    if any(moment < day.begin + EDGE for moment in moments):
        found += await statements.of(day.before)
    if now >= day.end and any(moment > day.end - EDGE for moment in moments):
        found += await _if_there(statements, day.next) or ()
    return found


def _ended_without_money(line: StatementLine, known: Mapping[str, Sequence["KnownPayment"]]) -> bool:
    return any(payment.state in _WITHOUT_MONEY for payment in known.get(line.reference, ()))


def _with_what_is_known(
    compared: Comparison, known: Mapping[str, Sequence["KnownPayment"]], around: Sequence[StatementLine]
) -> Comparison:
    """Some providers cancel what was just paid by giving it back. Of such a payment there is nothing in our books: a line that
    has its opposite is no difference."""
    pairs = Counter[tuple[str, str, Money]]((line.kind, line.reference, line.amount) for line in around)
    differences, reversed_lines = [], []
    for each in compared.differences:
        line = each.theirs
        if each.kind != "extra" or line is None:
            differences.append(each)
            continue
        opposite = ("refund" if line.kind == "payment" else "payment", line.reference, line.amount)
        if _ended_without_money(line, known) and pairs[opposite] == pairs[line.kind, line.reference, line.amount]:
            reversed_lines.append(line)
        else:
            remark = "; ".join(sorted(payment.said for payment in known.get(line.reference, ())))
            differences.append(replace(each, remark=remark or None))
    return replace(compared, differences=tuple(differences), reversed=tuple(reversed_lines))


_WITHOUT_MONEY = {PaymentState.CANCELLED, PaymentState.DECLINED, PaymentState.FAILED, PaymentState.EXPIRED}


# Reading our books.


async def movements(connection: AsyncConnection, account_ids: Sequence[AccountId], day: Day) -> list[Movement]:
    """What moved on these accounts and touches the day. A reservation moves nothing; its capture has been under way since."""
    first = attempts.alias()
    reserved = (
        select(first.c.id, func.coalesce(first.c.begun_at, first.c.created_at).label("begun_at"))
        .where(first.c.payment_id == attempts.c.payment_id, first.c.kind == "authorise", first.c.outcome == "succeeded")
        .order_by(first.c.created_at)
        .limit(1)
        .correlate(attempts)
        .lateral()
    )
    begun_at = func.coalesce(reserved.c.begun_at, attempts.c.begun_at, attempts.c.created_at)
    query = (
        select(
            attempts.c.id,
            attempts.c.kind,
            attempts.c.reference,
            attempts.c.detail,
            attempts.c.ended_at,
            begun_at.label("begun_at"),
            reserved.c.id.label("reserved_by"),
            payments.c.id.label("payment_id"),
            payments.c.provider_reference,
        )
        .join(payments, payments.c.id == attempts.c.payment_id)
        .outerjoin(reserved, attempts.c.kind == "capture")
        .where(payments.c.account_id.in_(account_ids), _moved())
        .where(attempts.c.ended_at >= day.begin - EDGE, begun_at < day.end + EDGE)
    )
    return [_movement(row) for row in await connection.execute(query)]


def _moved() -> ColumnElement[bool]:
    taken = and_(attempts.c.kind == "authorise", attempts.c.detail["captured"].astext == "true")
    return and_(attempts.c.outcome == "succeeded", or_(attempts.c.kind.in_(("capture", "refund")), taken))


def _movement(row: Any) -> Movement:
    return Movement(
        kind="refund" if row.kind == "refund" else "payment",
        payment_id=row.payment_id,
        attempt_id=row.id,
        attempt_ids=frozenset({row.id, row.reserved_by} - {None}),
        reference=row.provider_reference or row.reference,
        amount=Money.model_validate(row.detail["total"]),
        begun_at=row.begun_at,
        ended_at=row.ended_at,
    )


@dataclass(frozen=True)
class KnownPayment:
    id: str
    state: str
    frozen: bool

    @property
    def said(self) -> str:
        return f"our {self.id} is {self.state}{', frozen' if self.frozen else ''}"


async def known_payments(
    connection: AsyncConnection, account_ids: Sequence[AccountId], references: Sequence[str]
) -> dict[str, list[KnownPayment]]:
    """Payments of ours that the provider knows by these references: for a line that is extra they may say why."""
    query = (
        select(attempts.c.reference, payments.c.id, payments.c.state, payments.c.frozen_at.is_not(None).label("frozen"))
        .join(payments, payments.c.id == attempts.c.payment_id)
        .where(attempts.c.reference.in_(references), payments.c.account_id.in_(account_ids))
        .distinct()
    )
    found: defaultdict[str, list[KnownPayment]] = defaultdict(list)
    for row in await connection.execute(query):
        found[row.reference].append(KnownPayment(row.id, row.state, row.frozen))
    return found
