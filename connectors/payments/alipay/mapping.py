"""Alipay's words ↔ ours. Pure: plain values in, plain values out. What its error codes mean is in codes.py.

Source of the fields: Alipay's OpenAPI document of 2026-09-23, as in the models of github.com/alipay/alipay-sdk-java-all (v3), and
for notifications docs.open.alipay.com/204/105301 and /270/105902; read 2026-11.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from connectors.payments.alipay.codes import Call, Verdict, verdict
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
    ProviderEvent,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

NAME = "alipay"
CURRENCY = "CNY"
ZONE = ZoneInfo("Asia/Shanghai")

# How long a payer has. A trade that is not paid by then is closed by Alipay too, as a second safety behind our own cancellation.
CODE_WITHIN_S = 60
CODE_TIMEOUT = "2m"
PRECREATED_WITHIN_S = 600
PRECREATED_QR_TIMEOUT, PRECREATED_TIMEOUT = "5m", "4m"

LARGEST_MINOR = 10_000_000_000

Json = Mapping[str, Any]

_REFERENCE = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_AGREEMENT = re.compile(r"agreement:([A-Za-z0-9_]{1,64})", re.ASCII)
_AUTH_CODE = re.compile(r"auth_code:((?:2[5-9]|30)[0-9]{14,22})", re.ASCII)
_BUYER = re.compile(r"2088[0-9]{12}", re.ASCII)
_CODE = re.compile(r"[A-Za-z0-9._-]{1,80}", re.ASCII)
_AMOUNT = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,2})?", re.ASCII)
_QR = re.compile(r"https://[\x21-\x7e]{1,500}", re.ASCII)
# What Alipay does not take in a title, and what would shift the columns of its bill.
_NOT_IN_A_TITLE = re.compile(r"[/=&,\x00-\x1f\x7f]")
_PAID = frozenset({"TRADE_SUCCESS", "TRADE_FINISHED"})


class How(StrEnum):
    AGREEMENT = "agreement"  # money is taken from a wearer who agreed to it beforehand
    CODE = "auth_code"  # the wearer's phone shows a code
    PRECREATED = "precreate"  # the wearer's phone scans a code


@dataclass(frozen=True)
class Method:
    """A payer's `payment_method`, understood. `number` is the agreement's, or the code's."""

    how: How
    number: str = field(default="", repr=False)


def method_of(payment_method: str) -> Method | None:
    """`agreement:<number>`, `auth_code:<16 to 24 digits>` or `precreate`; None for anything else."""
    if payment_method == How.PRECREATED:
        return Method(How.PRECREATED)
    if agreed := _AGREEMENT.fullmatch(payment_method):
        return Method(How.AGREEMENT, agreed[1])
    if shown := _AUTH_CODE.fullmatch(payment_method):
        return Method(How.CODE, shown[1])
    return None


def refusal(command: Authorise, key: str) -> RefusedByProvider | None:
    """Why Alipay would never take this, or None."""
    if command.total.currency != CURRENCY:
        return _refused(None, "currency_not_supported", "Alipay takes payments in CNY only.")
    if command.total.minor > LARGEST_MINOR:
        return _refused(None, "amount_not_representable", "Alipay takes at most 100,000,000.00 CNY.")
    if not command.capture:
        return _refused(None, "reservation_not_offered", "With Alipay money is taken at once; it is not reserved first.")
    if method_of(command.payer.payment_method) is None:
        return _refused(None, "payment_method_unknown", "The means of payment is not one that Alipay has.")
    if not _REFERENCE.fullmatch(key):
        return _refused(None, "reference_not_representable", "A reference has up to 64 letters, digits and underscores.")
    return None


# To Alipay.


def payment(command: Authorise, *, seller_id: str, agreement_product: str) -> tuple[Call, dict[str, Any]]:
    """The call that pays, and its content. The command must have passed `refusal`. Our payment's id goes along as `body`, so that
    the merchant's own books at Alipay name it."""
    method = method_of(command.payer.payment_method)
    if method is None:
        raise ValueError("the means of payment is unknown")
    content: dict[str, Any] = {
        "out_trade_no": command.reference,
        "total_amount": to_alipay(command.total),
        "subject": title(command.description),
        "body": command.payment_id,
        "seller_id": seller_id,
    }
    if method.how is How.PRECREATED:
        return Call.PRECREATE, {
            **content,
            "product_code": "QR_CODE_OFFLINE",
            "timeout_express": PRECREATED_TIMEOUT,
            "qr_code_timeout_express": PRECREATED_QR_TIMEOUT,
        }
    if method.how is How.CODE:
        how = {"product_code": "FACE_TO_FACE_PAYMENT", "scene": "bar_code", "auth_code": method.number}
        return Call.PAY, {**content, **how, "timeout_express": CODE_TIMEOUT}
    agreed = {"product_code": agreement_product, "agreement_params": {"agreement_no": method.number}}
    buyer = {"buyer_id": command.payer.customer} if _BUYER.fullmatch(command.payer.customer) else {}
    return Call.PAY, {**content, **agreed, **buyer}


def refund(command: Refund) -> dict[str, Any]:
    """The attempt's id is the request's number: the same number again gives nothing back a second time."""
    return {
        "out_trade_no": command.reference,
        "refund_amount": to_alipay(command.amount),
        "out_request_no": command.attempt_id,
    }


def to_alipay(money: Money) -> str:
    """In yuan with two digits."""
    if money.currency != CURRENCY:
        raise ValueError("Alipay takes payments in CNY only")
    return f"{money.major:.2f}"


def from_alipay(amount: object) -> Money:
    """Raises ValueError where it is not an amount in yuan: digits, and at most two after a point. What Python takes for a number
    is more (`1_0.00`, `1e2`)."""
    if not isinstance(amount, str | Decimal | int) or isinstance(amount, bool) or not _AMOUNT.fullmatch(str(amount)):
        raise ValueError("not an amount")
    return Money.from_major(Decimal(amount), CURRENCY)


def title(text: str) -> str:
    """What the payer sees, without what Alipay does not take; never empty."""
    return " ".join(_NOT_IN_A_TITLE.sub(" ", text).split())[:256] or "-"


# From Alipay.


@dataclass(frozen=True)
class Answer:
    """A verified answer of either protocol. `code` is empty where it is neither an error nor waiting."""

    fields: Json = field(repr=False)
    waiting: bool = False
    code: str = ""


def v1_answer(content: Json) -> Answer:
    """10000 is done, 10003 waits for the payer; the rest are errors, of which 20000 never says that nothing happened."""
    code, detail = _clean(content.get("code")), content.get("sub_code")
    if code == "10000" and not detail:
        return Answer(content)
    if code == "10003":
        return Answer(content, waiting=True)
    if code == "40005":
        return Answer(content, code="isv.app-call-limited")
    if code in {"20001", "40001", "40002", "40003", "40004", "40006"}:
        return Answer(content, code=_clean(detail))
    return Answer(content, code="isp.unknow-error")


def v3_answer(status: int, content: Json) -> Answer:
    """200 is done, 202 was accepted and waits; 4xx are errors whose code says more."""
    if status == 200 and "code" not in content:
        return Answer(content)
    if status == 202:
        return Answer(content, waiting=True)
    if status == 429:
        return Answer(content, code="app-call-limited")
    if 400 <= status < 500:
        return Answer(content, code=_clean(content.get("code")))
    return Answer(content, code="unknow-error")


def error(call: Call, answer: Answer, reference: str) -> Outcome | None:
    """What an error says of a call that moves money; None where only the trade can tell (or there is none). A refusal is one of
    this request only: what an earlier one did, the trade has to be asked for all the same."""
    said = verdict(call, answer.code)
    if said is Verdict.DECLINED:
        return Declined(reference=reference, code=answer.code, message="The payer's wallet, bank or agreement did not allow it.")
    if said is Verdict.REFUSED:
        return _refused(reference, answer.code, "Alipay did not accept the request.")
    if said is Verdict.ASK:
        return None
    return unclear(answer, reference)


def unclear(answer: Answer, reference: str) -> Unknown:
    return Unknown(reference=reference, reason=f"Alipay answered {answer.code or 'something else than was asked for'}")


def read_payment(answer: Answer, command: Authorise, *, seller_id: str) -> Outcome | None:
    """What the answer to a payment says; None where it is no error, but does not say enough: then the trade has to be asked.

    A payment that was made says when. The answer to another question, though about the same trade, does not."""
    reference = command.reference or ""
    if answer.waiting:
        # Whatever else it may say: nothing is paid before Alipay is asked again.
        return _foreign(answer.fields, reference, seller_id, required=False) or _waiting(command)
    if (wrong := _foreign(answer.fields, reference, seller_id)) is not None:
        return wrong
    if not answer.fields.get("gmt_payment") or "trade_status" in answer.fields:
        return None
    return _other_amount(answer.fields, "total_amount", command.total, reference) or _taken(command.total, reference)


def read_precreated(answer: Answer, command: Authorise) -> Outcome:
    """The code that the wearer's phone is to scan."""
    reference = command.reference or ""
    if (wrong := _foreign(answer.fields, reference, None)) is not None:
        return wrong
    code = answer.fields.get("qr_code")
    if not isinstance(code, str) or not _QR.fullmatch(code):
        return Unknown(reference=reference, reason="Alipay's answer has no code to scan")
    return Actionable(reference=reference, url=code, within_s=PRECREATED_WITHIN_S)


def read_trade(answer: Answer, command: Authorise | Cancel, reference: str, *, seller_id: str) -> Outcome:
    """What a trade says of the command."""
    wrong = _foreign(answer.fields, reference, seller_id) or _other_amount(
        answer.fields, "total_amount", command.total, reference
    )
    if wrong is not None:
        return wrong
    status = _clean(answer.fields.get("trade_status"))
    if status == "TRADE_CLOSED":
        # Not paid in time, cancelled, or given back in full: in each case nothing is held any more.
        return Cancelled(reference=reference)
    if isinstance(command, Authorise):
        if status in _PAID:
            return _taken(command.total, reference)
        if status == "WAIT_BUYER_PAY":
            return _waiting(command.model_copy(update={"reference": reference}))
    else:
        if status in _PAID:
            return _refused(reference, "trade_already_paid", "The money was taken; it can only be refunded.")
        if status == "WAIT_BUYER_PAY":
            return NotSubmitted(reference=reference)
    return Unknown(reference=reference, reason=f"trade status {status} is not documented")


def read_cancelled(answer: Answer, command: Cancel) -> Outcome:
    """`action` says what was done: the trade was closed, or paid just before and given back. Without it there was no trade."""
    if (wrong := _foreign(answer.fields, command.reference, None)) is not None:
        return wrong
    action = answer.fields.get("action")
    if action in ("close", "refund"):
        return Cancelled(reference=command.reference)
    if answer.fields.get("retry_flag") != "N" or action is not None:
        return Unknown(reference=command.reference, reason="Alipay wants the cancellation to be tried again")
    return NotSubmitted(reference=command.reference)


def read_refund(answer: Answer, command: Refund) -> Outcome:
    """What Alipay knows under the request's number. Without a status "the request was not received, or failed" (its document);
    to try it again under the same number is then safe."""
    reference, fields = command.reference, answer.fields
    if fields.get("refund_status") is None:
        return NotSubmitted(reference=reference)
    if (foreign := _foreign(fields, reference, None)) is not None:
        return foreign
    if fields.get("out_request_no") != command.attempt_id:
        return Mismatched(reference=reference, reason="the answer is about another refund")
    wrong = _other_amount(fields, "refund_amount", command.amount, reference)
    if wrong is None and "total_amount" in fields:
        wrong = _other_amount(fields, "total_amount", command.total, reference)
    if wrong is not None:
        return wrong
    if fields["refund_status"] != "REFUND_SUCCESS":
        return Unknown(reference=reference, reason=f"refund status {_clean(fields['refund_status'])} is not documented")
    return Succeeded(reference=reference, total=command.amount, captured=True)


def read_notification(fields: Mapping[str, str]) -> ProviderEvent | None:
    """From a verified notification about a trade; None where it is about something else. `refund_fee` is all that was given back
    so far, not what this refund gave: no amount is passed on for it. Raises ValueError, KeyError."""
    if fields.get("notify_type") != "trade_status_sync" or not fields.get("out_trade_no"):
        return None
    is_refund = bool(fields.get("gmt_refund") or fields.get("out_biz_no"))
    paid = not is_refund and fields.get("trade_status") in _PAID
    return ProviderEvent(
        provider=NAME,
        event_id=fields["notify_id"],
        kind="refund" if is_refund else "payment",
        reference=fields["out_trade_no"],
        attempt_id=(fields.get("out_biz_no") or None) if is_refund else None,
        amount=from_alipay(fields["total_amount"]) if paid else None,
        note=_clean(fields.get("trade_status")) if fields.get("trade_status") else None,
        occurred_at=moment(fields.get("gmt_refund" if is_refund else "gmt_payment") or fields["notify_time"]),
    )


def moment(text: str) -> datetime:
    """`2026-11-22 20:15:03`, with or without milliseconds, in China. Raises ValueError."""
    return datetime.strptime(text.partition(".")[0], "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE)


def not_found(command: Authorise | Cancel, reference: str) -> Outcome:
    """What it means that Alipay knows no such trade: nothing was submitted. But a code that a phone is to scan is one before any
    trade is; until it was scanned nobody can tell whether it was made, and it could be scanned as long as it lives."""
    if isinstance(command, Authorise):
        method = method_of(command.payer.payment_method)
        if method is not None and method.how is How.PRECREATED:
            return Actionable(reference=reference, url=None, within_s=PRECREATED_WITHIN_S)
    return NotSubmitted(reference=reference)


def _waiting(command: Authorise) -> Actionable:
    method = method_of(command.payer.payment_method)
    scans = method is not None and method.how is How.PRECREATED
    return Actionable(reference=command.reference, url=None, within_s=PRECREATED_WITHIN_S if scans else CODE_WITHIN_S)


def _taken(total: Money, reference: str) -> Succeeded:
    return Succeeded(reference=reference, total=total, captured=True)


def _refused(reference: str | None, code: str, message: str) -> RefusedByProvider:
    return RefusedByProvider(reference=reference, code=code, message=message)


def _foreign(fields: Json, reference: str, seller_id: str | None, *, required: bool = True) -> Mismatched | None:
    """Whether an answer is about another trade or another account."""
    if fields.get("out_trade_no") != reference and (required or "out_trade_no" in fields):
        return Mismatched(reference=reference, reason="the answer is about another trade")
    if seller_id is not None and fields.get("seller_id") not in (None, "", seller_id):
        return Mismatched(reference=reference, reason="the answer is about another seller's account")
    # Only trades that cross a border name currencies at all.
    if any(fields.get(name) not in (None, "", CURRENCY) for name in ("trans_currency", "settle_currency", "pay_currency")):
        return Mismatched(reference=reference, reason=f"the currency is not {CURRENCY}")
    return None


def _other_amount(fields: Json, name: str, expected: Money, reference: str) -> Outcome | None:
    try:
        seen = from_alipay(fields.get(name))
    except ValueError:
        return Unknown(reference=reference, reason=f"{name} cannot be read")
    return None if seen == expected else Mismatched(reference=reference, reason=f"{name} is {seen} instead of {expected}")


def _clean(code: object) -> str:
    """Codes are from closed lists; whatever does not look like one is not repeated."""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "an unreadable code"
