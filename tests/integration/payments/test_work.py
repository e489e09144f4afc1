"""Attempts on a real database, with a provider that does what the worst ones do. The provider's own book counts the charges."""

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from connectors.ports import PaymentCapabilities
from schemas.errors import Retryable
from schemas.events import Event, new_event
from schemas.ids import JourneyId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Command,
    Declined,
    NotSubmitted,
    Opened,
    Outcome,
    Payer,
    PaymentDue,
    ProviderEvent,
    RefusedByProvider,
    Succeeded,
    Unknown,
)
from schemas.tables import attempts, outbox, payments
from streams.core.database import Database
from streams.core.handling import DUPLICATE, HANDLED, Effect, transaction
from streams.core.sealing import Sealer
from streams.payments.agent import Payments
from streams.payments.janitor import Janitor
from streams.payments.work import PaymentWork
from tests.support.rows import Rows

CAPABILITIES = PaymentCapabilities(frozenset({"authorise"}), timedelta(0))


@dataclass
class Provider:
    """Forgets idempotency keys, like localstripe. `lose_answers`: the money moves, and the answer never comes."""

    name: str = "worst"
    capabilities: PaymentCapabilities = CAPABILITIES
    lose_answers: int = 0
    refuse_connections: int = 0
    decline: bool = False
    wants_confirmation: bool = False
    opened: list[str] = field(default_factory=list)
    charges: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        if self.refuse_connections:
            self.refuse_connections -= 1
            raise Retryable("connection refused")
        reference = f"ref_{uuid4().hex}"
        self.opened.append(reference)
        return Opened(reference=reference)

    async def submit(self, command: Command, key: str) -> Outcome:
        if isinstance(command, Cancel):
            self.cancelled.append(command.reference)
            return Cancelled(reference=command.reference)
        assert isinstance(command, Authorise) and command.reference
        if self.wants_confirmation:
            return Actionable(reference=command.reference, url=None)
        if self.decline:
            return Declined(reference=command.reference, code="card_declined", message="no")
        self.charges[command.reference] = self.charges.get(command.reference, 0) + 1
        if self.lose_answers:
            self.lose_answers -= 1
            return Unknown(reference=command.reference, reason="no answer within 20 s")
        return Succeeded(reference=command.reference, total=command.total, captured=True)

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        assert isinstance(expected, Authorise)
        if reference in self.charges:
            return Succeeded(reference=reference, total=expected.total, captured=True)
        return Actionable(reference=reference, url=None) if self.wants_confirmation else NotSubmitted(reference=reference)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        return []

    @property
    def charged(self) -> int:
        return sum(self.charges.values())


@dataclass
class Case:
    database: Database
    sealer: Sealer
    provider: Provider
    payment_id: PaymentId
    due: Event

    @property
    def work(self) -> PaymentWork:
        return PaymentWork(self.database, {"worst": self.provider}, self.sealer)

    @property
    def janitor(self) -> Janitor:
        return Janitor(self.database, self.work)

    def worker(self, work: Any = None) -> Effect[Any, Any]:
        handlers = Payments(work or self.work)
        return Effect("payments", self.database, open=handlers.open, call=handlers.call, settle=handlers.settle)

    async def state(self) -> str:
        async with self.database.transaction() as connection:
            query = select(payments.c.state).where(payments.c.id == self.payment_id)
            return str((await connection.execute(query)).scalar_one())

    async def published(self) -> list[str]:
        async with self.database.transaction() as connection:
            query = select(outbox.c.headers["ce_type"].astext).where(
                outbox.c.topic == "payments.events", outbox.c.headers["ce_subject"].astext == self.payment_id
            )
            return list((await connection.execute(query.order_by(outbox.c.id))).scalars())

    async def time_passes(self) -> None:
        """As if the next asking were due."""
        async with self.database.transaction() as connection:
            due = update(attempts).where(attempts.c.payment_id == self.payment_id, attempts.c.next_ask_at.is_not(None))
            await connection.execute(due.values(next_ask_at=datetime.now(UTC) - timedelta(seconds=1)))


@pytest.fixture
async def case(database: Database, sealer: Sealer, rows: Rows) -> Case:
    payer = Payer(provider="worst", customer="c", payment_method="m")
    glasses = await rows.glasses(payer=payer)
    payment = await rows.approved_payment(Money.of(1895, "SEK"), glasses=glasses, provider="worst")
    due = new_event("payment.due", PaymentDue(payment_id=payment.id), source="/test", journeyid=JourneyId.new())
    return Case(database, sealer, Provider(), payment.id, due)


async def test_a_payment_is_taken_once_and_told_once(case: Case) -> None:
    assert await case.worker()(case.due) == HANDLED
    assert await case.worker()(case.due) == DUPLICATE
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.captured"]


async def test_an_answer_that_never_came_is_unknown_until_the_janitor_knows(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.worker()(case.due)
    assert await case.state() == "unknown"
    await case.time_passes()
    assert await case.janitor.round() >= 1
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.unknown", "payment.captured"]


async def test_a_worker_that_dies_after_the_charge_is_succeeded_without_a_second_one(case: Case) -> None:
    class Dies(PaymentWork):
        async def settle(self, *_: Any, **__: Any) -> None:
            raise asyncio.CancelledError

    dying = Dies(case.database, {"worst": case.provider}, case.sealer)
    with pytest.raises(asyncio.CancelledError):
        await case.worker(dying)(case.due)
    assert (await case.state(), case.provider.charged) == ("submitting", 1)
    assert await case.worker()(case.due) == HANDLED
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_worker_that_dies_between_opening_and_submitting_is_taken_over(case: Case) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    dying = Dies(opened=case.provider.opened)
    with pytest.raises(asyncio.CancelledError):
        await case.worker(PaymentWork(case.database, {"worst": dying}, case.sealer))(case.due)
    await case.time_passes()
    await case.janitor.round()
    assert (await case.state(), case.provider.charged, len(case.provider.opened)) == ("captured", 1, 1)


async def test_a_provider_that_cannot_be_reached_is_tried_again_later(case: Case) -> None:
    case.provider.refuse_connections = 2
    await case.worker()(case.due)
    assert (await case.state(), case.provider.charged) == ("submitting", 0)
    for _ in range(2):
        await case.time_passes()
        await case.janitor.round()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_decline_ends_it(case: Case) -> None:
    case.provider.decline = True
    await case.worker()(case.due)
    await case.time_passes()
    await case.janitor.round()
    assert (await case.state(), case.provider.charged) == ("declined", 0)
    assert await case.published() == ["payment.declined"]


async def test_worker_and_janitors_at_once_charge_once(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.worker()(case.due)
    await case.time_passes()
    await asyncio.gather(*(case.janitor.round() for _ in range(4)))
    assert (await case.state(), case.provider.charged) == ("captured", 1)
    assert await case.published() == ["payment.unknown", "payment.captured"]


async def test_the_database_refuses_what_the_table_of_moves_does_not_allow(case: Case) -> None:
    await case.worker()(case.due)
    for altered in ("state = 'approved'", "state = 'declined'", "total_minor = total_minor + 1", "total_currency = 'EUR'"):
        with pytest.raises(DBAPIError):
            async with case.database.transaction() as connection:
                await connection.execute(text(f"UPDATE payments SET {altered} WHERE id = :id"), {"id": case.payment_id})
    assert await case.state() == "captured"


async def test_two_attempts_of_one_payment_never_run_at_once(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.worker()(case.due)
    with pytest.raises(DBAPIError):
        async with case.database.transaction() as connection:
            await connection.execute(
                text("INSERT INTO attempts (id, payment_id, kind, request_digest) VALUES ('att_x', :id, 'authorise', '')"),
                {"id": case.payment_id},
            )


async def test_the_event_of_a_payment_that_is_not_there_does_nothing(case: Case) -> None:
    stray = new_event("payment.due", PaymentDue(payment_id=PaymentId.new()), source="/test", journeyid=JourneyId.new())
    assert await case.worker()(stray) == HANDLED
    async with transaction(case.database) as unit:
        assert await case.work.open(PaymentId.new(), unit) is None
    assert case.provider.charged == 0


async def test_a_payment_that_cannot_be_looked_after_is_put_off_and_not_given_up(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.worker()(case.due)
    await case.time_passes()
    other_key = Sealer(base64.b64encode(bytes(32)).decode())
    keyless = Janitor(case.database, PaymentWork(case.database, {"worst": case.provider}, other_key))
    assert await keyless.round() >= 1
    async with case.database.transaction() as connection:
        query = select(attempts.c.next_ask_at).where(attempts.c.payment_id == case.payment_id)
        assert (await connection.execute(query)).scalar_one() > datetime.now(UTC)
    await case.time_passes()
    await case.janitor.round()
    assert await case.state() == "captured"


async def change(case: Case, assignment: str) -> None:
    async with case.database.transaction() as connection:
        await connection.execute(text(f"UPDATE payments SET {assignment} WHERE id = :id"), {"id": case.payment_id})


async def test_an_approved_payment_whose_command_was_lost_is_found(case: Case) -> None:
    await case.janitor.round()
    assert await case.state() == "approved", "its worker may still come"
    await change(case, "updated_at = now() - interval '1 minute'")
    await case.janitor.round()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_a_yes_that_has_become_too_old_moves_no_money(case: Case) -> None:
    await change(case, "submit_by = now() - interval '1 second'")
    await case.worker()(case.due)
    assert (await case.state(), case.provider.charged, case.provider.opened) == ("cancelled", 0, [])
    assert await case.published() == ["payment.cancelled"]


async def test_what_was_opened_and_not_submitted_in_time_is_cancelled_at_the_provider(case: Case) -> None:
    class Dies(Provider):
        async def submit(self, command: Command, key: str) -> Outcome:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await case.worker(PaymentWork(case.database, {"worst": Dies()}, case.sealer))(case.due)
    await change(case, "submit_by = now() - interval '1 second'")
    await case.time_passes()
    await case.janitor.round()
    assert (await case.state(), case.provider.charged, len(case.provider.cancelled)) == ("cancelled", 0, 1)


async def test_what_was_paid_in_time_is_paid_however_late_it_is_known(case: Case) -> None:
    case.provider.lose_answers = 1
    await case.worker()(case.due)
    await change(case, "submit_by = now() - interval '1 second'")
    await case.time_passes()
    await case.janitor.round()
    assert (await case.state(), case.provider.charged) == ("captured", 1)


async def test_who_does_not_confirm_in_time_lets_it_expire(case: Case) -> None:
    case.provider.wants_confirmation = True
    await case.worker()(case.due)
    assert await case.state() == "action_required"
    async with case.database.transaction() as connection:
        query = select(attempts.c.next_ask_at).where(attempts.c.payment_id == case.payment_id)
        assert (await connection.execute(query)).scalar_one() < datetime.now(UTC) + timedelta(seconds=10), "asked again soon"
        long_ago = update(attempts).where(attempts.c.payment_id == case.payment_id)
        await connection.execute(long_ago.values(created_at=datetime.now(UTC) - timedelta(hours=1)))
    await case.time_passes()
    await case.janitor.round()
    assert (await case.state(), case.provider.charged, len(case.provider.cancelled)) == ("expired", 0, 1)
    assert await case.published() == ["payment.action_required", "payment.expired"]
