"""Remembering what was handled: an effect happens once, however often its event arrives."""

from collections.abc import Collection

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from streams.core.statements import Statement

_CLAIM = Statement(
    text("""
    INSERT INTO inbox (consumer, event_id) SELECT :consumer, event_id FROM unnest(CAST(:event_ids AS text[])) AS given (event_id)
    ON CONFLICT DO NOTHING RETURNING event_id
    """)
)


async def claim_all(connection: AsyncConnection, consumer: str, event_ids: Collection[str]) -> set[str]:
    """Those of the events that were not handled before. Belongs into the same transaction as their effects."""
    return {row.event_id for row in await _CLAIM.all(connection, consumer=consumer, event_ids=sorted(event_ids))}


async def claim(connection: AsyncConnection, consumer: str, event_id: str) -> bool:
    """True the first time."""
    return bool(await claim_all(connection, consumer, [event_id]))
