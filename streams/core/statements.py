"""Statements that run for every event. SQLAlchemy writes their SQL once, when their module is loaded; they run on the driver's
own connection, in the caller's transaction. To build a statement, look up its SQL and wrap its rows anew each time would cost
several times what running it costs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement

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

    async def _run(self, connection: AsyncConnection, given: dict[str, Any]) -> psycopg.AsyncCursor[Any]:
        if given.keys() != self._given.keys():
            raise TypeError(f"the statement takes {sorted(self._given)}, not {sorted(given)}")
        for name, process in self._processed:
            given[name] = process(given[name])
        cursor = _cursor(connection)
        try:
            await cursor.execute(self._sql, {**self._fixed, **given})
        except psycopg.Error as error:
            if cursor.connection.closed:
                # It sees for itself that the connection is broken, and drops it and those beside it.
                await connection.exec_driver_sql("SELECT 1")
            raise DBAPIError.instance(
                self._sql, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=False, dialect=_DIALECT
            ) from error
        return cursor


def _cursor(connection: AsyncConnection) -> psycopg.AsyncCursor[Any]:
    """The connection's one cursor for statements: it remembers how to write Python's types, which is a third of what a statement
    costs. What was read is fetched before the next one runs."""
    proxy: Any = connection.sync_connection
    kept: dict[str, Any] = proxy.info  # as long as the driver's connection lives
    cursor = kept.get("cursor of statements")
    if cursor is None:
        driver: psycopg.AsyncConnection[Any] = proxy.connection.driver_connection
        cursor = kept["cursor of statements"] = driver.cursor(row_factory=namedtuple_row)
    return cursor
