"""Forgetting what is no longer needed: published outbox rows, old inbox entries, old hops. The janitor calls it now and then."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Table, delete, select
from sqlalchemy.sql.elements import ColumnElement

from schemas.tables import inbox, journey_hops, outbox
from schemas.topics import TOPICS
from streams.core.database import Database

_AT_ONCE = 5000
_KEEP_OUTBOX = timedelta(days=1)
# An event may come again as long as Kafka keeps it, and a little longer.
_KEEP_INBOX = max(topic.retention for topic in TOPICS) + timedelta(days=5)


async def tidy(database: Database, hop_history: timedelta) -> int:
    """Deletes a bounded number of rows of each kind; returns how many. Call it again while it returns any."""
    now = datetime.now(UTC)
    return (
        await _forget(database, outbox, outbox.c.published_at < now - _KEEP_OUTBOX)
        + await _forget(database, inbox, inbox.c.handled_at < now - _KEEP_INBOX)
        + await _forget(database, journey_hops, journey_hops.c.started_at < now - hop_history)
    )


async def _forget(database: Database, table: Table, condition: ColumnElement[bool]) -> int:
    key = list(table.primary_key.columns)
    old = select(*key).where(condition).limit(_AT_ONCE).with_for_update(skip_locked=True).subquery()
    matches = [column == old.c[column.name] for column in key]
    async with database.transaction() as connection:
        return (await connection.execute(delete(table).where(*matches))).rowcount
