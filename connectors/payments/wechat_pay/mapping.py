"""WeChat Pay's words ↔ ours. Pure: plain values in, plain values out.

Amounts are integers in fen. `amount.total` is what the order is for; `payer_total` is less where the payer had coupons, which
somebody else pays for, and is not looked at.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo

from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancel,
    Cancelled,
    Declined,
    Mismatched,
    NotSubmitted,
    Outcome,
    Payer,
    Pending,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    StatementLine,
    Succeeded,
    Unknown,
)

NAME = "wechat_pay"
CURRENCY = "CNY"
ZONE = ZoneInfo("Asia/Shanghai")
"""The days of its bills are days there."""

WITHIN_S = 45
"""For how long a payer who must enter a password on the phone is waited for, after a payment by code. WeChat Pay's guide says to
ask every 5 to 10 s and to reverse after 30 to 45 s ("付款码支付", development guide)."""

Json = Mapping[str, Any]

_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{1,32}")
_AUTH_CODE = re.compile(r"1[0-5][0-9]{16}")
_OPENID = re.compile(r"[0-9A-Za-z_-]{1,128}")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,59}")
_MAX_DESCRIPTION = 127


class Verdict(Enum):
    """What an error code says of the command. `ASK`: it is about the order, which can be asked for. `UNSURE`: it may have
    happened all the same."""

    DECLINED = "declined"
    REFUSED = "refused"
    ASK = "ask"
    WAITING = "waiting"
    MISSING = "missing"
    UNSURE = "unsure"


# The error codes of: JSAPI and native orders, payment by code, query, close, reverse, refund, query of a refund, bills.
# Sources: pay.weixin.qq.com/doc/v3/merchant/4012791877 (native order, 2025-03-31), 4012382150 (payment by code, 2024-12-03),
# 4013070356 (query, 2024-12-27), 4012587971 (refund, 2024-12-18) and docs/merchant/apis/native-payment/get-trade-bill (bill,
# 2025-01-10), each with APIv3's common codes; the tables in the comments of the official SDK wechatpay-go
# (services/refunddomestic, 2025-07-07); and for the payment code's own codes, the predecessor of payment by code ("micropay").
# The same code is written with and without underscores in documents of different years; both occur.
CODES: Mapping[str, tuple[Verdict, str]] = {
    # The payer, the payer's bank, or WeChat Pay's own rules say no.
    "NOT_ENOUGH": (Verdict.DECLINED, "There is not enough money."),
    "NOTENOUGH": (Verdict.DECLINED, "There is not enough money."),
    "ACCOUNT_ERROR": (Verdict.DECLINED, "The payer's account cannot pay."),
    "ACCOUNTERROR": (Verdict.DECLINED, "The payer's account cannot pay."),
    "USER_ACCOUNT_ABNORMAL": (Verdict.DECLINED, "The payer's account is closed or not in order."),
    "TRADE_ERROR": (Verdict.DECLINED, "WeChat Pay turned the payment down."),
    "RULE_LIMIT": (Verdict.DECLINED, "WeChat Pay's rules or limits do not allow the payment."),
    "RULELIMIT": (Verdict.DECLINED, "WeChat Pay's rules or limits do not allow the payment."),
    "AUTH_CODE_EXPIRE": (Verdict.DECLINED, "The payment code has expired: the payer has to show a new one."),
    "AUTHCODE_EXPIRE": (Verdict.DECLINED, "The payment code has expired: the payer has to show a new one."),
    "AUTHCODEEXPIRE": (Verdict.DECLINED, "The payment code has expired: the payer has to show a new one."),
    "AUTH_CODE_INVALID": (Verdict.DECLINED, "The payment code is not valid: the payer has to show a new one."),
    "AUTH_CODE_ERROR": (Verdict.DECLINED, "The payment code is not valid: the payer has to show a new one."),
    "NOT_SUPPORT_CARD": (Verdict.DECLINED, "The payer's card cannot be used for this."),
    "NOTSUPORTCARD": (Verdict.DECLINED, "The payer's card cannot be used for this."),
    "BUYER_MISMATCH": (Verdict.DECLINED, "Another payer has begun to pay this order."),
    # The request itself is not accepted.
    "PARAM_ERROR": (Verdict.REFUSED, "WeChat Pay does not accept a parameter."),
    "INVALID_REQUEST": (Verdict.REFUSED, "WeChat Pay's rules do not allow the request."),
    "LACK_PARAMS": (Verdict.REFUSED, "A parameter is missing."),
    "SIGN_ERROR": (Verdict.REFUSED, "WeChat Pay does not accept the signature."),
    "SIGNERROR": (Verdict.REFUSED, "WeChat Pay does not accept the signature."),
    "NO_AUTH": (Verdict.REFUSED, "The merchant may not do this."),
    "NOAUTH": (Verdict.REFUSED, "The merchant may not do this."),
    "MCH_NOT_EXISTS": (Verdict.REFUSED, "WeChat Pay does not know the merchant."),
    "MCHID_NOT_EXIST": (Verdict.REFUSED, "WeChat Pay does not know the merchant."),
    "APPID_NOT_EXIST": (Verdict.REFUSED, "WeChat Pay does not know the app."),
    "APPID_MCHID_NOT_MATCH": (Verdict.REFUSED, "The app is not bound to the merchant."),
    "OPENID_MISMATCH": (Verdict.REFUSED, "The payer is not one of this app's."),
    "INVALID_TRANSACTIONID": (Verdict.REFUSED, "WeChat Pay does not accept the order's number."),
    # The order decides.
    "ORDERPAID": (Verdict.ASK, "The order was paid before."),
    "ORDER_PAID": (Verdict.ASK, "The order was paid before."),
    "ORDERCLOSED": (Verdict.ASK, "The order is closed."),
    "ORDER_CLOSED": (Verdict.ASK, "The order is closed."),
    "ORDERREVERSED": (Verdict.ASK, "The order was reversed."),
    "ORDER_REVERSED": (Verdict.ASK, "The order was reversed."),
    "OUT_TRADE_NO_USED": (Verdict.ASK, "The order's number was used before."),
    "USERPAYING": (Verdict.WAITING, "The payer has to confirm on the phone."),
    "USER_PAYING": (Verdict.WAITING, "The payer has to confirm on the phone."),
    # There is no such order, or refund.
    "ORDER_NOT_EXIST": (Verdict.MISSING, "There is no such order."),
    "ORDERNOTEXIST": (Verdict.MISSING, "There is no such order."),
    "RESOURCE_NOT_EXISTS": (Verdict.MISSING, "There is no such order, paid, and no such refund."),
    "REFUND_NOT_EXISTS": (Verdict.MISSING, "There is no such refund."),
    # Nobody knows.
    "SYSTEM_ERROR": (Verdict.UNSURE, "WeChat Pay has a fault."),
    "SYSTEMERROR": (Verdict.UNSURE, "WeChat Pay has a fault."),
    "BANK_ERROR": (Verdict.UNSURE, "The payer's bank has a fault."),
    "BANKERROR": (Verdict.UNSURE, "The payer's bank has a fault."),
    "FREQUENCY_LIMITED": (Verdict.UNSURE, "There were too many requests."),
    "FREQUENCY_LIMIT_EXCEED": (Verdict.UNSURE, "There were too many requests."),
    "RATELIMIT_EXCEEDED": (Verdict.UNSURE, "There were too many requests."),
}

NO_BILL = "NO_STATEMENT_EXIST"
BILL_LATER = "STATEMENT_CREATING"
WRONG_CREDENTIALS = frozenset(
    {"SIGN_ERROR", "SIGNERROR", "NO_AUTH", "NOAUTH", "MCH_NOT_EXISTS", "MCHID_NOT_EXIST", "APPID_MCHID_NOT_MATCH"}
)
_NOT_ORDERS = frozenset({"RESOURCE_NOT_EXISTS", "REFUND_NOT_EXISTS"})

_PAID = frozenset({"SUCCESS", "REFUND"})


@dataclass(frozen=True)
class Means:
    """How an order is to be paid: the last part of its address, and what it says of the payer."""

    way: str
    payer: dict[str, str] | None

    @property
    def by_code(self) -> bool:
        return self.way == "codepay"


def means_of(payer: Payer) -> Means | None:
    """`payment_method` is `native` (the payer scans a code that we show), `jsapi` (inside WeChat; `customer` is the payer's
    openid), or `auth_code:` and the 18 digits that the payer's phone shows. None where it is nothing of these."""
    kind, _, code = payer.payment_method.partition(":")
    if kind == "auth_code" and _AUTH_CODE.fullmatch(code):
        return Means("codepay", {"auth_code": code})
    if payer.payment_method == "jsapi" and _OPENID.fullmatch(payer.customer):
        return Means("jsapi", {"openid": payer.customer})
    if payer.payment_method == "native":
        return Means("native", None)
    return None


def not_possible(command: Authorise, key: str) -> RefusedByProvider | None:
    """Why WeChat Pay could never be asked for this, or None."""
    if means_of(command.payer) is None:
        return _refusal("payer_not_representable", "The means of payment is none that WeChat Pay has.")
    if not command.capture:
        return _refusal("capture_later_not_offered", "WeChat Pay takes the money at once; it cannot be reserved.")
    if command.total.currency != CURRENCY:
        return _refusal("currency_not_offered", f"WeChat Pay takes {CURRENCY} here.")
    if not _OUT_TRADE_NO.fullmatch(key):
        return _refusal("reference_not_representable", "An order's number has up to 32 letters, digits and _ - | *.")
    return None


def not_now(command: Authorise, notify_url: str | None) -> RefusedByProvider | None:
    """Why it cannot be asked for as things are set up, or None. It may have been asked for before, when they were not."""
    means = means_of(command.payer)
    if notify_url is None and means is not None and not means.by_code:
        return _refusal("notify_url_missing", "WeChat Pay demands an address for its notifications, and none is set.")
    return None


def _refusal(code: str, message: str) -> RefusedByProvider:
    return RefusedByProvider(reference=None, code=code, message=message)


# Requests.


def order(command: Authorise, means: Means, *, mchid: str, appid: str, store_id: str, notify_url: str | None) -> dict[str, Any]:
    """`attach` is given back with what was paid: by it an order is recognised as this payment's."""
    body: dict[str, Any] = {
        "appid": appid,
        "mchid": mchid,
        "description": command.description[:_MAX_DESCRIPTION],
        "out_trade_no": command.reference,
        "attach": command.payment_id,
        "amount": {"total": command.total.minor, "currency": command.total.currency},
    }
    if means.payer is not None:
        body["payer"] = means.payer
    if means.by_code:
        body["scene_info"] = {"store_info": {"out_id": store_id}}
    else:
        body["notify_url"] = notify_url
    return body


def refund(command: Refund, notify_url: str | None) -> dict[str, Any]:
    """`out_refund_no` is the attempt: however often it is asked for, it is given back once."""
    body: dict[str, Any] = {
        "out_trade_no": command.reference,
        "out_refund_no": command.attempt_id,
        "amount": {"refund": command.amount.minor, "total": command.total.minor, "currency": command.total.currency},
    }
    return body if notify_url is None else {**body, "notify_url": notify_url}


# Answers.


def error_code(answer: Json) -> str:
    """The code of an answer that is an error; what does not look like one is not repeated."""
    code = answer.get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "unreadable"


def verdict(code: str) -> Verdict:
    """An undocumented code proves nothing."""
    return CODES[code][0] if code in CODES else Verdict.UNSURE


def no_such_order(code: str) -> bool:
    return verdict(code) is Verdict.MISSING and code not in _NOT_ORDERS


def no_such_refund(code: str) -> bool:
    return code in _NOT_ORDERS


def refused(code: str, command: Authorise | Cancel | Refund) -> Outcome:
    """What an error code says of a command that was not done before."""
    reference = command.reference
    match verdict(code):
        case Verdict.DECLINED if not isinstance(command, Cancel):
            return Declined(reference=reference, code=code, message=CODES[code][1])
        case Verdict.DECLINED | Verdict.REFUSED | Verdict.MISSING:
            return RefusedByProvider(reference=reference, code=code, message=CODES[code][1])
        case Verdict.WAITING if isinstance(command, Authorise):
            return Actionable(reference=reference, url=None, within_s=WITHIN_S)
        case _:
            return Unknown(reference=reference, reason=f"WeChat Pay answered {code}")


def read_order(answer: Json, command: Authorise | Cancel, mchid: str, appid: str) -> Outcome:
    """What an order says of the command: the answer to a query, or to a payment by code itself."""
    reference = command.reference
    state = _text(answer, "trade_state")
    if (wrong := _foreign(answer, command, mchid, appid, paid=state in _PAID)) is not None:
        return wrong
    if isinstance(command, Cancel):
        return _read_cancelled(command.reference, state)
    match state:
        # An order that money was given back of was paid.
        case "SUCCESS" | "REFUND":
            return Succeeded(reference=reference, total=command.total, captured=True)
        case "NOTPAY":
            means = means_of(command.payer)
            if means is not None and means.by_code:
                # The code was not used, or to no avail; submitting again can take the money once.
                return NotSubmitted(reference=reference)
            return Actionable(reference=reference, url=None)
        case "USERPAYING":
            return Actionable(reference=reference, url=None, within_s=WITHIN_S)
        case "ACCEPT":
            return Pending(reference=reference)
        case "CLOSED" | "REVOKED":
            return Cancelled(reference=reference)
        case "PAYERROR":
            return Declined(reference=reference, code="PAYERROR", message="The payment failed at the payer's side.")
        case other:
            return _undocumented(reference, other)


def _read_cancelled(reference: str, state: str | None) -> Outcome:
    match state:
        case "CLOSED" | "REVOKED":
            return Cancelled(reference=reference)
        case "NOTPAY" | "USERPAYING" | "PAYERROR":
            return NotSubmitted(reference=reference)
        case "ACCEPT":
            return Pending(reference=reference)
        case "SUCCESS" | "REFUND":
            return RefusedByProvider(
                reference=reference, code="ORDERPAID", message="The money was taken; it can only be given back."
            )
        case other:
            return _undocumented(reference, other)


def to_reverse(answer: Json) -> bool:
    """Whether an order is given up by reversing it, as those by code are, rather than by closing it."""
    return answer.get("trade_type") == "MICROPAY" or _text(answer, "trade_state") in {"USERPAYING", "PAYERROR"}


def read_refund(answer: Json, command: Refund) -> Outcome:
    """What a refund says of the command. The outcome's reference stays the payment's, under which it is asked for again."""
    reference = command.reference
    for name, wanted in (("out_trade_no", reference), ("out_refund_no", command.attempt_id)):
        if (seen := answer.get(name)) is None:
            return Unknown(reference=reference, reason=f"the answer has no {name}")
        if seen != wanted:
            return Mismatched(reference=reference, reason=f"the answer's {name} is another")
    amount = _mapping(answer, "amount")
    for name, expected in (("refund", command.amount), ("total", command.total)):
        if (wrong := _other_amount(amount, name, expected, reference)) is not None:
            return wrong
    match _text(answer, "status"):
        case "SUCCESS":
            return Succeeded(reference=reference, total=command.amount, captured=True)
        case "PROCESSING":
            return Pending(reference=reference)
        case "CLOSED":
            return Declined(reference=reference, code="REFUND_CLOSED", message="WeChat Pay closed the refund.")
        case "ABNORMAL":
            # The money has left the merchant and not reached the payer. It can still be sent elsewhere, at WeChat Pay.
            return Unknown(reference=reference, reason="the refund did not reach the payer: see the merchant platform")
        case other:
            return _undocumented(reference, other)


def _foreign(answer: Json, command: Authorise | Cancel, mchid: str, appid: str, *, paid: bool) -> Outcome | None:
    """Why an order is not the command's, or None where it is. What an order says only once it was paid is demanded then, and
    checked where it is said earlier."""
    reference = command.reference
    wanted = {"out_trade_no": reference, "mchid": mchid, "appid": appid, "attach": command.payment_id}
    for name, expected in wanted.items():
        seen = answer.get(name)
        if seen is None and (paid or name in {"out_trade_no", "mchid"}):
            return Unknown(reference=reference, reason=f"the answer has no {name}")
        if seen is not None and seen != expected:
            return Mismatched(reference=reference, reason=f"the answer's {name} is another")
    amount = _mapping(answer, "amount")
    if paid or amount.get("total") is not None:
        return _other_amount(amount, "total", command.total, reference, currency=paid)
    return None


def _other_amount(amount: Json, name: str, expected: Money, reference: str | None, *, currency: bool = True) -> Outcome | None:
    """`currency`: whether it must be said."""
    seen, unit = amount.get(name), amount.get("currency")
    if not isinstance(seen, int) or isinstance(seen, bool) or not (isinstance(unit, str) or (unit is None and not currency)):
        return Unknown(reference=reference, reason=f"the answer's {name} cannot be read")
    if seen != expected.minor:
        return Mismatched(reference=reference, reason=f"{name} is {seen} instead of {expected.minor} fen")
    if (CURRENCY if unit is None else unit) != expected.currency:
        return Mismatched(reference=reference, reason=f"the currency is not {expected.currency}")
    return None


def _undocumented(reference: str | None, state: str | None) -> Unknown:
    shown = state if state is not None and _CODE.fullmatch(state) else "unreadable"
    return Unknown(reference=reference, reason=f"the state {shown} is not documented")


def _text(answer: Json, name: str) -> str | None:
    found = answer.get(name)
    return found if isinstance(found, str) else None


def _mapping(answer: Json, name: str) -> Json:
    found = answer.get(name)
    return found if isinstance(found, Mapping) else {}


# Notifications.


_REFUND_FAILED = frozenset({"REFUND.ABNORMAL", "REFUND.CLOSED"})


class Unreadable(ValueError):
    """Verified, and still not what is documented."""


class OtherAccount(ValueError):
    """It is about another merchant or app."""


def read_event(notification: Json, resource: Json, mchid: str, appid: str) -> ProviderEvent | None:
    """What to ask about, or None where it is about nothing of ours. `resource` is the decrypted part. Raises Unreadable or
    OtherAccount."""
    for name, expected in (("mchid", mchid), ("appid", appid)):
        # A refund's notification names the merchant only.
        if resource.get(name, expected if name == "appid" else None) != expected:
            raise OtherAccount(name)
    kind = notification.get("event_type")
    if not isinstance(kind, str):
        raise Unreadable("event_type")
    if kind != "TRANSACTION.SUCCESS" and not kind.startswith("REFUND."):
        return None
    about_refund = kind != "TRANSACTION.SUCCESS"
    happened = kind == "REFUND.SUCCESS" if about_refund else resource.get("trade_state") == "SUCCESS"
    try:
        return ProviderEvent(
            provider=NAME,
            event_id=notification["id"],
            # A refund that failed may have been taken for one that succeeded, or still be repaired by a person.
            kind="reversal" if kind in _REFUND_FAILED else "refund" if about_refund else "payment",
            reference=resource["out_trade_no"],
            attempt_id=resource.get("out_refund_no") if about_refund else None,
            amount=_notified_amount(resource, "refund" if about_refund else "total") if happened else None,
            note=kind,
            occurred_at=datetime.fromisoformat(notification["create_time"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Unreadable("a field is missing or wrong") from error


def _notified_amount(resource: Json, name: str) -> Money:
    """A refund's notification names no currency: it is the order's, of which there is one."""
    amount = resource["amount"]
    return Money(minor=amount[name], currency=amount["currency"] if name == "total" else amount.get("currency", CURRENCY))


# Bills.

_TIME, _MCHID, _ORDER, _STATE = "交易时间", "商户号", "商户订单号", "交易状态"
_UNIT, _PAID_TOTAL, _REFUND_NO, _REFUNDED = "货币种类", "订单金额", "商户退款单号", "申请退款金额"
_SUMMARY = "总交易单数"
MAX_BILL_LINES = 200_000
_YUAN = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,2})?", re.ASCII)


def read_bill(text: str, mchid: str) -> Sequence[StatementLine]:
    """The lines of a trade bill (`bill_type=ALL`): a heading, a line for each payment and refund whose fields each begin with a
    backtick, and a summary that says how many lines there are. Raises Unreadable where anything is not so: a bill is whole or
    it is none."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or len(lines) > MAX_BILL_LINES:
        raise Unreadable("the bill is empty or too long")
    heading = lines[0].split(",")
    if missing := {_TIME, _MCHID, _ORDER, _STATE, _UNIT, _PAID_TOTAL, _REFUND_NO, _REFUNDED} - set(heading):
        raise Unreadable(f"the bill has {len(missing)} columns less than documented")
    end = next((number for number, line in enumerate(lines) if line.startswith(_SUMMARY)), None)
    if end is None or len(lines) != end + 2:
        raise Unreadable("the bill has no summary at its end")
    summary = _fields(lines[end + 1])
    if len(summary) != len(lines[end].split(",")) or summary[0] != str(end - 1):
        raise Unreadable("the bill's summary does not fit its lines")
    return [_line(heading, _fields(line), mchid) for line in lines[1:end]]


def _fields(line: str) -> list[str]:
    if not line.startswith("`"):
        raise Unreadable("a line of the bill cannot be read")
    return [field.strip() for field in line[1:].split(",`")]


def _decimal(text: str) -> Decimal:
    """What Python takes for a number is more than what a bill may have: `1_0.00`, `1e2`."""
    if not _YUAN.fullmatch(text):
        raise ValueError("not an amount")
    return Decimal(text)


def _line(heading: Sequence[str], fields: Sequence[str], mchid: str) -> StatementLine:
    row = dict(zip(heading, fields, strict=False))
    if len(fields) != len(heading) or row[_MCHID] != mchid:
        raise Unreadable("a line of the bill cannot be read, or is another merchant's")
    given_back = row[_STATE] in {"REFUND", "REVOKED"}
    if not given_back and row[_STATE] != "SUCCESS":
        raise Unreadable("a line of the bill has a state that is not documented")
    try:
        amount = Money.from_major(_decimal(row[_REFUNDED if given_back else _PAID_TOTAL]), row[_UNIT])
        # A reversed payment is given back under no number of ours; an unused field has a zero.
        refund_no = row[_REFUND_NO] if row[_REFUND_NO] not in {"", "0"} else None
        return StatementLine(
            kind="refund" if given_back else "payment",
            reference=row[_ORDER],
            attempt_id=refund_no if given_back else row[_ORDER],
            amount=amount,
            occurred_at=datetime.strptime(row[_TIME], "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE),
        )
    except ValueError as error:
        raise Unreadable("a line of the bill cannot be read") from error
