"""The Alipay connector against the sandbox's gateway, over each of its protocols; and both against npm's alipay-sdk."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from connectors.conformance.payments import BROKEN_ANSWERS, MakeOrder, PaymentConformance, cancel_of, opened, refund_of
from connectors.payments.alipay import AlipayConnector, mapping, signing
from connectors.payments.alipay.codes import Call
from connectors.payments.alipay.connector import _Lost
from connectors.payments.alipay.credentials import Protocol, read
from connectors.ports import PaymentConnector
from infra.sandbox import alipay
from infra.sandbox.alipay import keys
from schemas.errors import Rejected
from schemas.ids import AttemptId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Cancelled,
    Declined,
    Mismatched,
    NotSubmitted,
    Payer,
    RefusedByProvider,
    Succeeded,
    Unknown,
)
from tests.support.peers import let_late_effects_happen
from tests.support.servers import missing

PEERS = Path(__file__).parents[2] / "peers"
PROTOCOLS: tuple[Protocol, ...] = ("v1", "v1_certificates", "v3", "v3_certificates")


def connector_for(address: str, given: Mapping[str, str], **changed: str) -> AlipayConnector:
    return AlipayConnector(read({**given, "address": address, **changed}), timeout_s=2)


class TestAlipay(PaymentConformance):
    currency = "CNY"
    remembers_declines = False

    def unsigned(self, headers: Mapping[str, str], body: bytes) -> tuple[Mapping[str, str], bytes]:
        return {}, b"&".join(field for field in body.split(b"&") if not field.startswith(b"sign="))

    @pytest.fixture(params=PROTOCOLS)
    def protocol(self, request: pytest.FixtureRequest) -> Protocol:
        protocol: Protocol = request.param
        return protocol

    @pytest.fixture
    def given(self, alipay_address: str, protocol: Protocol) -> dict[str, str]:
        return alipay.credentials(alipay_address, protocol)

    @pytest.fixture
    async def connector_at(self, given: dict[str, str]) -> AsyncIterator[Callable[[str], PaymentConnector]]:
        made: list[AlipayConnector] = []

        def make(address: str) -> PaymentConnector:
            made.append(connector_for(address, given))
            return made[-1]

        yield make
        for connector in made:
            await connector.close()

    @pytest.fixture
    def address(self, alipay_address: str) -> str:
        return alipay_address

    @pytest.fixture
    async def payer(self, alipay_address: str) -> Payer:
        return await alipay.seed_payer(alipay_address)

    @pytest.fixture
    async def declined_payer(self, alipay_address: str) -> Payer:
        return await alipay.seed_payer(alipay_address, "declined")

    @pytest.fixture
    async def waiting_payer(self, alipay_address: str) -> Payer:
        return await alipay.seed_payer(alipay_address, "needs_action")

    @pytest.fixture
    def unknown_payer(self) -> Payer:
        return Payer(provider="alipay", customer="nobody", payment_method="agreement:nobody")

    @pytest.fixture
    async def strangers(self, given: dict[str, str], address: str) -> AsyncIterator[Sequence[PaymentConnector]]:
        # An app that the gateway does not know, and one whose key is not the one it has.
        connectors = [connector_for(address, given, app_id="2021000199990002")]
        if "app_certificate" not in given:
            stolen = keys.make().credentials("v1")["private_key"]
            connectors.append(connector_for(address, given, private_key=stolen))
        yield connectors
        for connector in connectors:
            await connector.close()

    @pytest.fixture
    def secrets(self, given: dict[str, str]) -> Sequence[str]:
        return [given["private_key"], given["private_key"][200:240]]

    @pytest.fixture
    def charges(self, alipay_address: str) -> Callable[[PaymentId], Awaitable[list[Money]]]:
        async def read(payment_id: PaymentId) -> list[Money]:
            return [trade.taken for trade in await alipay.books(alipay_address) if trade.note == payment_id and trade.taken]

        return read

    @pytest.fixture
    def given_back(self, alipay_address: str) -> Callable[[PaymentId], Awaitable[list[Money]]]:
        async def read(payment_id: PaymentId) -> list[Money]:
            trades = [trade for trade in await alipay.books(alipay_address) if trade.note == payment_id]
            return [refund.amount for trade in trades for refund in trade.refunds]

        return read

    @pytest.fixture
    def sign(self, alipay_address: str) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        return lambda reference, moment: ({}, alipay.notification(alipay_address, reference, moment))

    @pytest.fixture
    def forge(self, alipay_address: str) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        key = rsa.generate_private_key(65537, 2048)

        def make(reference: str, moment: datetime) -> tuple[Mapping[str, str], bytes]:
            fields = signing.notification(alipay.notification(alipay_address, reference, moment))
            content, _ = signing.notification_contents(fields)
            return {}, urlencode({**fields, "sign": signing.sign(key, content)}).encode()

        return make

    @pytest.fixture
    def without_secret(self) -> Sequence[PaymentConnector]:
        return []  # without Alipay's key there is no connector

    # What only Alipay does.

    async def test_a_code_shown_to_the_camera_waits_for_the_phone(
        self, connector: PaymentConnector, order: MakeOrder, waiting_payer: Payer, address: str
    ) -> None:
        command = await opened(connector, order(by=waiting_payer))
        waiting = Actionable(reference=command.reference, url=None, within_s=60)
        assert await connector.submit(command, "a") == waiting
        assert await connector.fetch(str(command.reference), command) == waiting
        await alipay.confirm(address, str(command.reference))
        paid = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.fetch(str(command.reference), command) == paid
        assert await connector.submit(command, "a") == paid

    async def test_a_payer_who_gives_up_pays_nothing(
        self, connector: PaymentConnector, order: MakeOrder, waiting_payer: Payer, address: str
    ) -> None:
        command = await opened(connector, order(by=waiting_payer))
        await connector.submit(command, "a")
        await alipay.confirm(address, str(command.reference), success=False)
        assert await connector.fetch(str(command.reference), command) == Cancelled(reference=command.reference)

    async def test_a_code_is_good_for_one_trade(
        self, connector: PaymentConnector, order: MakeOrder, waiting_payer: Payer
    ) -> None:
        await connector.submit(await opened(connector, order(by=waiting_payer)), "a")
        second = await connector.submit(await opened(connector, order(by=waiting_payer)), "a")
        assert isinstance(second, Declined)
        assert second.code == "ACQ.PAYMENT_AUTH_CODE_INVALID"
        assert waiting_payer.payment_method.partition(":")[2] not in second.model_dump_json()

    async def test_a_code_for_the_phone_to_scan(self, connector: PaymentConnector, order: MakeOrder, address: str) -> None:
        payer = Payer(provider="alipay", customer="2088000000000001", payment_method="precreate")
        command = await opened(connector, order(by=payer))
        asked = await connector.submit(command, "a")
        assert asked == Actionable(
            reference=command.reference, url=f"https://qr.alipay.com/sandbox{command.reference}", within_s=600
        )
        assert await connector.submit(command, "a") == asked
        # Alipay knows nothing of it until a phone has scanned the code; nobody may believe that it was never made.
        assert await connector.fetch(str(command.reference), command) == Actionable(
            reference=command.reference, url=None, within_s=600
        )
        await alipay.confirm(address, str(command.reference))
        assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)

    async def test_a_code_that_pays_at_once(
        self,
        connector: PaymentConnector,
        order: MakeOrder,
        address: str,
        charges: Callable[[PaymentId], Awaitable[list[Money]]],
        given_back: Callable[[PaymentId], Awaitable[list[Money]]],
    ) -> None:
        payer = await alipay.by_code(address)
        command = await opened(connector, order(by=payer))
        paid = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(command, "a") == paid
        assert await connector.fetch(str(command.reference), command) == paid
        assert await connector.submit(command, "a") == paid
        # Another payment with it is declined, and this one is not touched by that.
        other = await opened(connector, order(by=payer))
        assert isinstance(await connector.submit(other, "a"), Declined)
        refund = refund_of(command, Money(minor=200, currency="CNY"))
        assert isinstance(await connector.submit(refund, "b"), Succeeded)
        assert await charges(command.payment_id) == [command.total]
        assert await charges(other.payment_id) == []
        assert await given_back(command.payment_id) == [refund.amount]

    async def test_a_code_that_our_own_request_used_up_was_paid_with(
        self, connector: PaymentConnector, order: MakeOrder, address: str
    ) -> None:
        """The answer was lost, and the phone shows another code by now, which is good for nothing here."""
        command = await opened(connector, order(by=await alipay.by_code(address)))
        await alipay.set_faults(address, rate=1.0, kinds=["answer_lost"])
        try:
            assert isinstance(await connector.submit(command, "a"), Unknown)
        finally:
            await alipay.set_faults(address, rate=0.0)
        later = command.model_copy(
            update={"payer": Payer(provider="alipay", customer="", payment_method="auth_code:280000000000000000")}
        )
        paid = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(later, "a") == paid

    @pytest.mark.parametrize("first", ["the repetition", "the late effect"])
    async def test_an_effect_that_comes_late_comes_once(
        self,
        connector: PaymentConnector,
        order: MakeOrder,
        address: str,
        charges: Callable[[PaymentId], Awaitable[list[Money]]],
        first: str,
    ) -> None:
        command = await opened(connector, order(by=await alipay.by_code(address)))
        await alipay.set_faults(address, rate=1.0, kinds=["late_effect"], late_s=[60, 60])
        try:
            assert isinstance(await connector.submit(command, "a"), Unknown)
        finally:
            await alipay.set_faults(address, rate=0.0)
        assert await connector.fetch(str(command.reference), command) == NotSubmitted(reference=command.reference)
        if first == "the late effect":
            await let_late_effects_happen(address)
            assert await charges(command.payment_id) == [command.total]
        paid = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(command, "a") == paid
        if first == "the repetition":
            await let_late_effects_happen(address)
        assert await connector.fetch(str(command.reference), command) == paid
        assert await charges(command.payment_id) == [command.total]

    @pytest.mark.parametrize("lost", ["at once", "in silence"])
    async def test_where_the_answer_with_the_code_was_lost_it_is_asked_for_once_more(
        self, connector: PaymentConnector, order: MakeOrder, address: str, monkeypatch: pytest.MonkeyPatch, lost: str
    ) -> None:
        payer = Payer(provider="alipay", customer="", payment_method="precreate")
        command = await opened(connector, order(by=payer))
        assert isinstance(connector, AlipayConnector)
        real, sent = connector._send, 0

        async def losing(*request: Any) -> Any:
            nonlocal sent
            answer, sent = await real(*request), sent + 1
            if sent == 1:
                await asyncio.sleep(60 if lost == "in silence" else 0)
                raise _Lost("no complete answer")
            return answer

        monkeypatch.setattr(connector, "_send", losing)
        asked = await connector.submit(command, "a")
        assert isinstance(asked, Actionable) and asked.url == f"https://qr.alipay.com/sandbox{command.reference}"
        assert len([trade for trade in await alipay.books(address) if trade.note == command.payment_id]) == 1

    async def test_cancelling_what_alipay_never_saw(self, connector: PaymentConnector, order: MakeOrder) -> None:
        command = await opened(connector, order())
        assert await connector.submit(cancel_of(command), "b") == NotSubmitted(reference=command.reference)

    async def test_a_refund_under_another_amount_is_a_mismatch(self, connector: PaymentConnector, order: MakeOrder) -> None:
        command = await opened(connector, order(650))
        await connector.submit(command, "a")
        refund = refund_of(command, Money(minor=200, currency="CNY"))
        assert isinstance(await connector.submit(refund, "b"), Succeeded)
        other = refund.model_copy(update={"amount": Money(minor=300, currency="CNY")})
        assert isinstance(await connector.submit(other, "b"), Mismatched)

    async def test_more_than_was_paid_is_not_given_back(
        self, connector: PaymentConnector, order: MakeOrder, given_back: Callable[[PaymentId], Awaitable[list[Money]]]
    ) -> None:
        command = await opened(connector, order(650))
        await connector.submit(command, "a")
        assert isinstance(await connector.submit(refund_of(command, Money(minor=400, currency="CNY")), "b"), Succeeded)
        second = await connector.submit(refund_of(command, Money(minor=400, currency="CNY")), "c")
        assert isinstance(second, RefusedByProvider)
        assert second.code == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
        assert await given_back(command.payment_id) == [Money(minor=400, currency="CNY")]

    async def test_what_alipay_would_never_take_is_refused_when_opened(
        self, connector: PaymentConnector, order: MakeOrder
    ) -> None:
        euros = order().model_copy(update={"total": Money(minor=650, currency="EUR")})
        strange = order(by=Payer(provider="alipay", customer="c", payment_method="auth_code:12"))
        for command, code in (
            (order(capture=False), "reservation_not_offered"),
            (euros, "currency_not_supported"),
            (strange, "payment_method_unknown"),
        ):
            refused = await connector.open(command, command.attempt_id)
            assert isinstance(refused, RefusedByProvider)
            assert refused.code == code
            again = await connector.submit(command.model_copy(update={"reference": command.attempt_id}), "a")
            assert isinstance(again, RefusedByProvider)
            assert again.code == code

    @pytest.mark.parametrize(
        ("fault", "outcome", "later"),
        [
            ("answer_lost", Unknown, Succeeded),
            ("cut", Unknown, NotSubmitted),
            ("unknown_code", Unknown, Succeeded),
            ("rate_limit", Unknown, NotSubmitted),
            ("wrong_amount", Mismatched, Succeeded),
        ],
    )
    async def test_on_a_bad_day_nothing_is_guessed(
        self, connector: PaymentConnector, order: MakeOrder, address: str, fault: str, outcome: type, later: type
    ) -> None:
        command = await opened(connector, order())
        await alipay.set_faults(address, rate=1.0, kinds=[fault])
        try:
            assert isinstance(await connector.submit(command, "a"), outcome)
        finally:
            await alipay.set_faults(address, rate=0.0)
        assert isinstance(await connector.fetch(str(command.reference), command), later)
        assert isinstance(await connector.submit(command, "a"), Succeeded)
        (trade,) = [trade for trade in await alipay.books(address) if trade.note == command.payment_id]
        assert trade.taken == command.total

    @pytest.mark.parametrize(
        "changed", [{"app_id": "2021000199990002"}, {"seller_id": "2088000000000099"}, {"seller_id": ""}, {"app_id": ""}]
    )
    async def test_a_notification_for_somebody_else_is_refused(
        self, connector: PaymentConnector, address: str, changed: dict[str, str]
    ) -> None:
        body = alipay.notification(address, "att_1", datetime.now(UTC), **changed)
        with pytest.raises(Rejected) as refused:
            connector.parse_webhook({}, body)
        assert refused.value.problem.code == "credentials-invalid"

    async def test_a_notification_about_something_else_says_nothing(self, connector: PaymentConnector, address: str) -> None:
        body = alipay.notification(address, "att_1", datetime.now(UTC), notify_type="servicemarket_order_notify")
        assert list(connector.parse_webhook({}, body)) == []

    # npm's alipay-sdk.

    async def test_npms_sdk_pays_at_our_gateway_and_verifies_its_answers(self, address: str, given: dict[str, str]) -> None:
        payer = await alipay.seed_payer(address)
        number = AttemptId.new()
        order = {
            "out_trade_no": number,
            "total_amount": "6.50",
            "subject": "有机全脂牛奶",
            "product_code": "GENERAL_WITHHOLDING",
            "agreement_params": {"agreement_no": payer.payment_method.partition(":")[2]},
        }
        refund = {"out_trade_no": number, "refund_amount": "2.00", "out_request_no": "r1"}
        today = datetime.now(ZoneInfo("Asia/Shanghai")).date().isoformat()
        calls: list[dict[str, object]] = [
            {"method": "alipay.trade.query", "content": {"out_trade_no": number}},
            {"method": "alipay.trade.pay", "content": order},
            {"method": "alipay.trade.pay", "content": order},
            {"method": "alipay.trade.query", "content": {"out_trade_no": number}},
            {"method": "alipay.trade.refund", "content": refund},
            {"method": "alipay.trade.fastpay.refund.query", "content": {"out_trade_no": number, "out_request_no": "r1"}},
            {"method": "alipay.trade.precreate", "content": {"out_trade_no": "p1", "total_amount": "1.00", "subject": "x"}},
            {"method": "alipay.trade.cancel", "content": {"out_trade_no": "p2"}},
            {
                "method": "alipay.data.dataservice.bill.downloadurl.query",
                "query": {"bill_type": "trade", "bill_date": today},
            },
        ]
        unknown, paid, twice, seen, refunded, refund_seen, made, cancelled, bill = await npm(
            {"do": "calls", "credentials": given, "address": address, "calls": calls}
        )
        assert unknown.get("sub_code", unknown.get("code")) == "ACQ.TRADE_NOT_EXIST"
        assert paid["total_amount"] == "6.50" and paid["gmt_payment"]
        assert twice.get("sub_code", twice.get("code")) == "ACQ.TRADE_HAS_SUCCESS"
        assert seen["trade_status"] == "TRADE_SUCCESS"
        assert refunded["fund_change"] == "Y"
        assert refund_seen["refund_status"] == "REFUND_SUCCESS"
        assert made["qr_code"].startswith("https://qr.alipay.com/")
        assert cancelled["retry_flag"] == "N" and "action" not in cancelled
        assert bill["bill_download_url"].startswith(address)

    async def test_a_stranger_with_npms_sdk_gets_nothing(self, address: str, given: dict[str, str]) -> None:
        if "app_certificate" in given:
            pytest.skip("the SDK itself does not notice that key and certificate differ; the case without is the same")
        stolen = keys.make().credentials("v1")["private_key"]
        (answer,) = await npm(
            {
                "do": "calls",
                "credentials": {**given, "private_key": stolen},
                "address": address,
                "calls": [{"method": "alipay.trade.query", "content": {"out_trade_no": "x"}}],
            }
        )
        assert answer.get("sub_code", answer.get("code")) in {"isv.invalid-signature", "invalid-signature"}

    async def test_npms_sdk_signs_our_requests_as_we_do(self, given: dict[str, str], order: MakeOrder) -> None:
        async with capturing() as (server, seen):
            connector = connector_for(server, given, agreement_product="CYCLE_PAY_AUTH")
            command = await opened(connector, order().model_copy(update={"description": "Milch — 有机 'x' \"y\" %41 +"}))
            await connector.submit(command, "a")
            await connector.close()
        ((method, target, headers, body),) = seen
        asked: dict[str, object] = {"credentials": given, "address": server}
        if given["protocol"].startswith("v1"):
            parameters = dict(parse_qsl(body.decode(), strict_parsing=True))
            signature = parameters.pop("sign")
            assert await npm({**asked, "do": "v1_signature", "parameters": parameters}) == signature
            assert target == "/gateway.do?charset=utf-8"
        else:
            about, _, signature = headers["authorization"].removeprefix("ALIPAY-SHA256withRSA ").partition(",sign=")
            content = f"{about}\n{method}\n{target}\n{body.decode()}\n"
            assert await npm({**asked, "do": "v3_signature", "content": content}) == signature
            assert f"app_id={given['app_id']}," in about
        if "app_certificate" in given:
            ours, _, root = await npm({**asked, "do": "serials"})
            sent = {**headers, **dict(parse_qsl(body.decode()))} if given["protocol"].startswith("v1") else headers
            assert sent.get("alipay_root_cert_sn", sent.get("alipay-root-cert-sn")) == root
            assert sent.get("app_cert_sn", headers.get("authorization", "").partition("app_cert_sn=")[2][:32]) == ours

    async def test_npms_sdk_believes_our_gateways_notifications(self, address: str, given: dict[str, str]) -> None:
        fields = signing.notification(alipay.notification(address, "att_1", datetime.now(UTC)))
        asked = {"do": "notification", "credentials": given, "address": address}
        assert await npm({**asked, "fields": fields}) is True
        assert await npm({**asked, "fields": {**fields, "total_amount": "6.51"}}) is False


async def test_we_believe_what_npms_sdk_signs_and_nothing_else() -> None:
    made = keys.make()
    given = made.credentials("v1")
    # The SDK signs as Alipay would: with the key that our account expects of Alipay.
    alipays = {**given, "private_key": private_text(made.alipay)}
    account = read(given)
    connector = AlipayConnector(account)
    now = datetime.now(ZoneInfo("Asia/Shanghai"))
    fields = {
        "notify_type": "trade_status_sync",
        "notify_id": "1",
        "notify_time": f"{now:%Y-%m-%d %H:%M:%S}",
        "app_id": account.app_id,
        "seller_id": account.seller_id,
        "out_trade_no": "att_1",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "6.50",
        "subject": "有机全脂牛奶 & more",
        "body": "",
    }
    for content in signing.notification_contents({**fields, "sign_type": "RSA2"}):
        asked = {"do": "v3_signature", "credentials": alipays, "address": "http://127.0.0.1:1", "content": content.decode()}
        signed = {**fields, "sign_type": "RSA2", "sign": await npm(asked)}
        (event,) = connector.parse_webhook({}, urlencode(signed).encode())
        assert event.amount == Money(minor=650, currency="CNY")
        with pytest.raises(Rejected):
            connector.parse_webhook({}, urlencode({**signed, "total_amount": "6.51"}).encode())
    raw = '{"code":"10000","url":"https:\\/\\/a.example\\/\\"sign\\":\\"x\\"","name":"有机"}'
    signature = await npm({**asked, "content": raw})
    answer = signing.v1_answer(f'{{"alipay_trade_query_response":{raw},"sign":"{signature}"}}'.encode(), "alipay.trade.query")
    assert signing.verify(account.alipay_key, answer.raw, answer.signature)
    assert not signing.verify(account.alipay_key, answer.raw.replace(b"10000", b"10003"), answer.signature)
    await connector.close()


@pytest.mark.parametrize(
    ("code", "refusal"), [("ACQ.PAYMENT_AUTH_CODE_INVALID", Declined), ("ACQ.INVALID_PARAMETER", RefusedByProvider)]
)
@pytest.mark.parametrize("trade", ["none", "waiting", "paid", "closed", "not told"])
async def test_no_refusal_counts_before_the_trade_was_asked_for(
    alipay_address: str, monkeypatch: pytest.MonkeyPatch, code: str, refusal: type, trade: str
) -> None:
    """An earlier request of ours did whatever it did; this one is refused."""
    connector = connector_for(alipay_address, alipay.credentials(alipay_address, "v3"))
    kind: Literal["ok", "needs_action"] = "ok" if trade == "paid" else "needs_action"
    command = PaymentConformance.order.__wrapped__(TestAlipay(), await alipay.seed_payer(alipay_address, kind))()  # type: ignore[attr-defined]
    command = await opened(connector, command)
    if trade != "none":
        await connector.submit(command, "a")
    if trade == "closed":
        await alipay.confirm(alipay_address, str(command.reference), success=False)
    real = connector._call

    async def refusing(call: Call, content: Mapping[str, Any], *, notify: bool = False) -> mapping.Answer:
        if call is Call.PAY:
            return mapping.Answer({}, code=code)
        if trade == "not told":
            return mapping.Answer({}, code="ACQ.SYSTEM_ERROR")
        return await real(call, content, notify=notify)

    monkeypatch.setattr(connector, "_call", refusing)
    expected = {"none": refusal, "waiting": Actionable, "paid": Succeeded, "closed": Cancelled, "not told": Unknown}
    assert isinstance(await connector.submit(command, "a"), expected[trade])
    await connector.close()


async def npm(asked: Mapping[str, object]) -> Any:
    """What npm's alipay-sdk makes of it, in a process of its own."""
    if shutil.which("node") is None or not (PEERS / "node_modules" / "alipay-sdk").exists():
        missing("npm's alipay-sdk", "`make peers`")
    process = await asyncio.create_subprocess_exec(
        "node",
        "alipay.mjs",
        cwd=PEERS,
        env={**os.environ, "TZ": "Asia/Shanghai"},  # the SDK writes the time of the machine, Alipay reads that of China
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate(json.dumps(asked).encode())
    assert process.returncode == 0, errors.decode()
    return json.loads(out)


@asynccontextmanager
async def capturing() -> AsyncIterator[tuple[str, list[tuple[str, str, dict[str, str], bytes]]]]:
    """A server that keeps what it is sent, and answers with nothing of use."""
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        seen.append((method, target, headers, await reader.readexactly(int(headers.get("content-length", 0)))))
        writer.write(BROKEN_ANSWERS["500"] or b"")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()


def private_text(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
