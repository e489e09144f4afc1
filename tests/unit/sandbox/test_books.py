"""The reconciliation sees every way in which the four books can differ; a drill that sees nothing proves nothing."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from infra.sandbox.books import Approval, Book, Books, Charge, Fault, Payment, Webhook, read_charges, read_webhooks, reconcile

EURO = (1795, "EUR")


def approval(number: int, **changes: object) -> Approval:
    made = Approval(event_id=f"evt_{number}", proposal_id=f"prp_{number}", total=EURO, accepted=True, told="captured")
    return replace(made, **changes)  # type: ignore[arg-type]


def payment(number: int, **changes: object) -> Payment:
    made = Payment(
        id=f"pay_{number}",
        proposal_id=f"prp_{number}",
        order_id=f"ord_{number}",
        journey_id=f"jrn_{number}",
        state="captured",
        total=EURO,
        reference=f"pi_{number}",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def charge(number: int, **changes: object) -> Charge:
    return replace(Charge(f"pi_{number}", f"pay_{number}", EURO, succeeded=True), **changes)  # type: ignore[arg-type]


def webhook(number: int, **changes: object) -> Webhook:
    made = Webhook(
        id=f"msg_{number}",
        refused=False,
        type="payment.captured",
        order_id=f"ord_{number}",
        payment_id=f"pay_{number}",
        sequence=1,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def agreeing() -> Books:
    """Three payments, all well."""
    numbers = range(3)
    return Books(
        approvals=[approval(number) for number in numbers],
        payments=[payment(number) for number in numbers],
        charges=[charge(number) for number in numbers],
        webhooks=[webhook(number) for number in numbers],
        unfinished={"outbox rows not published": 0},
    )


def test_books_that_agree_have_no_findings() -> None:
    assert reconcile(agreeing()) == []
    assert agreeing().entries() == dict.fromkeys(Book, 3)


def test_what_may_happen_without_harm_is_no_finding() -> None:
    books = agreeing()
    harmless = replace(
        books,
        # Refused, and nothing paid; sent, but never accepted, and nothing paid.
        approvals=[
            *books.approvals,
            approval(7, told="proposal-expired", refused=True),
            approval(8, accepted=False, told=None),
        ],
        # Opened at the provider, never confirmed: no money moved. Declined: no money moved either.
        charges=[*books.charges, charge(0, reference="pi_abandoned", succeeded=False)],
        # The same message twice; an earlier message of the same order.
        webhooks=[
            *books.webhooks,
            webhook(0),
            webhook(1, id="msg_later", type="payment.refunded", sequence=2),
        ],
    )
    assert reconcile(harmless) == []


FALSIFIED: list[tuple[str, Callable[[Books], Books], Book, Fault]] = [
    # The wearers'.
    ("a payment vanished", lambda b: replace(b, payments=b.payments[1:]), Book.WEARERS, Fault.LOST),
    (
        "one approval, two payments",
        lambda b: replace(b, payments=[*b.payments, payment(9, proposal_id="prp_0")]),
        Book.WEARERS,
        Fault.DOUBLED,
    ),
    (
        "a wearer never heard",
        lambda b: replace(b, approvals=[approval(0, told=None), *b.approvals[1:]]),
        Book.WEARERS,
        Fault.UNKNOWN,
    ),
    (
        "refused and paid",
        lambda b: replace(b, approvals=[approval(0, told="proposal-expired", refused=True), *b.approvals[1:]]),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    (
        "told another state",
        lambda b: replace(b, approvals=[approval(0, told="declined"), *b.approvals[1:]]),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    (
        "another amount than approved",
        lambda b: replace(b, payments=[payment(0, total=(1796, "EUR")), *b.payments[1:]]),
        Book.WEARERS,
        Fault.DIFFERENT,
    ),
    # Ours.
    (
        "a payment nobody approved",
        lambda b: replace(b, approvals=b.approvals[1:]),
        Book.DATABASE,
        Fault.UNKNOWN,
    ),
    (
        "a payment left unknown",
        lambda b: replace(b, payments=[payment(0, state="unknown"), *b.payments[1:]]),
        Book.DATABASE,
        Fault.UNKNOWN,
    ),
    ("an event left unpublished", lambda b: replace(b, unfinished={"outbox": 1}), Book.DATABASE, Fault.LOST),
    ("a broken receipt", lambda b: replace(b, broken_receipts=["entry 2 was altered"]), Book.DATABASE, Fault.DIFFERENT),
    # The provider's.
    ("never charged", lambda b: replace(b, charges=b.charges[1:]), Book.PROVIDER, Fault.LOST),
    (
        "charged twice",
        lambda b: replace(b, charges=[*b.charges, charge(0, reference="pi_second")]),
        Book.PROVIDER,
        Fault.DOUBLED,
    ),
    (
        "charged for nothing we know",
        lambda b: replace(b, charges=[*b.charges, charge(9)]),
        Book.PROVIDER,
        Fault.UNKNOWN,
    ),
    (
        "charged for nothing at all",
        lambda b: replace(b, charges=[*b.charges, charge(9, payment_id=None)]),
        Book.PROVIDER,
        Fault.UNKNOWN,
    ),
    (
        "charged though declined",
        lambda b: replace(b, payments=[payment(0, state="declined"), *b.payments[1:]]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "another amount charged",
        lambda b: replace(b, charges=[charge(0, total=(17950, "EUR")), *b.charges[1:]]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "another currency charged",
        lambda b: replace(b, charges=[charge(0, total=(1795, "USD")), *b.charges[1:]]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    (
        "another reference than ours",
        lambda b: replace(b, payments=[payment(0, reference="pi_other"), *b.payments[1:]]),
        Book.PROVIDER,
        Fault.DIFFERENT,
    ),
    # The merchants'.
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
    (
        "a gap in an order's numbers",
        lambda b: replace(b, webhooks=[webhook(0, sequence=2), *b.webhooks[1:]]),
        Book.MERCHANTS,
        Fault.LOST,
    ),
    (
        "one id with two contents",
        lambda b: replace(b, webhooks=[*b.webhooks, webhook(0, sequence=2)]),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    (
        "told captured though declined",
        lambda b: replace(b, payments=[payment(0, state="declined"), *b.payments[1:]]),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
    (
        "a signature that does not hold",
        lambda b: replace(b, webhooks=[*b.webhooks, Webhook(id="msg_9", refused=True)]),
        Book.MERCHANTS,
        Fault.DIFFERENT,
    ),
]


@pytest.mark.parametrize(("falsify", "book", "fault"), [case[1:] for case in FALSIFIED], ids=[case[0] for case in FALSIFIED])
def test_a_falsified_book_is_found(falsify: Callable[[Books], Books], book: Book, fault: Fault) -> None:
    assert (book, fault) in {(finding.book, finding.fault) for finding in reconcile(falsify(agreeing()))}


def test_the_provider_and_the_receiver_are_read_as_they_write() -> None:
    intent = {"id": "pi_1", "amount": 1795, "currency": "eur", "status": "succeeded", "metadata": {"payment_id": "pay_1"}}
    abandoned = {"id": "pi_2", "amount": 1, "currency": "eur", "status": "requires_confirmation", "metadata": {}}
    assert read_charges([intent, abandoned]) == [charge(1), Charge("pi_2", None, (1, "EUR"), succeeded=False)]
    line = {"id": "msg_1", "type": "payment.captured", "order": "ord_1", "sequence": 1, "payment": "pay_1", "refused": False}
    assert read_webhooks([line, {"id": None, "refused": True}]) == [webhook(1), Webhook(None, refused=True)]
