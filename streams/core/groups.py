"""Group commit: units of work that are ready at the same time share one transaction, so that many events cost one commit.

A unit may claim its event in the consumer's inbox; the claims of a group are one statement. What the units of a group are about
may be locked and read for all of them together, too (`prepare`).

Each unit runs in its caller's own task (its trace, its deadline), one after the other on the shared connection. If any of them
fails, all is rolled back and every unit is run again alone, where only the one that fails fails. A unit must therefore have no
effect but on the database; and it is either committed when `run` returns, or it was not.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind

from streams.core import inbox
from streams.core.database import Database
from streams.core.outbox import Transaction
from streams.core.telemetry import names, tracing

Result = TypeVar("Result")

_AT_ONCE = 64

# A group begins no sooner than three times as long after the one before as that one took: two thirds of the time are for others
# to gather, and the busier the machine, the larger the groups. Who comes alone does not wait.
_PACE = 3
_PAUSE_AT_MOST_S = 0.04


class _RunAlone(Exception):
    """The group failed because of somebody in it."""


@dataclass(eq=False)
class _Member:
    claims: str | None
    about: Hashable | None
    turn: asyncio.Future[Transaction | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    done: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    committed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


Prepare = Callable[[Transaction, Sequence[Any]], Awaitable[None]]
"""Locks, in an order that everybody keeps to, and reads into `Transaction.prepared`; is given each subject once."""


class GroupCommit:
    """Of one `consumer`, whose inbox the claims are made in."""

    def __init__(self, database: Database, consumer: str, *, prepare: Prepare | None = None) -> None:
        self._database = database
        self._consumer = consumer
        self._prepare = prepare
        self._waiting: list[_Member] = []
        self._leading: asyncio.Task[None] | None = None
        self._next_at = 0.0

    async def run(
        self, work: Callable[[Transaction], Awaitable[Result]], *, claim: str | None = None, about: Hashable | None = None
    ) -> Result | None:
        """`work` in a transaction, committed. With `claim` (an event's id) only if the event was not handled before, else
        None. `about` is what is prepared for it. Raises what `work` raises, or what the database does."""
        attributes = {names.DATABASE_SYSTEM: "postgresql", names.DATABASE_OPERATION: "transaction"}
        with tracing.span("transaction postgresql", kind=SpanKind.CLIENT, attributes=attributes):
            try:
                return await self._together(work, _Member(claim, about))
            except _RunAlone:
                return await self._alone(work, claim, about)

    async def _alone(
        self, work: Callable[[Transaction], Awaitable[Result]], claim: str | None, about: Hashable | None
    ) -> Result | None:
        async with self._database.transaction() as connection:
            if claim is not None and not await inbox.claim(connection, self._consumer, claim):
                return None
            unit = Transaction(connection)
            if self._prepare is not None and about is not None:
                await self._prepare(unit, [about])
            result = await work(unit)
            await unit.flush()
        return result

    async def _together(self, work: Callable[[Transaction], Awaitable[Result]], member: _Member) -> Result | None:
        self._waiting.append(member)
        if self._leading is None or self._leading.done():
            self._leading = asyncio.create_task(self._lead())
        try:
            unit = await member.turn
            result = None
            if unit is not None:
                try:
                    result = await work(unit)
                except BaseException:
                    member.done.set_result(False)
                    raise
            member.done.set_result(True)
            await member.committed
        finally:
            # Whoever is cancelled leaves the group without holding the others up.
            for future in (member.turn, member.done, member.committed):
                future.cancel()
        return result

    async def _lead(self) -> None:
        while self._waiting:
            if len(self._waiting) < _AT_ONCE:
                await asyncio.sleep(max(0.0, self._next_at - monotonic()))
            began = monotonic()
            self._waiting = [member for member in self._waiting if not member.turn.cancelled()]
            group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            if not group:
                continue
            try:
                await self._commit(group)
            except Exception as error:
                for member in group:
                    _fail(member, error if len(group) == 1 else _RunAlone())
            took = monotonic() - began
            self._next_at = began + min(_PACE * took, took + _PAUSE_AT_MOST_S)

    async def _commit(self, group: list[_Member]) -> None:
        async with self._database.transaction() as connection:
            unit = Transaction(connection)
            wanted = {member.claims for member in group if member.claims is not None}
            claimed = await inbox.claim_all(connection, self._consumer, wanted) if wanted else set()
            subjects = {member.about for member in group if member.claims is None or member.claims in claimed} - {None}
            if self._prepare is not None and subjects:
                await self._prepare(unit, list(subjects))
            for member in group:
                if member.turn.cancelled():
                    raise _RunAlone  # what it has claimed must not be committed
                may_work = member.claims is None or member.claims in claimed
                claimed.discard(member.claims or "")  # a second one of the same event is a repetition
                member.turn.set_result(unit if may_work else None)
                await asyncio.wait([member.done])
                if member.done.cancelled() or not member.done.result():
                    raise _RunAlone
            await unit.flush()
        for member in group:
            if not member.committed.done():
                member.committed.set_result(None)


def _fail(member: _Member, error: Exception) -> None:
    for future in (member.turn, member.committed):
        if not future.done():
            future.set_exception(error)
            future.exception()  # looked at, whether or not its owner still waits
            return
