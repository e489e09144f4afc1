"""The janitor: asks providers about payments whose outcome is not known, finishes what a dead worker left behind, and closes
proposals nobody answered. It does what the worker does, only later, on a schedule that is data (service.ASK_AGAIN_AFTER)."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from time import monotonic

from streams.core import housekeeping, ready
from streams.core.bootstrap import Parts
from streams.core.database import Database, is_unavailable
from streams.core.handling import transaction
from streams.core.telemetry import tracing
from streams.intents import closing
from streams.payments import service, store
from streams.payments.agent import payment_work
from streams.payments.store import Due
from streams.payments.work import PaymentWork

log = logging.getLogger(__name__)

_PAUSE_S = 0.5
_TIDY_EVERY_S = 600.0
_AT_ONCE = 16
_CALL_S = 30.0  # shorter than service.LEASE


class Janitor:
    def __init__(self, database: Database, work: PaymentWork) -> None:
        self._database = database
        self._work = work

    async def round(self) -> int:
        """One round; returns how many payments were looked after."""
        async with self._database.transaction() as connection:
            due = await store.due_payments(connection, datetime.now(UTC), _AT_ONCE)
        await asyncio.gather(*(self._look_after(payment) for payment in due))
        return len(due)

    async def _look_after(self, due: Due) -> None:
        """One payment's trouble (a means of payment that cannot be opened, say) must not keep the others waiting."""
        try:
            await self._resume(due)
        except Exception as error:
            if not is_unavailable(error):
                log.exception("%s could not be looked after; it is tried again later", due.payment_id)
                async with self._database.transaction() as connection:
                    await store.lease_attempt(connection, due.attempt_id, datetime.now(UTC) + service.LEASE)

    async def _resume(self, due: Due) -> None:
        with tracing.span("janitor", journey=due.journey_id, parent=due.trace):
            async with transaction(self._database) as unit:
                plan = await self._work.open(due.payment_id, unit, only_if_due=True)
            if plan is None:
                return
            async with asyncio.timeout(_CALL_S):
                outcome = await self._work.call(plan)
            async with transaction(self._database) as unit:
                await self._work.settle(plan, outcome, unit)


async def run(parts: Parts) -> None:
    """The role. A round that fails is logged and tried again; nothing is lost by it, for the attempts stay due."""
    database = parts.database()
    janitor = Janitor(database, payment_work(parts))
    ready.announce()
    tidied_at = -_TIDY_EVERY_S
    while True:
        try:
            looked_after = await janitor.round()
            await closing.expire(database)
            if monotonic() - tidied_at > _TIDY_EVERY_S:
                while await housekeeping.tidy(database, timedelta(days=parts.settings.hop_history_days)):
                    pass
                tidied_at = monotonic()
        except Exception as error:
            if not is_unavailable(error):
                log.exception("a round failed")
            looked_after = 0
        if looked_after < _AT_ONCE:
            await asyncio.sleep(_PAUSE_S)
