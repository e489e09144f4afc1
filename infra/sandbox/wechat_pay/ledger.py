"""The gateway's own books: every order with its refunds, in memory and, line by line, in a journal that a restart reads again."""

import json
import re
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeGuard
from zoneinfo import ZoneInfo

from infra.sandbox.wechat_pay.keys import Keys

ZONE = ZoneInfo("Asia/Shanghai")

ACCEPTED, DECLINED, ASKED = "13", "14", "15"
"""What payment codes begin with whose payers' phones pay, cannot pay, or ask for a password. A real code is good once, for a
minute; here one stands for a payer whose phone shows ever new ones, and is good for any number of orders."""

_OUT_TRADE_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
_AUTH_CODE = re.compile(r"1[0-5][0-9]{16}")
_OPENID = re.compile(r"o[0-9A-Za-z_-]{10,100}")


class Refused(Exception):
    """WeChat Pay's no: HTTP status and code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status = status
        self.code = code


@dataclass
class GivenBack:
    out_refund_no: str
    refund: int
    refund_id: str
    at: str
    notify_url: str | None = None


@dataclass
class Order:
    """`way` is the last part of the address it was made at. Times are RFC 3339, in China."""

    out_trade_no: str
    way: str
    total: int
    description: str
    attach: str | None
    openid: str
    notify_url: str | None
    state: str = "NOTPAY"
    link: str = ""
    transaction_id: str | None = None
    paid_at: str | None = None
    refunds: list[GivenBack] = field(default_factory=list)

    @property
    def trade_type(self) -> str:
        return {"codepay": "MICROPAY", "native": "NATIVE", "jsapi": "JSAPI"}[self.way]

    @property
    def given_back(self) -> int:
        return sum(refund.refund for refund in self.refunds)


class Ledger:
    """`books` is the journal; without one everything is forgotten at the end."""

    def __init__(self, books: Path | None = None) -> None:
        self.orders: dict[str, Order] = {}
        self.refunds: dict[str, tuple[Order, GivenBack]] = {}
        keys: Keys | None = None
        if books is not None and books.exists():
            keys = self._read(books)
        self._journal = books.open("a", encoding="utf-8") if books is not None else None
        if self._journal is not None:
            # What a kill cut off must not take the next line with it; an empty line says nothing.
            self._journal.write("\n")
        self.keys = keys or Keys.new()
        if keys is None:
            self._write("keys", self.keys.dump())

    def end(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def rotate(self) -> None:
        self.keys = self.keys.rotated()
        self._write("keys", self.keys.dump())

    # What the merchant asks for.

    def order(self, way: str, body: dict[str, Any]) -> Order:
        """A new order, or the same again; by code it is paid at once, or not."""
        wanted = self._wanted(way, body)
        known = self.orders.get(wanted.out_trade_no)
        if known is not None:
            return self._again(known, wanted)
        if way == "codepay":
            return self._by_code(wanted, str(body["payer"]["auth_code"]))
        wanted.link = (
            f"weixin://wxpay/bizpayurl?pr={secrets.token_urlsafe(8)}" if way == "native" else f"wx{secrets.token_hex(17)}"
        )
        return self._save(wanted)

    def close(self, out_trade_no: str) -> None:
        order = self.find(out_trade_no)
        if order.way == "codepay":
            raise Refused(400, "INVALID_REQUEST")
        if order.state == "CLOSED":
            raise Refused(400, "ORDER_CLOSED")
        if order.state != "NOTPAY":
            raise Refused(400, "ORDERPAID")
        order.state = "CLOSED"
        self._save(order)

    def reverse(self, out_trade_no: str) -> Order:
        """Closes what is not paid, and gives back what is."""
        order = self.find(out_trade_no)
        if order.way != "codepay":
            raise Refused(400, "INVALID_REQUEST")
        if order.state == "REFUND":
            raise Refused(400, "TRADE_ERROR")
        if order.state == "SUCCESS":
            order.refunds.append(GivenBack("0", order.total, _number(), _now()))
        order.state = "REVOKED"
        return self._save(order)

    def refund(self, body: dict[str, Any]) -> tuple[Order, GivenBack, bool]:
        """The order, the refund, and whether it is new."""
        number, amount = body.get("out_refund_no"), body.get("amount")
        if not isinstance(number, str) or not 1 <= len(number) <= 64 or not isinstance(amount, dict):
            raise Refused(400, "PARAM_ERROR")
        wanted, total, currency = amount.get("refund"), amount.get("total"), amount.get("currency")
        if not _positive(wanted) or not _positive(total) or currency != "CNY":
            raise Refused(400, "PARAM_ERROR")
        order = self.orders.get(str(body.get("out_trade_no")))
        if order is None or order.state not in {"SUCCESS", "REFUND"}:
            raise Refused(404, "RESOURCE_NOT_EXISTS")
        if number in self.refunds:
            other, known = self.refunds[number]
            if other is not order or known.refund != wanted:
                raise Refused(400, "INVALID_REQUEST")
            return order, known, False
        if total != order.total or order.given_back + wanted > order.total:
            raise Refused(400, "INVALID_REQUEST")
        given = GivenBack(number, wanted, _number(), _now(), body.get("notify_url"))
        order.refunds.append(given)
        order.state = "REFUND"
        self._save(order)
        return order, given, True

    def find(self, out_trade_no: str) -> Order:
        if out_trade_no not in self.orders:
            raise Refused(404, "ORDER_NOT_EXIST")
        return self.orders[out_trade_no]

    # What the payer does.

    def confirm(self, out_trade_no: str, *, success: bool) -> bool:
        """Whether something came of it: what is closed or paid stays so, and a native order that is not confirmed can be
        tried again."""
        order = self.find(out_trade_no)
        if order.state not in {"NOTPAY", "USERPAYING"}:
            return False
        if success:
            self._pay(order)
        elif order.state == "USERPAYING":
            order.state = "PAYERROR"
        self._save(order)
        return success

    def moved(self, day: date) -> list[tuple[Order, GivenBack | None]]:
        """The payments (None) and refunds of a day in China."""
        found: list[tuple[Order, GivenBack | None]] = []
        for order in self.orders.values():
            if order.paid_at and order.paid_at.startswith(day.isoformat()):
                found.append((order, None))
            found += [(order, refund) for refund in order.refunds if refund.at.startswith(day.isoformat())]
        return found

    def _wanted(self, way: str, body: dict[str, Any]) -> Order:
        amount, payer, number = body.get("amount"), body.get("payer") or {}, body.get("out_trade_no")
        text, attach, notify = body.get("description"), body.get("attach"), body.get("notify_url")
        if body.get("appid") != self.keys.appid:
            raise Refused(400, "APPID_MCHID_NOT_MATCH")
        good = (
            isinstance(amount, dict)
            and _positive(amount.get("total"))
            and amount.get("currency", "CNY") == "CNY"
            and isinstance(number, str)
            and _OUT_TRADE_NO.fullmatch(number)
            and isinstance(text, str)
            and 1 <= len(text) <= 127
            and (attach is None or (isinstance(attach, str) and len(attach) <= 128))
            and isinstance(payer, dict)
        )
        if way == "codepay":
            store = (body.get("scene_info") or {}).get("store_info")
            good = good and isinstance(store, dict) and bool(store) and bool(_AUTH_CODE.fullmatch(str(payer.get("auth_code"))))
        else:
            good = good and isinstance(notify, str) and notify.startswith("http") and "?" not in notify
        if not good or not isinstance(amount, dict) or not isinstance(payer, dict):
            raise Refused(400, "PARAM_ERROR")
        if way == "jsapi" and not _OPENID.fullmatch(str(payer.get("openid"))):
            raise Refused(400, "OPENID_MISMATCH")
        openid = str(payer["openid"]) if way == "jsapi" else f"o{secrets.token_urlsafe(20)}"
        return Order(str(number), way, amount["total"], str(text), attach, openid, notify)

    def _again(self, known: Order, wanted: Order) -> Order:
        match known.state:
            case "SUCCESS" | "REFUND":
                raise Refused(400, "ORDERPAID")
            case "CLOSED":
                raise Refused(400, "ORDER_CLOSED")
            case "REVOKED":
                raise Refused(400, "ORDER_REVERSED")
            case "USERPAYING":
                raise Refused(202, "USERPAYING")
            case "PAYERROR":
                raise Refused(403, "OUT_TRADE_NO_USED")
        same = ("way", "total", "description", "attach", "notify_url")
        if any(getattr(known, name) != getattr(wanted, name) for name in same):
            raise Refused(400, "INVALID_REQUEST")
        return known

    def _by_code(self, order: Order, auth_code: str) -> Order:
        if auth_code.startswith(ACCEPTED):
            self._pay(order)
            return self._save(order)
        if auth_code.startswith(DECLINED):
            order.state = "PAYERROR"
            self._save(order)
            raise Refused(403, "NOT_ENOUGH")
        if auth_code.startswith(ASKED):
            order.state = "USERPAYING"
            self._save(order)
            raise Refused(202, "USERPAYING")
        raise Refused(400, "AUTH_CODE_EXPIRE")

    def _pay(self, order: Order) -> None:
        order.state, order.transaction_id, order.paid_at = "SUCCESS", _number(), _now()

    # The journal.

    def _save(self, order: Order) -> Order:
        self._keep(order)
        self._write("order", asdict(order))
        return order

    def _keep(self, order: Order) -> None:
        self.orders[order.out_trade_no] = order
        for refund in order.refunds:
            if refund.out_refund_no != "0":
                self.refunds[refund.out_refund_no] = (order, refund)

    def _write(self, kind: str, what: dict[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(json.dumps({kind: what}, ensure_ascii=False, separators=(",", ":")) + "\n")
            self._journal.flush()

    def _read(self, books: Path) -> Keys | None:
        keys = None
        for line in books.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # empty, or cut off as the gateway was killed while it wrote
            if "keys" in entry:
                keys = Keys.load(entry["keys"])
            else:
                order = entry["order"]
                self._keep(Order(**{**order, "refunds": [GivenBack(**refund) for refund in order["refunds"]]}))
        return keys


def _positive(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number() -> str:
    return f"42000{secrets.randbelow(10**23):023}"


def _now() -> str:
    return datetime.now(UTC).astimezone(ZONE).isoformat(timespec="seconds")
