"""Calls to providers, each provider in a lane of its own: one that hangs keeps no other waiting. What is in a lane is on record
as an attempt with a lease, so that whatever becomes of this process, nothing is lost: it is taken up when the lease ends."""

import asyncio
import logging
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from time import monotonic

import stamina

from schemas.payments import Outcome, Unknown
from streams.core.database import Database, is_unavailable
from streams.core.deadletters import Reason
from streams.core.groups import GroupCommit
from streams.core.handling import transaction
from streams.core.outbox import Transaction
from streams.payments import service, store
from streams.payments.work import LeaseLost, PaymentWork, Plan

log = logging.getLogger(__name__)


# What has waited longer than this for its turn is given back: its lease would not outlast the call.
_TURN_WITHIN_S = 10.0
_WAITING_PER_CALL = 8


class Calls:
    """At most `at_once` calls to one provider. `name` is that of the consumer or role on whose behalf it settles."""

    def __init__(self, name: str, database: Database, work: PaymentWork, *, at_once: int) -> None:
        self._database = database
        self._work = work
        # Also in settling: when many calls to one that hangs end at once, the others' answers are not behind them.
        self._settling: defaultdict[str, GroupCommit] = defaultdict(lambda: GroupCommit(database, name, prepare=store.prepare))
        self._at_once = at_once
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(at_once))
        self._under_way: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> list[str]:
        """The providers for which more would have to wait."""
        return [provider for provider, count in self._under_way.items() if count >= self._at_once]

    def start(self, plan: Plan) -> None:
        """Call and settle, beside what the caller does next. Where too many wait already, it stays on record for the janitor."""
        provider = plan.payment.provider
        if self._under_way[provider] >= self._at_once * _WAITING_PER_CALL:
            return
        self._under_way[provider] += 1
        task = asyncio.create_task(self._run(plan))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def finish(self) -> None:
        """Until all that was started has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, plan: Plan) -> None:
        provider, waiting_since = plan.payment.provider, monotonic()
        try:
            async with self._lanes[provider]:
                if monotonic() - waiting_since > _TURN_WITHIN_S:
                    await self._put_off(plan, timedelta(0))
                    return
                outcome = await self._call(plan)

            await self._settle(plan, outcome)
        except LeaseLost:
            return  # whoever has it now goes on; if nobody has, it is due when the lease has ended
        except Exception as error:
            # One payment's trouble keeps no other waiting; it is looked after again when the lease has ended.
            if not is_unavailable(error):
                log.error("%s could not be settled and is put off: %s", plan.payment.id, Reason.of(error).detail)  # noqa: TRY400
                await self._put_off(plan, service.LEASE)
        finally:
            self._under_way[provider] -= 1

    async def _settle(self, plan: Plan, outcome: Outcome) -> None:
        """What is known is not thrown away because the database is away for a moment: settling may be repeated, and is, for as
        long as the attempt is ours."""

        async def settle(unit: Transaction) -> None:
            await self._work.settle(plan, outcome, unit)

        left_s = (plan.leased_until - datetime.now(UTC)).total_seconds()
        async for attempt in stamina.retry_context(
            on=is_unavailable, attempts=None, timeout=max(left_s, 0.1), wait_initial=0.1, wait_max=2.0
        ):
            with attempt:
                await self._settling[plan.payment.provider].run(settle, about=plan.payment.id)

    async def _call(self, plan: Plan) -> Outcome:
        try:
            async with asyncio.timeout(service.CALL_S):
                return await self._work.call(plan)
        except TimeoutError:
            return Unknown(reference=plan.command.reference, reason="no answer in time")

    async def _put_off(self, plan: Plan, by: timedelta) -> None:
        if plan.only_ask:
            return  # the lease is somebody else's
        try:
            async with transaction(self._database) as unit:
                await store.put_off(unit.connection, plan.payment.id, datetime.now(UTC) + by, self._work.worker)
        except Exception as error:
            if not is_unavailable(error):
                raise
