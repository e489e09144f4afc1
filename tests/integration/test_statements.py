"""Statements that are written once: the same rows, errors and broken connections as SQLAlchemy's own way."""

import pytest
from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.exc import DataError, IntegrityError

from schemas.tables import inbox, outbox
from streams.core.database import Database, is_unavailable
from streams.core.statements import Statement

_FIND = Statement(select(inbox.c.consumer, inbox.c.event_id).where(inbox.c.consumer == bindparam("who")))
_ADD = Statement(insert(inbox), columns=("consumer", "event_id"))
_DIVIDE = Statement(text("SELECT 1 / :by"))
_END = Statement(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def test_it_reads_what_it_wrote_and_is_rolled_back_with_its_transaction(database: Database) -> None:
    class Undone(Exception):
        pass

    with pytest.raises(Undone):
        async with database.transaction() as connection:
            assert await _ADD.run(connection, consumer="statements", event_id="1") == 1
            row = await _FIND.first(connection, who="statements")
            assert (row.consumer, row.event_id) == ("statements", "1")
            raise Undone
    async with database.transaction() as connection:
        assert await _FIND.all(connection, who="statements") == []
        assert await _FIND.first(connection, who="statements") is None
        assert await _FIND.scalar(connection, who="statements") is None


async def test_documents_are_stored_as_documents(database: Database) -> None:
    add = Statement(insert(outbox), columns=("bucket", "topic", "key", "headers", "value"))
    find = Statement(select(outbox.c.headers).where(outbox.c.topic == "statements"))
    async with database.transaction() as connection:
        await add.run(connection, bucket=1, topic="statements", key=b"k", headers={"ce_type": "x"}, value=b"")
        assert await find.scalar(connection) == {"ce_type": "x"}
        await connection.rollback()


async def test_errors_are_sqlalchemys_and_the_statements_fault(database: Database) -> None:
    with pytest.raises(DataError) as divided:
        async with database.transaction() as connection:
            await _DIVIDE.first(connection, by=0)
    assert not is_unavailable(divided.value)
    with pytest.raises(IntegrityError) as twice:
        async with database.transaction() as connection:
            for _ in range(2):
                await _ADD.run(connection, consumer="statements", event_id="secret")
    assert not is_unavailable(twice.value)


async def test_a_broken_connection_is_noticed_and_replaced(database: Database) -> None:
    with pytest.raises(Exception, match=r".+") as broken:
        async with database.transaction() as connection:
            await _END.first(connection)
    assert is_unavailable(broken.value)
    async with database.transaction() as connection:
        assert await _DIVIDE.scalar(connection, by=1) == 1


async def test_it_takes_exactly_its_parameters(database: Database) -> None:
    async with database.transaction() as connection:
        for wrong in ({}, {"by": 1, "to": 2}, {"to": 2}):
            with pytest.raises(TypeError, match="by"):
                await _DIVIDE.first(connection, **wrong)


def test_a_list_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="ANY"):
        Statement(select(func.count()).where(inbox.c.consumer.in_(["a", "b"])))
