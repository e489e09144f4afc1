"""PostgreSQL, asynchronously: one engine per process, one transaction per unit of work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from schemas.errors import Misconfigured
from streams.core.statements import keep_order

# SQLSTATE classes of a server that is down, restarting, full or in somebody's way: connection, transaction rollback (deadlock),
# insufficient resources, operator intervention (but not a cancelled statement: that one is too slow), lock not available.
_PASSING = ("08", "40", "53", "57P", "55P03")


def is_unavailable(error: BaseException) -> bool:
    """Whether the database is at fault and waiting helps; anything else is the statement's fault, and comes again."""
    if isinstance(error, PoolTimeout | ConnectionError):
        return True
    if isinstance(error, OperationalError | InterfaceError):
        state = getattr(error.orig, "sqlstate", None)
        return state is None or state.startswith(_PASSING)
    return isinstance(error, DBAPIError) and error.connection_invalidated


def has_no_tables(error: BaseException) -> bool:
    """Whether the database was never migrated, or is behind by a table."""
    return isinstance(error, ProgrammingError) and getattr(error.orig, "sqlstate", None) == "42P01"


def parse_url(url: str) -> URL:
    """With any driver; say which one you mean. Raises Misconfigured."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Misconfigured("DATABASE_URL is not an address: postgresql://user:password@host:port/database") from error
    if not parsed.drivername.startswith("postgresql"):
        raise Misconfigured(f"DATABASE_URL names {parsed.drivername}; only PostgreSQL is supported.")
    return parsed


def create_engine(url: str, *, connections: int = 10, verified: bool = False) -> AsyncEngine:
    """`url` is postgresql://… in any SQLAlchemy spelling; psycopg 3 is used. A statement may take 15 s, a lock 5 s. With
    `verified` a connection is tried before it is used: for those who do not try again by themselves."""
    engine = create_async_engine(
        parse_url(url).set(drivername="postgresql+psycopg"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=verified,
        hide_parameters=True,  # errors must not carry what was to be stored into the logs
        connect_args={
            "connect_timeout": 5,
            "options": "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=60000",
            "prepare_threshold": 3,
        },
    )

    # A server that went away breaks every pooled connection, not only the one that noticed.
    @event.listens_for(engine.sync_engine, "handle_error")
    def drop_broken_pool(context: object) -> None:
        if getattr(context, "is_disconnect", False):
            context.invalidate_pool_on_disconnect = True  # type: ignore[attr-defined]

    keep_order(engine)
    return engine


class Database:
    """Hands out transactions. Nothing here commits halfway: leave the block normally to commit, with an error to roll back."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.begin() as connection:
            yield connection

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()
