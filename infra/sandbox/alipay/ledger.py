"""What the gateway knows: payers and trades, and what may be done with them. No network, no signatures.

Amounts are fen. With a journal, each change is one appended line, and the last line of a trade or payer counts.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any, Literal
from zoneinfo import ZoneInfo

from infra.sandbox.alipay.keys import SELLER_ID

ZONE = ZoneInfo("Asia/Shanghai")
Kind = Literal["ok", "declined", "needs_action", "code"]
_SHOW_A_CODE = frozenset({"needs_action", "code"})

_AMOUNT = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{1,2})?", re.ASCII)
_NUMBER = re.compile(r"[A-Za-z0-9_]{1,64}", re.ASCII)
_TIMEOUT = re.compile(r"([1-9][0-9]{0,4})([mhd])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_CANCELLED = "cancelled"

WAIT, SUCCESS, CLOSED = "WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_CLOSED"


class Refused(Exception):
    """Alipay's business error: `code` is its `sub_code`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Payer:
    """`number` is that of the agreement, or the code the phone shows; of kind `code` the phone does not ask. A code is good for
    one trade: `used_for`."""

    number: str
    customer: str
    kind: Kind
    used_for: str | None = None


@dataclass
class Refund:
    request_no: str
    amount: int
    at: datetime


@dataclass
class Trade:
    """`scanned` is false while only a code was made for it: then Alipay does not know it yet."""

    out_trade_no: str
    trade_no: str
    total: int
    subject: str
    body: str
    payer: str
    notify_url: str
    created_at: datetime
    closes_at: datetime
    status: str = WAIT
    scanned: bool = True
    paid_at: datetime | None = None
    closed_at: datetime | None = None
    refunds: list[Refund] = field(default_factory=list)

    @property
    def refunded(self) -> int:
        return sum(refund.amount for refund in self.refunds)


@dataclass(frozen=True)
class Done:
    """The fields of an answer. `changed`: the trade of which a notification is due, with the refund it is about, if any."""

    fields: dict[str, Any]
    waiting: bool = False
    changed: Trade | None = None
    refund: Refund | None = None


class Books:
    def __init__(self, journal: Path | None = None) -> None:
        self.trades: dict[str, Trade] = {}
        self.payers: dict[str, Payer] = {}
        self._random = SystemRandom()
        if journal and journal.exists():
            self._replay(journal)
        self._journal = journal.open("a", encoding="utf-8", buffering=1) if journal else None
        if self._journal and self._journal.tell():
            self._journal.write("\n")  # the last line may have been cut short

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    # Payers, and what they do on their phones.

    def new_payer(self, kind: Kind) -> Payer:
        digits = "".join(str(self._random.randrange(10)) for _ in range(16))
        number = f"28{digits}" if kind in _SHOW_A_CODE else f"2026{digits}"
        payer = Payer(number, f"2088{digits[:12]}", kind)
        self.payers[number] = payer
        self._write("payer", asdict(payer))
        return payer

    def confirm(self, out_trade_no: str, *, success: bool) -> Trade | None:
        """None where nothing waits for the payer."""
        trade = self._current(out_trade_no)
        if trade is None or trade.status != WAIT:
            return None
        trade.scanned = True
        self._take(trade) if success else self._close(trade)
        return trade

    # The calls.

    def pay(self, content: dict[str, Any], notify_url: str) -> Done:
        number, total = self._order(content)
        payer = self._payer(content, number)
        known = self._current(number)
        if known is not None and known.scanned:
            self._same(known, content, total)
            if known.payer != payer.number:
                raise Refused("ACQ.TRADE_BUYER_NOT_MATCH")
            trade = known
        else:
            if payer.kind == "declined":
                raise Refused("ACQ.BUYER_BALANCE_NOT_ENOUGH")
            trade = self._new(content, number, total, payer.number, notify_url)
        if payer.kind in _SHOW_A_CODE:
            payer.used_for = number
            self._write("payer", asdict(payer))
        if payer.kind == "needs_action":
            return Done(self._about(trade), waiting=True)
        self._take(trade)
        return Done(self._about(trade) | {"gmt_payment": clock(trade.paid_at)}, changed=trade)

    def precreate(self, content: dict[str, Any], notify_url: str) -> Done:
        number, total = self._order(content)
        if content.get("product_code") not in {None, "QR_CODE_OFFLINE", "FACE_TO_FACE_PAYMENT"}:
            raise Refused("ACQ.INVALID_PARAMETER")
        known = self._current(number)
        if known is not None:
            self._same(known, content, total)
        else:
            self._new(content, number, total, "", notify_url, scanned=False)
        return Done({"out_trade_no": number, "qr_code": f"https://qr.alipay.com/sandbox{number}"})

    def query(self, content: dict[str, Any]) -> Done:
        trade = self._known(content)
        fields = self._about(trade) | {"trade_status": trade.status}
        return Done(fields | ({"send_pay_date": clock(trade.paid_at)} if trade.paid_at else {}))

    def cancel(self, content: dict[str, Any]) -> Done:
        """Closes a trade that was not paid, gives back what was; says nothing of an action where there is no such trade."""
        number = self._number(content, "out_trade_no")
        trade = self._current(number)
        fields: dict[str, Any] = {"out_trade_no": number, "retry_flag": "N"}
        if trade is None or not trade.scanned:
            return Done(fields)
        fields["trade_no"] = trade.trade_no
        if trade.status == CLOSED:
            return Done(fields | {"action": "refund" if trade.refunds else "close"})
        if trade.status == WAIT:
            self._close(trade)
            return Done(fields | {"action": "close"}, changed=trade)
        if datetime.now(ZONE) - trade.created_at > timedelta(hours=24):
            raise Refused("ACQ.TRADE_CANCEL_TIME_OUT")
        refund = self._give_back(trade, _CANCELLED, trade.total - trade.refunded)
        return Done(fields | {"action": "refund"}, changed=trade, refund=refund)

    def refund(self, content: dict[str, Any]) -> Done:
        trade = self._known(content)
        amount = _amount(content.get("refund_amount"))
        request_no = self._number(content, "out_request_no") if "out_request_no" in content else trade.out_trade_no
        if trade.paid_at is None:
            raise Refused("ACQ.TRADE_HAS_CLOSE" if trade.status == CLOSED else "ACQ.TRADE_STATUS_ERROR")
        if "out_request_no" not in content and amount != trade.total:
            raise Refused("ACQ.INVALID_PARAMETER")
        known = next((each for each in trade.refunds if each.request_no == request_no), None)
        if known is not None:
            if known.amount != amount:
                raise Refused("ACQ.DISCORDANT_REPEAT_REQUEST")
            return Done(self._about_refunds(trade, "N"))
        if trade.status == CLOSED:
            raise Refused("ACQ.TRADE_HAS_CLOSE")
        if amount > trade.total - trade.refunded:
            raise Refused("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
        given = self._give_back(trade, request_no, amount)
        return Done(self._about_refunds(trade, "Y"), changed=trade, refund=given)

    def refund_query(self, content: dict[str, Any]) -> Done:
        trade = self._known(content)
        request_no = self._number(content, "out_request_no")
        known = next((each for each in trade.refunds if each.request_no == request_no), None)
        if known is None:
            return Done({})
        return Done(
            {
                "trade_no": trade.trade_no,
                "out_trade_no": trade.out_trade_no,
                "out_request_no": request_no,
                "total_amount": yuan(trade.total),
                "refund_amount": yuan(known.amount),
                "refund_status": "REFUND_SUCCESS",
                "gmt_refund_pay": clock(known.at),
            }
        )

    # What they have in common.

    def _order(self, content: dict[str, Any]) -> tuple[str, int]:
        number = self._number(content, "out_trade_no")
        total = _amount(content.get("total_amount"))
        subject = content.get("subject")
        if not isinstance(subject, str) or not 1 <= len(subject) <= 256 or re.search("[/=&]", subject):
            raise Refused("ACQ.INVALID_PARAMETER")
        if content.get("seller_id", SELLER_ID) != SELLER_ID:
            raise Refused("ACQ.SELLER_NOT_EXIST")
        return number, total

    def _payer(self, content: dict[str, Any], number: str) -> Payer:
        agreed = content.get("agreement_params")
        if isinstance(agreed, dict):
            if content.get("product_code") not in {"GENERAL_WITHHOLDING", "CYCLE_PAY_AUTH"}:
                raise Refused("ACQ.INVALID_PARAMETER")
            payer = self.payers.get(str(agreed.get("agreement_no")))
            if payer is None or payer.kind in _SHOW_A_CODE:
                raise Refused("ACQ.AGREEMENT_NOT_EXIST")
            if content.get("buyer_id", payer.customer) != payer.customer:
                raise Refused("ACQ.PAYER_UNMATCHED")
            return payer
        if content.get("scene") != "bar_code" or "auth_code" not in content:
            raise Refused("ACQ.INVALID_PARAMETER")
        payer = self.payers.get(str(content["auth_code"]))
        if payer is None or payer.kind not in _SHOW_A_CODE or payer.used_for not in {None, number}:
            raise Refused("ACQ.PAYMENT_AUTH_CODE_INVALID")
        return payer

    def _same(self, trade: Trade, content: dict[str, Any], total: int) -> None:
        if trade.total != total or trade.subject != content["subject"]:
            raise Refused("ACQ.CONTEXT_INCONSISTENT")
        if trade.status == CLOSED:
            raise Refused("ACQ.TRADE_HAS_CLOSE")
        if trade.status == SUCCESS:
            raise Refused("ACQ.TRADE_HAS_SUCCESS")

    def _new(
        self, content: dict[str, Any], number: str, total: int, payer: str, notify_url: str, *, scanned: bool = True
    ) -> Trade:
        now = datetime.now(ZONE)
        body = content.get("body")
        trade = Trade(
            out_trade_no=number,
            trade_no=f"{now:%Y%m%d}22001{self._random.randrange(10**15):015d}",
            total=total,
            subject=content["subject"],
            body=body if isinstance(body, str) else "",
            payer=payer,
            notify_url=notify_url,
            created_at=now,
            closes_at=now + _timeout(content.get("timeout_express")),
            scanned=scanned,
        )
        self.trades[number] = trade
        self._keep(trade)
        return trade

    def _take(self, trade: Trade) -> None:
        trade.status, trade.paid_at = SUCCESS, datetime.now(ZONE)
        self._keep(trade)

    def _close(self, trade: Trade) -> None:
        trade.status, trade.closed_at = CLOSED, datetime.now(ZONE)
        self._keep(trade)

    def _give_back(self, trade: Trade, request_no: str, amount: int) -> Refund:
        given = Refund(request_no, amount, datetime.now(ZONE))
        trade.refunds.append(given)
        if trade.refunded == trade.total:
            trade.status, trade.closed_at = CLOSED, given.at
        self._keep(trade)
        return given

    def _known(self, content: dict[str, Any]) -> Trade:
        trade = self._current(self._number(content, "out_trade_no"))
        if trade is None or not trade.scanned:
            raise Refused("ACQ.TRADE_NOT_EXIST")
        return trade

    def _current(self, number: str) -> Trade | None:
        """The trade as it is now: what was not paid in time is closed."""
        trade = self.trades.get(number)
        if trade is not None and trade.status == WAIT and trade.scanned and datetime.now(ZONE) > trade.closes_at:
            self._close(trade)
        return trade

    def _number(self, content: dict[str, Any], name: str) -> str:
        number = content.get(name)
        if not isinstance(number, str) or not _NUMBER.fullmatch(number):
            raise Refused("ACQ.INVALID_PARAMETER")
        return number

    def _about(self, trade: Trade) -> dict[str, Any]:
        amount = yuan(trade.total)
        payer = self.payers.get(trade.payer)
        return {
            "trade_no": trade.trade_no,
            "out_trade_no": trade.out_trade_no,
            "buyer_logon_id": "san***@sandbox.example",
            "buyer_user_id": payer.customer if payer else "",
            "total_amount": amount,
            "receipt_amount": amount if trade.paid_at else "0.00",
            "buyer_pay_amount": amount,
            "point_amount": "0.00",
            "invoice_amount": amount,
            "fund_bill_list": [{"fund_channel": "ALIPAYACCOUNT", "amount": amount}],
        }

    def _about_refunds(self, trade: Trade, changed: str) -> dict[str, Any]:
        return {
            "trade_no": trade.trade_no,
            "out_trade_no": trade.out_trade_no,
            "fund_change": changed,
            "refund_fee": yuan(trade.refunded),
            "send_back_fee": yuan(trade.refunds[-1].amount if changed == "Y" else 0),
        }

    # The journal.

    def _keep(self, trade: Trade) -> None:
        if self._journal:
            self._write("trade", trade_as_json(trade))

    def _write(self, kind: str, content: dict[str, Any]) -> None:
        if self._journal:
            self._journal.write(json.dumps({kind: content}, separators=(",", ":")) + "\n")

    def _replay(self, journal: Path) -> None:
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line or "x")
            except ValueError:
                continue  # killed in the middle of it
            if "payer" in entry:
                payer = Payer(**entry["payer"])
                self.payers[payer.number] = payer
            else:
                trade = _trade_from_json(entry["trade"])
                self.trades[trade.out_trade_no] = trade


def trade_as_json(trade: Trade) -> dict[str, Any]:
    content = asdict(trade)
    for name in ("created_at", "closes_at", "paid_at", "closed_at"):
        content[name] = content[name].isoformat() if content[name] else None
    for refund in content["refunds"]:
        refund["at"] = refund["at"].isoformat()
    return content


def _trade_from_json(content: dict[str, Any]) -> Trade:
    moments = {
        name: datetime.fromisoformat(content[name]) if content[name] else None
        for name in ("created_at", "closes_at", "paid_at", "closed_at")
    }
    refunds = [Refund(each["request_no"], each["amount"], datetime.fromisoformat(each["at"])) for each in content["refunds"]]
    return Trade(**{**content, **moments, "refunds": refunds})


def yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def clock(moment: datetime | None) -> str:
    return f"{moment.astimezone(ZONE):%Y-%m-%d %H:%M:%S}" if moment else ""


def _amount(given: object) -> int:
    text = str(given)
    if not _AMOUNT.fullmatch(text):
        raise Refused("ACQ.INVALID_PARAMETER")
    whole, _, rest = text.partition(".")
    fen = int(whole) * 100 + int(rest.ljust(2, "0") or 0)
    if fen == 0 or fen > 10_000_000_000:
        raise Refused("ACQ.TOTAL_FEE_EXCEED")
    return fen


def _timeout(given: object) -> timedelta:
    read = _TIMEOUT.fullmatch(given) if isinstance(given, str) else None
    return timedelta(**{_UNITS[read[2]]: int(read[1])}) if read else timedelta(days=15)
