"""The reconciliation sees every way in which the four books can differ; a drill that sees nothing proves nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from infra.sandbox.books import (
    Approval,
    Book,
    Books,
    Fault,
    Movement,
    Payment,
    Refund,
    Webhook,
    Wish,
    read_movements,
    read_webhooks,
    reconcile,
)
from schemas.money import Money
from schemas.payments import StatementLine

TOTAL = (1795, "CNY")
PART = (500, "CNY")
"""What was given back of the third payment."""


def approval(number: int, **changes: object) -> Approval:
    made = Approval(
        event_id=f"evt_{number}",
        proposal_id=f"prp_{number}",
        merchant_id="mer_1",
        total=TOTAL,
        accepted=True,
        payment_id=f"pay_{number}",
        told="captured",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def payment(number: int, **changes: object) -> Payment:
    made = Payment(
        id=f"pay_{number}",
        proposal_id=f"prp_{number}",
        order_id=f"ord_{number}",
        journey_id=f"jrn_{number}",
        state="captured",
        total=TOTAL,
        captured=1795,
        refunded=0,
        reference=f"att_{number}",
        references=(f"att_{number}",),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def part_refunded(**changes: object) -> Payment:
    return payment(2, **{"state": "partially_refunded", "refunded": 500, **changes})


def declined(**changes: object) -> Payment:
    return payment(3, **{"state": "declined", "captured": 0, **changes})


def charge(number: int, **changes: object) -> Movement:
    return replace(Movement("payment", f"att_{number}", f"att_{number}", TOTAL), **changes)  # type: ignore[arg-type]


def given_back(**changes: object) -> Movement:
    return replace(Movement("refund", "att_2", "att_back", PART), **changes)  # type: ignore[arg-type]


def webhook(number: int, **changes: object) -> Webhook:
    made = Webhook(
        id=f"msg_{number}",
        refused=False,
        type="payment.captured",
        order_id=f"ord_{number}",
        payment_id=f"pay_{number}",
        sequence=1,
        captured=1795,
        refunded=0,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def refund_told(**changes: object) -> Webhook:
    changed = {"id": "msg_back", "type": "payment.partially_refunded", "sequence": 2, "refunded": 500, "command_id": "att_back"}
    return webhook(2, **{**changed, **changes})


def agreeing() -> Books:
    """Four payments: two taken, one of which a part was given back, one declined."""
    return Books(
        approvals=[approval(0), approval(1), approval(2), approval(3, has_money=False, told="declined")],
        payments=[payment(0), payment(1), part_refunded(), declined()],
        movements=[charge(0), charge(1), charge(2), given_back()],
        webhooks=[webhook(0), webhook(1), webhook(2), refund_told(), webhook(3, type="payment.declined", captured=0)],
        refunds=[Refund("att_back", "pay_2", PART, "succeeded")],
        wishes=[Wish("key", "pay_2", PART, {"att_back"})],
        unfinished={"outbox rows not published": 0},
    )


def test_books_that_agree_have_no_findings() -> None:
    assert reconcile(agreeing()) == []
    assert agreeing().entries() == {Book.WEARERS: 4, Book.DATABASE: 4, Book.PROVIDER: 3, Book.MERCHANTS: 3}
    taken = 3 * 1795
    assert agreeing().sums() == {
        Book.WEARERS: {"CNY": (taken, 0)},
        Book.DATABASE: {"CNY": (taken, 500)},
        Book.PROVIDER: {"CNY": (taken, 500)},
        Book.MERCHANTS: {"CNY": (taken, 500)},
    }


def test_what_may_happen_without_harm_is_no_finding() -> None:
    books = agreeing()
    harmless = replace(
        books,
        approvals=[
            *books.approvals,
            # Refused, and nothing paid; sent, but never accepted, and nothing paid; accepted, and gone before the news came.
            approval(7, told="proposal-expired", refused=True),
            approval(8, accepted=False, told=None),
            approval(9, told=None, missed=True),
            approval(10, told="cancelled"),
        ],
        # Paid in the moment in which it was cancelled, and given back whole by that.
        payments=[*books.payments, payment(9), payment(10, state="cancelled", captured=0)],
        movements=[
            *books.movements,
            charge(9),
            charge(10),
            Movement("refund", "att_10", None, TOTAL),
        ],
        # The same message twice; one that the provider refused to give back, and we said so.
        webhooks=[
            *books.webhooks,
            webhook(0),
            webhook(9),
            webhook(1, id="msg_no", type="payment.command_failed", sequence=2, command_id="att_no"),
        ],
        refunds=[*books.refunds, Refund("att_no", "pay_1", TOTAL, "rejected")],
        wishes=[
            *books.wishes,
            Wish("another", "pay_1", TOTAL, {"att_no"}),
            Wish("refused", "pay_1", TOTAL, refused="payment-frozen"),
        ],
    )
    assert reconcile(harmless) == []


Case = tuple[str, Callable[[Books], Books], Book, Fault]


def with_payment(books: Books, changed: Payment) -> Books:
    return replace(books, payments=[changed if each.id == changed.id else each for each in books.payments])


def with_approval(books: Books, changed: Approval) -> Books:
    return replace(books, approvals=[changed if each.event_id == changed.event_id else each for each in books.approvals])


def with_movements(books: Books, *movements: Movement) -> Books:
    return replace(books, movements=movements)


def with_webhook(books: Books, changed: Webhook) -> Books:
    return replace(books, webhooks=[changed if each.id == changed.id else each for each in books.webhooks])


WEARERS: list[Case] = [
    ("a payment vanished", lambda b: replace(b, payments=b.payments[1:]), Book.WEARERS, Fault.LOST),
    (
        "one approval, two payments",
        lambda b: replace(b, payments=[*b.payments, payment(9, proposal_id="prp_0")]),
        Book.WEARERS,
        Fault.DOUBLED,
    ),
    ("a wearer never heard", lambda b: with_approval(b, approval(0, told=None)), Book.WEARERS, Fault.UNKNOWN),
    (
        "refused and paid",
        lambda b: with_approval(b, approval(0, told="proposal-expired", refused=True)),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    ("told another state", lambda b: with_approval(b, approval(0, told="declined")), Book.WEARERS, Fault.DIFFERENT),
    (
        "another amount than approved",
        lambda b: with_payment(b, payment(0, total=(1796, "CNY"))),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    (
        "paid without money",
        lambda b: with_payment(b, declined(state="captured", captured=1795)),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    ("declined with money", lambda b: with_approval(b, approval(3, told="declined")), Book.WEARERS, Fault.DIFFERENT),
    (
        "failed with money",
        lambda b: with_payment(b, payment(0, state="failed", captured=0)),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
]

DATABASE: list[Case] = [
    ("a payment nobody approved", lambda b: replace(b, approvals=b.approvals[1:]), Book.DATABASE, Fault.UNKNOWN),
    ("a payment left unknown", lambda b: with_payment(b, payment(0, state="unknown")), Book.DATABASE, Fault.UNKNOWN),
    ("captured, and less was taken", lambda b: with_payment(b, payment(0, captured=1794)), Book.DATABASE, Fault.DIFFERENT),
    ("declined, and something was taken", lambda b: with_payment(b, declined(captured=1)), Book.DATABASE, Fault.DIFFERENT),
    (
        "more given back than its refunds say",
        lambda b: with_payment(b, part_refunded(refunded=501)),
        Book.DATABASE,
        Fault.DIFFERENT,
    ),
    (
        "a refund that did not count",
        lambda b: with_payment(b, payment(2)),
        Book.DATABASE,
        Fault.DIFFERENT,
    ),
    ("an event left unpublished", lambda b: replace(b, unfinished={"outbox": 1}), Book.DATABASE, Fault.LOST),
    ("a broken receipt", lambda b: replace(b, broken_receipts=["entry 2 was altered"]), Book.DATABASE, Fault.DIFFERENT),
    (
        "paid out while frozen",
        lambda b: replace(b, wrongly_frozen=["pay_0: payment.captured after it was frozen"]),
        Book.DATABASE,
        Fault.DIFFERENT,
    ),
    (
        "one request, two refunds",
        lambda b: replace(b, wishes=[Wish("key", "pay_2", PART, {"att_back", "att_second"})]),
        Book.DATABASE,
        Fault.DOUBLED,
    ),
    (
        "an accepted refund vanished",
        lambda b: replace(b, wishes=[*b.wishes, Wish("another", "pay_1", PART, {"att_gone"})]),
        Book.DATABASE,
        Fault.LOST,
    ),
    ("a refund nobody asked for", lambda b: replace(b, wishes=[]), Book.DATABASE, Fault.UNKNOWN),
    (
        "a refund of more than was asked for",
        lambda b: replace(b, wishes=[Wish("key", "pay_2", (499, "CNY"), {"att_back"})]),
        Book.DATABASE,
        Fault.DIFFERENT,
    ),
    (
        "a refund of another payment",
        lambda b: replace(b, wishes=[Wish("key", "pay_1", PART, {"att_back"})]),
        Book.DATABASE,
        Fault.DIFFERENT,
    ),
]

PROVIDER: list[Case] = [
    ("never charged", lambda b: replace(b, movements=b.movements[1:]), Book.PROVIDER, Fault.LOST),
    ("charged twice", lambda b: replace(b, movements=[*b.movements, charge(0)]), Book.PROVIDER, Fault.DOUBLED),
    (
        "charged twice, under two references of ours",
        lambda b: replace(
            with_payment(b, payment(0, references=("att_0", "att_first"))),
            movements=[*b.movements, charge(0, reference="att_first")],
        ),
        Book.PROVIDER,
        Fault.DOUBLED,
    ),
    ("charged for nothing we know", lambda b: replace(b, movements=[*b.movements, charge(9)]), Book.PROVIDER, Fault.UNKNOWN),
    ("charged though declined", lambda b: replace(b, movements=[*b.movements, charge(3)]), Book.PROVIDER, Fault.DIFFERENT),
    (
        "cancelled, charged, and given back in part",
        lambda b: replace(
            with_payment(b, payment(3, state="cancelled", captured=0)),
            movements=[*b.movements, charge(3), Movement("refund", "att_3", None, (1794, "CNY"))],
        ),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "one fen more charged",
        lambda b: with_movements(b, charge(0, total=(1796, "CNY")), *b.movements[1:]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "another currency charged",
        lambda b: with_movements(b, charge(0, total=(1795, "USD")), *b.movements[1:]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "charged under a reference that is not the payment's",
        lambda b: with_payment(b, payment(0, reference="att_other")),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    ("never given back", lambda b: replace(b, movements=b.movements[:-1]), Book.PROVIDER, Fault.LOST),
    ("given back twice", lambda b: replace(b, movements=[*b.movements, given_back()]), Book.PROVIDER, Fault.DOUBLED),
    (
        "one fen more given back",
        lambda b: with_movements(b, *b.movements[:-1], given_back(total=(501, "CNY"))),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "given back of another payment",
        lambda b: with_movements(b, *b.movements[:-1], given_back(reference="att_1")),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "given back in nobody's name",
        lambda b: replace(b, movements=[*b.movements, given_back(attempt_id=None, reference="att_1")]),
        Book.PROVIDER,
        Fault.UNKNOWN,
    ),
    (
        "given back, and failed by our book",
        lambda b: replace(b, refunds=[Refund("att_back", "pay_2", PART, "rejected")]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
]

MERCHANTS: list[Case] = [
    ("a webhook never arrived", lambda b: replace(b, webhooks=b.webhooks[1:]), Book.MERCHANTS, Fault.LOST),
    (
        "told twice under two ids",
        lambda b: replace(b, webhooks=[*b.webhooks, webhook(0, id="msg_second", sequence=2)]),
        Book.MERCHANTS,
        Fault.DOUBLED,
    ),
    (
        "told of a payment we do not have",
        lambda b: replace(b, webhooks=[*b.webhooks, webhook(9)]),
        Book.MERCHANTS,
        Fault.UNKNOWN,
    ),
    ("a gap in an order's numbers", lambda b: with_webhook(b, webhook(0, sequence=2)), Book.MERCHANTS, Fault.LOST),
    (
        "one id with two contents",
        lambda b: replace(b, webhooks=[*b.webhooks, webhook(0, sequence=2)]),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    (
        "told captured though declined",
        lambda b: with_payment(b, payment(0, state="declined", captured=0)),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    ("told of another amount", lambda b: with_webhook(b, webhook(0, captured=1796)), Book.MERCHANTS, Fault.DIFFERENT),
    (
        "a signature that does not hold",
        lambda b: replace(b, webhooks=[*b.webhooks, Webhook(id="msg_9", refused=True)]),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    (
        "a refund's end never arrived",
        lambda b: replace(b, webhooks=[each for each in b.webhooks if each.id != "msg_back"]),
        Book.MERCHANTS,
        Fault.LOST,
    ),
    (
        "a refund's end told under two ids",
        lambda b: replace(b, webhooks=[*b.webhooks, refund_told(id="msg_more", sequence=3)]),
        Book.MERCHANTS,
        Fault.DOUBLED,
    ),
    (
        "told of a refund we do not have",
        lambda b: replace(b, webhooks=[*b.webhooks, refund_told(id="msg_more", sequence=3, command_id="att_9")]),
        Book.MERCHANTS,
        Fault.UNKNOWN,
    ),
    (
        "told that a refund failed, and it did not",
        lambda b: with_webhook(b, refund_told(type="payment.command_failed")),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    ("told of another sum given back", lambda b: with_webhook(b, refund_told(refunded=499)), Book.MERCHANTS, Fault.DIFFERENT),
]

FALSIFIED = [*WEARERS, *DATABASE, *PROVIDER, *MERCHANTS]


@pytest.mark.parametrize(("falsify", "book", "fault"), [case[1:] for case in FALSIFIED], ids=[case[0] for case in FALSIFIED])
def test_a_falsified_book_is_found(falsify: Callable[[Books], Books], book: Book, fault: Fault) -> None:
    assert (book, fault) in {(finding.book, finding.fault) for finding in reconcile(falsify(agreeing()))}


def test_what_is_missing_in_one_sum_is_found_even_where_every_line_has_its_match() -> None:
    """A line nobody can attribute changes the sum of its currency."""
    books = agreeing()
    found = reconcile(replace(books, movements=[*books.movements, charge(9, total=(1, "SEK"))]))
    assert {finding.about for finding in found} == {"att_9", "all in SEK"}


def test_the_provider_and_the_receiver_are_read_as_they_write() -> None:
    now = datetime.now(UTC)
    line = StatementLine(kind="refund", reference="att_2", attempt_id="att_back", amount=Money.of(500, "CNY"), occurred_at=now)
    assert read_movements([line]) == [given_back()]
    received = {
        "id": "msg_1",
        "type": "payment.captured",
        "order": "ord_1",
        "sequence": 1,
        "payment": "pay_1",
        "captured": 1795,
        "refunded": 0,
        "command": None,
        "refused": False,
    }
    assert read_webhooks([received, {"id": None, "refused": True}]) == [webhook(1), Webhook(None, refused=True)]
