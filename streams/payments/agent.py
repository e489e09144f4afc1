"""payments.commands → the provider → payments.events and glasses.answers.

An event is done when its command is on record as this worker's: the call goes on beside it (calls.py), so that a provider that
hangs holds up no event, and what a dead worker had in hand is taken back by its successor, or by the janitor.
"""

from datetime import UTC, datetime, timedelta

from schemas.events import Event
from schemas.payments import PaymentDue, ProviderNotified
from schemas.topics import PAYMENTS_COMMANDS
from streams.core.bootstrap import Parts
from streams.core.consume import Consumer
from streams.core.database import Database
from streams.core.faust_worker import run_consumer
from streams.core.groups import GroupCommit
from streams.core.handling import DUPLICATE, HANDLED, transaction
from streams.core.outbox import Transaction
from streams.payments import service, store
from streams.payments.accounts import Accounts
from streams.payments.calls import Calls
from streams.payments.denied import DeniedParties
from streams.payments.store import StoredAttempt, StoredPayment
from streams.payments.work import PaymentWork, Plan

NAME = "payments"


class Payments:
    def __init__(self, database: Database, work: PaymentWork, calls: Calls) -> None:
        self._group = GroupCommit(database, NAME, prepare=store.prepare)
        self._work = work
        self._calls = calls

    async def __call__(self, event: Event) -> str:
        """See streams.core.handling.Handling."""

        told = event.decode(ProviderNotified) if event.type == "provider.notified" else event.decode(PaymentDue)

        async def handle(unit: Transaction) -> Plan | str:
            if isinstance(told, ProviderNotified):
                plan = await self._notified(event, told, unit)
            else:
                plan = await self._work.open(told.payment_id, unit, cause=event)
            return plan or HANDLED

        result = await self._group.run(handle, claim=event.id, about=told.payment_id)
        if isinstance(result, Plan):
            self._calls.start(result)
            return HANDLED
        return result or DUPLICATE

    async def _notified(self, event: Event, told: ProviderNotified, unit: Transaction) -> Plan | None:
        """A notification is a hint: what counts is what the provider says when it is asked. Only what contradicts our books is
        believed at once, and freezes the payment."""
        found = await store.find_notification(unit.connection, told.account_id, told.event_id)
        if found is None or found.state == "processed":
            return None

        ordered = found.kind != "refund" or await store.ordered_refund(
            unit.connection, told.payment_id, found.attempt_id, found.amount
        )

        def contradicts(payment: StoredPayment, running: StoredAttempt | None) -> str | None:
            booked = store.booked(payment, running)
            return service.contradiction(found.kind, found.amount, found.note, booked, ordered=ordered)

        await store.end_notification(unit.connection, told.account_id, told.event_id, datetime.now(UTC))
        if await self._work.freeze_if_contradicted(told.payment_id, contradicts, unit):
            return None
        return await self._work.open(told.payment_id, unit, only_ask=True, cause=event)


def payment_work(parts: Parts, role: str) -> PaymentWork:
    settings = parts.settings
    sealer = parts.sealer()
    accounts = Accounts(sealer, settings.public_url)
    parts.closing.push_async_callback(accounts.close)
    return PaymentWork(
        parts.database(),
        accounts,
        sealer,
        worker=f"{role}-{settings.worker_instance}",
        denied=DeniedParties(settings.denied_parties_file),
        schedule=settings.janitor_schedule_s or service.ASK_AGAIN_AFTER_S,
        arrives_within=timedelta(seconds=settings.provider_request_lives_s),
    )


async def run(parts: Parts) -> None:
    database, work = parts.database(), payment_work(parts, NAME)
    async with transaction(database) as unit:
        await store.take_back(unit.connection, work.worker)
    calls = Calls(NAME, database, work, at_once=parts.settings.provider_calls)
    consumer = Consumer(
        name=NAME,
        topics=(PAYMENTS_COMMANDS,),
        handling=Payments(database, work, calls),
        event_types=frozenset({"payment.due", "provider.notified"}),
        window=parts.settings.group_window,
    )
    await run_consumer(consumer, parts)
