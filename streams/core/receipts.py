"""The receipt of a journey: what happened, entry by entry, each bound to the one before by its digest. An entry cannot be
altered, removed or put between others without every later digest showing it; the database refuses to try (append-only).

digest = SHA-256 over the canonical JSON of {journey_id, position, kind, content, previous_digest}; positions count from 1, and
the first entry's previous digest is 64 zeros.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Table, collate, func, select, text, tuple_, union
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.digests import canonical_json, sha256_hex
from schemas.ids import JourneyId
from schemas.tables import payments, proposals, receipt_entries
from streams.core.database import Database
from streams.core.statements import Statement, together

FIRST_PREVIOUS_DIGEST = "0" * 64

_LOCK_CLASS = 0x5EC7  # names the receipts among the users of advisory locks
_LOCK = Statement(
    text("""
    SELECT pg_advisory_xact_lock(:lock_class, number) FROM (
        SELECT DISTINCT hashtext(journey_id) AS number FROM unnest(CAST(:journey_ids AS text[])) AS given (journey_id) ORDER BY 1
    ) AS sorted
    """)
)
_ENDS = Statement(
    text("""
    SELECT last.* FROM unnest(CAST(:journey_ids AS text[])) AS given (journey_id) CROSS JOIN LATERAL (
        SELECT journey_id, position, digest FROM receipt_entries
        WHERE journey_id = given.journey_id ORDER BY position DESC LIMIT 1
    ) AS last
    """)
)
_ADD = Statement(
    text("""
    INSERT INTO receipt_entries (journey_id, position, kind, content, previous_digest, digest)
    SELECT * FROM json_to_recordset(CAST(:entries AS json)) AS entry (
        journey_id text, position integer, kind text, content jsonb, previous_digest text, digest text
    )
    """)
)

# All that a transaction reads is of one moment, and no statement of it is cut off: some look at everything.
_ONE_MOMENT = text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
_NO_LIMIT = text("SET LOCAL statement_timeout = 0")


@dataclass(frozen=True)
class Entry:
    position: int
    kind: str
    content: dict[str, Any]
    previous_digest: str
    digest: str


def digest_of(journey_id: str, position: int, kind: str, content: dict[str, Any], previous_digest: str) -> str:
    """Raises ValueError for content that has no canonical JSON: floats, above all."""
    linked = {
        "journey_id": str(journey_id),
        "position": position,
        "kind": kind,
        "content": content,
        "previous_digest": previous_digest,
    }
    return sha256_hex(canonical_json(linked))


@dataclass(frozen=True)
class Head:
    """The last entry of a receipt: whoever knows it can tell whether anything before it was altered or removed."""

    journey_id: str
    position: int
    digest: str


@dataclass(frozen=True)
class NewEntry:
    """`only_first`: it is left out where the receipt has begun already. `content` must be JSON without floats and without
    anything personal."""

    journey_id: JourneyId
    kind: str
    content: dict[str, Any]
    only_first: bool = False


async def lock(connection: AsyncConnection, journey_id: JourneyId) -> None:
    """Until the transaction ends, nobody else appends to this receipt; what they appended before is seen."""
    await lock_all(connection, [journey_id])


async def lock_all(connection: AsyncConnection, journey_ids: Sequence[str]) -> None:
    _LOCK.later(connection, lock_class=_LOCK_CLASS, journey_ids=[str(journey_id) for journey_id in journey_ids])


async def append(connection: AsyncConnection, journey_id: JourneyId, kind: str, content: dict[str, Any]) -> str:
    """Adds an entry in the caller's transaction, and returns its digest. Belongs late into the transaction: the receipt
    stays locked until its end. Raises ValueError for content that is not as `NewEntry` wants it."""
    (added,) = await append_all(connection, [NewEntry(journey_id, kind, content)])
    assert added is not None
    return added.digest


async def append_all(connection: AsyncConnection, wanted: Sequence[NewEntry]) -> list[Head | None]:
    """The same for several, of several receipts; returns where each stands, None for what was left out. The receipts are locked
    in the same order by everybody, so that nobody waits in a circle."""
    journey_ids = sorted({str(entry.journey_id) for entry in wanted})
    _, last = await together(
        connection,
        _LOCK.with_values(lock_class=_LOCK_CLASS, journey_ids=journey_ids),
        _ENDS.with_values(journey_ids=journey_ids),
    )
    ends = {row.journey_id: (row.position, row.digest) for row in last}
    heads: list[Head | None] = []
    added = []
    for entry in wanted:
        journey_id = str(entry.journey_id)
        position, previous_digest = ends.get(journey_id, (0, FIRST_PREVIOUS_DIGEST))
        if entry.only_first and position:
            heads.append(None)
            continue
        digest = digest_of(journey_id, position + 1, entry.kind, entry.content, previous_digest)
        added.append(
            {
                "journey_id": journey_id,
                "position": position + 1,
                "kind": entry.kind,
                "content": entry.content,
                "previous_digest": previous_digest,
                "digest": digest,
            }
        )
        heads.append(Head(journey_id, position + 1, digest))
        ends[journey_id] = position + 1, digest
    if added:
        _ADD.later(connection, entries=json.dumps(added))
    return heads


async def read(connection: AsyncConnection, journey_id: JourneyId) -> list[Entry]:
    """All entries, first to last."""
    columns = receipt_entries.c
    query = (
        select(columns.position, columns.kind, columns.content, columns.previous_digest, columns.digest)
        .where(columns.journey_id == journey_id)
        .order_by(columns.position)
    )
    return [Entry(**row) for row in (await connection.execute(query)).mappings()]


# All receipts, in the order of their journeys.


@asynccontextmanager
async def one_moment(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction in which everything is seen as it is now, whatever is written meanwhile."""
    async with database.transaction() as connection:
        await connection.execute(_ONE_MOMENT)
        await connection.execute(_NO_LIMIT)
        yield connection


async def journeys_after(connection: AsyncConnection, journey_id: str, limit: int) -> list[str]:
    """The next ones that have a receipt, or should have: they have a proposal or a payment. "" is before the first."""

    def next_of(table: Table) -> Select[Any]:
        column = table.c.journey_id
        found = select(column).where(column > journey_id).distinct().order_by(column).limit(limit)
        return found.subquery().select()

    found = union(*(next_of(table) for table in (receipt_entries, proposals, payments))).subquery()
    column = found.c.journey_id
    return list((await connection.execute(select(column).order_by(column).limit(limit))).scalars())


async def load(connection: AsyncConnection, journey_ids: Sequence[str]) -> dict[str, list[Entry]]:
    """The entries of these journeys, first to last; a journey without any is left out."""
    columns = receipt_entries.c
    query = (
        select(receipt_entries)
        .where(columns.journey_id == func.any(list(journey_ids)))
        .order_by(columns.journey_id, columns.position)
    )
    found: dict[str, list[Entry]] = {}
    for row in await connection.execute(query):
        entry = Entry(row.position, row.kind, row.content, row.previous_digest, row.digest)
        found.setdefault(row.journey_id, []).append(entry)
    return found


async def in_order(
    database: Database, journey_ids: Sequence[str] | None = None, *, at_once: int = 200
) -> AsyncIterator[dict[str, list[Entry]]]:
    """All receipts, or those of these journeys, some at a time."""
    last = ""
    rest = list(journey_ids) if journey_ids is not None else None
    while True:
        async with one_moment(database) as connection:
            some = await journeys_after(connection, last, at_once) if rest is None else rest[:at_once]
            found = await load(connection, some)
        if not some:
            return
        yield found
        last, rest = some[-1], rest[at_once:] if rest is not None else None


async def heads(connection: AsyncConnection) -> AsyncIterator[Head]:
    """Of all receipts, in the order of their journeys' ids byte by byte; not more than a few are in memory at a time."""
    columns = receipt_entries.c
    by_bytes = collate(columns.journey_id, "C")
    query = select(columns.journey_id, columns.position, columns.digest).distinct(by_bytes)
    async with connection.stream(query.order_by(by_bytes, columns.position.desc())) as rows:
        async for row in rows:
            yield Head(row.journey_id, row.position, row.digest)


async def at_positions(connection: AsyncConnection, positions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The digests of these entries, as far as they exist."""
    columns = receipt_entries.c
    query = select(columns.journey_id, columns.position, columns.digest)
    found = await connection.execute(query.where(tuple_(columns.journey_id, columns.position).in_(positions)))
    return {(row.journey_id, row.position): row.digest for row in found}


async def verify(connection: AsyncConnection, journey_id: JourneyId) -> list[str]:
    """What is wrong with the receipt, one sentence each; empty where it holds."""
    return problems(journey_id, await read(connection, journey_id))


def problems(journey_id: str, entries: Sequence[Entry]) -> list[str]:
    found = []
    previous_digest = FIRST_PREVIOUS_DIGEST
    for expected, entry in enumerate(entries, start=1):
        if entry.position != expected:
            found.append(f"entry {expected} is missing: the next one is {entry.position}")
            return found
        if entry.previous_digest != previous_digest:
            found.append(f"entry {expected} does not follow from the one before")
        try:
            made = digest_of(journey_id, entry.position, entry.kind, entry.content, entry.previous_digest)
        except ValueError:
            made = ""
        if entry.digest != made:
            found.append(f"entry {expected} was altered: its digest is another")
        previous_digest = entry.digest
    return found
