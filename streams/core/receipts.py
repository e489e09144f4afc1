"""The receipt of a journey: what happened, entry by entry, each bound to the one before by its digest. An entry cannot be
altered, removed or put between others without every later digest showing it; the database refuses to try (append-only).

digest = SHA-256 over the canonical JSON of {journey_id, position, kind, content, previous_digest}; positions count from 1, and
the first entry's previous digest is 64 zeros.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.digests import canonical_json, sha256_hex
from schemas.ids import JourneyId
from schemas.tables import receipt_entries

FIRST_PREVIOUS_DIGEST = "0" * 64

_LOCK_CLASS = 0x5EC7  # names the receipts among the users of advisory locks
_LOCK = text("SELECT pg_advisory_xact_lock(:lock_class, hashtext(:journey_id))")


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


async def lock(connection: AsyncConnection, journey_id: JourneyId) -> None:
    """Until the transaction ends, nobody else appends to this receipt; what they appended before is seen."""
    await connection.execute(_LOCK, {"lock_class": _LOCK_CLASS, "journey_id": str(journey_id)})


async def append(connection: AsyncConnection, journey_id: JourneyId, kind: str, content: dict[str, Any]) -> str:
    """Adds an entry in the caller's transaction, and returns its digest. Belongs late into the transaction: the receipt
    stays locked until its end. `content` must be JSON without floats (ValueError) and without anything personal."""
    await lock(connection, journey_id)
    query = (
        select(receipt_entries.c.position, receipt_entries.c.digest)
        .where(receipt_entries.c.journey_id == journey_id)
        .order_by(receipt_entries.c.position.desc())
        .limit(1)
    )
    last = (await connection.execute(query)).first()
    position, previous_digest = (last.position + 1, last.digest) if last else (1, FIRST_PREVIOUS_DIGEST)
    digest = digest_of(journey_id, position, kind, content, previous_digest)
    await connection.execute(
        insert(receipt_entries).values(
            journey_id=journey_id,
            position=position,
            kind=kind,
            content=content,
            previous_digest=previous_digest,
            digest=digest,
        )
    )
    return digest


async def read(connection: AsyncConnection, journey_id: JourneyId) -> list[Entry]:
    """All entries, first to last."""
    columns = receipt_entries.c
    query = (
        select(columns.position, columns.kind, columns.content, columns.previous_digest, columns.digest)
        .where(columns.journey_id == journey_id)
        .order_by(columns.position)
    )
    return [Entry(**row) for row in (await connection.execute(query)).mappings()]


async def verify(connection: AsyncConnection, journey_id: JourneyId) -> list[str]:
    """What is wrong with the receipt, one sentence each; empty where it holds."""
    return problems(journey_id, await read(connection, journey_id))


def problems(journey_id: str, entries: list[Entry]) -> list[str]:
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
