"""The console's reading. Every query walks an index and is bounded; nothing here writes.

Journeys are found by their ids, which sort by time: in the hops (a glance that led to nothing has only those) and in the rows of
offers, proposals, payments and receipts (hops are forgotten after some days, and may be lost).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Row, ScalarSelect, Select, Table, case, func, literal, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import Text

from schemas.ids import JourneyId
from schemas.money import Money
from schemas.tables import (
    attempts,
    dead_letters,
    deliveries,
    delivery_attempts,
    endpoints,
    journey_hops,
    merchants,
    messages,
    offers,
    payments,
    proposals,
    provider_notifications,
    receipt_entries,
)
from streams.console.service import (
    GLANCE,
    Attempt,
    Attention,
    Counted,
    DeadLetter,
    Delivery,
    DeliveryAttempt,
    Hop,
    Journey,
    Message,
    Payment,
    Proposal,
    Receipt,
    ReceiptEntry,
    Records,
    Search,
    ShownOffer,
    assemble,
    first_dead_letter_id,
)
from streams.core import receipts

PAGE = 50
_HOPS_PER_JOURNEY = 400
_ROWS_PER_JOURNEY = 20
_HOPS_COUNTED = 50_000
_FROZEN_SHOWN = 10

# Above and below every journey id, in any collation: ids are of lower-case letters and digits.
_ABOVE = JourneyId.prefix + "_" + "z" * 27
_BELOW = JourneyId.prefix + "_"


@dataclass(frozen=True)
class Page:
    """Newest first. `older` is the `before` of the next page, None on the last."""

    journeys: list[Journey]
    older: str | None


async def read_only(connection: AsyncConnection) -> None:
    """Make the transaction that has just begun one that sees one moment and cannot write."""
    await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


async def journey(connection: AsyncConnection, journey_id: JourneyId) -> Journey | None:
    """None where nothing is known of it."""
    found = (await _load(connection, [journey_id]))[0]
    if found.hops or found.device_id or found.dead_letters:
        return found
    column = receipt_entries.c.journey_id
    receipt = (await connection.execute(select(column).where(column == journey_id).limit(1))).first()
    return found if receipt else None


async def journeys(
    connection: AsyncConnection, *, search: Search | None = None, before: str | None = None, limit: int = PAGE
) -> Page:
    """The newest journeys older than `before`, or those of them that `search` finds."""
    below = before or _ABOVE
    if search is None:
        query = _listed(_BELOW, below, limit + 1)
    elif search.kind == "journey":
        query = _listed(search.value, min(below, search.value + "z" * (len(_ABOVE) - len(search.value))), limit + 1)
    else:
        query = _having(search, below, limit + 1)
    ids = [JourneyId(found) for found in (await connection.execute(query)).scalars()]
    return Page(await _load(connection, ids[:limit]), older=ids[limit - 1] if len(ids) > limit else None)


def _newest(table: Table, below: str | ColumnElement[str], floor: str, *conditions: ColumnElement[bool]) -> ScalarSelect[str]:
    """The newest journey of the table in that range: one step down its index."""
    column = table.c.journey_id
    return select(column).where(column < below, column >= floor, *conditions).order_by(column.desc()).limit(1).scalar_subquery()


def _newest_of_all(below: str | ColumnElement[str], floor: str) -> ColumnElement[str]:
    return func.greatest(
        _newest(journey_hops, below, floor, journey_hops.c.name == GLANCE),
        *(_newest(table, below, floor) for table in (offers, proposals, payments, receipt_entries)),
    )


def _listed(floor: str, below: str, limit: int) -> Select[Any]:
    """Walks down from journey to journey, however many rows each has."""
    walk = select(_newest_of_all(literal(below), floor).label("journey_id"), literal(1).label("place")).cte(
        "walk", recursive=True
    )
    step = select(_newest_of_all(walk.c.journey_id, floor), walk.c.place + 1).where(
        walk.c.journey_id.is_not(None), walk.c.place < limit
    )
    walk = walk.union_all(step)
    return select(walk.c.journey_id).where(walk.c.journey_id.is_not(None))


def _having(search: Search, below: str, limit: int) -> Select[Any]:
    table, column = {
        "device": (offers, offers.c.device_id),
        "gtin": (offers, offers.c.gtin),
        "payment": (payments, payments.c.id),
        "order": (payments, payments.c.order_id),
    }[search.kind]
    journey_id = table.c.journey_id
    return (
        select(journey_id).distinct().where(column == search.value, journey_id < below).order_by(journey_id.desc()).limit(limit)
    )


# The rows of some journeys, put together.


async def _load(connection: AsyncConnection, ids: Sequence[JourneyId]) -> list[Journey]:
    """In the order of `ids`."""
    if not ids:
        return []
    hops = await _hops(connection, ids)
    offered = await _offers(connection, ids)
    proposed = await _proposals(connection, ids)
    paid = await _payments(connection, ids)
    counting = (
        select(dead_letters.c.journey_id, func.count())
        .where(dead_letters.c.journey_id.in_(ids))
        .group_by(dead_letters.c.journey_id)
    )
    dead = {row[0]: row[1] for row in await connection.execute(counting)}
    now = datetime.now(UTC)
    return [
        assemble(
            id,
            hops=hops[id],
            offers=offered[id],
            proposals=proposed[id],
            payments=paid[id],
            dead_letters=dead.get(id, 0),
            now=now,
        )
        for id in ids
    ]


async def _of_each(
    connection: AsyncConnection, ids: Iterable[str], query: Select[Any], key: ColumnElement[str]
) -> dict[str, list[Row[Any]]]:
    """The rows of a query for each id, where `key` is it: so that the query's limit holds for each by itself."""
    wanted = func.unnest(literal(list(ids), ARRAY(Text))).table_valued("id", name="wanted").render_derived()
    rows = query.where(key == wanted.c.id).lateral("rows")
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in await connection.execute(select(wanted.c.id.label("wanted_id"), rows).join_from(wanted, rows, true())):
        found[row.wanted_id].append(row)
    return found


async def _hops(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[Hop]]:
    columns = journey_hops.c
    query = select(journey_hops).order_by(columns.started_at).limit(_HOPS_PER_JOURNEY)
    found = await _of_each(connection, ids, query, columns.journey_id)
    return defaultdict(list, {id: [_hop(row) for row in rows] for id, rows in found.items()})


def _hop(row: Row[Any]) -> Hop:
    return Hop(
        span_id=row.span_id,
        parent_span_id=row.parent_span_id,
        name=row.name,
        role=row.role,
        started_at=row.started_at,
        duration_ms=row.duration_us / 1000,
        failed=row.failed,
        attributes=row.attributes,
    )


async def _offers(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[ShownOffer]]:
    columns = offers.c
    query = select(
        columns.id,
        columns.device_id,
        columns.title,
        columns.gtin,
        columns.price_minor,
        columns.price_currency,
        columns.evidence["captured_at"].astext.label("captured_at"),
    )
    query = query.order_by(columns.journey_id, columns.created_at, columns.id).limit(_ROWS_PER_JOURNEY)
    found = await _of_each(connection, ids, query, columns.journey_id)
    return defaultdict(list, {id: [_offer(row) for row in rows] for id, rows in found.items()})


def _offer(row: Row[Any]) -> ShownOffer:
    return ShownOffer(
        id=row.id,
        device_id=row.device_id,
        title=row.title,
        gtin=row.gtin,
        price=Money.of(row.price_minor, row.price_currency),
        captured_at=datetime.fromisoformat(row.captured_at) if row.captured_at else None,
    )


async def _proposals(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[Proposal]]:
    columns = proposals.c
    query = select(
        columns.id,
        columns.offer_id,
        columns.device_id,
        columns.state,
        columns.state_reason,
        columns.total_minor,
        columns.total_currency,
        columns.created_at,
        columns.expires_at,
    )
    query = query.order_by(columns.created_at.desc(), columns.id.desc()).limit(_ROWS_PER_JOURNEY)
    found = await _of_each(connection, ids, query, columns.journey_id)
    return defaultdict(list, {id: [_proposal(row) for row in reversed(rows)] for id, rows in found.items()})


def _proposal(row: Row[Any]) -> Proposal:
    return Proposal(
        id=row.id,
        offer_id=row.offer_id,
        device_id=row.device_id,
        state=row.state,
        reason=row.state_reason,
        total=Money.of(row.total_minor, row.total_currency),
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


async def _payments(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, list[Payment]]:
    columns = payments.c
    # A payment that was given back moved on since it was taken: then the attempt that took it says when.
    taken_at = (
        select(func.max(attempts.c.ended_at))
        .where(
            attempts.c.payment_id == columns.id,
            attempts.c.kind.in_(("authorise", "capture")),
            attempts.c.outcome == "succeeded",
        )
        .scalar_subquery()
    )
    captured_at = case(
        (columns.state == "captured", columns.updated_at), (columns.state.in_(("partially_refunded", "refunded")), taken_at)
    ).label("captured_at")
    query = (
        select(payments, merchants.c.name.label("merchant"), captured_at)
        .join(merchants, merchants.c.id == columns.merchant_id)
        .order_by(columns.created_at.desc(), columns.id.desc())
        .limit(_ROWS_PER_JOURNEY)
    )
    found = await _of_each(connection, ids, query, columns.journey_id)
    return defaultdict(list, {id: [_payment(row) for row in reversed(rows)] for id, rows in found.items()})


def _payment(row: Row[Any]) -> Payment:
    return Payment(
        id=row.id,
        order_id=row.order_id,
        proposal_id=row.proposal_id,
        device_id=row.device_id,
        merchant=row.merchant,
        state=row.state,
        reason=row.state_reason,
        total=Money.of(row.total_minor, row.total_currency),
        provider=row.provider,
        provider_reference=row.provider_reference,
        created_at=row.created_at,
        updated_at=row.updated_at,
        captured_at=row.captured_at,
        refunded=Money.of(row.refunded_minor, row.total_currency),
        frozen_reason=row.frozen_reason if row.frozen_at else None,
    )


# Everything about one journey.


async def records(connection: AsyncConnection, journey_id: JourneyId) -> Records:
    proposed = (await _proposals(connection, [journey_id]))[journey_id]
    paid = (await _payments(connection, [journey_id]))[journey_id]
    sent = await _messages(connection, [payment.order_id for payment in paid])
    return Records(
        proposals=tuple(proposed),
        payments=tuple(paid),
        attempts=tuple(await _attempts(connection, [payment.id for payment in paid])),
        messages=tuple(Message(row.order_id, row.sequence, row.type, row.created_at) for row in sent),
        deliveries=tuple(await _deliveries(connection, {row.id: row for row in sent})),
        receipt=await _receipt(connection, journey_id),
        dead_letters=tuple(await _dead_letters(connection, dead_letters.c.journey_id == journey_id, PAGE)),
    )


async def _attempts(connection: AsyncConnection, payment_ids: Sequence[str]) -> list[Attempt]:
    columns = attempts.c
    query = select(
        columns.id,
        columns.payment_id,
        columns.kind,
        columns.outcome,
        func.coalesce(columns.detail["code"].astext, columns.detail["reason"].astext).label("code"),
        columns.asked,
        columns.created_at,
        columns.ended_at,
    ).order_by(columns.created_at)
    found = await _of_each(connection, payment_ids, query.limit(_ROWS_PER_JOURNEY), columns.payment_id)
    return [
        Attempt(row.id, row.payment_id, row.kind, row.outcome, row.code, row.asked, row.created_at, row.ended_at)
        for rows in found.values()
        for row in rows
    ]


async def _messages(connection: AsyncConnection, order_ids: Sequence[str]) -> list[Row[Any]]:
    columns = messages.c
    query = select(columns.id, columns.order_id, columns.sequence, columns.type, columns.created_at)
    found = await _of_each(connection, order_ids, query.order_by(columns.sequence).limit(_ROWS_PER_JOURNEY), columns.order_id)
    return [row for rows in found.values() for row in rows]


async def _deliveries(connection: AsyncConnection, sent: dict[str, Row[Any]]) -> list[Delivery]:
    """`sent` are the messages by id."""
    columns = deliveries.c
    query = (
        select(columns.id, columns.message_id, columns.state, columns.created_at, endpoints.c.url)
        .join(endpoints, endpoints.c.id == columns.endpoint_id)
        .limit(_ROWS_PER_JOURNEY)
    )
    found = await _of_each(connection, list(sent), query, columns.message_id)
    rows = [row for of_message in found.values() for row in of_message]
    tried = delivery_attempts.c
    trying = select(tried.number, tried.started_at, tried.duration_us, tried.status, tried.error)
    trying = trying.order_by(tried.number.desc()).limit(_ROWS_PER_JOURNEY)
    attempted = await _of_each(connection, [row.id for row in rows], trying, tried.delivery_id)
    return [
        Delivery(
            id=row.id,
            message_id=row.message_id,
            type=sent[row.message_id].type,
            order_id=sent[row.message_id].order_id,
            sequence=sent[row.message_id].sequence,
            address=_address(row.url),
            state=row.state,
            created_at=row.created_at,
            attempts=tuple(
                DeliveryAttempt(one.number, one.started_at, one.duration_us / 1000, one.status, one.error)
                for one in reversed(attempted.get(row.id, []))
            ),
        )
        for row in rows
    ]


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def _receipt(connection: AsyncConnection, journey_id: JourneyId) -> Receipt:
    entries = await receipts.read(connection, journey_id)
    return Receipt(
        entries=tuple(ReceiptEntry(entry.position, entry.kind, entry.digest) for entry in entries),
        problems=tuple(receipts.problems(journey_id, entries)),
    )


# Dead letters, and the flow's last hour.


async def dead_letter_page(
    connection: AsyncConnection, *, before: str | None = None, limit: int = PAGE
) -> tuple[list[DeadLetter], str | None]:
    """The newest dead letters older than `before`, and the `before` of the next page, None on the last."""
    condition = dead_letters.c.id < before if before else true()
    found = await _dead_letters(connection, condition, limit + 1)
    return found[:limit], found[limit - 1].id if len(found) > limit else None


async def _dead_letters(connection: AsyncConnection, condition: ColumnElement[bool], limit: int) -> list[DeadLetter]:
    columns = dead_letters.c
    query = select(
        columns.id,
        columns.consumer,
        columns.topic,
        columns.partition,
        columns.offset,
        columns.event_id,
        columns.event_type,
        columns.journey_id,
        columns.reason,
        columns.detail,
        columns.attempts,
        columns.created_at,
    )
    rows = await connection.execute(query.where(condition).order_by(columns.id.desc()).limit(limit))
    return [DeadLetter(**row) for row in rows.mappings()]


async def attention(connection: AsyncConnection, now: datetime) -> Attention:
    columns = payments.c
    newest = (
        select(columns.id, columns.journey_id)
        .where(columns.frozen_at.is_not(None))
        .order_by(columns.frozen_at.desc())
        .limit(_FROZEN_SHOWN)
    )
    frozen = tuple((row.id, row.journey_id) for row in await connection.execute(newest))
    counts = select(
        select(func.count()).where(columns.frozen_at.is_not(None)).scalar_subquery(),
        select(func.count())
        .where(attempts.c.outcome == "unknown", attempts.c.ended_at.is_(None), attempts.c.created_at < now - timedelta(minutes=1))
        .scalar_subquery(),
        select(func.count()).where(provider_notifications.c.state == "unmatched").scalar_subquery(),
    )
    row = (await connection.execute(counts)).one()
    return Attention(frozen, row[0], row[1], row[2])


async def counted(connection: AsyncConnection, now: datetime) -> Counted:
    """The last hour, or as much of it as can be counted quickly."""
    since = now - timedelta(hours=1)
    columns = journey_hops.c
    recent = (
        select(columns.name, columns.failed)
        .where(columns.started_at > since)
        .order_by(columns.started_at.desc())
        .limit(_HOPS_COUNTED)
        .subquery()
    )
    by_name = select(recent.c.name, recent.c.failed, func.count()).group_by(recent.c.name, recent.c.failed)
    hops = [(row[0], row[1], row[2]) for row in await connection.execute(by_name)]
    buried = (
        select(dead_letters.c.topic, func.count())
        .where(dead_letters.c.id >= first_dead_letter_id(since))
        .group_by(dead_letters.c.topic)
    )
    every: dict[str, int] = defaultdict(int)
    for name, _, number in hops:
        every[name] += number
    return Counted(
        by_name=dict(every),
        failed_by_name={name: number for name, failed, number in hops if failed},
        dead_by_topic={row[0]: row[1] for row in await connection.execute(buried)},
        complete=sum(every.values()) < _HOPS_COUNTED,
    )
