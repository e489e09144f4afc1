"""The gateway's books: what a restart finds, and what WeChat Pay would not do either."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from connectors.payments.wechat_pay import connect
from infra.local.ports import new_port
from infra.sandbox import wechat_pay
from infra.sandbox.wechat_pay.keys import Keys
from infra.sandbox.wechat_pay.ledger import ZONE, Ledger, Refused
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import Authorise, Succeeded

KEYS = Keys.new()


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    monkeypatch.setattr(Keys, "new", lambda: KEYS)
    return Ledger()


def wanted(number: str = "order-1", code: str = "13", total: int = 650, **others: Any) -> dict[str, Any]:
    return {
        "appid": KEYS.appid,
        "mchid": KEYS.mchid,
        "description": "Milk",
        "out_trade_no": number,
        "attach": "pay_1",
        "notify_url": "http://127.0.0.1:1/notify",
        "amount": {"total": total, "currency": "CNY"},
        "payer": {"auth_code": code + "0" * 16},
        "scene_info": {"store_info": {"out_id": "1"}},
        **others,
    }


def refunding(number: str = "refund-1", order: str = "order-1", refund: int = 200, total: int = 650) -> dict[str, Any]:
    return {"out_refund_no": number, "out_trade_no": order, "amount": {"refund": refund, "total": total, "currency": "CNY"}}


def code_of(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as refused:
        call(*arguments)
    return refused.value.code


def test_a_number_is_used_once(ledger: Ledger) -> None:
    assert ledger.order("codepay", wanted()).state == "SUCCESS"
    assert code_of(ledger.order, "codepay", wanted()) == "ORDERPAID"
    native = ledger.order("native", wanted("order-2"))
    assert ledger.order("native", wanted("order-2")).link == native.link
    assert code_of(ledger.order, "native", wanted("order-2", total=651)) == "INVALID_REQUEST"
    ledger.close("order-2")
    assert code_of(ledger.order, "native", wanted("order-2")) == "ORDER_CLOSED"
    assert not ledger.confirm("order-2", success=True)
    assert len(ledger.orders) == 2


@pytest.mark.parametrize(("code", "expected"), [("14", "NOT_ENOUGH"), ("15", "USERPAYING"), ("10", "AUTH_CODE_EXPIRE")])
def test_codes_that_do_not_pay(ledger: Ledger, code: str, expected: str) -> None:
    assert code_of(ledger.order, "codepay", wanted(code=code)) == expected
    assert ledger.moved(datetime.now(ZONE).date()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"out_trade_no": "short"},
        {"out_trade_no": "x" * 33},
        {"out_trade_no": "order/1"},
        {"amount": {"total": 0, "currency": "CNY"}},
        {"amount": {"total": 6.5, "currency": "CNY"}},
        {"amount": {"total": 650, "currency": "EUR"}},
        {"amount": None},
        {"description": ""},
        {"description": "x" * 128},
        {"attach": "x" * 129},
        {"scene_info": {}},
        {"payer": {"auth_code": "13"}},
        {"payer": 7},
    ],
)
def test_what_does_not_fit_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    assert code_of(ledger.order, "codepay", wanted(**change)) == "PARAM_ERROR"
    assert not ledger.orders


def test_what_is_refused_besides(ledger: Ledger) -> None:
    assert code_of(ledger.order, "native", wanted(notify_url=None)) == "PARAM_ERROR"
    assert code_of(ledger.order, "native", wanted(appid="wx1")) == "APPID_MCHID_NOT_MATCH"
    assert code_of(ledger.order, "jsapi", wanted(payer={"openid": "x"})) == "OPENID_MISMATCH"
    for call in (ledger.find, ledger.close, ledger.reverse):
        assert code_of(call, "order-1") == "ORDER_NOT_EXIST"
    ledger.order("codepay", wanted())
    ledger.order("native", wanted("order-2"))
    assert code_of(ledger.close, "order-1") == "INVALID_REQUEST"
    assert code_of(ledger.reverse, "order-2") == "INVALID_REQUEST"


def test_never_more_is_given_back_than_was_paid(ledger: Ledger) -> None:
    assert code_of(ledger.refund, refunding()) == "RESOURCE_NOT_EXISTS"
    ledger.order("native", wanted())
    assert code_of(ledger.refund, refunding()) == "RESOURCE_NOT_EXISTS"
    ledger.confirm("order-1", success=True)
    assert code_of(ledger.refund, refunding(total=651)) == "INVALID_REQUEST"
    assert ledger.refund(refunding())[2] is True
    assert ledger.refund(refunding())[2] is False
    assert code_of(ledger.refund, refunding(refund=201)) == "INVALID_REQUEST"
    assert code_of(ledger.refund, refunding("refund-2", refund=451)) == "INVALID_REQUEST"
    ledger.refund(refunding("refund-2", refund=450))
    assert [given.refund for given in ledger.find("order-1").refunds] == [200, 450]


def test_what_was_paid_and_is_reversed_goes_back(ledger: Ledger) -> None:
    ledger.order("codepay", wanted())
    assert ledger.reverse("order-1").state == "REVOKED"
    today = datetime.now(ZONE).date()
    assert [refund.refund if refund else None for _, refund in ledger.moved(today)] == [None, 650]
    assert ledger.moved(date(2020, 1, 1)) == []
    assert code_of(ledger.refund, refunding()) == "RESOURCE_NOT_EXISTS"


def test_a_restart_goes_on_where_it_ended(tmp_path: Path) -> None:
    books = tmp_path / "books.jsonl"
    first = Ledger(books)
    own = {"appid": first.keys.appid}
    first.order("codepay", wanted(**own))
    first.order("native", wanted("order-2", **own))
    first.refund(refunding())
    first.rotate()
    with books.open("a") as journal:
        journal.write('{"order": {"out_tr')  # killed while it wrote
    second = Ledger(books)
    assert second.keys == first.keys
    assert second.orders == first.orders
    assert second.refund(refunding())[2] is False
    assert second.order("native", wanted("order-2", **own)).link == first.orders["order-2"].link
    second.order("codepay", wanted("order-3", **own))
    third = Ledger(books)
    assert third.orders == second.orders and "order-3" in third.orders
    for ledger in (first, second, third):
        ledger.end()


async def test_a_killed_process_forgets_nothing(tmp_path: Path) -> None:
    port = new_port()
    address = wechat_pay.address(port)
    async with process(port, tmp_path / "books", signal.SIGKILL):
        before = wechat_pay.credentials(address)
        payer = await wechat_pay.seed_payer(address)
        connector = connect(before, notify_url=None)
        number = AttemptId.new()
        command = Authorise(
            payment_id=PaymentId.new(),
            attempt_id=number,
            journey_id=JourneyId.new(),
            order_id=OrderId.new(),
            total=Money(minor=650, currency="CNY"),
            payee="Hofgut",
            description="Milk",
            payer=payer,
            reference=number,
        )
        assert isinstance(await connector.submit(command, number), Succeeded)
        await connector.close()
    async with process(port, tmp_path / "books", signal.SIGTERM):
        assert wechat_pay.credentials(address) == before
        (line,) = await wechat_pay.moved(address)
        assert (line.kind, line.reference, line.attempt_id, line.amount) == ("payment", number, number, command.total)
        assert line.occurred_at <= datetime.now(UTC)


async def test_strangers_are_not_let_in(tmp_path: Path) -> None:
    port = new_port()
    async with process(port, tmp_path / "books", signal.SIGTERM), httpx.AsyncClient(trust_env=False) as client:
        for path in ("/v3/certificates", "/v3/pay/transactions/out-trade-no/order-1?mchid=1", "/v3/billdownload/file?token=x"):
            answer = await client.get(wechat_pay.address(port) + path)
            assert (answer.status_code, answer.json()["code"]) == (401, "SIGN_ERROR")
            assert "wechatpay-signature" not in answer.headers


@asynccontextmanager
async def process(port: int, books: Path, end: signal.Signals) -> AsyncIterator[None]:
    running = await asyncio.create_subprocess_exec(*wechat_pay.argv(port, books=books))
    try:
        async with asyncio.timeout(120):
            while not await wechat_pay.is_ready(wechat_pay.address(port)):
                await asyncio.sleep(0.1)
        yield
    finally:
        os.kill(running.pid, end)
        await running.wait()
