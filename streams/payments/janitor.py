"""The janitor: asks providers about payments whose outcome is not known, finishes what a dead worker left behind, and closes
proposals nobody answered. It does what the worker does, only later, on a schedule that is data (service.ASK_AGAIN_AFTER_S)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from streams.core import housekeeping, ready
from streams.core.bootstrap import Parts
from streams.core.database import Database, is_unavailable
from streams.core.deadletters import Reason
from streams.core.handling import transaction
from streams.core.telemetry import tracing
from streams.intents import closing
from streams.payments import service, store
from streams.payments.agent import payment_work
from streams.payments.calls import Calls
from streams.payments.store import Due
from streams.payments.work import PaymentWork

log = logging.getLogger(__name__)

NAME = "janitor"
_PAUSE_S = 0.5
_TIDY_EVERY_S = 600.0
_AT_ONCE = 16


class Janitor:
    def __init__(self, database: Database, work: PaymentWork, calls: Calls) -> None:
        self._database = database
        self._work = work
        self._calls = calls

    async def round(self) -> int:
        """One round; returns how many payments were begun to be looked after. Their calls go on beside the next one."""
        now = datetime.now(UTC)
        async with self._database.transaction() as connection:
            due = list(await store.due_payments(connection, now, _AT_ONCE, busy=self._calls.busy))
            due += await store.stranded_payments(connection, now - service.TAKE_UP_WITHIN, _AT_ONCE)
        for payment in due:
            await self._look_after(payment)
        return len(due)

    async def _look_after(self, due: Due) -> None:
        """One payment's trouble (a means of payment that cannot be opened, say) must not keep the others waiting."""
        try:
            with tracing.span("janitor", journey=due.journey_id, parent=due.trace):
                async with transaction(self._database) as unit:
                    plan = await self._work.open(due.payment_id, unit, only_if_due=True)
                if plan is not None:
                    self._calls.start(plan)
        except Exception as error:
            if is_unavailable(error):
                raise
            log.error("%s could not be looked after and is put off: %s", due.payment_id, Reason.of(error).detail)  # noqa: TRY400
            async with self._database.transaction() as connection:
                await store.put_off(connection, due.payment_id, datetime.now(UTC) + service.LEASE, self._work.worker)


async def run(parts: Parts) -> None:
    """The role. A round that fails is logged and tried again; nothing is lost by it, for the attempts stay due."""
    database, work = parts.database(), payment_work(parts, NAME)
    async with transaction(database) as unit:
        await store.take_back(unit.connection, work.worker)
    janitor = Janitor(database, work, Calls(NAME, database, work, at_once=parts.settings.provider_calls))
    ready.announce()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_again_and_again("payments", janitor.round, _PAUSE_S))
        tasks.create_task(_again_and_again("proposals", partial(closing.expire, database), _PAUSE_S))
        history = timedelta(days=parts.settings.hop_history_days)
        tasks.create_task(_again_and_again("housekeeping", partial(housekeeping.tidy, database, history), _TIDY_EVERY_S))


async def _again_and_again(what: str, once: Callable[[], Awaitable[int]], pause_s: float) -> None:
    """At once while there is something left to do, else after a pause. What fails is tried again; the others go on."""
    while True:
        done = 0
        try:
            done = await once()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("%s: a round failed", what)
        if done < _AT_ONCE:
            await asyncio.sleep(pause_s)
