"""The sandbox's Alipay: its books refuse what Alipay refuses, and remember; its door lets nobody in who is not the app."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4
from zoneinfo import ZoneInfo

import httpx
import pytest

from connectors.payments.alipay import signing
from infra.sandbox.alipay import keys
from infra.sandbox.alipay.gateway import Gateway
from infra.sandbox.alipay.ledger import CLOSED, SUCCESS, WAIT, Books, Refused
from infra.sandbox.alipay.notifications import Notifier
from infra.sandbox.faults import Fault, Faults

MADE = keys.make()
Clock = Callable[[], datetime]


def order(books: Books, kind: str = "ok", **changed: Any) -> dict[str, Any]:
    payer = books.new_payer(kind)  # type: ignore[arg-type]
    how: dict[str, Any] = (
        {"scene": "bar_code", "auth_code": payer.number}
        if kind == "needs_action"
        else {"product_code": "GENERAL_WITHHOLDING", "agreement_params": {"agreement_no": payer.number}}
    )
    return {"out_trade_no": f"t{uuid4().hex}", "total_amount": "6.50", "subject": "Milk", **how, **changed}


def refused(call: Callable[..., object], *arguments: object) -> str:
    with pytest.raises(Refused) as raised:
        call(*arguments)
    return raised.value.code


# The books.


def test_a_trade_is_paid_once() -> None:
    books = Books()
    asked = order(books)
    assert not books.pay(asked, "").waiting
    assert refused(books.pay, asked, "") == "ACQ.TRADE_HAS_SUCCESS"
    assert refused(books.pay, {**asked, "total_amount": "6.51"}, "") == "ACQ.CONTEXT_INCONSISTENT"
    assert books.query(asked).fields["trade_status"] == SUCCESS


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"total_amount": "0"}, "ACQ.TOTAL_FEE_EXCEED"),
        ({"total_amount": "6.505"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "-1"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": None}, "ACQ.INVALID_PARAMETER"),
        ({"subject": "a&b"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": ""}, "ACQ.INVALID_PARAMETER"),
        ({"out_trade_no": "a-b"}, "ACQ.INVALID_PARAMETER"),
        ({"seller_id": "2088000000000099"}, "ACQ.SELLER_NOT_EXIST"),
        ({"agreement_params": {"agreement_no": "1"}}, "ACQ.AGREEMENT_NOT_EXIST"),
        ({"agreement_params": None}, "ACQ.INVALID_PARAMETER"),
        ({"product_code": "X"}, "ACQ.INVALID_PARAMETER"),
        ({"buyer_id": "2088000000000099"}, "ACQ.PAYER_UNMATCHED"),
    ],
)
def test_wrong_orders_are_refused(changed: dict[str, Any], code: str) -> None:
    books = Books()
    assert refused(books.pay, order(books, **changed), "") == code
    assert books.trades == {}


def test_who_has_no_money_pays_nothing() -> None:
    books = Books()
    asked = order(books, "declined")
    assert refused(books.pay, asked, "") == "ACQ.BUYER_BALANCE_NOT_ENOUGH"
    assert refused(books.query, asked) == "ACQ.TRADE_NOT_EXIST"


def test_a_shown_code_waits_and_is_good_for_one_trade() -> None:
    books = Books()
    asked = order(books, "needs_action")
    assert books.pay(asked, "").waiting
    assert books.pay(asked, "").waiting
    assert refused(books.pay, {**asked, "out_trade_no": "other"}, "") == "ACQ.PAYMENT_AUTH_CODE_INVALID"
    assert books.confirm(asked["out_trade_no"], success=True) is not None
    assert books.confirm(asked["out_trade_no"], success=True) is None
    assert books.query(asked).fields["trade_status"] == SUCCESS


def test_what_is_not_paid_in_time_is_closed() -> None:
    books = Books()
    asked = order(books, "needs_action", timeout_express="1m")
    books.pay(asked, "")
    trade = books.trades[asked["out_trade_no"]]
    assert trade.status == WAIT
    trade.closes_at -= timedelta(minutes=2)
    assert books.query(asked).fields["trade_status"] == CLOSED
    assert refused(books.pay, asked, "") == "ACQ.TRADE_HAS_CLOSE"


def test_a_code_to_scan_is_no_trade_before_it_was_scanned() -> None:
    books = Books()
    asked = {"out_trade_no": "p1", "total_amount": "1.00", "subject": "x"}
    assert books.precreate(asked, "").fields["qr_code"].endswith("p1")
    assert refused(books.query, asked) == "ACQ.TRADE_NOT_EXIST"
    assert "action" not in books.cancel(asked).fields
    books.confirm("p1", success=True)
    assert books.query(asked).fields["trade_status"] == SUCCESS


def test_cancelling_closes_or_gives_back() -> None:
    books = Books()
    waiting, paid = order(books, "needs_action"), order(books)
    books.pay(waiting, "")
    books.pay(paid, "")
    for asked, action in ((waiting, "close"), (paid, "refund")):
        for _ in range(2):
            assert books.cancel(asked).fields["action"] == action
        assert books.query(asked).fields["trade_status"] == CLOSED
    assert books.trades[paid["out_trade_no"]].refunded == 650
    assert "action" not in books.cancel({"out_trade_no": "nobodys"}).fields


def test_refunds_are_known_by_their_numbers() -> None:
    books = Books()
    asked = order(books)
    number = asked["out_trade_no"]
    refund = {"out_trade_no": number, "refund_amount": "2.00", "out_request_no": "r1"}
    assert refused(books.refund, refund) == "ACQ.TRADE_NOT_EXIST"
    books.pay(asked, "")
    assert books.refund(refund).fields["fund_change"] == "Y"
    assert books.refund(refund).fields["fund_change"] == "N"
    assert refused(books.refund, {**refund, "refund_amount": "3.00"}) == "ACQ.DISCORDANT_REPEAT_REQUEST"
    second = {**refund, "out_request_no": "r2"}
    assert refused(books.refund, {**second, "refund_amount": "4.51"}) == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert books.refund({**second, "refund_amount": "4.50"}).fields["refund_fee"] == "6.50"
    assert books.query(asked).fields["trade_status"] == CLOSED
    assert refused(books.refund, {**second, "out_request_no": "r3"}) == "ACQ.TRADE_HAS_CLOSE"
    assert books.refund_query(refund).fields["refund_status"] == "REFUND_SUCCESS"
    assert books.refund_query({**refund, "out_request_no": "r9"}).fields == {}


def test_what_was_not_paid_is_not_given_back() -> None:
    books = Books()
    asked = order(books, "needs_action")
    books.pay(asked, "")
    refund = {"out_trade_no": asked["out_trade_no"], "refund_amount": "6.50", "out_request_no": "r1"}
    assert refused(books.refund, refund) == "ACQ.TRADE_STATUS_ERROR"


def test_the_books_outlive_the_process(tmp_path: Path) -> None:
    journal = tmp_path / "books"
    with closing(Books(journal)) as first:
        asked, shown = order(first), order(first, "needs_action")
        first.pay(asked, "http://127.0.0.1:1/")
        first.pay(shown, "")
        first.refund({"out_trade_no": asked["out_trade_no"], "refund_amount": "2.00", "out_request_no": "r1"})
    journal.write_text(journal.read_text() + '{"trade": {"out_tr')  # killed while it wrote
    with closing(Books(journal)) as second:
        assert second.trades == first.trades
        assert second.payers == first.payers
        second.pay(order(second), "")
    with closing(Books(journal)) as third:
        assert third.trades == second.trades
        assert len(third.trades) == 3
    kept = keys.load_or_make(tmp_path / "books.keys")
    assert keys.load_or_make(tmp_path / "books.keys").credentials("v3_certificates") == kept.credentials("v3_certificates")
    assert (tmp_path / "books.keys").stat().st_mode & 0o077 == 0


# The door.


@asynccontextmanager
async def door() -> AsyncIterator[tuple[httpx.AsyncClient, Books]]:
    books, notifier = Books(), Notifier(MADE)
    application = Gateway(books, MADE, Faults(), notifier).application()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://127.0.0.1") as client:
        yield client, books
    await notifier.close()


def v1(content: object, **changed: str) -> dict[str, str]:
    parameters = {
        "app_id": keys.APP_ID,
        "method": "alipay.trade.query",
        "charset": "utf-8",
        "sign_type": "RSA2",
        "timestamp": f"{datetime.now(ZoneInfo('Asia/Shanghai')):%Y-%m-%d %H:%M:%S}",
        "version": "1.0",
        "biz_content": content if isinstance(content, str) else json.dumps(content),
        **changed,
    }
    parameters = {name: value for name, value in parameters.items() if value}
    return {
        "sign": signing.sign(MADE.app, signing.v1_content(parameters)),
        **parameters,
        **{k: v for k, v in changed.items() if k == "sign"},
    }


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (lambda: v1({}, app_id="2021"), "isv.invalid-app-id"),
        (lambda: v1({}, app_id=""), "isv.missing-app-id"),
        (lambda: v1({}, sign_type="RSA"), "isv.invalid-signature-type"),
        (lambda: v1({}, sign_type=""), "isv.missing-signature-type"),
        (lambda: v1({}, sign="AAAA"), "isv.invalid-signature"),
        (lambda: {**v1({}), "biz_content": '{"out_trade_no":"t"}'}, "isv.invalid-signature"),
        (lambda: {name: value for name, value in v1({}).items() if name != "sign"}, "isv.missing-signature"),
        (lambda: v1({}, timestamp="2026-01-01 00:00:00"), "isv.illegal-timestamp"),
        (lambda: v1({}, timestamp="yesterday"), "isv.invalid-timestamp"),
        (lambda: v1({}, timestamp=""), "isv.missing-timestamp"),
        (lambda: v1({}, version="2.0"), "isv.unsupported-version"),
        (lambda: v1({}, charset="gbk"), "isv.invalid-charset"),
        (lambda: v1({}, method="alipay.trade.steal"), "isv.invalid-method"),
        (lambda: v1({}, app_cert_sn="0" * 32), "isv.app-cert-not-exist"),
        (lambda: v1({}, app_cert_sn=MADE.app_serial), "isv.invalid-alipay-root-cert-sn"),
        (lambda: v1("[]"), "isv.illegal-json"),
        (lambda: v1("{"), "isv.illegal-json"),
        (lambda: v1({}), "ACQ.INVALID_PARAMETER"),
        (lambda: v1({"out_trade_no": "t"}), "ACQ.TRADE_NOT_EXIST"),
    ],
)
async def test_v1_lets_in_only_the_app(made: Callable[[], dict[str, str]], code: str) -> None:
    parameters = made()  # now: the gateway refuses what was signed ten minutes ago, when tests were collected
    async with door() as (client, _):
        answer = await client.post("/gateway.do", data=parameters)
    method = "alipay.trade.query" if "steal" not in parameters.get("method", "") else "nobodys"
    parts = signing.v1_answer(answer.content, method)
    assert signing.verify(MADE.alipay.public_key(), parts.raw, parts.signature)
    assert signing.read_object(parts.raw)["sub_code"] == code


async def test_what_comes_twice_must_be_the_same() -> None:
    async with door() as (client, _):
        answer = await client.post("/gateway.do?charset=gbk", data=v1({"out_trade_no": "t"}))
    assert b"suspected-attack" in answer.content


def v3(
    body: bytes, *, nonce: str = "", at: float | None = None, app_id: str = keys.APP_ID, certificate: str | None = None
) -> dict[str, str]:
    target = "/v3/alipay/trade/query"
    return {
        "Authorization": signing.v3_authorization(
            MADE.app,
            app_id,
            method="POST",
            target=target,
            body=body,
            nonce=nonce or uuid4().hex,
            timestamp_ms=int((at or time.time()) * 1000),
            certificate=certificate,
        )
    }


async def test_v3_lets_in_only_the_app() -> None:
    body = b'{"out_trade_no":"t"}'
    once = v3(body, nonce="once")
    async with door() as (client, _):
        for headers, content, code in (
            ({}, body, "missing-signature"),
            ({"Authorization": "none"}, body, "invalid-signature"),
            ({"Authorization": once["Authorization"].replace("ALIPAY-SHA256", "ALIPAY-SHA1")}, body, "invalid-signature"),
            (v3(body), body + b" ", "invalid-signature"),
            (v3(body, app_id="2021"), body, "invalid-app-id"),
            (v3(body, at=time.time() - 3600), body, "illegal-timestamp"),
            (v3(body, certificate="0" * 32), body, "app-cert-not-exist"),
            (v3(body, certificate=MADE.app_serial), body, "invalid-alipay-root-cert-sn"),
            (once, body, "ACQ.TRADE_NOT_EXIST"),
            (once, body, "invalid-signature"),
            (v3(b"{"), b"{", "illegal-json"),
        ):
            answer = await client.post("/v3/alipay/trade/query", content=content, headers=headers)
            assert answer.json()["code"] == code
            signed = signing.v3_answer_content(answer.headers["alipay-timestamp"], answer.headers["alipay-nonce"], answer.content)
            assert signing.verify(MADE.alipay.public_key(), signed, answer.headers["alipay-signature"])


# Notifications.


@asynccontextmanager
async def merchant(*answers: str) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A merchant's server that gives these answers, then `success`; and what it heard."""
    heard: list[dict[str, str]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        heard.append(signing.notification(await reader.readexactly(length)))
        said = answers[len(heard) - 1] if len(heard) <= len(answers) else "success"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(said)}\r\nConnection: close\r\n\r\n{said}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/notify", heard
    finally:
        server.close()


@pytest.mark.parametrize(
    ("answers", "fault", "times"), [((), None, 1), (("fail", "no"), None, 3), ((), Fault.REPEATED_NOTIFICATION, 3)]
)
async def test_a_notification_is_repeated_until_it_is_taken(answers: tuple[str, ...], fault: Fault | None, times: int) -> None:
    books, notifier = Books(), Notifier(MADE, repeated_after_s=(0.01, 0.01, 0.01))
    async with merchant(*answers) as (url, heard):
        asked = order(books)
        done = books.pay(asked, url)
        assert done.changed is not None
        notifier.tell(done.changed, done.refund, fault)
        async with asyncio.timeout(30):
            while len(heard) < times:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
    await notifier.close()
    assert len(heard) == times
    assert len({fields["notify_id"] for fields in heard}) == 1
    for fields in heard:
        content, _ = signing.notification_contents(fields)
        assert signing.verify(MADE.alipay.public_key(), content, fields["sign"])
        assert (fields["out_trade_no"], fields["trade_status"]) == (asked["out_trade_no"], SUCCESS)


async def test_nobody_elsewhere_is_told() -> None:
    books, notifier = Books(), Notifier(MADE)
    done = books.pay(order(books), "https://merchant.example/notify")
    assert done.changed is not None
    notifier.tell(done.changed, None, None)
    assert not notifier._running
    await notifier.close()


async def test_a_refund_is_notified_with_all_that_was_given_back() -> None:
    books, notifier = Books(), Notifier(MADE)
    asked = order(books)
    books.pay(asked, "")
    for number in ("r1", "r2"):
        done = books.refund({"out_trade_no": asked["out_trade_no"], "refund_amount": "2.00", "out_request_no": number})
    assert done.changed is not None
    fields = notifier.fields(done.changed, done.refund)
    assert (fields["refund_fee"], fields["out_biz_no"]) == ("4.00", "r2")
    assert urlencode(fields)
    await notifier.close()
