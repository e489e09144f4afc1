"""WeChat Pay's words ↔ ours."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from connectors.payments.wechat_pay import mapping
from connectors.payments.wechat_pay.mapping import CODES, Unreadable, Verdict
from infra.sandbox.wechat_pay.bill import bill
from infra.sandbox.wechat_pay.ledger import GivenBack, Order
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
    Pending,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

MCHID, APPID = "1900000109", "wxd678efh567hg6787"
REFERENCE = str(AttemptId.new())
TOTAL = Money(minor=650, currency="CNY")


def ids() -> dict[str, Any]:
    return {
        "payment_id": PaymentId.new(),
        "attempt_id": AttemptId(REFERENCE),
        "journey_id": JourneyId.new(),
        "total": TOTAL,
        "reference": REFERENCE,
    }


def authorise(method: str = "auth_code:130000000000000000", customer: str = "o1") -> Authorise:
    payer = Payer(provider="wechat_pay", customer=customer, payment_method=method)
    return Authorise(**ids(), order_id=OrderId.new(), payee="Hofgut", description="Milk", payer=payer)


def order(command: Authorise | Cancel, state: object = "SUCCESS", **change: Any) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "mchid": MCHID,
        "appid": APPID,
        "out_trade_no": REFERENCE,
        "attach": command.payment_id,
        "trade_state": state,
        "amount": {"total": 650, "payer_total": 600, "currency": "CNY", "payer_currency": "CNY"},
        **change,
    }
    return {name: value for name, value in answer.items() if value is not None}


def read(command: Authorise | Cancel, state: object = "SUCCESS", **change: Any) -> Any:
    return mapping.read_order(order(command, state, **change), command, MCHID, APPID)


# States of an order: pay.weixin.qq.com/doc/v3/merchant/4013070356.


@pytest.mark.parametrize(
    ("state", "method", "outcome"),
    [
        ("SUCCESS", "native", Succeeded(reference=REFERENCE, total=TOTAL, captured=True)),
        ("REFUND", "native", Succeeded(reference=REFERENCE, total=TOTAL, captured=True)),
        ("NOTPAY", "native", Actionable(reference=REFERENCE, url=None)),
        ("NOTPAY", "jsapi", Actionable(reference=REFERENCE, url=None)),
        ("NOTPAY", "auth_code:130000000000000000", NotSubmitted(reference=REFERENCE)),
        ("USERPAYING", "auth_code:130000000000000000", Actionable(reference=REFERENCE, url=None, within_s=45)),
        ("ACCEPT", "auth_code:130000000000000000", Pending(reference=REFERENCE)),
        ("CLOSED", "native", Cancelled(reference=REFERENCE)),
        ("REVOKED", "auth_code:130000000000000000", Cancelled(reference=REFERENCE)),
    ],
)
def test_states_of_an_order(state: str, method: str, outcome: object) -> None:
    assert read(authorise(method), state) == outcome


def test_a_failed_payment_is_declined() -> None:
    outcome = read(authorise(), "PAYERROR")
    assert isinstance(outcome, Declined) and outcome.code == "PAYERROR"


@pytest.mark.parametrize("state", ["PAID", "success", "", None, 7, ["SUCCESS"], "X" * 300])
def test_any_other_state_is_unknown(state: object) -> None:
    for command in (authorise(), Cancel(**ids())):
        outcome = read(command, state)
        assert isinstance(outcome, Unknown) and len(outcome.reason) < 100


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("CLOSED", Cancelled),
        ("REVOKED", Cancelled),
        ("NOTPAY", NotSubmitted),
        ("USERPAYING", NotSubmitted),
        ("PAYERROR", NotSubmitted),
        ("ACCEPT", Pending),
        ("SUCCESS", RefusedByProvider),
        ("REFUND", RefusedByProvider),
    ],
)
def test_what_a_state_says_of_a_cancellation(state: str, kind: type) -> None:
    assert isinstance(read(Cancel(**ids()), state), kind)


@pytest.mark.parametrize(
    ("trade_state", "trade_type", "reverse"),
    [("NOTPAY", None, False), ("NOTPAY", "NATIVE", False), ("NOTPAY", "MICROPAY", True), ("USERPAYING", None, True)],
)
def test_payments_by_code_are_reversed(trade_state: str, trade_type: str | None, reverse: bool) -> None:
    assert mapping.to_reverse({"trade_state": trade_state, "trade_type": trade_type}) is reverse


# What has to fit.


@pytest.mark.parametrize(
    "change",
    [
        {"mchid": "1900000110"},
        {"appid": "wx0000000000000000"},
        {"out_trade_no": "att_other"},
        {"attach": "pay_other"},
        {"amount": {"total": 651, "currency": "CNY"}},
        {"amount": {"total": 600, "payer_total": 650, "currency": "CNY"}},
        {"amount": {"total": 650, "currency": "HKD"}},
    ],
)
@pytest.mark.parametrize("state", ["SUCCESS", "NOTPAY"])
def test_what_differs_does_not_fit(change: dict[str, Any], state: str) -> None:
    assert isinstance(read(authorise("native"), state, **change), Mismatched)


@pytest.mark.parametrize(
    "change",
    [
        {"mchid": None},
        {"appid": None},
        {"out_trade_no": None},
        {"attach": None},
        {"amount": None},
        {"amount": 650},
        {"amount": {"total": 650}},
        {"amount": {"total": "650", "currency": "CNY"}},
        {"amount": {"total": 650.0, "currency": "CNY"}},
        {"amount": {"total": True, "currency": "CNY"}},
        {"amount": {"total": 650, "currency": 156}},
    ],
)
def test_what_is_missing_from_a_paid_order_is_unknown(change: dict[str, Any]) -> None:
    assert isinstance(read(authorise(), **change), Unknown)


def test_an_unpaid_order_says_less() -> None:
    amount = {"total": 650, "payer_currency": "CNY"}
    outcome = read(authorise("native"), "NOTPAY", attach=None, appid=None, amount=amount)
    assert isinstance(outcome, Actionable)


def test_coupons_do_not_change_what_was_paid() -> None:
    amount = {"total": 650, "payer_total": 0, "currency": "CNY", "payer_currency": "CNY"}
    assert isinstance(read(authorise(), amount=amount), Succeeded)


# Refunds: pay.weixin.qq.com/doc/v3/merchant/4012587971.


def refund(amount: int = 200) -> Refund:
    return Refund(**ids(), amount=Money(minor=amount, currency="CNY"))


def refunded(status: object = "SUCCESS", **change: Any) -> dict[str, Any]:
    amount = {"refund": 200, "total": 650, "currency": "CNY", **change.pop("amount", {})}
    return {"out_trade_no": REFERENCE, "out_refund_no": REFERENCE, "status": status, "amount": amount, **change}


def test_states_of_a_refund() -> None:
    command = refund()
    done = Succeeded(reference=REFERENCE, total=command.amount, captured=True)
    assert mapping.read_refund(refunded(), command) == done
    assert mapping.read_refund(refunded("PROCESSING"), command) == Pending(reference=REFERENCE)
    assert isinstance(mapping.read_refund(refunded("CLOSED"), command), Declined)
    # The merchant's money is gone, and the payer does not have it.
    assert isinstance(mapping.read_refund(refunded("ABNORMAL"), command), Unknown)
    for status in ("FINISHED", None, 7):
        assert isinstance(mapping.read_refund(refunded(status), command), Unknown)


@pytest.mark.parametrize(
    "change",
    [
        {"out_trade_no": "other"},
        {"out_refund_no": "other"},
        {"amount": {"refund": 201}},
        {"amount": {"total": 651}},
        {"amount": {"currency": "HKD"}},
    ],
)
def test_another_refund_does_not_fit(change: dict[str, Any]) -> None:
    assert isinstance(mapping.read_refund(refunded(**change), refund()), Mismatched)


@pytest.mark.parametrize(
    "answer", [{}, {"out_trade_no": REFERENCE}, refunded(amount={"refund": None}), refunded(amount={"total": "650"})]
)
def test_an_incomplete_refund_is_unknown(answer: dict[str, Any]) -> None:
    assert isinstance(mapping.read_refund(answer, refund()), Unknown)


# Error codes.


def test_every_documented_code_is_mapped() -> None:
    """The tables of the documents that mapping.py names, call by call, as read for this test; a code may have lost or won an
    underscore between them."""
    orders = """ACCOUNT_ERROR APPID_MCHID_NOT_MATCH BANK_ERROR FREQUENCY_LIMITED INVALID_REQUEST INVALID_TRANSACTIONID
        MCH_NOT_EXISTS NO_AUTH NOT_ENOUGH OPENID_MISMATCH ORDER_CLOSED ORDER_NOT_EXIST OUT_TRADE_NO_USED PARAM_ERROR RULE_LIMIT
        SIGN_ERROR SYSTEM_ERROR TRADE_ERROR USERPAYING"""
    earlier = "ACCOUNTERROR BANKERROR NOAUTH NOTENOUGH ORDERNOTEXIST RULELIMIT SYSTEMERROR ORDERPAID ORDERCLOSED SIGNERROR"
    by_code = "AUTHCODEEXPIRE AUTH_CODE_ERROR AUTH_CODE_INVALID BUYER_MISMATCH NOTSUPORTCARD ORDERREVERSED LACK_PARAMS"
    refunds = """SYSTEM_ERROR USER_ACCOUNT_ABNORMAL NOT_ENOUGH PARAM_ERROR MCH_NOT_EXISTS RESOURCE_NOT_EXISTS SIGN_ERROR
        FREQUENCY_LIMITED INVALID_REQUEST NO_AUTH"""
    documented = set(f"{orders} {earlier} {by_code} {refunds}".split())
    assert documented <= set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_an_outcome(code: str) -> None:
    outcome = mapping.refused(code, authorise())
    expected = {
        Verdict.DECLINED: Declined,
        Verdict.REFUSED: RefusedByProvider,
        Verdict.MISSING: RefusedByProvider,
        Verdict.WAITING: Actionable,
        Verdict.ASK: Unknown,
        Verdict.UNSURE: Unknown,
    }
    assert isinstance(outcome, expected[mapping.verdict(code)])
    assert outcome.reference == REFERENCE
    # Nobody waits for a payer who is to get money back, and a bank declines no cancellation.
    assert not isinstance(mapping.refused(code, refund()), Actionable)
    assert isinstance(mapping.refused(code, Cancel(**ids())), RefusedByProvider | Unknown)


@pytest.mark.parametrize("answer", [{"code": "BRAND_NEW"}, {"code": 7}, {"code": "no code"}, {"code": "x" * 999}, {}])
def test_an_undocumented_code_is_unknown(answer: dict[str, Any]) -> None:
    outcome = mapping.refused(mapping.error_code(answer), authorise())
    assert isinstance(outcome, Unknown) and len(outcome.reason) < 100


def test_what_says_that_nothing_is_there() -> None:
    assert mapping.no_such_order("ORDER_NOT_EXIST") and mapping.no_such_order("ORDERNOTEXIST")
    assert mapping.no_such_refund("RESOURCE_NOT_EXISTS")
    for code in ("RESOURCE_NOT_EXISTS", "SYSTEM_ERROR", "PARAM_ERROR", "unreadable"):
        assert not mapping.no_such_order(code)
    for code in ("ORDER_NOT_EXIST", "SYSTEM_ERROR", "PARAM_ERROR", "unreadable"):
        assert not mapping.no_such_refund(code)


# Requests.


def test_how_payers_pay() -> None:
    code = mapping.means_of(authorise("auth_code:134567890123456789").payer)
    assert code is not None and (code.way, code.payer, code.by_code) == ("codepay", {"auth_code": "134567890123456789"}, True)
    inside = mapping.means_of(authorise("jsapi", "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o").payer)
    assert inside is not None and (inside.way, inside.payer) == ("jsapi", {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"})
    shown = mapping.means_of(authorise("native").payer)
    assert shown is not None and (shown.way, shown.payer) == ("native", None)


@pytest.mark.parametrize(
    "method",
    [
        "",
        "Native",
        "native:",
        "native ",
        "jsapi:x",
        "auth_code",
        "auth_code:",
        "auth_code:13456789012345678",
        "auth_code:1345678901234567890",
        "auth_code:334567890123456789",
        "auth_code:１３４５６７８９０１２３４５６７８９",
        "auth_code:134567890123456789\n",
    ],
)
def test_nobody_pays_otherwise(method: str) -> None:
    assert mapping.means_of(authorise(method).payer) is None


def test_an_order_as_it_is_sent() -> None:
    command = authorise()
    means = mapping.means_of(command.payer)
    assert means is not None
    body = mapping.order(command, means, mchid=MCHID, appid=APPID, store_id="7", notify_url="https://pay.example/notify")
    assert body == {
        "appid": APPID,
        "mchid": MCHID,
        "description": "Milk",
        "out_trade_no": REFERENCE,
        "attach": command.payment_id,
        "amount": {"total": 650, "currency": "CNY"},
        "payer": {"auth_code": "130000000000000000"},
        "scene_info": {"store_info": {"out_id": "7"}},
    }


# Bills.

PAID = Order(
    REFERENCE,
    "codepay",
    650,
    "Milk, organic",
    "pay_1",
    "o1",
    None,
    "REFUND",
    transaction_id="42",
    paid_at="2026-11-22T09:00:00+08:00",
)
GIVEN = GivenBack("att_refund", 200, "50", "2026-11-22T10:30:00+08:00")
REVERSED = GivenBack("0", 450, "51", "2026-11-22T11:00:00+08:00")


def made() -> str:
    return bill([(PAID, None), (PAID, GIVEN), (PAID, REVERSED)], MCHID, APPID).decode()


def test_a_bill_is_read() -> None:
    lines = mapping.read_bill(made(), MCHID)
    assert [(line.kind, line.attempt_id, line.amount.minor) for line in lines] == [
        ("payment", REFERENCE, 650),
        ("refund", "att_refund", 200),
        ("refund", None, 450),
    ]
    assert {line.reference for line in lines} == {REFERENCE}
    assert lines[1].occurred_at == datetime.fromisoformat("2026-11-22T10:30:00+08:00")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("订单金额", "金额"),
        ("`6.50", "`6.501"),
        ("`6.50", "`six"),
        ("`6.50", "`NaN"),
        ("`6.50", "`6_0.50"),
        ("`6.50", "`65e-1"),
        ("`6.50", "`-6.50"),
        ("`CNY", "`XXX1"),
        (MCHID, "1900000110"),
        ("`MICROPAY,`SUCCESS", "`MICROPAY,`PENDING"),
        ("2026-11-22 09:00:00", "yesterday"),
        ("总交易单数", "总数"),
        ("\r\n`3,", "\r\n`2,"),
        ("`Milk, organic", "`Milk,`organic"),
        ("`2026", "2026"),
    ],
)
def test_a_bill_that_is_not_whole_is_no_bill(old: str, new: str) -> None:
    text = made()
    assert old in text
    with pytest.raises(Unreadable):
        mapping.read_bill(text.replace(old, new), MCHID)


@pytest.mark.parametrize("cut", range(40, 900, 37))
def test_a_bill_that_is_cut_is_no_bill(cut: int) -> None:
    with pytest.raises(Unreadable):
        mapping.read_bill(made()[:-cut], MCHID)


def test_what_is_no_bill_is_refused() -> None:
    for text in ("", "\ufeff", "hello", '{"code": "PARAM_ERROR"}', "\n" * 200_001):
        with pytest.raises(Unreadable):
            mapping.read_bill(text, MCHID)


def test_amounts_of_bills_are_exact() -> None:
    assert mapping.read_bill(made(), MCHID)[0].amount == Money.from_major(Decimal("6.50"), "CNY")
