"""Stripe's words ↔ ours."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.payments.stripe import mapping
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Declined,
    NotSubmitted,
    Payer,
    Pending,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

IDS: dict[str, Any] = {"payment_id": PaymentId.new(), "attempt_id": AttemptId.new(), "journey_id": JourneyId.new()}
TOTAL = Money(minor=650, currency="EUR")
AUTHORISE = Authorise(
    **IDS,
    order_id=OrderId.new(),
    total=TOTAL,
    payee="Hofgut",
    description="Milk",
    payer=Payer(provider="stripe", customer="cus_1", payment_method="pm_1"),
    reference="pi_1",
)
CAPTURE = Capture(**IDS, reference="pi_1", amount=Money(minor=250, currency="EUR"))
CANCEL = Cancel(**IDS, reference="pi_1")
REFUND = Refund(**IDS, reference="pi_1", amount=Money(minor=250, currency="EUR"))


def intent(status: object, **other: object) -> dict[str, object]:
    metadata = {"payment_id": IDS["payment_id"]}
    return {"id": "pi_1", "amount": 650, "currency": "eur", "metadata": metadata, "status": status, **other}


def refund(status: object = "succeeded", **other: object) -> dict[str, object]:
    metadata = {"payment_id": IDS["payment_id"], "attempt_id": IDS["attempt_id"]}
    return {
        "id": "re_1",
        "payment_intent": "pi_1",
        "amount": 250,
        "currency": "eur",
        "metadata": metadata,
        "status": status,
        **other,
    }


@pytest.mark.parametrize(
    ("minor", "currency", "at_stripe"),
    [
        (650, "EUR", 650),
        (500, "JPY", 500),
        (500, "KRW", 500),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (5120, "KWD", 5120),
        (1045, "HUF", 1045),
        (80045, "TWD", 80045),
        (500, "MGA", 5),
        (500, "XAF", 500),
    ],
)
def test_amounts(minor: int, currency: str, at_stripe: int) -> None:
    money = Money(minor=minor, currency=currency)
    assert mapping.to_stripe(money) == (at_stripe, currency.lower())
    assert mapping.from_stripe(at_stripe, currency.lower()) == money


@pytest.mark.parametrize(("minor", "currency"), [(5124, "KWD"), (550, "MGA"), (1, "LYD"), (1, "IQD"), (1, "CLF"), (1, "UYI")])
def test_amounts_that_cannot_be_written(minor: int, currency: str) -> None:
    with pytest.raises(mapping.NotRepresentable):
        mapping.to_stripe(Money(minor=minor, currency=currency))


@given(
    st.integers(1, 10**12), st.sampled_from(["EUR", "SEK", "JPY", "ISK", "UGX", "KWD", "MGA", "HUF", "TWD", "CNY", "LYD", "CLP"])
)
def test_amounts_come_back_as_they_were(minor: int, currency: str) -> None:
    money = Money(minor=minor, currency=currency)
    try:
        amount, code = mapping.to_stripe(money)
    except mapping.NotRepresentable:
        return
    assert mapping.from_stripe(amount, code) == money


@pytest.mark.parametrize(
    ("amount", "currency"),
    [("650", "eur"), (6.5, "eur"), (True, "eur"), (None, "eur"), (650, None), (650, "zzz"), (550, "isk"), (10**20, "eur")],
)
def test_amounts_that_cannot_be_read(amount: object, currency: object) -> None:
    with pytest.raises(mapping.NotRepresentable):
        mapping.from_stripe(amount, currency)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (intent("succeeded", amount_received=650), Succeeded(reference="pi_1", total=TOTAL, captured=True)),
        (intent("succeeded"), Succeeded(reference="pi_1", total=TOTAL, captured=True)),
        (intent("requires_capture", amount_capturable=650), Succeeded(reference="pi_1", total=TOTAL, captured=False)),
        (intent("processing"), Pending(reference="pi_1")),
        (intent("requires_confirmation"), NotSubmitted(reference="pi_1")),
        (intent("requires_payment_method"), NotSubmitted(reference="pi_1")),
        (intent("requires_payment_method", last_payment_error=None), NotSubmitted(reference="pi_1")),
        (
            intent(
                "requires_payment_method",
                last_payment_error={"code": "card_declined", "decline_code": "lost_card", "message": "No."},
            ),
            Declined(reference="pi_1", code="lost_card", message="No."),
        ),
        (
            intent("requires_action", next_action={"redirect_to_url": {"url": "https://bank"}}),
            Actionable(reference="pi_1", url="https://bank"),
        ),
        (intent("requires_action", next_action={"type": "use_stripe_sdk"}), Actionable(reference="pi_1", url=None)),
        (intent("requires_action", next_action="?"), Actionable(reference="pi_1", url=None)),
        (intent("canceled"), Cancelled(reference="pi_1")),
    ],
)
def test_what_an_intent_says_of_an_authorisation(answer: dict[str, object], outcome: object) -> None:
    assert mapping.read_intent(answer, AUTHORISE) == outcome


@pytest.mark.parametrize(
    "answer",
    [
        intent("succeeded", amount=651),
        intent("succeeded", amount="650"),
        intent("succeeded", amount=None),
        intent("succeeded", currency="usd"),
        intent("succeeded", amount_received=649),
        intent("succeeded", amount_received=0),
        intent("succeeded", id="pi_2"),
        intent("succeeded", id=None),
        intent("succeeded", metadata={}),
        intent("succeeded", metadata=None),
        intent("succeeded", metadata={"payment_id": "pay_other"}),
        intent("requires_capture", amount_capturable=1),
        intent("processing", amount=1),
        intent("paid"),
        intent(None),
        intent(["succeeded"]),
        {},
    ],
)
def test_what_does_not_fit_is_unknown(answer: dict[str, object]) -> None:
    outcome = mapping.read_intent(answer, AUTHORISE)
    assert isinstance(outcome, Unknown)
    assert outcome.reference == "pi_1"
    assert outcome.reason


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["succeeded", "pi_1", "eur"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "amount", "currency", "metadata", "status", "last_payment_error", "next_action", "amount_received"]
        ),
        _JSON,
    )
)
def test_no_answer_raises(changes: dict[str, object]) -> None:
    for command in (AUTHORISE, CAPTURE, CANCEL):
        mapping.read_intent({**intent("succeeded"), **changes}, command)
    mapping.refundable({**intent("succeeded"), **changes}, REFUND)
    mapping.read_refunds([{**refund(), **changes}], REFUND)
    mapping.event_reference(changes)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (intent("succeeded", amount_received=250), Succeeded),
        (intent("succeeded", amount_received=650), Unknown),
        (intent("succeeded"), Unknown),
        (intent("requires_capture"), NotSubmitted),
        (intent("canceled"), Cancelled),
        (intent("requires_capture", currency="usd"), Unknown),
        (intent("requires_confirmation"), RefusedByProvider),
        (intent("odd"), Unknown),
    ],
)
def test_what_an_intent_says_of_a_capture(answer: dict[str, object], kind: type) -> None:
    assert isinstance(mapping.read_intent(answer, CAPTURE), kind)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("canceled", Cancelled),
        ("requires_action", NotSubmitted),
        ("processing", Pending),
        ("succeeded", RefusedByProvider),
        ("odd", Unknown),
    ],
)
def test_what_an_intent_says_of_a_cancellation(status: str, kind: type) -> None:
    assert isinstance(mapping.read_intent(intent(status), CANCEL), kind)


@pytest.mark.parametrize(
    ("refunds", "kind"),
    [
        ([], NotSubmitted),
        ([refund()], Succeeded),
        ([refund("pending")], Pending),
        ([refund("failed", failure_reason="lost")], Declined),
        ([refund("canceled")], Cancelled),
        ([refund("requires_action")], Actionable),
        ([refund("odd")], Unknown),
        ([refund(amount=251)], Unknown),
        ([refund(payment_intent="pi_2")], Unknown),
        ([refund(), refund()], Unknown),
        ([refund(metadata={"attempt_id": "att_other"})], NotSubmitted),
        ([refund(metadata={"attempt_id": IDS["attempt_id"]})], Unknown),
    ],
)
def test_what_refunds_say(refunds: list[dict[str, object]], kind: type) -> None:
    assert isinstance(mapping.read_refunds(refunds, REFUND), kind)


def test_what_can_be_refunded() -> None:
    assert mapping.refundable(intent("succeeded"), REFUND) is None
    assert isinstance(mapping.refundable(intent("requires_capture"), REFUND), RefusedByProvider)
    assert isinstance(mapping.refundable(intent("succeeded", currency="usd"), REFUND), Unknown)
    assert isinstance(mapping.refundable(intent("succeeded", id="pi_2"), REFUND), Unknown)


@pytest.mark.parametrize(
    "text",
    [
        "No such customer: 'cus_Abc123'",
        "pm_1N was declined",
        "key sk_live_abc",
        "4242424242424242",
        "4242 4242 4242 4242",
        "tok_visa",
        "rk_test_1",
    ],
)
def test_messages_lose_their_secrets(text: str) -> None:
    clean = mapping.without_secrets(text)
    assert "…" in clean
    assert not any(word in clean for word in ("Abc123", "1N", "live", "4242", "visa", "test"))


@pytest.mark.parametrize(
    ("event", "reference"),
    [
        ({"data": {"object": {"object": "payment_intent", "id": "pi_1"}}}, "pi_1"),
        ({"data": {"object": {"object": "charge", "id": "ch_1", "payment_intent": "pi_1"}}}, "pi_1"),
        ({"data": {"object": {"object": "refund", "id": "re_1", "payment_intent": "pi_1"}}}, "pi_1"),
        ({"data": {"object": {"object": "charge", "id": "ch_1", "payment_intent": None}}}, None),
        ({"data": {"object": {"object": "customer", "id": "cus_1"}}}, None),
        ({"data": None}, None),
        ({}, None),
    ],
)
def test_what_a_webhook_is_about(event: dict[str, object], reference: str | None) -> None:
    assert mapping.event_reference(event) == reference
