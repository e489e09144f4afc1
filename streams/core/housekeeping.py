"""Forgetting what is no longer needed: published outbox rows, old inbox entries, what was looked at and not bought, old hops, the
keys of old requests. The janitor calls it now and then."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import Table, delete, exists, select
from sqlalchemy.sql.elements import ColumnElement

from schemas.tables import idempotency_keys, inbox, journey_hops, offers, outbox, payee_codes, proposals
from schemas.topics import TOPICS
from streams.core.database import Database

_AT_ONCE = 5000
_KEEP_OUTBOX = timedelta(days=1)
_KEEP_OFFERS = timedelta(days=1)  # what somebody looked at is nobody's business for long
_KEEP_KEYS = timedelta(days=2)
# An event may come again as long as Kafka keeps it, and a little longer.
_KEEP_INBOX = max(topic.retention for topic in TOPICS) + timedelta(days=5)


async def tidy(database: Database, hop_history: timedelta) -> int:
    """Deletes a bounded number of rows of each kind; returns how many. Call it again while it returns any."""
    now = datetime.now(UTC)
    return (
        await _forget(database, outbox, outbox.c.published_at < now - _KEEP_OUTBOX)
        + await _forget(database, inbox, inbox.c.handled_at < now - _KEEP_INBOX)
        + await _forget(database, offers, (offers.c.created_at < now - _KEEP_OFFERS) & ~_was_proposed(offers))
        + await _forget(database, payee_codes, (payee_codes.c.expires_at < now - _KEEP_OFFERS) & ~_was_proposed(payee_codes))
        + await _forget(database, idempotency_keys, idempotency_keys.c.created_at < now - _KEEP_KEYS)
        + await _forget(database, journey_hops, journey_hops.c.started_at < now - hop_history)
    )


def _was_proposed(table: Table) -> ColumnElement[bool]:
    return exists().where((proposals.c.offer_id if table is offers else proposals.c.payee_code_id) == table.c.id)


async def _forget(database: Database, table: Table, condition: ColumnElement[bool]) -> int:
    key = list(table.primary_key.columns)
    old = select(*key).where(condition).limit(_AT_ONCE).with_for_update(skip_locked=True).subquery()
    matches = [column == old.c[column.name] for column in key]
    async with database.transaction() as connection:
        return (await connection.execute(delete(table).where(*matches))).rowcount
