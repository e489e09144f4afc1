"""A payment provider that does what the worst ones do, and one payment that is taken with it. Its own book counts the charges."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4

from sqlalchemy import select, text, update

from connectors.ports import PaymentCapabilities, PaymentConnector
from schemas.errors import Retryable
from schemas.events import Event, new_event
from schemas.ids import EventId, JourneyId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Command,
    Declined,
    Mismatched,
    NotSubmitted,
    Opened,
    Outcome,
    PaymentDue,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
    Succeeded,
    Unknown,
)
from schemas.tables import attempts, outbox, payments
from streams.core.database import Database
from streams.core.sealing import Sealer
from streams.payments.accounts import Account
from streams.payments.agent import Payments
from streams.payments.calls import Calls
from streams.payments.denied import DeniedParties
from streams.payments.janitor import Janitor
from streams.payments.work import PaymentWork

NAME = "worst"
ALL = frozenset({"authorise", "capture", "cancel", "refund"})
CAPABILITIES = PaymentCapabilities(ALL, timedelta(days=1), partial_capture=True, partial_refund=True)


@dataclass
class Provider:
    """Forgets idempotency keys, like localstripe, and charges whenever it is told to. `lose_answers`: the money moves, and the
    answer never comes. `says`: what it answers instead of the truth, once."""

    name: str = NAME
    account: str = "worst-account"
    capabilities: PaymentCapabilities = CAPABILITIES
    lose_answers: int = 0
    refuse_connections: int = 0
    next_reference: str | None = None
    decline: bool = False
    decline_refunds: bool = False
    wants_confirmation: bool = False
    says: Outcome | None = None
    opened: list[str] = field(default_factory=list)
    submitted: list[str] = field(default_factory=list)
    asked: int = 0
    reserved: dict[str, int] = field(default_factory=dict)
    charges: dict[str, int] = field(default_factory=dict)
    amounts: dict[str, int] = field(default_factory=dict)
    refunds: dict[str, int] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    async def check(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def refresh(self) -> bool:
        return False

    async def open(self, command: Authorise, key: str) -> Opened | RefusedByProvider:
        if self.refuse_connections:
            self.refuse_connections -= 1
            raise Retryable("connection refused")
        reference = key if self.capabilities.reference_is_key else self.next_reference or f"ref_{uuid4().hex}"
        self.opened.append(reference)
        return Opened(reference=reference)

    async def submit(self, command: Command, key: str) -> Outcome:
        assert command.reference is not None
        self.submitted.append(command.kind)
        outcome = self._do(command)
        if self.lose_answers:
            self.lose_answers -= 1
            return Unknown(reference=command.reference, reason="no answer within 20 s")
        said, self.says = self.says, None
        return said or outcome

    def _do(self, command: Command) -> Outcome:
        reference = str(command.reference)
        match command:
            case Cancel():
                if reference in self.charges:
                    return RefusedByProvider(reference=reference, code="paid", message="")
                self.reserved.pop(reference, None)
                self.cancelled.append(reference)
                return Cancelled(reference=reference)
            case Capture():
                self.reserved.pop(reference, None)
                self.charges[reference] = self.charges.get(reference, 0) + 1
                self.amounts[reference] = command.amount.minor
                return Succeeded(reference=reference, total=command.amount, captured=True)
            case Refund():
                if self.decline_refunds:
                    return Declined(reference=reference, code="insufficient_balance", message="")
                if command.attempt_id not in self.refunds:
                    self.refunds[command.attempt_id] = command.amount.minor
                return Succeeded(reference=reference, total=command.amount, captured=True)
            case Authorise():
                if self.wants_confirmation:
                    return Actionable(reference=reference, url="https://bank.example/confirm")
                if self.decline:
                    return Declined(reference=reference, code="card_declined", message="no")
                if not command.capture:
                    self.reserved[reference] = command.total.minor
                    return Succeeded(reference=reference, total=command.total, captured=False)
                self.charges[reference] = self.charges.get(reference, 0) + 1
                self.amounts[reference] = command.total.minor
                return Succeeded(reference=reference, total=command.total, captured=True)

    async def fetch(self, reference: str, expected: Command) -> Outcome:
        self.asked += 1
        if self.says is not None:
            said, self.says = self.says, None
            return said
        if isinstance(expected, Refund):
            if expected.attempt_id in self.refunds:
                return Succeeded(reference=reference, total=expected.amount, captured=True)
            return NotSubmitted(reference=reference)
        if reference in self.cancelled:
            return Cancelled(reference=reference)
        if reference in self.charges:
            taken = Money.of(self.amounts[reference], expected.total.currency)
            return Succeeded(reference=reference, total=taken, captured=True)
        if reference in self.reserved and isinstance(expected, Authorise):
            return Succeeded(reference=reference, total=expected.total, captured=False)
        return Actionable(reference=reference, url=None) if self.wants_confirmation else NotSubmitted(reference=reference)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[ProviderEvent]:
        return [ProviderEvent.model_validate_json(body)]

    def acknowledgement(self) -> tuple[int, str, bytes]:
        return 200, "text/plain", b"success"

    async def statement(self, day: date) -> Sequence[StatementLine]:
        return []

    @property
    def charged(self) -> int:
        return sum(self.charges.values())


@dataclass
class Connected:
    """Every account leads to this provider."""

    provider: PaymentConnector

    def connector(self, account: Account) -> PaymentConnector:
        return self.provider


@dataclass
class Case:
    """One payment, approved and due. `provider` may be exchanged at any time."""

    database: Database
    sealer: Sealer
    provider: Provider
    payment_id: PaymentId
    due: Event
    denied: DeniedParties = field(default_factory=lambda: DeniedParties(None))
    worker: str = field(default_factory=lambda: f"test-{uuid4().hex}")

    def work(self, provider: PaymentConnector | None = None, sealer: Sealer | None = None) -> PaymentWork:
        connected = Connected(provider or self.provider)
        return PaymentWork(self.database, connected, sealer or self.sealer, worker=self.worker, denied=self.denied)

    async def handle(self, event: Event | None = None, work: PaymentWork | None = None) -> str:
        """What a worker does with an event, to the end of the call that follows from it."""
        work = work or self.work()
        calls = Calls("payments", self.database, work, at_once=8)
        result = await Payments(self.database, work, calls)(event or self.due)
        await calls.finish()
        return result

    async def clean(self, work: PaymentWork | None = None) -> int:
        """A round of the janitor, to the end of its calls."""
        work = work or self.work()
        calls = Calls("janitor", self.database, work, at_once=8)
        done = await Janitor(self.database, work, calls).round()
        await calls.finish()
        return done

    def another_due(self) -> Event:
        """The event of another command on the same payment."""
        return new_event("payment.due", PaymentDue(payment_id=self.payment_id), source="/test", journeyid=JourneyId.new())

    async def row(self) -> dict[str, object]:
        async with self.database.transaction() as connection:
            found = await connection.execute(select(payments).where(payments.c.id == self.payment_id))
            return dict(found.mappings().one())

    async def state(self) -> str:
        return str((await self.row())["state"])

    async def published(self) -> list[str]:
        return [str(event["ce_type"]) for event, _ in await self.events()]

    async def events(self) -> list[tuple[dict[str, str], dict[str, object]]]:
        """Headers and data of what merchants are told, in order."""
        async with self.database.transaction() as connection:
            query = select(outbox.c.headers, outbox.c.value).where(
                outbox.c.topic == "payments.events", outbox.c.headers["ce_subject"].astext == self.payment_id
            )
            rows = await connection.execute(query.order_by(outbox.c.id))
            return [(row.headers, json.loads(row.value)) for row in rows]

    async def time_passes(self) -> None:
        """As if the next asking were due, and whoever was at it had been dead for long."""
        async with self.database.transaction() as connection:
            due = update(attempts).where(attempts.c.payment_id == self.payment_id, attempts.c.next_ask_at.is_not(None))
            await connection.execute(due.values(next_ask_at=datetime.now(UTC) - timedelta(seconds=1)))

    async def change(self, assignment: str, table: str = "payments") -> None:
        """`assignment` as in SQL."""
        column = "id" if table == "payments" else "payment_id"
        async with self.database.transaction() as connection:
            statement = f"UPDATE {table} SET {assignment} WHERE {column} = :id"
            await connection.execute(text(statement), {"id": self.payment_id})


def mismatch(reason: str = "amount is 1 instead of 1895") -> Mismatched:
    return Mismatched(reference=None, reason=reason)


def new_key() -> str:
    return str(EventId.new())
