"""WeChat Pay as an ASGI application: API v3 as its documents describe it, for one merchant.

What it does not do like WeChat Pay: it answers an address of this machine, gives money back at once, has the day's bill while the
day lasts, makes payment codes last for ever, and notifies sooner and less often. Everything below `/_sandbox/` is its own.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from infra.sandbox.faults import Fault, Faults, FaultyGateway, control, fault_of
from infra.sandbox.wechat_pay import signing
from infra.sandbox.wechat_pay.bill import bill
from infra.sandbox.wechat_pay.ledger import ZONE, GivenBack, Ledger, Order, Refused
from infra.sandbox.wechat_pay.notify import Notifier, sealed

Json = dict[str, Any]
Handler = Callable[[Request, Json], Awaitable[tuple[int, Json | None]]]

MESSAGES = "sandbox"
"""What every refusal says besides its code: nobody is to read it."""


class Gateway:
    """`ledger` is what it knows."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.faults = Faults()
        self._door = signing.Doorkeeper()
        self._notifier: Notifier | None = None
        self._bills: dict[str, bytes] = {}
        self._also_notify: str | None = None

    def app(self) -> ASGIApp:
        number = "/v3/pay/transactions/out-trade-no/{out_trade_no}"
        routes = [
            *(self._route("POST", f"/v3/pay/transactions/{way}", self._order) for way in ("native", "jsapi", "codepay")),
            self._route("POST", f"{number}/close", self._close),
            self._route("POST", f"{number}/reverse", self._reverse),
            self._route("GET", number, self._query),
            self._route("POST", "/v3/refund/domestic/refunds", self._refund),
            self._route("GET", "/v3/refund/domestic/refunds/{out_refund_no}", self._query_refund),
            self._route("GET", "/v3/certificates", self._certificates),
            self._route("GET", "/v3/bill/tradebill", self._bill),
            Route("/v3/billdownload/file", self._download, methods=["GET"]),
            control(self.faults),
            Route("/_sandbox/ready", _ready, methods=["GET"]),
            Route("/_sandbox/credentials", self._show_credentials, methods=["GET"]),
            Route("/_sandbox/books", self._show_books, methods=["GET"]),
            Route("/_sandbox/confirm", self._confirm, methods=["POST"]),
            Route("/_sandbox/notify", self._notify_also, methods=["POST"]),
            Route("/_sandbox/rotate", self._rotate, methods=["POST"]),
        ]
        return FaultyGateway(Starlette(routes=routes, lifespan=self._lifespan), self.faults)

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._notifier = Notifier()
        try:
            yield
        finally:
            await self._notifier.close()
            self.ledger.end()

    # Letting in, answering.

    def _route(self, method: str, path: str, handle: Handler) -> Route:
        async def talk(request: Request) -> Response:
            body = await request.body()
            if not self._admits(request, body):
                # Only who is let in gets an answer that is signed.
                return JSONResponse({"code": "SIGN_ERROR", "message": MESSAGES}, 401)
            status, answer = await self._handled(request, body, handle)
            content = b"" if answer is None else json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
            keys = self.ledger.keys
            # A merchant who has the public key without a certificate says so.
            serial = keys.public_key_id if request.headers.get("wechatpay-serial") == keys.public_key_id else None
            return Response(content, status, signing.headers(keys.signing, content, serial))

        return Route(path, talk, methods=[method])

    def _admits(self, request: Request, body: bytes) -> bool:
        target = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
        given = request.headers.get("authorization", "")
        return self._door.admits(given, request.method, target, body, self.ledger.keys)

    async def _handled(self, request: Request, body: bytes, handle: Handler) -> tuple[int, Json | None]:
        fault = fault_of(request.scope)
        if fault is Fault.RATE_LIMIT:
            return 429, _error("FREQUENCY_LIMITED")
        try:
            status, answer = await handle(request, _read(body))
        except Refused as no:
            status, answer = no.status, _error(no.code)
        if fault is Fault.UNKNOWN_CODE:
            return 400, _error("SANDBOX_UNDOCUMENTED")
        if fault is Fault.WRONG_AMOUNT and answer is not None and isinstance(answer.get("amount"), dict):
            answer["amount"] = {name: value + 1 if isinstance(value, int) else value for name, value in answer["amount"].items()}
        return status, answer

    # What the merchant asks for.

    async def _order(self, request: Request, body: Json) -> tuple[int, Json | None]:
        self._own(body)
        way = request.url.path.rpartition("/")[2]
        order = self.ledger.order(way, body)
        if way == "codepay":
            self._tell_paid(order, fault_of(request.scope))
            return 200, self._shown(order)
        return 200, {"code_url" if way == "native" else "prepay_id": order.link}

    async def _query(self, request: Request, _: Json) -> tuple[int, Json | None]:
        self._own(dict(request.query_params))
        return 200, self._shown(self.ledger.find(request.path_params["out_trade_no"]))

    async def _close(self, request: Request, body: Json) -> tuple[int, Json | None]:
        self._own(body)
        self.ledger.close(request.path_params["out_trade_no"])
        return 204, None

    async def _reverse(self, request: Request, body: Json) -> tuple[int, Json | None]:
        self._own(body)
        order = self.ledger.reverse(request.path_params["out_trade_no"])
        return 200, {"appid": self.ledger.keys.appid, "mchid": self.ledger.keys.mchid, "out_trade_no": order.out_trade_no}

    async def _refund(self, request: Request, body: Json) -> tuple[int, Json | None]:
        order, refund, new = self.ledger.refund(body)
        url = refund.notify_url or order.notify_url or self._also_notify
        if new and url and self._notifier is not None:
            self._notifier.send(url, self.ledger.keys, "REFUND.SUCCESS", self._told(order, refund), fault_of(request.scope))
        return 200, _shown_refund(order, refund)

    async def _query_refund(self, request: Request, _: Json) -> tuple[int, Json | None]:
        found = self.ledger.refunds.get(request.path_params["out_refund_no"])
        if found is None:
            raise Refused(404, "RESOURCE_NOT_EXISTS")
        return 200, _shown_refund(*found)

    async def _certificates(self, _: Request, __: Json) -> tuple[int, Json | None]:
        keys = self.ledger.keys
        listed = [
            {
                "serial_no": pair.serial,
                "effective_time": pair.certificate.not_valid_before_utc.astimezone(ZONE).isoformat(),
                "expire_time": pair.certificate.not_valid_after_utc.astimezone(ZONE).isoformat(),
                "encrypt_certificate": sealed(keys, pair.certificate_pem.encode(), "certificate"),
            }
            for pair in keys.platform[-2:]
        ]
        return 200, {"data": listed}

    async def _bill(self, request: Request, _: Json) -> tuple[int, Json | None]:
        try:
            day = date.fromisoformat(request.query_params.get("bill_date", ""))
        except ValueError:
            raise Refused(400, "PARAM_ERROR") from None
        if day > datetime.now(UTC).astimezone(ZONE).date():
            raise Refused(400, "INVALID_REQUEST")
        moved = self.ledger.moved(day)
        if not moved:
            raise Refused(400, "NO_STATEMENT_EXIST")
        content = bill(moved, self.ledger.keys.mchid, self.ledger.keys.appid)
        token = secrets.token_urlsafe(32)
        self._bills[token] = content
        url = f"{request.url.scheme}://{request.url.netloc}/v3/billdownload/file?token={token}"
        digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return 200, {"hash_type": "SHA1", "hash_value": digest, "download_url": url}

    async def _download(self, request: Request) -> Response:
        """The file itself; its answer is not signed."""
        content = self._bills.get(request.query_params.get("token", ""))
        if not self._admits(request, b"") or content is None:
            return JSONResponse({"code": "SIGN_ERROR", "message": MESSAGES}, 401)
        return Response(content, media_type="text/plain")

    def _own(self, given: Json) -> None:
        if given.get("mchid") != self.ledger.keys.mchid:
            raise Refused(400, "PARAM_ERROR")

    def _shown(self, order: Order) -> Json:
        """As a query answers: who paid, how and what for is only there once it was paid."""
        shown: Json = {
            "appid": self.ledger.keys.appid,
            "mchid": self.ledger.keys.mchid,
            "out_trade_no": order.out_trade_no,
            "trade_state": order.state,
            "trade_state_desc": MESSAGES,
            "amount": {"total": order.total, "payer_currency": "CNY"},
        }
        if order.transaction_id is not None:
            shown |= {
                "transaction_id": order.transaction_id,
                "trade_type": order.trade_type,
                "bank_type": "OTHERS",
                "success_time": order.paid_at,
                "payer": {"openid": order.openid},
                "amount": {"total": order.total, "payer_total": order.total, "currency": "CNY", "payer_currency": "CNY"},
                **({} if order.attach is None else {"attach": order.attach}),
            }
        return shown

    # Telling the merchant.

    def _tell_paid(self, order: Order, fault: Fault | None) -> None:
        url = order.notify_url or self._also_notify
        if url and self._notifier is not None:
            self._notifier.send(url, self.ledger.keys, "TRANSACTION.SUCCESS", self._shown(order), fault)

    def _told(self, order: Order, refund: GivenBack) -> Json:
        return {
            "mchid": self.ledger.keys.mchid,
            "out_trade_no": order.out_trade_no,
            "transaction_id": order.transaction_id,
            "out_refund_no": refund.out_refund_no,
            "refund_id": refund.refund_id,
            "refund_status": "SUCCESS",
            "success_time": refund.at,
            "user_received_account": "支付用户零钱",
            "amount": {"total": order.total, "refund": refund.refund, "payer_total": order.total, "payer_refund": refund.refund},
        }

    # The sandbox's own.

    async def _show_credentials(self, request: Request) -> Response:
        keys = self.ledger.keys
        public_key = {"platform_public_key": keys.signing.public_pem, "platform_public_key_id": keys.public_key_id}
        return JSONResponse({**keys.credentials(), **public_key} if "public_key" in request.query_params else keys.credentials())

    async def _show_books(self, _: Request) -> Response:
        return JSONResponse([asdict(order) for order in self.ledger.orders.values()])

    async def _confirm(self, request: Request) -> Response:
        given = await request.json()
        try:
            done = self.ledger.confirm(given["out_trade_no"], success=given["success"])
        except Refused as no:
            return JSONResponse(_error(no.code), no.status)
        if done:
            fault = self.faults.choose()
            self._tell_paid(self.ledger.find(given["out_trade_no"]), fault)
        return JSONResponse({"done": done})

    async def _notify_also(self, request: Request) -> Response:
        self._also_notify = (await request.json())["url"]
        return JSONResponse({})

    async def _rotate(self, _: Request) -> Response:
        self.ledger.rotate()
        return JSONResponse({"serial_no": self.ledger.keys.signing.serial})


async def _ready(_: Request) -> Response:
    return JSONResponse({})


def _shown_refund(order: Order, refund: GivenBack) -> Json:
    return {
        "refund_id": refund.refund_id,
        "out_refund_no": refund.out_refund_no,
        "transaction_id": order.transaction_id,
        "out_trade_no": order.out_trade_no,
        "channel": "ORIGINAL",
        "user_received_account": "支付用户零钱",
        "success_time": refund.at,
        "create_time": refund.at,
        "status": "SUCCESS",
        "funds_account": "AVAILABLE",
        "amount": {
            "total": order.total,
            "refund": refund.refund,
            "payer_total": order.total,
            "payer_refund": refund.refund,
            "settlement_total": order.total,
            "settlement_refund": refund.refund,
            "discount_refund": 0,
            "currency": "CNY",
        },
    }


def _read(body: bytes) -> Json:
    try:
        found = json.loads(body) if body else {}
    except ValueError:
        raise Refused(400, "PARAM_ERROR") from None
    if not isinstance(found, dict):
        raise Refused(400, "PARAM_ERROR")
    return found


def _error(code: str) -> Json:
    return {"code": code, "message": MESSAGES}
