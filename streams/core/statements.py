"""Statements that run for every event. SQLAlchemy writes their SQL once, when their module is loaded; they run on the driver's
own connection, in the caller's transaction. To build a statement, look up its SQL and wrap its rows anew each time would cost
several times what running it costs.

To wait for an answer costs as much as the statement itself. What need not be waited for is therefore sent together with what
must (`later`, `together`), in the order in which it was asked for; what is left is sent before the commit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Connection, Engine, Executable, event
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql import ClauseElement
from sqlalchemy.util import await_only

_DIALECT = PGDialectAsync_psycopg()  # type: ignore[no-untyped-call]


class Statement:
    """`written` with `bindparam`s for what is given when it runs; an insert may name its `columns` instead. A list is one
    parameter (`= ANY`), never an expanding one. Rows are named tuples. Raises what SQLAlchemy does."""

    def __init__(self, written: Executable, *, columns: Sequence[str] | None = None) -> None:
        assert isinstance(written, ClauseElement)
        compiled: Any = written.compile(dialect=_DIALECT, column_keys=columns)
        self._sql = str(compiled)
        processors: dict[str, Callable[[Any], Any]] = compiled._bind_processors  # noqa: SLF001 (only types have them, unnamed)
        self._given: dict[str, Callable[[Any], Any] | None] = {}
        self._fixed: dict[str, Any] = {}
        for bound, name in compiled.bind_names.items():
            process = processors.get(name)
            if bound.required:
                self._given[name] = process
            elif bound.expanding:
                raise ValueError(f"{name} is a list of unknown length: write `= ANY`")
            else:
                value = bound.effective_value
                self._fixed[name] = process(value) if process else value
        self._processed = [(name, process) for name, process in self._given.items() if process]

    async def all(self, connection: AsyncConnection, **given: object) -> list[Any]:
        cursor = await self._run(connection, given)
        return await cursor.fetchall()

    async def first(self, connection: AsyncConnection, **given: object) -> Any:
        """The first row, or None."""
        cursor = await self._run(connection, given)
        return await cursor.fetchone()

    async def scalar(self, connection: AsyncConnection, **given: object) -> Any:
        """The first row's first column, or None where there is no row."""
        row = await self.first(connection, **given)
        return row[0] if row is not None else None

    async def run(self, connection: AsyncConnection, **given: object) -> int:
        """Returns how many rows it was about."""
        return (await self._run(connection, given)).rowcount

    def later(self, connection: AsyncConnection, **given: object) -> None:
        """Run it before anything else that is asked of the connection from now on. What it raises is raised there. For engines
        that `keep_order`."""
        if connection.engine.sync_engine not in _keeping or not connection.in_transaction():
            raise RuntimeError("nobody would send what waits on this connection")
        _line(_sync(connection)).waiting.append(self.with_values(**given))

    def with_values(self, **given: Any) -> "Sendable":
        """For `together`."""
        if given.keys() != self._given.keys():
            raise TypeError(f"the statement takes {sorted(self._given)}, not {sorted(given)}")
        for name, process in self._processed:
            given[name] = process(given[name])
        return self._sql, {**self._fixed, **given}

    async def _run(self, connection: AsyncConnection, given: dict[str, Any]) -> psycopg.AsyncCursor[Any]:
        return (await _send(connection, [self.with_values(**given)]))[0]


Sendable = tuple[str, dict[str, Any]]
"""A statement's SQL and its parameters."""


async def together(connection: AsyncConnection, *sendables: Sendable) -> list[list[Any]]:
    """The rows of each: one wait for all. Each sees what those before it have done."""
    return [await cursor.fetchall() for cursor in await _send(connection, sendables)]


async def send_waiting(connection: AsyncConnection) -> None:
    """For who wants to know now whether what waits can be done. Raises what it raises."""
    await _send(connection, [])


@dataclass
class _Line:
    """A driver's connection, what waits to be sent on it, and its cursors: they remember how to write Python's types, which is a
    third of what a statement costs. What was read is fetched before the next ones run."""

    driver: psycopg.AsyncConnection[Any]
    waiting: list[Sendable] = field(default_factory=list)
    cursors: list[psycopg.AsyncCursor[Any]] = field(default_factory=list)

    async def send(self, sendables: Sequence[Sendable]) -> list[psycopg.AsyncCursor[Any]]:
        """What waits, and these. Returns the cursors of these, with their results."""
        everything = [*self.waiting, *sendables]
        self.waiting.clear()
        if not everything:
            return []
        while len(self.cursors) < len(everything):
            self.cursors.append(self.driver.cursor(row_factory=namedtuple_row))
        used = self.cursors[: len(everything)]
        if len(everything) == 1:
            await used[0].execute(*everything[0])
        else:
            async with self.driver.pipeline():
                for cursor, (sql, parameters) in zip(used, everything, strict=True):
                    await cursor.execute(sql, parameters)
        return used[len(everything) - len(sendables) :]


async def _send(connection: AsyncConnection, sendables: Sequence[Sendable]) -> list[psycopg.AsyncCursor[Any]]:
    line = _line(_sync(connection))
    try:
        return await line.send(sendables)
    except psycopg.Error as error:
        if line.driver.closed:
            # It sees for itself that the connection is broken, and drops it and those beside it.
            await connection.exec_driver_sql("SELECT 1")
        raise _translated(error) from error


def _translated(error: psycopg.Error) -> Exception:
    return DBAPIError.instance(
        None, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=False, dialect=_DIALECT
    )


def keep_order(engine: AsyncEngine) -> None:
    """What waits on a connection of this engine is sent before SQLAlchemy's own statements and before the commit, and dropped
    with a rollback."""

    _keeping.add(engine.sync_engine)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before_others(connection: Connection, *_: object) -> None:
        _send_waiting(connection)

    @event.listens_for(engine.sync_engine, "commit")
    def before_commit(connection: Connection) -> None:
        _send_waiting(connection)

    @event.listens_for(engine.sync_engine, "rollback")
    def forget(connection: Connection) -> None:
        if not connection.invalidated and (line := connection.info.get(_KEY)) is not None:
            line.waiting.clear()


_KEY = "statements"
_keeping: WeakSet[Engine] = WeakSet()


def _send_waiting(connection: Connection) -> None:
    line: _Line | None = connection.info.get(_KEY)
    if line is None or not line.waiting:
        return
    try:
        await_only(line.send([]))
    except psycopg.Error as error:
        if line.driver.closed:
            connection.invalidate()
        raise _translated(error) from error


def _sync(connection: AsyncConnection) -> Connection:
    assert connection.sync_connection is not None
    return connection.sync_connection


def _line(connection: Connection) -> _Line:
    line: _Line | None = connection.info.get(_KEY)  # it lives as long as the driver's connection
    if line is None:
        driver: Any = connection.connection.driver_connection
        line = connection.info[_KEY] = _Line(driver)
    return line
