"""Alipay's words ↔ ours."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from connectors.payments.alipay import codes, mapping
from connectors.payments.alipay.codes import Call, Verdict
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Declined,
    Mismatched,
    NotSubmitted,
    Payer,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

SELLER = "2088000000000016"
TOTAL = Money(minor=650, currency="CNY")
PAYMENT, JOURNEY, ATTEMPT = PaymentId.new(), JourneyId.new(), AttemptId.new()


def authorise(method: str = "agreement:20260001", customer: str = "2088000000000001") -> Authorise:
    return Authorise(
        payment_id=PAYMENT,
        attempt_id=ATTEMPT,
        journey_id=JOURNEY,
        order_id=OrderId.new(),
        total=TOTAL,
        payee="Hofgut",
        description="Milk / a=b & c, d",
        payer=Payer(provider="alipay", customer=customer, payment_method=method),
        reference="t1",
    )


def cancel() -> Cancel:
    return Cancel(payment_id=PAYMENT, attempt_id=ATTEMPT, journey_id=JOURNEY, total=TOTAL, reference="t1")


def refund(minor: int = 200) -> Refund:
    amount = Money(minor=minor, currency="CNY")
    return Refund(payment_id=PAYMENT, attempt_id=ATTEMPT, journey_id=JOURNEY, total=TOTAL, reference="t1", amount=amount)


PAID = {"out_trade_no": "t1", "total_amount": "6.50", "gmt_payment": "2026-11-22 20:15:03", "trade_no": "1"}
SEEN = {"out_trade_no": "t1", "total_amount": "6.50", "trade_status": "TRADE_SUCCESS"}
GIVEN = {
    "out_trade_no": "t1",
    "out_request_no": ATTEMPT,
    "refund_amount": "2.00",
    "total_amount": "6.50",
    "refund_status": "REFUND_SUCCESS",
}
TAKEN = Succeeded(reference="t1", total=TOTAL, captured=True)


# Codes.


def test_every_code_has_one_verdict_in_each_table() -> None:
    """The numbers are those of the error models of 2026-09-23; a code that got lost, or stands in two groups, changes them."""
    sizes = {call: len(codes.documented(call)) for call in Call}
    assert sizes == {
        Call.PAY: 98,
        Call.PRECREATE: 40,
        Call.QUERY: 4,
        Call.CANCEL: 9,
        Call.REFUND: 31,
        Call.REFUND_QUERY: 5,
        Call.BILL: 8,
    }


@pytest.mark.parametrize("call", list(Call))
def test_an_undocumented_code_is_unknown(call: Call) -> None:
    for code in ("", "ACQ.SOMETHING_NEW", "10000", "ACQ", "an unreadable code", "isv.", "isv.something-new"):
        assert codes.verdict(call, code) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("call", "code", "verdict"),
    [
        (Call.PAY, "ACQ.SYSTEM_ERROR", Verdict.UNKNOWN),
        (Call.PAY, "ACQ.BUYER_BALANCE_NOT_ENOUGH", Verdict.DECLINED),
        (Call.PAY, "ACQ.TRADE_HAS_SUCCESS", Verdict.ASK),
        (Call.PAY, "ACQ.INVALID_PARAMETER", Verdict.REFUSED),
        (Call.PAY, "isv.invalid-signature", Verdict.REFUSED),
        (Call.PAY, "invalid-signature", Verdict.REFUSED),
        (Call.PAY, "isp.unknow-error", Verdict.UNKNOWN),
        (Call.PAY, "aop.unknow-error", Verdict.UNKNOWN),
        (Call.PAY, "isv.app-call-limited", Verdict.BUSY),
        (Call.QUERY, "ACQ.TRADE_NOT_EXIST", Verdict.NOT_FOUND),
        (Call.REFUND, "ACQ.TRADE_NOT_EXIST", Verdict.REFUSED),
        (Call.CANCEL, "AQC.SYSTEM_ERROR", Verdict.UNKNOWN),
        (Call.BILL, "isp.bill_not_exist", Verdict.NOT_FOUND),
    ],
)
def test_what_codes_mean(call: Call, code: str, verdict: Verdict) -> None:
    assert codes.verdict(call, code) is verdict


def test_only_these_calls_may_decline() -> None:
    for call in (Call.QUERY, Call.CANCEL, Call.REFUND, Call.REFUND_QUERY, Call.BILL):
        assert not [code for code in codes.documented(call) if codes.verdict(call, code) is Verdict.DECLINED]


# Requests.


@pytest.mark.parametrize(
    "method",
    [
        "",
        "agreement:",
        "agreement:a b",
        "auth_code:",
        "auth_code:123",
        "auth_code:2412345678901234",
        "auth_code:28abc",
        "auth_code:25123456789012345678901234",
        "auth_code:２８１２３４５６７８９０１２３４",
        "precreate:1",
        "card:4242",
    ],
)
def test_other_means_of_payment_are_refused(method: str) -> None:
    assert mapping.method_of(method) is None
    refused = mapping.refusal(authorise(method), "t1")
    assert refused is not None and refused.code == "payment_method_unknown"


@pytest.mark.parametrize("key", ["", "a-b", "a b", "ü", "x" * 65])
def test_a_reference_that_alipay_cannot_write_is_refused(key: str) -> None:
    refused = mapping.refusal(authorise(), key)
    assert refused is not None and refused.code == "reference_not_representable"


def test_each_way_of_paying_is_asked_for_differently() -> None:
    def asked(method: str, customer: str = "2088000000000001") -> tuple[Call, dict[str, object]]:
        return mapping.payment(authorise(method, customer), seller_id=SELLER, agreement_product="GENERAL_WITHHOLDING")

    common = {"out_trade_no": "t1", "total_amount": "6.50", "subject": "Milk a b c d", "body": PAYMENT, "seller_id": SELLER}
    call, agreed = asked("agreement:20260001")
    assert call is Call.PAY
    assert agreed == {
        **common,
        "product_code": "GENERAL_WITHHOLDING",
        "agreement_params": {"agreement_no": "20260001"},
        "buyer_id": "2088000000000001",
    }
    assert "buyer_id" not in asked("agreement:20260001", "somebody")[1]
    call, shown = asked("auth_code:2812345678901234")
    assert call is Call.PAY
    assert (shown["scene"], shown["auth_code"]) == ("bar_code", "2812345678901234")
    call, made = asked("precreate")
    assert call is Call.PRECREATE
    assert common.items() <= made.items()
    assert mapping.refund(refund()) == {"out_trade_no": "t1", "refund_amount": "2.00", "out_request_no": ATTEMPT}


@pytest.mark.parametrize(
    ("text", "shown"), [("", "-"), ("&&&", "-"), ("a\nb\x00c", "a b c"), ("有机", "有机"), ("x" * 300, "x" * 256)]
)
def test_titles_are_what_alipay_takes(text: str, shown: str) -> None:
    assert mapping.title(text) == shown


# Which Python takes for numbers.
ODD_AMOUNTS = [
    "1_0.00",
    "1e2",
    "1E2",
    "+6.50",
    "-6.50",
    " 6.50",
    "6.50\n",
    "6.",
    ".50",
    "0x6",
    "\u0666.50",
    Decimal("1E+2"),
    -650,
]


@pytest.mark.parametrize(
    "amount", [None, True, 6.5, "", "x", "6.505", "NaN", "1e400", "9" * 30, [], {}, "Infinity", *ODD_AMOUNTS]
)
def test_what_is_no_amount_is_refused(amount: object) -> None:
    with pytest.raises(ValueError):
        mapping.from_alipay(amount)


def test_amounts() -> None:
    assert mapping.from_alipay("6.50") == mapping.from_alipay("6.5") == mapping.from_alipay(Decimal("6.5")) == TOTAL
    assert mapping.to_alipay(TOTAL) == "6.50"
    with pytest.raises(ValueError, match="CNY"):
        mapping.to_alipay(Money(minor=1, currency="JPY"))


# Answers.


@pytest.mark.parametrize(
    ("content", "waiting", "code"),
    [
        ({"code": "10000"}, False, ""),
        ({"code": "10003"}, True, ""),
        ({"code": "10000", "sub_code": "ACQ.X"}, False, "isp.unknow-error"),
        ({"code": "20000", "sub_code": "ACQ.BUYER_BALANCE_NOT_ENOUGH"}, False, "isp.unknow-error"),
        ({"code": "40004", "sub_code": "ACQ.BUYER_BALANCE_NOT_ENOUGH"}, False, "ACQ.BUYER_BALANCE_NOT_ENOUGH"),
        ({"code": "40004"}, False, "an unreadable code"),
        ({"code": "40004", "sub_code": "x" * 99}, False, "an unreadable code"),
        ({"code": "40005", "sub_code": "ACQ.BUYER_BALANCE_NOT_ENOUGH"}, False, "isv.app-call-limited"),
        ({"code": "10001"}, False, "isp.unknow-error"),
        ({"code": 10000}, False, "isp.unknow-error"),
        ({"code": ["10000"]}, False, "isp.unknow-error"),
        ({}, False, "isp.unknow-error"),
    ],
)
def test_v1_answers(content: dict[str, object], waiting: bool, code: str) -> None:
    answer = mapping.v1_answer(content)
    assert (answer.waiting, answer.code) == (waiting, code)


@pytest.mark.parametrize(
    ("status", "content", "waiting", "code"),
    [
        (200, {}, False, ""),
        (202, {}, True, ""),
        (200, {"code": "ACQ.PAYMENT_FAIL"}, False, "unknow-error"),
        (201, {}, False, "unknow-error"),
        (400, {"code": "ACQ.PAYMENT_FAIL"}, False, "ACQ.PAYMENT_FAIL"),
        (400, {}, False, "an unreadable code"),
        (429, {"code": "ACQ.PAYMENT_FAIL"}, False, "app-call-limited"),
        (302, {"code": "ACQ.PAYMENT_FAIL"}, False, "unknow-error"),
    ],
)
def test_v3_answers(status: int, content: dict[str, object], waiting: bool, code: str) -> None:
    answer = mapping.v3_answer(status, content)
    assert (answer.waiting, answer.code) == (waiting, code)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (PAID, TAKEN),
        ({**PAID, "seller_id": SELLER}, TAKEN),
        ({**PAID, "total_amount": "6.51"}, Mismatched),
        ({**PAID, "out_trade_no": "t2"}, Mismatched),
        ({**PAID, "seller_id": "2088000000000099"}, Mismatched),
        ({**PAID, "seller_id": [SELLER]}, Mismatched),
        ({**PAID, "trans_currency": "USD"}, Mismatched),
        ({**PAID, "total_amount": None}, Unknown),
        ({**PAID, "total_amount": ["6.50"]}, Unknown),
        ({**PAID, "gmt_payment": ""}, None),
        # An answer to another question, though about the same trade.
        (SEEN, None),
        ({**PAID, "trade_status": "WAIT_BUYER_PAY"}, None),
        ({}, Mismatched),
    ],
)
def test_what_an_answer_to_a_payment_says(fields: dict[str, object], expected: object) -> None:
    outcome = mapping.read_payment(mapping.Answer(fields), authorise(), seller_id=SELLER)
    assert outcome == expected or (isinstance(expected, type) and isinstance(outcome, expected))


def test_waiting_is_never_paid() -> None:
    outcome = mapping.read_payment(mapping.Answer(PAID, waiting=True), authorise(), seller_id=SELLER)
    assert outcome == Actionable(reference="t1", url=None, within_s=60)
    foreign = mapping.Answer({"out_trade_no": "t2"}, waiting=True)
    assert isinstance(mapping.read_payment(foreign, authorise(), seller_id=SELLER), Mismatched)


@pytest.mark.parametrize(
    ("fields", "paying", "cancelling"),
    [
        (SEEN, TAKEN, RefusedByProvider),
        ({**SEEN, "trade_status": "TRADE_FINISHED"}, TAKEN, RefusedByProvider),
        ({**SEEN, "trade_status": "WAIT_BUYER_PAY"}, Actionable(reference="t1", url=None, within_s=60), NotSubmitted),
        ({**SEEN, "trade_status": "TRADE_CLOSED"}, Cancelled(reference="t1"), Cancelled(reference="t1")),
        ({**SEEN, "trade_status": "TRADE_PENDING"}, Unknown, Unknown),
        ({**SEEN, "trade_status": ["TRADE_SUCCESS"]}, Unknown, Unknown),
        ({**SEEN, "total_amount": "6.51"}, Mismatched, Mismatched),
        ({**SEEN, "out_trade_no": "t2"}, Mismatched, Mismatched),
        ({**SEEN, "seller_id": "2088000000000099"}, Mismatched, Mismatched),
        ({}, Mismatched, Mismatched),
    ],
)
def test_what_a_trade_says(fields: dict[str, object], paying: object, cancelling: object) -> None:
    for command, expected in ((authorise(), paying), (cancel(), cancelling)):
        outcome = mapping.read_trade(mapping.Answer(fields), command, "t1", seller_id=SELLER)
        assert outcome == expected or (isinstance(expected, type) and isinstance(outcome, expected))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"retry_flag": "N", "action": "close"}, Cancelled),
        ({"retry_flag": "N", "action": "refund"}, Cancelled),
        ({"retry_flag": "N"}, NotSubmitted),
        ({"retry_flag": "Y"}, Unknown),
        ({}, Unknown),
        ({"retry_flag": "N", "action": "something"}, Unknown),
        ({"retry_flag": "N", "action": "close", "out_trade_no": "t2"}, Mismatched),
    ],
)
def test_what_a_cancellation_says(fields: dict[str, str], expected: type) -> None:
    assert isinstance(mapping.read_cancelled(mapping.Answer({"out_trade_no": "t1", **fields}), cancel()), expected)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (GIVEN, Succeeded),
        ({}, NotSubmitted),
        ({**GIVEN, "refund_status": "REFUND_PROCESSING"}, Unknown),
        ({**GIVEN, "refund_amount": "2.01"}, Mismatched),
        ({**GIVEN, "total_amount": "7.50"}, Mismatched),
        ({**GIVEN, "out_request_no": "other"}, Mismatched),
        ({**GIVEN, "out_trade_no": "t2"}, Mismatched),
        ({**GIVEN, "refund_amount": []}, Unknown),
    ],
)
def test_what_a_refund_says(fields: dict[str, object], expected: type) -> None:
    assert isinstance(mapping.read_refund(mapping.Answer(fields), refund()), expected)


@pytest.mark.parametrize(
    ("call", "code", "expected"),
    [
        (Call.PAY, "ACQ.BUYER_BALANCE_NOT_ENOUGH", Declined),
        (Call.PAY, "isv.invalid-app-id", RefusedByProvider),
        (Call.PAY, "ACQ.SOMETHING_NEW", Unknown),
        (Call.PAY, "isv.app-call-limited", Unknown),
        (Call.REFUND, "ACQ.SELLER_BALANCE_NOT_ENOUGH", RefusedByProvider),
        (Call.REFUND, "ACQ.BUYER_BALANCE_NOT_ENOUGH", Unknown),
    ],
)
def test_errors(call: Call, code: str, expected: type) -> None:
    assert isinstance(mapping.error(call, mapping.Answer({}, code=code), "t1"), expected)


def test_what_is_there_already_has_to_be_asked() -> None:
    assert mapping.error(Call.PAY, mapping.Answer({}, code="ACQ.TRADE_HAS_SUCCESS"), "t1") is None


@pytest.mark.parametrize(
    "url", [None, 7, "", "javascript:alert(1)", "http://qr.alipay.com/x", "https://a b", "https://a\n", "https://ü.example"]
)
def test_only_an_address_is_shown_as_a_code(url: object) -> None:
    answer = mapping.Answer({"out_trade_no": "t1", "qr_code": url})
    assert isinstance(mapping.read_precreated(answer, authorise("precreate")), Unknown)


# Notifications.

NOTICE = {
    "notify_type": "trade_status_sync",
    "notify_id": "n1",
    "notify_time": "2026-11-22 20:15:05",
    "out_trade_no": "t1",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "6.50",
    "gmt_payment": "2026-11-22 20:15:03",
}


def test_a_payment_is_notified_with_its_amount() -> None:
    event = mapping.read_notification(NOTICE)
    assert event is not None
    assert (event.kind, event.reference, event.amount, event.event_id) == ("payment", "t1", TOTAL, "n1")
    assert event.occurred_at == datetime(2026, 11, 22, 12, 15, 3, tzinfo=UTC)


@pytest.mark.parametrize("status", ["WAIT_BUYER_PAY", "TRADE_CLOSED", "SOMETHING"])
def test_where_nothing_was_paid_no_amount_is_said(status: str) -> None:
    event = mapping.read_notification({**NOTICE, "trade_status": status})
    assert event is not None
    assert (event.kind, event.amount, event.attempt_id, event.note) == ("payment", None, None, status)


def test_a_refund_is_notified_without_an_amount_as_alipay_adds_them_up() -> None:
    event = mapping.read_notification(
        {**NOTICE, "refund_fee": "5.00", "out_biz_no": "r2", "gmt_refund": "2026-11-22 21:00:00.123"}
    )
    assert event is not None
    assert (event.kind, event.amount, event.attempt_id, event.note) == ("refund", None, "r2", "TRADE_SUCCESS")
    assert event.occurred_at == datetime(2026, 11, 22, 13, 0, tzinfo=UTC)


def test_what_is_not_about_a_trade_says_nothing() -> None:
    assert mapping.read_notification({**NOTICE, "notify_type": "servicemarket_order_notify"}) is None
    assert mapping.read_notification({**NOTICE, "out_trade_no": ""}) is None
