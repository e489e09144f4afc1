"""Statements that are written once: the same rows, errors and broken connections as SQLAlchemy's own way."""

import asyncio

import pytest
from sqlalchemy import bindparam, func, insert, select, text
from sqlalchemy.exc import DataError, IntegrityError

from schemas.tables import inbox, outbox
from streams.core.database import Database, is_unavailable
from streams.core.statements import Statement, together

_FIND = Statement(select(inbox.c.consumer, inbox.c.event_id).where(inbox.c.consumer == bindparam("who")))
_ADD = Statement(insert(inbox), columns=("consumer", "event_id"))
_ADD_AND_TELL = Statement(insert(inbox).returning(inbox.c.event_id), columns=("consumer", "event_id"))
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


async def test_what_waits_is_done_before_whatever_follows(database: Database) -> None:
    async with database.transaction() as connection:
        _ADD.later(connection, consumer="later", event_id="1")
        assert await _FIND.all(connection, who="later") == [("later", "1")]
        _ADD.later(connection, consumer="later", event_id="2")
        assert (await connection.execute(select(func.count()).where(inbox.c.consumer == "later"))).scalar_one() == 2
        _ADD.later(connection, consumer="later", event_id="3")
        before, _, after = await together(
            connection,
            _FIND.with_values(who="later"),
            _ADD_AND_TELL.with_values(consumer="later", event_id="4"),
            _FIND.with_values(who="later"),
        )
        assert (len(before), len(after)) == (3, 4)
        _ADD.later(connection, consumer="later", event_id="5")
    async with database.transaction() as connection:
        assert len(await _FIND.all(connection, who="later")) == 5


async def test_what_waits_is_dropped_with_its_transaction(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            _ADD.later(connection, consumer="dropped", event_id="1")
            raise ZeroDivisionError
    for _ in range(10):  # whichever connection it was
        async with database.transaction() as connection:
            assert await _FIND.all(connection, who="dropped") == []


async def test_nothing_waits_outside_a_transaction(database: Database) -> None:
    async with database.engine.connect() as connection:
        with pytest.raises(RuntimeError, match="nobody would send"):
            _ADD.later(connection, consumer="outside", event_id="1")


async def test_what_waits_and_cannot_be_done_fails_at_the_latest_with_the_commit(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.transaction() as connection:
            for _ in range(2):
                _ADD.later(connection, consumer="failing", event_id="secret")
    with pytest.raises(DataError):
        async with database.transaction() as connection:
            _DIVIDE.later(connection, by=0)
            _ADD.later(connection, consumer="failing", event_id="1")
            await _FIND.all(connection, who="failing")
    async with database.transaction() as connection:
        assert await _FIND.all(connection, who="failing") == []


async def test_who_is_cancelled_while_waiting_leaves_a_connection_that_can_be_used(database: Database) -> None:
    sleep = Statement(text("SELECT pg_sleep(:seconds)"))

    async def waiting() -> None:
        async with database.transaction() as connection:
            _ADD.later(connection, consumer="cancelled", event_id="1")
            await sleep.first(connection, seconds=60)

    for _ in range(3):
        task = asyncio.create_task(waiting())
        await asyncio.sleep(0.1)
        task.cancel()
        async with asyncio.timeout(20):
            with pytest.raises(asyncio.CancelledError):
                await task
            async with database.transaction() as connection:
                assert await _FIND.all(connection, who="cancelled") == []


async def test_it_takes_exactly_its_parameters(database: Database) -> None:
    async with database.transaction() as connection:
        for wrong in ({}, {"by": 1, "to": 2}, {"to": 2}):
            with pytest.raises(TypeError, match="by"):
                await _DIVIDE.first(connection, **wrong)


def test_a_list_of_unknown_length_is_refused() -> None:
    with pytest.raises(ValueError, match="ANY"):
        Statement(select(func.count()).where(inbox.c.consumer.in_(["a", "b"])))
