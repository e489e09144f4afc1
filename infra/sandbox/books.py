"""Four books about the same payments, kept by four parties who do not read each other's: what wearers approved, what we have in
our database, what the provider charged, and what merchants were told. `reconcile` says where they differ."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import JourneyId
from schemas.payments import SETTLED_STATES
from streams.core import receipts

Amount = tuple[int, str]
"""Minor units and currency. The provider counts in the same units for all currencies that are used here."""

CAPTURED = "captured"


class Fault(StrEnum):
    LOST = "lost"
    DOUBLED = "doubled"
    UNKNOWN = "unknown"
    DIFFERENT = "different"


class Book(StrEnum):
    WEARERS = "wearers"
    DATABASE = "database"
    PROVIDER = "provider"
    MERCHANTS = "merchants"


@dataclass
class Approval:
    """A wearer's signed yes. `accepted`: the gateway said that it has it. `told`: what the wearer heard of it in the end, a
    payment's state or the code of a refusal."""

    event_id: str
    proposal_id: str
    total: Amount
    accepted: bool = False
    told: str | None = None
    refused: bool = False


@dataclass(frozen=True)
class Payment:
    id: str
    proposal_id: str
    order_id: str
    journey_id: str
    state: str
    total: Amount
    reference: str | None


@dataclass(frozen=True)
class Charge:
    """One of the provider's payments, whatever became of it. `payment_id` is what we told it then."""

    reference: str
    payment_id: str | None
    total: Amount
    succeeded: bool


@dataclass(frozen=True)
class Webhook:
    """One request a merchant got. `refused`: its signature did not hold."""

    id: str | None
    refused: bool
    type: str | None = None
    order_id: str | None = None
    payment_id: str | None = None
    sequence: int | None = None


@dataclass(frozen=True)
class Books:
    """`unfinished` counts what the database says is still to be done, by its name; `broken_receipts` are sentences."""

    approvals: Sequence[Approval]
    payments: Sequence[Payment]
    charges: Sequence[Charge]
    webhooks: Sequence[Webhook]
    unfinished: Mapping[str, int] = field(default_factory=dict)
    broken_receipts: Sequence[str] = ()

    def entries(self) -> dict[Book, int]:
        """How many entries each book has that stand for a payment."""
        return {
            Book.WEARERS: sum(approval.accepted for approval in self.approvals),
            Book.DATABASE: len(self.payments),
            Book.PROVIDER: sum(charge.succeeded for charge in self.charges),
            Book.MERCHANTS: len({webhook.id for webhook in self.webhooks if webhook.type == "payment.captured"}),
        }


@dataclass(frozen=True)
class Finding:
    book: Book
    fault: Fault
    about: str
    text: str


def reconcile(books: Books) -> list[Finding]:
    """Every difference, each in the book that has it wrong. Empty where all agree."""
    return [
        *_wearers(books),
        *_database(books),
        *_provider(books),
        *_merchants(books),
    ]


def _wearers(books: Books) -> Iterable[Finding]:
    paid_for = _grouped(books.payments, lambda payment: payment.proposal_id)

    def found(approval: Approval, fault: Fault, text: str) -> Finding:
        return Finding(Book.WEARERS, fault, approval.proposal_id, text)

    for approval in books.approvals:
        payments = paid_for.get(approval.proposal_id, [])
        if len(payments) > 1:
            yield found(approval, Fault.DOUBLED, f"one approval became {len(payments)} payments")
        if not approval.accepted:
            continue  # nobody promised anything, either way
        if approval.told is None:
            yield found(approval, Fault.UNKNOWN, "the wearer was never told what became of it")
        if approval.refused and payments:
            yield found(approval, Fault.DIFFERENT, f"the wearer heard {approval.told}, and there is a payment")
        if not approval.refused and not payments:
            yield found(approval, Fault.LOST, "the gateway accepted it, and there is no payment")
        for payment in payments:
            if payment.total != approval.total:
                yield found(approval, Fault.DIFFERENT, f"{_money(approval.total)} approved, {_money(payment.total)} to be paid")
            if not approval.refused and approval.told not in (None, payment.state):
                yield found(approval, Fault.DIFFERENT, f"the wearer heard {approval.told}, the payment is {payment.state}")


def _database(books: Books) -> Iterable[Finding]:
    approved = {approval.proposal_id for approval in books.approvals}
    for payment in books.payments:
        if payment.proposal_id not in approved:
            yield Finding(Book.DATABASE, Fault.UNKNOWN, payment.id, "nobody approved this payment")
        if payment.state not in SETTLED_STATES:
            yield Finding(Book.DATABASE, Fault.UNKNOWN, payment.id, f"it is still {payment.state}")
    for what, count in books.unfinished.items():
        if count:
            yield Finding(Book.DATABASE, Fault.LOST, what, f"{count} are left undone")
    for sentence in books.broken_receipts:
        yield Finding(Book.DATABASE, Fault.DIFFERENT, "receipt", sentence)


def _provider(books: Books) -> Iterable[Finding]:
    ours = {payment.id: payment for payment in books.payments}
    charged = _grouped((charge for charge in books.charges if charge.succeeded), lambda charge: charge.payment_id)

    def found(about: str, fault: Fault, text: str) -> Finding:
        return Finding(Book.PROVIDER, fault, about, text)

    for payment_id, charges in charged.items():
        if payment_id not in ours:
            yield from (found(charge.reference, Fault.UNKNOWN, f"charged for {payment_id}") for charge in charges)
        if len(charges) > 1:
            yield found(str(payment_id), Fault.DOUBLED, f"charged {len(charges)} times")
    for payment in ours.values():
        charges = charged.get(payment.id, [])
        if payment.state == CAPTURED and not charges:
            yield found(payment.id, Fault.LOST, "captured by our book, never charged")
        for charge in charges:
            if payment.state != CAPTURED:
                yield found(payment.id, Fault.DIFFERENT, f"charged, and {payment.state} by our book")
            elif len(charges) == 1 and charge.reference != payment.reference:
                yield found(payment.id, Fault.DIFFERENT, f"charged as {charge.reference}, known to us as {payment.reference}")
            if charge.total != payment.total:
                yield found(payment.id, Fault.DIFFERENT, f"{_money(charge.total)} charged for {_money(payment.total)}")


def _merchants(books: Books) -> Iterable[Finding]:
    ours = {payment.id: payment for payment in books.payments}

    def found(about: str | None, fault: Fault, text: str) -> Finding:
        return Finding(Book.MERCHANTS, fault, str(about), text)

    yield from (
        found(webhook.id, Fault.DIFFERENT, "its signature does not hold") for webhook in books.webhooks if webhook.refused
    )
    # The same message may come more than once, and says then the same: that is no second message.
    messages = list({webhook: None for webhook in books.webhooks if not webhook.refused})
    for id, count in Counter(message.id for message in messages).items():
        if count > 1:
            yield found(id, Fault.DIFFERENT, "one webhook-id came with different contents")
    told = _grouped((m for m in messages if m.type == "payment.captured"), lambda message: message.payment_id)
    for payment_id, captured in told.items():
        if payment_id not in ours:
            yield found(payment_id, Fault.UNKNOWN, "a merchant heard of a payment that we do not have")
        elif ours[payment_id].state != CAPTURED:
            yield found(payment_id, Fault.DIFFERENT, f"a merchant heard captured, it is {ours[payment_id].state}")
        if len({message.id for message in captured}) > 1:
            yield found(payment_id, Fault.DOUBLED, f"payment.captured was told under {len(captured)} ids")
    for payment in ours.values():
        if payment.state == CAPTURED and payment.id not in told:
            yield found(payment.id, Fault.LOST, "no payment.captured arrived")
    for order_id, news in _grouped(messages, lambda message: message.order_id).items():
        numbers = sorted({message.sequence or 0 for message in news})
        if numbers != list(range(1, len(numbers) + 1)):
            yield found(order_id, Fault.LOST, f"its messages are numbered {numbers}")


def _grouped(items: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _money(amount: Amount) -> str:
    return f"{amount[0]} {amount[1]} (minor units)"


# Reading the books.


async def read_payments(connection: AsyncConnection) -> list[Payment]:
    query = text(
        "SELECT id, proposal_id, order_id, journey_id, state, total_minor, total_currency, provider_reference FROM payments"
    )
    return [
        Payment(
            id=row.id,
            proposal_id=row.proposal_id,
            order_id=row.order_id,
            journey_id=row.journey_id,
            state=row.state,
            total=(row.total_minor, row.total_currency),
            reference=row.provider_reference,
        )
        for row in await connection.execute(query)
    ]


async def broken_receipts(connection: AsyncConnection, payments: Sequence[Payment]) -> list[str]:
    """What is wrong with the receipts of these payments."""
    return [
        f"{payment.journey_id}: {problem}"
        for payment in payments
        for problem in await receipts.verify(connection, JourneyId(payment.journey_id))
    ]


def read_charges(intents: Iterable[Mapping[str, Any]]) -> list[Charge]:
    """From localstripe's PaymentIntents."""
    return [
        Charge(
            reference=intent["id"],
            payment_id=intent["metadata"].get("payment_id"),
            total=(intent["amount"], intent["currency"].upper()),
            succeeded=intent["status"] == "succeeded",
        )
        for intent in intents
    ]


def read_webhooks(lines: Iterable[Mapping[str, Any]]) -> list[Webhook]:
    """From the record of `infra.sandbox.merchant`."""
    return [
        Webhook(id=line["id"], refused=True)
        if line["refused"]
        else Webhook(
            id=line["id"],
            refused=False,
            type=line["type"],
            order_id=line["order"],
            payment_id=line["payment"],
            sequence=line["sequence"],
        )
        for line in lines
    ]


_UNHANDLED = """
    SELECT count(*) FROM outbox WHERE topic = :topic
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE consumer = :consumer AND event_id = headers ->> 'ce_id')
"""
_UNFINISHED = {
    "outbox rows not published": "SELECT count(*) FROM outbox WHERE published_at IS NULL",
    "payments not settled": "SELECT count(*) FROM payments WHERE state IN ('proposed', 'approved', 'submitting', 'unknown')",
    "attempts not ended": "SELECT count(*) FROM attempts WHERE ended_at IS NULL",
    "deliveries not delivered": "SELECT count(*) FROM deliveries WHERE state <> 'delivered'",
    "dead letters": "SELECT count(*) FROM dead_letters",
    "receipts not closed": """
        SELECT count(*) FROM payments p WHERE state = 'captured' AND NOT EXISTS
        (SELECT 1 FROM receipt_entries r WHERE r.journey_id = p.journey_id AND r.kind = 'closed')""",
}


async def read_unfinished(connection: AsyncConnection, accepted: Sequence[str]) -> dict[str, int]:
    """What is still to be done, or will never be; `accepted` are the events whose handling the gateway has promised."""

    async def count(statement: str, **values: Any) -> int:
        return int((await connection.execute(text(statement), values)).scalar_one())

    handled = "SELECT count(*) FROM inbox WHERE consumer = 'intents' AND event_id = ANY(:ids)"
    return {
        "approvals not handled": len(accepted) - await count(handled, ids=list(accepted)),
        "commands not handled": await count(_UNHANDLED, topic="payments.commands", consumer="payments"),
        "changes not fanned out": await count(_UNHANDLED, topic="payments.events", consumer="webhooks"),
        **{what: await count(statement) for what, statement in _UNFINISHED.items()},
    }
