"""The gateway as an ASGI application: who asks is checked, what is asked is done in the books, what is answered is signed."""

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any, get_args
from urllib.parse import parse_qsl
from uuid import uuid4

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from connectors.payments.alipay import signing
from connectors.payments.alipay.codes import Call
from infra.sandbox.alipay import PATH, bills
from infra.sandbox.alipay.keys import APP_ID, SELLER_ID, Keys
from infra.sandbox.alipay.ledger import ZONE, Books, Done, Kind, Refused, Trade, trade_as_json
from infra.sandbox.alipay.notifications import Notifier
from infra.sandbox.faults import Fault, Faults, FaultyGateway, control, fault_of

NOBODYS_CODE = "ACQ.NOWHERE_DOCUMENTED"
CLOCKS_DIFFER_BY_S = 600
_MOST_NONCES = 200_000
_V3_PATH = re.compile(r"/v3/(alipay(?:/[a-z]+)+)")
_AUTHORIZATION = re.compile(
    r"ALIPAY-SHA256withRSA (app_id=([0-9]+),(?:app_cert_sn=([0-9a-f]+),)?nonce=([^,]{1,64}),timestamp=([0-9]{1,16})),sign=(\S+)"
)
_REQUIRED = {
    "app_id": "isv.missing-app-id",
    "method": "isv.missing-method",
    "sign_type": "isv.missing-signature-type",
    "sign": "isv.missing-signature",
    "timestamp": "isv.missing-timestamp",
    "version": "isv.missing-version",
}


class _Rejected(Exception):
    """By the gateway itself, before any call: `code` without its origin."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Gateway:
    def __init__(self, books: Books, keys: Keys, faults: Faults, notifier: Notifier) -> None:
        self._books = books
        self._keys = keys
        self._faults = faults
        self._notifier = notifier
        self._nonces: dict[str, float] = {}
        self._calls: Mapping[Call, Callable[[dict[str, Any], str], Done]] = {
            Call.PAY: books.pay,
            Call.PRECREATE: books.precreate,
            Call.QUERY: lambda content, _: books.query(content),
            Call.CANCEL: lambda content, _: books.cancel(content),
            Call.REFUND: lambda content, _: books.refund(content),
            Call.REFUND_QUERY: lambda content, _: books.refund_query(content),
        }

    # Gateway v1.

    async def v1(self, request: Request) -> Response:
        body = await request.body()
        parameters: dict[str, str] = {}
        certified = False
        method = ""
        try:
            parameters = _form(request.url.query, body)
            method = parameters.get("method", "")
            certified = "app_cert_sn" in parameters
            self._check_v1(parameters)
            content = _content(parameters.get("biz_content", ""))
            code, fields = self._do_v1(request, Call(method), content, parameters.get("notify_url", ""))
        except _Rejected as rejected:
            code, fields = "40002", {"sub_code": f"isv.{rejected.code}", "sub_msg": "sandbox"}
        return self._answer_v1(method, {"code": code, "msg": _WORDS[code], **fields}, certified=certified)

    def _check_v1(self, parameters: dict[str, str]) -> None:
        for name, code in _REQUIRED.items():
            if not parameters.get(name):
                raise _Rejected(code.removeprefix("isv."))
        if parameters["app_id"] != APP_ID:
            raise _Rejected("invalid-app-id")
        if parameters["sign_type"] != signing.SIGN_TYPE:
            raise _Rejected("invalid-signature-type")
        if parameters["version"] != "1.0":
            raise _Rejected("unsupported-version")
        if parameters.get("charset", "utf-8").lower() != "utf-8":
            raise _Rejected("invalid-charset")
        if parameters.get("format", "JSON").upper() != "JSON":
            raise _Rejected("invalid-format")
        if parameters.get("app_cert_sn", self._keys.app_serial) != self._keys.app_serial:
            raise _Rejected("app-cert-not-exist")
        if "app_cert_sn" in parameters and parameters.get("alipay_root_cert_sn") != self._keys.root_serial:
            raise _Rejected("invalid-alipay-root-cert-sn")
        if not signing.verify(self._keys.app.public_key(), signing.v1_content(parameters), parameters["sign"]):
            raise _Rejected("invalid-signature")
        try:
            sent_at = datetime.strptime(parameters["timestamp"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE).timestamp()
        except ValueError:
            raise _Rejected("invalid-timestamp") from None
        if abs(time.time() - sent_at) > CLOCKS_DIFFER_BY_S:
            raise _Rejected("illegal-timestamp")
        if parameters["method"] not in set(Call):
            raise _Rejected("invalid-method")

    def _do_v1(self, request: Request, call: Call, content: dict[str, Any], notify_url: str) -> tuple[str, dict[str, Any]]:
        fault = fault_of(request.scope)
        if fault is Fault.RATE_LIMIT:
            return "40005", {"sub_code": "isv.app-call-limited", "sub_msg": "sandbox"}
        try:
            done = self._do(request, call, content, notify_url, fault)
        except Refused as refused:
            return "40004", {"sub_code": refused.code, "sub_msg": "sandbox"}
        if fault is Fault.UNKNOWN_CODE:
            return "40004", {"sub_code": NOBODYS_CODE, "sub_msg": "sandbox"}
        return "10003" if done.waiting else "10000", _falsified(done.fields, fault)

    def _answer_v1(self, method: str, fields: dict[str, Any], *, certified: bool) -> Response:
        # Alipay writes slashes with a backslash, so that whoever writes its answers anew cannot verify them.
        signed = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/")
        name = f"{method.replace('.', '_')}_response" if method in set(Call) else "error_response"
        certificate = f'"alipay_cert_sn":"{self._keys.alipay_serial}",' if certified else ""
        signature = signing.sign(self._keys.alipay, signed.encode())
        text = f'{{"{name}":{signed},{certificate}"sign":"{signature}"}}'
        return Response(text.encode(), media_type="text/html;charset=utf-8")

    # v3.

    async def v3(self, request: Request) -> Response:
        body = await request.body()
        certified = False
        try:
            certified = self._check_v3(request, body)
            call = _call_of(request.url.path)
            content = dict(request.query_params) if request.method == "GET" else _content(body.decode("utf-8", "replace"))
            if (request.method == "GET") != (call is Call.BILL):
                raise _Rejected("invalid-method")
            status, fields = self._do_v3(request, call, content)
        except _Rejected as rejected:
            status, fields = 401 if "signature" in rejected.code else 400, {"code": rejected.code, "message": "sandbox"}
        return self._answer_v3(status, fields, certified=certified)

    def _check_v3(self, request: Request, body: bytes) -> bool:
        read = _AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
        if read is None:
            raise _Rejected("missing-signature" if "authorization" not in request.headers else "invalid-signature")
        about, app_id, serial, nonce, timestamp, signature = read.groups()
        if app_id != APP_ID:
            raise _Rejected("invalid-app-id")
        if serial is not None and serial != self._keys.app_serial:
            raise _Rejected("app-cert-not-exist")
        if serial is not None and request.headers.get("alipay-root-cert-sn") != self._keys.root_serial:
            raise _Rejected("invalid-alipay-root-cert-sn")
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        content = signing.v3_request_content(about, request.method, target, body)
        if not signing.verify(self._keys.app.public_key(), content, signature):
            raise _Rejected("invalid-signature")
        now = time.time()
        if abs(now - int(timestamp) / 1000) > CLOCKS_DIFFER_BY_S:
            raise _Rejected("illegal-timestamp")
        if nonce in self._nonces:
            raise _Rejected("invalid-signature")
        self._nonces[nonce] = now
        if len(self._nonces) > _MOST_NONCES:
            del self._nonces[next(iter(self._nonces))]
        return serial is not None

    def _do_v3(self, request: Request, call: Call, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        fault = fault_of(request.scope)
        if fault is Fault.RATE_LIMIT:
            return 429, {"code": "app-call-limited", "message": "sandbox"}
        notify_url = content.pop("notify_url", "")
        try:
            done = self._do(request, call, content, notify_url if isinstance(notify_url, str) else "", fault)
        except Refused as refused:
            return 400, {"code": refused.code, "message": "sandbox", "links": ""}
        if fault is Fault.UNKNOWN_CODE:
            return 400, {"code": NOBODYS_CODE, "message": "sandbox", "links": ""}
        return 202 if done.waiting else 200, _falsified(done.fields, fault)

    def _answer_v3(self, status: int, fields: dict[str, Any], *, certified: bool) -> Response:
        body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/").encode()
        timestamp, nonce = str(int(time.time() * 1000)), uuid4().hex
        signature = signing.sign(self._keys.alipay, signing.v3_answer_content(timestamp, nonce, body))
        headers = {"alipay-timestamp": timestamp, "alipay-nonce": nonce, "alipay-signature": signature}
        if certified:
            headers["alipay-sn"] = self._keys.alipay_serial
        return Response(body, status, headers, media_type="application/json")

    # What both have in common.

    def _do(self, request: Request, call: Call, content: dict[str, Any], notify_url: str, fault: Fault | None) -> Done:
        if call is Call.BILL:
            return self._bill(request, content)
        done = self._calls[call](content, notify_url)
        if done.changed is not None:
            self._notifier.tell(done.changed, done.refund, fault)
        return done

    def _bill(self, request: Request, content: dict[str, Any]) -> Done:
        if content.get("bill_type") != "trade":
            raise Refused("TYPE_NOT_SUPPORTED")
        try:
            day = date.fromisoformat(str(content.get("bill_date")))
        except ValueError:
            raise Refused("INVAILID_ARGUMENTS") from None
        if not bills.has_lines(self._books.trades.values(), day):
            raise Refused("BILL_NOT_EXIST")
        return Done({"bill_download_url": f"{request.base_url}bills/{day.isoformat()}?fileType=csv.zip"})

    async def bill(self, request: Request) -> Response:
        try:
            day = date.fromisoformat(request.path_params["day"])
        except ValueError:
            return Response(status_code=404)
        return Response(bills.make(self._books.trades.values(), day, SELLER_ID), media_type="application/zip")

    # The sandbox's own pages.

    async def ready(self, _: Request) -> Response:
        return Response("ok")

    async def credentials(self, request: Request) -> Response:
        return JSONResponse(self._keys.credentials(request.query_params.get("protocol", "v1")))

    async def payers(self, request: Request) -> Response:
        kind = (await request.json())["kind"]
        if kind not in get_args(Kind):
            return Response("there is no such kind of payer", 400)
        payer = self._books.new_payer(kind)
        method = "auth_code" if kind in {"needs_action", "code"} else "agreement"
        return JSONResponse({"customer": payer.customer, "payment_method": f"{method}:{payer.number}"})

    async def confirm(self, request: Request) -> Response:
        asked = await request.json()
        trade = self._books.confirm(asked["reference"], success=asked["success"])
        if trade is None:
            return Response("nothing waits for the payer", 404)
        self._notifier.tell(trade, None, None)
        return JSONResponse({"status": trade.status})

    async def notification(self, request: Request) -> Response:
        asked = await request.json()
        at = datetime.fromisoformat(asked["at"])
        trade = self._books.trades.get(asked["reference"]) or _somebodys(asked["reference"], at)
        fields = {**self._notifier.fields(trade, None), **asked["changed"]}
        return Response(self._notifier.signed({name: value for name, value in fields.items() if value}, at))

    async def books(self, _: Request) -> Response:
        return JSONResponse([trade_as_json(trade) for trade in self._books.trades.values()])

    def application(self) -> ASGIApp:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            yield
            await self._notifier.close()
            self._books.close()

        routes = [
            Route("/gateway.do", self.v1, methods=["POST"]),
            Route("/v3/{rest:path}", self.v3, methods=["GET", "POST"]),
            Route("/bills/{day}", self.bill),
            Route(f"{PATH}/ready", self.ready),
            Route(f"{PATH}/credentials", self.credentials),
            Route(f"{PATH}/payers", self.payers, methods=["POST"]),
            Route(f"{PATH}/confirm", self.confirm, methods=["POST"]),
            Route(f"{PATH}/notification", self.notification, methods=["POST"]),
            Route(f"{PATH}/books", self.books),
            control(self._faults),
        ]
        return FaultyGateway(Starlette(routes=routes, lifespan=lifespan), self._faults)


_WORDS = {
    "10000": "Success",
    "10003": " order success pay inprocess",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
}


def _form(query: str, body: bytes) -> dict[str, str]:
    """Parameters may come in the address or in the body; what comes in both must be the same."""
    found: dict[str, str] = {}
    for name, value in [
        *parse_qsl(query, keep_blank_values=True),
        *parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True),
    ]:
        if found.setdefault(name, value) != value:
            raise _Rejected("suspected-attack")
    return found


def _content(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except ValueError:
        raise _Rejected("illegal-json") from None
    if not isinstance(content, dict):
        raise _Rejected("illegal-json")
    return content


def _call_of(path: str) -> Call:
    read = _V3_PATH.fullmatch(path)
    try:
        return Call(read[1].replace("/", ".") if read else "")
    except ValueError:
        raise _Rejected("invalid-method") from None


def _somebodys(reference: str, at: datetime) -> Trade:
    return Trade(
        reference, f"{at:%Y%m%d}22001", 650, "Organic whole milk", "", "", "", at, at, status="TRADE_SUCCESS", paid_at=at
    )


def _falsified(fields: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    """One fen more than the books say, wherever an amount is said."""
    if fault is not Fault.WRONG_AMOUNT:
        return fields
    wrong = {name: str(Decimal(fields[name]) + Decimal("0.01")) for name in ("total_amount", "refund_amount") if name in fields}
    return fields | wrong
