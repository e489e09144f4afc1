"""Remembering what was handled: an effect happens once, however often its event arrives."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.tables import inbox


async def claim(connection: AsyncConnection, consumer: str, event_id: str) -> bool:
    """True the first time. Belongs into the same transaction as the effect."""
    statement = insert(inbox).values(consumer=consumer, event_id=event_id).on_conflict_do_nothing()
    # SQLAlchemy does not keep an INSERT's row count; what it returned tells as well.
    return (await connection.execute(statement.returning(inbox.c.event_id))).first() is not None


async def was_handled(connection: AsyncConnection, consumer: str, event_id: str) -> bool:
    query = select(inbox.c.event_id).where(inbox.c.consumer == consumer, inbox.c.event_id == event_id)
    return (await connection.execute(query)).first() is not None
