"""Four books about the same payments, kept by four parties who do not read each other's: what wearers approved, what we have in
our database, what the provider moved, and what merchants were told. `reconcile` says where they differ."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import JourneyId
from schemas.payments import SETTLED_STATES, StatementLine
from streams.core import receipts

Amount = tuple[int, str]
"""Minor units and currency. The provider counts in the same units for all currencies that are used here."""

PAID = frozenset({"captured", "partially_refunded", "refunded"})
"""States of a payment whose money was taken, whatever was given back since."""


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
    payment's state or the code of a refusal. `missed`: the link was lost before, and who is not connected is not told.
    `has_money`: whether the wearer's means of payment is good for anything."""

    event_id: str
    proposal_id: str
    merchant_id: str
    total: Amount
    has_money: bool = True
    accepted: bool = False
    payment_id: str | None = None
    told: str | None = None
    refused: bool = False
    missed: bool = False


@dataclass(frozen=True)
class Payment:
    """`captured` and `refunded` are minor units. `reference` is the provider's; `references` are all that it may know it by."""

    id: str
    proposal_id: str
    order_id: str
    journey_id: str
    state: str
    total: Amount
    captured: int
    refunded: int
    reference: str | None
    references: tuple[str, ...]


@dataclass(frozen=True)
class Refund:
    """A refund as our database has it. `id` is its attempt's; `outcome` what came of it."""

    id: str
    payment_id: str
    total: Amount
    outcome: str | None


@dataclass(frozen=True)
class Movement:
    """One line of the provider's books: money that was taken, or (`kind` refund) given back. `attempt_id` is what we told it."""

    kind: str
    reference: str
    attempt_id: str | None
    total: Amount


@dataclass
class Wish:
    """A merchant's request for a refund: one Idempotency-Key, however often it was sent. `commands`: the ids it was answered
    with; `refused`: the code of the refusal that ended it."""

    key: str
    payment_id: str
    total: Amount
    commands: set[str] = field(default_factory=set)
    refused: str | None = None


@dataclass(frozen=True)
class Webhook:
    """One request a merchant got. `refused`: its signature did not hold. `captured` and `refunded` are minor units, so far;
    `command_id` is the refund's that it is about."""

    id: str | None
    refused: bool
    type: str | None = None
    order_id: str | None = None
    payment_id: str | None = None
    sequence: int | None = None
    captured: int | None = None
    refunded: int | None = None
    command_id: str | None = None


@dataclass(frozen=True)
class Books:
    """`unfinished` counts what the database says is still to be done, by its name; `broken_receipts` and `wrongly_frozen`
    are sentences."""

    approvals: Sequence[Approval]
    payments: Sequence[Payment]
    movements: Sequence[Movement]
    webhooks: Sequence[Webhook]
    refunds: Sequence[Refund] = ()
    wishes: Sequence[Wish] = ()
    unfinished: Mapping[str, int] = field(default_factory=dict)
    broken_receipts: Sequence[str] = ()
    wrongly_frozen: Sequence[str] = ()

    def entries(self) -> dict[Book, int]:
        """How many entries each book has that stand for a payment."""
        return {
            Book.WEARERS: sum(approval.accepted for approval in self.approvals),
            Book.DATABASE: len(self.payments),
            Book.PROVIDER: sum(movement.kind == "payment" for movement in self.movements),
            Book.MERCHANTS: len({webhook.id for webhook in self.webhooks if webhook.type == "payment.captured"}),
        }

    def sums(self) -> dict[Book, dict[str, tuple[int, int]]]:
        """What was taken and given back by each book, in minor units, by currency. Wearers do not count what they get back."""
        taken: dict[Book, Counter[str]] = {book: Counter() for book in Book}
        returned: dict[Book, Counter[str]] = {book: Counter() for book in Book}
        for approval in self.approvals:
            if approval.told in PAID:
                taken[Book.WEARERS][approval.total[1]] += approval.total[0]
        for payment in self.payments:
            taken[Book.DATABASE][payment.total[1]] += payment.captured
            returned[Book.DATABASE][payment.total[1]] += payment.refunded
        for movement in self.movements:
            column = taken if movement.kind == "payment" else returned
            column[Book.PROVIDER][movement.total[1]] += movement.total[0]
        currencies = {payment.id: payment.total[1] for payment in self.payments}
        for payment_id, news in _grouped(_messages(self.webhooks), lambda message: message.payment_id).items():
            if payment_id in currencies:
                taken[Book.MERCHANTS][currencies[payment_id]] += max(message.captured or 0 for message in news)
                returned[Book.MERCHANTS][currencies[payment_id]] += max(message.refunded or 0 for message in news)
        return {
            book: {currency: (taken[book][currency], returned[book][currency]) for currency in sorted(taken[book])}
            for book in Book
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
        *_refunds(books),
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
        for payment in payments:
            if approval.has_money and payment.state in {"declined", "failed"}:
                yield found(approval, Fault.DIFFERENT, f"{payment.state}, with a means of payment that is good")
            if not approval.has_money and payment.state in PAID:
                yield found(approval, Fault.DIFFERENT, f"{payment.state}, with a means of payment that is good for nothing")
        if not approval.accepted:
            continue  # nobody promised anything, either way
        if approval.told is None and not approval.missed:
            yield found(approval, Fault.UNKNOWN, "the wearer was never told what became of it")
        if approval.refused and payments:
            yield found(approval, Fault.DIFFERENT, f"the wearer heard {approval.told}, and there is a payment")
        if not approval.refused and not approval.missed and not payments:
            yield found(approval, Fault.LOST, "the gateway accepted it, and there is no payment")
        for payment in payments:
            if payment.total != approval.total:
                yield found(approval, Fault.DIFFERENT, f"{_money(approval.total)} approved, {_money(payment.total)} to be paid")
            if approval.refused or approval.told is None:
                continue
            if approval.told != payment.state and not {approval.told, payment.state} <= PAID:
                yield found(approval, Fault.DIFFERENT, f"the wearer heard {approval.told}, the payment is {payment.state}")


def _database(books: Books) -> Iterable[Finding]:
    approved = {approval.proposal_id for approval in books.approvals}
    given_back = Counter[str]()
    for refund in books.refunds:
        given_back[refund.payment_id] += refund.total[0] if refund.outcome == "succeeded" else 0

    def found(payment: Payment, fault: Fault, text: str) -> Finding:
        return Finding(Book.DATABASE, fault, payment.id, text)

    for payment in books.payments:
        if payment.proposal_id not in approved:
            yield found(payment, Fault.UNKNOWN, "nobody approved this payment")
        if payment.state not in SETTLED_STATES:
            yield found(payment, Fault.UNKNOWN, f"it is still {payment.state}")
        if payment.captured != (payment.total[0] if payment.state in PAID else 0):
            yield found(payment, Fault.DIFFERENT, f"{payment.captured} of {payment.total[0]} taken, and it is {payment.state}")
        if payment.refunded != given_back[payment.id]:
            yield found(payment, Fault.DIFFERENT, f"{payment.refunded} given back, by its refunds {given_back[payment.id]}")
    for what, count in books.unfinished.items():
        if count:
            yield Finding(Book.DATABASE, Fault.LOST, what, f"{count} are left undone")
    for sentence in books.broken_receipts:
        yield Finding(Book.DATABASE, Fault.DIFFERENT, "receipt", sentence)
    for sentence in books.wrongly_frozen:
        yield Finding(Book.DATABASE, Fault.DIFFERENT, "frozen", sentence)


def _provider(books: Books) -> Iterable[Finding]:
    ours = {reference: payment for payment in books.payments for reference in payment.references}
    taken = _grouped((each for each in books.movements if each.kind == "payment"), lambda each: each.reference)
    charged: defaultdict[str, list[Movement]] = defaultdict(list)

    def found(about: str, fault: Fault, text: str) -> Finding:
        return Finding(Book.PROVIDER, fault, about, text)

    for reference, movements in taken.items():
        if reference in ours:
            charged[ours[reference].id] += movements
        else:
            yield from (found(reference, Fault.UNKNOWN, f"{_money(each.total)} charged for no payment") for each in movements)
    for payment in books.payments:
        charges = charged[payment.id]
        if len(charges) > 1:
            yield found(payment.id, Fault.DOUBLED, f"charged {len(charges)} times")
        if payment.state in PAID:
            if not charges:
                yield found(payment.id, Fault.LOST, f"{payment.state} by our book, never charged")
            for charge in charges:
                if charge.reference != payment.reference:
                    yield found(payment.id, Fault.DIFFERENT, f"charged as {charge.reference}, known to us as {payment.reference}")
                if charge.total != (payment.captured, payment.total[1]):
                    yield found(payment.id, Fault.DIFFERENT, f"{_money(charge.total)} charged for {_money(payment.total)}")
        else:
            # Cancelling what was paid in that moment gives it back, in nobody's name.
            kept = sum(charge.total[0] for charge in charges) - sum(
                each.total[0] for each in books.movements if each.kind == "refund" and each.reference in payment.references
            )
            if kept:
                yield found(
                    payment.id, Fault.DIFFERENT, f"{kept} {payment.total[1]} charged and kept, {payment.state} by our book"
                )
    sums = books.sums()
    for currency in sums[Book.PROVIDER].keys() | sums[Book.DATABASE].keys():
        theirs, our_own = sums[Book.PROVIDER].get(currency, (0, 0)), sums[Book.DATABASE].get(currency, (0, 0))
        if theirs[0] - theirs[1] != our_own[0] - our_own[1]:
            text = f"{theirs[0]} taken and {theirs[1]} given back, by our book {our_own[0]} and {our_own[1]}"
            yield found(f"all in {currency}", Fault.DIFFERENT, text)


def _refunds(books: Books) -> Iterable[Finding]:
    """What merchants asked for, what we have of it, what the provider gave back."""
    ours = {refund.id: refund for refund in books.refunds}
    wished = {command: wish for wish in books.wishes for command in wish.commands}
    paid = {reference: payment for payment in books.payments for reference in payment.references if payment.state in PAID}
    given = _grouped((each for each in books.movements if each.kind == "refund"), lambda each: each.attempt_id)

    def found(book: Book, about: str | None, fault: Fault, text: str) -> Finding:
        return Finding(book, fault, str(about), text)

    for wish in books.wishes:
        if len(wish.commands) > 1:
            yield found(Book.DATABASE, wish.key, Fault.DOUBLED, f"one request for a refund became {len(wish.commands)}")
        for command in wish.commands - ours.keys():
            yield found(Book.DATABASE, command, Fault.LOST, "a refund was accepted, and there is none")
    for refund in ours.values():
        if refund.id not in wished:
            yield found(Book.DATABASE, refund.id, Fault.UNKNOWN, "nobody asked for this refund")
        elif (wanted := wished[refund.id]).total != refund.total or wanted.payment_id != refund.payment_id:
            yield found(
                Book.DATABASE, refund.id, Fault.DIFFERENT, f"{_money(wanted.total)} asked for, {_money(refund.total)} here"
            )
        movements = given.get(refund.id, [])
        if len(movements) > 1:
            yield found(Book.PROVIDER, refund.id, Fault.DOUBLED, f"given back {len(movements)} times")
        if refund.outcome == "succeeded" and not movements:
            yield found(Book.PROVIDER, refund.id, Fault.LOST, "succeeded by our book, never given back")
        for movement in movements:
            if refund.outcome != "succeeded":
                yield found(Book.PROVIDER, refund.id, Fault.DIFFERENT, f"given back, {refund.outcome} by our book")
            if movement.total != refund.total:
                yield found(
                    Book.PROVIDER, refund.id, Fault.DIFFERENT, f"{_money(movement.total)} given for {_money(refund.total)}"
                )
            if paid.get(movement.reference, _NONE).id != refund.payment_id:
                yield found(Book.PROVIDER, refund.id, Fault.DIFFERENT, f"given back of {movement.reference}")
    for attempt_id, movements in given.items():
        if attempt_id not in ours and any(movement.reference in paid for movement in movements):
            yield found(Book.PROVIDER, attempt_id, Fault.UNKNOWN, "given back in nobody's name")


def _merchants(books: Books) -> Iterable[Finding]:
    ours = {payment.id: payment for payment in books.payments}

    def found(about: str | None, fault: Fault, text: str) -> Finding:
        return Finding(Book.MERCHANTS, fault, str(about), text)

    yield from (
        found(webhook.id, Fault.DIFFERENT, "its signature does not hold") for webhook in books.webhooks if webhook.refused
    )
    messages = _messages(books.webhooks)
    for id, count in Counter(message.id for message in messages).items():
        if count > 1:
            yield found(id, Fault.DIFFERENT, "one webhook-id came with different contents")
    told = _grouped((m for m in messages if m.type == "payment.captured"), lambda message: message.payment_id)
    for payment_id, captured in told.items():
        if payment_id not in ours:
            yield found(payment_id, Fault.UNKNOWN, "a merchant heard of a payment that we do not have")
        elif ours[payment_id].state not in PAID:
            yield found(payment_id, Fault.DIFFERENT, f"a merchant heard captured, it is {ours[payment_id].state}")
        elif any(message.captured != ours[payment_id].captured for message in captured):
            yield found(payment_id, Fault.DIFFERENT, "a merchant heard of another amount")
        if len({message.id for message in captured}) > 1:
            yield found(payment_id, Fault.DOUBLED, f"payment.captured was told under {len(captured)} ids")
    for payment in ours.values():
        if payment.state in PAID and payment.id not in told:
            yield found(payment.id, Fault.LOST, "no payment.captured arrived")
        heard = max((message.refunded or 0 for message in messages if message.payment_id == payment.id), default=0)
        if heard != payment.refunded:
            yield found(payment.id, Fault.DIFFERENT, f"a merchant heard of {heard} given back, it is {payment.refunded}")
    yield from _merchants_refunds(books, messages)
    for order_id, news in _grouped(messages, lambda message: message.order_id).items():
        numbers = sorted({message.sequence or 0 for message in news})
        if numbers != list(range(1, len(numbers) + 1)):
            yield found(order_id, Fault.LOST, f"its messages are numbered {numbers}")


def _merchants_refunds(books: Books, messages: Sequence[Webhook]) -> Iterable[Finding]:
    ours = {refund.id: refund for refund in books.refunds}
    told = _grouped((message for message in messages if message.command_id), lambda message: message.command_id)

    def found(about: str, fault: Fault, text: str) -> Finding:
        return Finding(Book.MERCHANTS, fault, about, text)

    for command_id, news in told.items():
        if command_id not in ours:
            yield found(command_id, Fault.UNKNOWN, "a merchant heard of a refund that we do not have")
        if len({message.id for message in news}) > 1:
            yield found(command_id, Fault.DOUBLED, f"a refund's end was told under {len(news)} ids")
    for refund in ours.values():
        ends = {message.type for message in told.get(refund.id, [])}
        if not ends:
            yield found(refund.id, Fault.LOST, "a refund's end was not told")
        elif (refund.outcome == "succeeded") == ("payment.command_failed" in ends):
            yield found(
                refund.id, Fault.DIFFERENT, f"a merchant heard {', '.join(map(str, ends))} of a refund that {refund.outcome}"
            )


_NONE = Payment("", "", "", "", "", (0, ""), 0, 0, None, ())


def _messages(webhooks: Sequence[Webhook]) -> list[Webhook]:
    """The same message may come more than once, and says then the same: that is no second message."""
    return list({webhook: None for webhook in webhooks if not webhook.refused})


def _grouped(items: Iterable[Any], key: Any) -> dict[Any, list[Any]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def _money(amount: Amount) -> str:
    return f"{amount[0]} {amount[1]} (minor units)"


# Reading the books.


async def read_payments(connection: AsyncConnection) -> list[Payment]:
    query = text("""
        SELECT p.*, array(
            SELECT DISTINCT reference FROM attempts a WHERE a.payment_id = p.id AND a.kind = 'authorise' AND reference IS NOT NULL
        ) AS reference_list
        FROM payments p""")
    return [
        Payment(
            id=row.id,
            proposal_id=row.proposal_id,
            order_id=row.order_id,
            journey_id=row.journey_id,
            state=row.state,
            total=(row.total_minor, row.total_currency),
            captured=row.captured_minor,
            refunded=row.refunded_minor,
            reference=row.provider_reference,
            references=tuple(row.reference_list),
        )
        for row in await connection.execute(query)
    ]


async def read_refunds(connection: AsyncConnection) -> list[Refund]:
    query = text("""
        SELECT a.id, a.payment_id, a.amount_minor, p.total_currency, a.outcome
        FROM attempts a JOIN payments p ON p.id = a.payment_id WHERE a.kind = 'refund'""")
    return [
        Refund(row.id, row.payment_id, (row.amount_minor, row.total_currency), row.outcome)
        for row in await connection.execute(query)
    ]


async def broken_receipts(connection: AsyncConnection, payments: Sequence[Payment]) -> list[str]:
    """What is wrong with the receipts of these payments."""
    return [
        f"{payment.journey_id}: {problem}"
        for payment in payments
        for problem in await receipts.verify(connection, JourneyId(payment.journey_id))
    ]


def read_movements(lines: Iterable[StatementLine]) -> list[Movement]:
    """From a sandbox provider's own list of all that moved."""
    return [Movement(line.kind, line.reference, line.attempt_id, (line.amount.minor, line.amount.currency)) for line in lines]


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
            captured=line["captured"],
            refunded=line["refunded"],
            command_id=line["command"],
        )
        for line in lines
    ]


_UNHANDLED = """
    SELECT count(*) FROM outbox WHERE topic = :topic
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE consumer = :consumer AND event_id = headers ->> 'ce_id')
"""
_UNFINISHED = {
    "outbox rows not published": "SELECT count(*) FROM outbox WHERE published_at IS NULL",
    "payments not settled": """
        SELECT count(*) FROM payments
        WHERE state IN ('proposed', 'approved', 'submitting', 'action_required', 'unknown') AND (:all OR frozen_at IS NULL)""",
    "attempts not ended": """
        SELECT count(*) FROM attempts a JOIN payments p ON p.id = a.payment_id
        WHERE ended_at IS NULL AND (:all OR frozen_at IS NULL)""",
    "payments frozen": "SELECT count(*) FROM payments WHERE :all AND frozen_at IS NOT NULL",
    "notifications not looked at": "SELECT count(*) FROM provider_notifications WHERE state = 'new'",
    "deliveries not delivered": "SELECT count(*) FROM deliveries WHERE state <> 'delivered'",
    "dead letters": "SELECT count(*) FROM dead_letters",
    "receipts not closed": """
        SELECT count(*) FROM payments p WHERE state IN ('captured', 'partially_refunded', 'refunded') AND NOT EXISTS
        (SELECT 1 FROM receipt_entries r WHERE r.journey_id = p.journey_id AND r.kind = 'closed')
        AND (:all OR frozen_at IS NULL)""",
}


async def read_unfinished(connection: AsyncConnection, accepted: Sequence[str], *, frozen: bool = True) -> dict[str, int]:
    """What is still to be done, or will never be; `accepted` are the events whose handling the gateway has promised. With
    `frozen` false, frozen payments, which only a person moves, are left out."""

    async def count(statement: str, **values: Any) -> int:
        wanted = {"all": frozen} if ":all" in statement else {}
        return int((await connection.execute(text(statement), {**values, **wanted})).scalar_one())

    handled = "SELECT count(*) FROM inbox WHERE consumer = 'intents' AND event_id = ANY(:ids)"
    return {
        "approvals not handled": len(accepted) - await count(handled, ids=list(accepted)),
        "commands not handled": await count(_UNHANDLED, topic="payments.commands", consumer="payments"),
        "changes not fanned out": await count(_UNHANDLED, topic="payments.events", consumer="webhooks"),
        **{what: await count(statement) for what, statement in _UNFINISHED.items()},
    }


_PAID_WHILE_FROZEN = """
    SELECT p.id, p.frozen_at, o.headers ->> 'ce_type' AS type FROM payments p JOIN outbox o
    ON o.topic = 'payments.events' AND o.key = convert_to(p.id, 'UTF8') AND o.created_at > p.frozen_at
    WHERE p.frozen_at IS NOT NULL
    AND o.headers ->> 'ce_type' IN ('payment.captured', 'payment.partially_refunded', 'payment.refunded')
"""


async def read_ever_frozen(connection: AsyncConnection) -> set[str]:
    """The payments of which a receipt says that they were frozen, whatever has become of them since."""
    query = text("SELECT DISTINCT content ->> 'payment_id' FROM receipt_entries WHERE kind = 'frozen'")
    return set((await connection.execute(query)).scalars())


async def read_paid_while_frozen(connection: AsyncConnection) -> list[str]:
    """Successes that were announced of payments after they had been frozen; to be read before anybody thaws one."""
    return [f"{row.id}: {row.type} after it was frozen" for row in await connection.execute(text(_PAID_WHILE_FROZEN))]
