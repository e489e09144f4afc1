"""Stripe's words ↔ ours."""

import re
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.payments.stripe import codes, mapping
from connectors.payments.stripe.codes import Verdict
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Declined,
    Mismatched,
    NotSubmitted,
    Payer,
    Pending,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
    Succeeded,
    Unknown,
)

TOTAL = Money(minor=650, currency="EUR")
IDS: dict[str, Any] = {
    "payment_id": PaymentId.new(),
    "attempt_id": AttemptId.new(),
    "journey_id": JourneyId.new(),
    "total": TOTAL,
}
AUTHORISE = Authorise(
    **IDS,
    order_id=OrderId.new(),
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
    usual = {"id": "pi_1", "amount": 650, "currency": "eur", "livemode": False, "metadata": metadata}
    return {**usual, "status": status, **other}


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
            # Tried without the payer, which does not count.
            intent("requires_payment_method", last_payment_error={"code": "authentication_required"}),
            NotSubmitted(reference="pi_1"),
        ),
        (
            intent("requires_action", next_action={"redirect_to_url": {"url": "https://bank"}}),
            Actionable(reference="pi_1", url="https://bank"),
        ),
        (
            intent("requires_action", next_action={"redirect_to_url": {"url": "http://bank"}}),
            Actionable(reference="pi_1", url=None),
        ),
        (
            intent("requires_action", next_action={"redirect_to_url": {"url": "javascript:alert()"}}),
            Actionable(reference="pi_1", url=None),
        ),
        (intent("requires_action", next_action={"type": "use_stripe_sdk"}), Actionable(reference="pi_1", url=None)),
        (intent("requires_action", next_action="?"), Actionable(reference="pi_1", url=None)),
        (intent("canceled"), Cancelled(reference="pi_1")),
    ],
)
def test_what_an_intent_says_of_an_authorisation(answer: dict[str, object], outcome: object) -> None:
    assert mapping.read_intent(answer, AUTHORISE, live=False) == outcome


@pytest.mark.parametrize(
    "answer",
    [
        intent("succeeded", amount=651),
        intent("succeeded", currency="usd"),
        intent("succeeded", amount_received=649),
        intent("succeeded", amount_received=0),
        intent("succeeded", id="pi_2"),
        intent("succeeded", metadata={}),
        intent("succeeded", metadata={"payment_id": "pay_other"}),
        intent("succeeded", livemode=True),
        intent("requires_capture", amount_capturable=1),
        intent("requires_confirmation", amount=1),
        intent("processing", amount=1),
        intent("canceled", amount=1),
    ],
)
def test_what_is_about_something_else_does_not_fit(answer: dict[str, object]) -> None:
    outcome = mapping.read_intent(answer, AUTHORISE, live=False)
    assert isinstance(outcome, Mismatched)
    assert outcome.reference == "pi_1"
    assert outcome.reason


@pytest.mark.parametrize("command", [AUTHORISE, CAPTURE, CANCEL])
def test_a_test_is_no_payment(command: Authorise | Capture | Cancel) -> None:
    for status in ("succeeded", "requires_capture", "requires_confirmation", "canceled"):
        assert isinstance(mapping.read_intent(intent(status), command, live=True), Mismatched)
        assert isinstance(mapping.read_intent(intent(status, livemode=True), command, live=False), Mismatched)


@pytest.mark.parametrize(
    "answer",
    [
        intent("succeeded", amount="650"),
        intent("succeeded", amount=None),
        intent("succeeded", currency=None),
        intent("succeeded", currency="zzz"),
        intent("succeeded", amount_received="650"),
        intent("succeeded", id=None),
        intent("succeeded", metadata=None),
        intent("succeeded", livemode=None),
        intent("succeeded", livemode="false"),
        intent("paid"),
        intent(None),
        intent(["succeeded"]),
        intent("requires_payment_method", last_payment_error={"code": "brand_new"}),
        intent("requires_payment_method", last_payment_error={"code": "card_declined", "decline_code": "brand_new"}),
        intent("requires_payment_method", last_payment_error={"code": ["card_declined"]}),
        intent("requires_payment_method", last_payment_error={}),
        {},
    ],
)
def test_what_cannot_be_read_or_is_not_documented_is_unknown(answer: dict[str, object]) -> None:
    outcome = mapping.read_intent(answer, AUTHORISE, live=False)
    assert isinstance(outcome, Unknown)
    assert outcome.reference == "pi_1"
    assert outcome.reason


# Each as Stripe's pages have it; see codes.py for which and when.
@pytest.mark.parametrize(
    ("code", "decline_code", "kind", "said"),
    [
        ("card_declined", None, Declined, "card_declined"),
        ("card_declined", "insufficient_funds", Declined, "insufficient_funds"),
        ("card_declined", "lost_card", Declined, "lost_card"),
        ("card_declined", "try_again_later", Declined, "try_again_later"),
        ("card_declined", "partner_generic_decline", Declined, "partner_generic_decline"),
        ("card_declined", "authentication_required", Declined, "authentication_required"),
        ("expired_card", "expired_card", Declined, "expired_card"),
        ("processing_error", None, Declined, "processing_error"),
        ("payment_intent_authentication_failure", None, Declined, "payment_intent_authentication_failure"),
        ("charge_already_refunded", None, RefusedByProvider, "charge_already_refunded"),
        ("charge_expired_for_capture", None, RefusedByProvider, "charge_expired_for_capture"),
        ("amount_too_small", None, RefusedByProvider, "amount_too_small"),
        ("resource_missing", None, RefusedByProvider, "resource_missing"),
        ("payment_intent_unexpected_state", None, RefusedByProvider, "payment_intent_unexpected_state"),
        ("lock_timeout", None, Unknown, None),
        ("rate_limit", None, Unknown, None),
        ("idempotency_key_in_use", None, Unknown, None),
        ("card_declined", "brand_new", Unknown, None),
        ("brand_new", None, Unknown, None),
        ("payouts_not_allowed", None, Unknown, None),  # documented, but not for what we ask
    ],
)
def test_what_an_error_says(code: str, decline_code: str | None, kind: type, said: str | None) -> None:
    outcome = mapping.read_error("pi_1", {"code": code, "decline_code": decline_code, "type": "card_error"})
    assert type(outcome) is kind
    assert getattr(outcome, "code", None) == said


def test_every_listed_code_has_one_meaning() -> None:
    for table in (codes.ERROR_CODES, codes.DECLINE_CODES):
        assert set(table.values()) <= set(Verdict)
    listed = [code for name in ("_DECLINED", "_REFUSED", "_PAYER_MUST_ACT", "_NOT_NOW") for code in vars(codes)[name].split()]
    assert len(listed) == len(set(listed)) == len(codes.ERROR_CODES)


def test_the_sdks_own_list_has_every_listed_code() -> None:
    """Stripe generates its SDK from its API's description: a code that is not in there is a slip of ours."""
    file = files("stripe").joinpath("_payment_intent.py").read_text()
    known = set(re.findall(r'"([a-z_0-9]+)"', file.split("class LastPaymentError")[1].split("decline_code:")[0]))
    assert set(codes.ERROR_CODES) - known == set()


@pytest.mark.parametrize("type", ["invalid_request_error", "idempotency_error"])
def test_an_error_without_a_code_is_a_request_that_cannot_be_right(type: str) -> None:
    assert isinstance(mapping.read_error("pi_1", {"type": type}), RefusedByProvider)


@pytest.mark.parametrize(
    "error", [{}, {"type": "api_error"}, {"type": "card_error"}, {"code": {}}, {"type": ["idempotency_error"]}]
)
def test_an_error_that_says_nothing_is_unknown(error: dict[str, object]) -> None:
    assert isinstance(mapping.read_error("pi_1", error), Unknown)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["succeeded", "pi_1", "eur"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "amount", "currency", "metadata", "status", "last_payment_error", "next_action", "amount_received", "livemode"]
        ),
        _JSON,
    )
)
def test_no_answer_raises(changes: dict[str, object]) -> None:
    for command in (AUTHORISE, CAPTURE, CANCEL):
        for status in ("succeeded", "requires_action", "requires_payment_method"):
            mapping.read_intent({**intent(status), **changes}, command, live=False)
    mapping.refundable({**intent("succeeded"), **changes}, REFUND, live=False)
    mapping.read_refunds([{**refund(), **changes}], REFUND)
    mapping.read_error("pi_1", changes)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (intent("succeeded", amount_received=250), Succeeded),
        (intent("succeeded", amount_received=650), Mismatched),
        (intent("succeeded"), Unknown),
        (intent("requires_capture"), NotSubmitted),
        (intent("canceled"), Cancelled),
        (intent("requires_capture", currency="usd"), Mismatched),
        (intent("requires_capture", amount=651), Mismatched),
        (intent("requires_confirmation"), RefusedByProvider),
        (intent("odd"), Unknown),
    ],
)
def test_what_an_intent_says_of_a_capture(answer: dict[str, object], kind: type) -> None:
    assert isinstance(mapping.read_intent(answer, CAPTURE, live=False), kind)


def test_a_capture_of_all_needs_no_word_on_how_much() -> None:
    everything = CAPTURE.model_copy(update={"amount": TOTAL})
    assert isinstance(mapping.read_intent(intent("succeeded"), everything, live=False), Succeeded)
    assert isinstance(mapping.read_intent(intent("succeeded", amount_received=250), everything, live=False), Mismatched)


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
    assert isinstance(mapping.read_intent(intent(status), CANCEL, live=False), kind)


@pytest.mark.parametrize(
    ("refunds", "kind"),
    [
        ([], NotSubmitted),
        ([refund()], Succeeded),
        ([refund("pending")], Pending),
        ([refund("failed")], Declined),
        ([refund("failed", failure_reason="lost_or_stolen_card")], Declined),
        ([refund("failed", failure_reason="brand_new")], Unknown),
        ([refund("failed", failure_reason=["unknown"])], Unknown),
        ([refund("canceled")], Cancelled),
        ([refund("requires_action")], Actionable),
        ([refund("odd")], Unknown),
        ([refund(amount=251)], Mismatched),
        ([refund(currency="usd")], Mismatched),
        ([refund(amount=None)], Unknown),
        ([refund(payment_intent="pi_2")], Mismatched),
        ([refund(payment_intent=None)], Unknown),
        ([refund(), refund()], Mismatched),
        ([refund(metadata={"attempt_id": "att_other"})], NotSubmitted),
        ([refund(metadata={"attempt_id": IDS["attempt_id"]})], Mismatched),
    ],
)
def test_what_refunds_say(refunds: list[dict[str, object]], kind: type) -> None:
    assert isinstance(mapping.read_refunds(refunds, REFUND), kind)


def test_what_can_be_refunded() -> None:
    assert mapping.refundable(intent("succeeded"), REFUND, live=False) is None
    assert isinstance(mapping.refundable(intent("requires_capture"), REFUND, live=False), RefusedByProvider)
    for other in ({"currency": "usd"}, {"id": "pi_2"}, {"livemode": True}, {"amount": 651}):
        assert isinstance(mapping.refundable(intent("succeeded", **other), REFUND, live=False), Mismatched)


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
        "whsec_live",
        "pi_1N_secret_live",
    ],
)
def test_messages_lose_their_secrets(text: str) -> None:
    clean = mapping.without_secrets(text)
    assert "…" in clean
    assert not any(word in clean for word in ("Abc123", "1N", "live", "4242", "visa", "test"))


def event(about: object, **other: object) -> dict[str, object]:
    usual = {"id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "livemode": False, "created": 1_790_000_000}
    return {**usual, "data": {"object": about}, **other}


@pytest.mark.parametrize(
    ("about", "reference"),
    [
        ({"object": "payment_intent", "id": "pi_1"}, "pi_1"),
        ({"object": "charge", "id": "ch_1", "payment_intent": "pi_1"}, "pi_1"),
        ({"object": "refund", "id": "re_1", "payment_intent": "pi_1"}, "pi_1"),
        ({"object": "charge", "id": "ch_1", "payment_intent": None}, None),
        ({"object": "customer", "id": "cus_1"}, None),
        ({}, None),
    ],
)
def test_what_a_webhook_is_about(about: dict[str, object], reference: str | None) -> None:
    found = mapping.read_event(event(about), live=False, account=None)
    assert (found.reference if found else None) == reference


def test_an_event_in_full() -> None:
    paid = {"object": "payment_intent", "id": "pi_1", "amount_received": 50_000, "currency": "isk"}
    assert mapping.read_event(event(paid), live=False, account=None) == ProviderEvent(
        provider="stripe",
        event_id="evt_1",
        kind="payment",
        reference="pi_1",
        amount=Money(minor=500, currency="ISK"),
        note="payment_intent.succeeded",
        occurred_at=datetime.fromtimestamp(1_790_000_000, UTC),
    )


@pytest.mark.parametrize(
    ("other", "account"), [({"livemode": True}, None), ({"account": "acct_2"}, "acct_1"), ({"account": "acct_2"}, None)]
)
def test_an_event_of_another_account_is_foreign(other: dict[str, object], account: str | None) -> None:
    with pytest.raises(mapping.Foreign):
        mapping.read_event(event({"object": "payment_intent", "id": "pi_1"}, **other), live=False, account=account)


def charge(**other: object) -> dict[str, object]:
    usual = {"id": "ch_1", "status": "succeeded", "captured": True, "livemode": False, "created": 1_790_000_000, "metadata": {}}
    return {**usual, "payment_intent": "pi_1", "amount": 650, "amount_captured": 650, "currency": "eur", **other}


@pytest.mark.parametrize(
    ("movement", "minor"),
    [
        (charge(), 650),
        (charge(amount_captured=250), 250),
        (charge(amount_captured=None), 650),
        (charge(amount_captured=0), None),
        (charge(captured=False), None),
        (charge(status="failed"), None),
        (charge(status="pending"), None),
    ],
)
def test_what_a_charge_took(movement: dict[str, object], minor: int | None) -> None:
    line = mapping.charge_line(movement, live=False)
    expected = None
    if minor is not None:
        moment = datetime.fromtimestamp(1_790_000_000, UTC)
        expected = StatementLine(kind="payment", reference="pi_1", amount=Money(minor=minor, currency="EUR"), occurred_at=moment)
    assert line == expected


@pytest.mark.parametrize(
    ("movement", "of", "minor"),
    [
        (refund(created=1_790_000_000), None, 250),
        (refund("pending"), None, None),
        (refund("failed"), None, None),
        (refund(created=1_790_000_000, metadata={}), charge(), 250),
        (refund(created=1_790_000_000, metadata={}), charge(amount_captured=650 - 249), 250),
        (refund(created=1_790_000_000, metadata={}), charge(amount_captured=650 - 250), None),
        (refund(created=1_790_000_000), charge(amount_captured=650 - 250), 250),
        (refund(created=1_790_000_000, metadata={}), charge(captured=False, amount_captured=0), None),
    ],
)
def test_what_a_refund_gave_back(movement: dict[str, object], of: dict[str, object] | None, minor: int | None) -> None:
    line = mapping.refund_line(movement, of)
    assert (line.amount.minor if line else None) == minor
    assert line is None or (line.kind, line.reference, line.attempt_id) == ("refund", "pi_1", mapping.attempt_of(movement))


@pytest.mark.parametrize(
    "other", [{"livemode": True}, {"livemode": None}, {"currency": "zzz"}, {"amount_captured": "650"}, {"created": "now"}]
)
def test_a_movement_that_cannot_be_read_is_not_left_out(other: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        mapping.charge_line(charge(**other), live=False)
