"""The WeChat Pay connector against the sandbox's gateway, and the gateway against an SDK that is not ours (`wechatpayv3`)."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from wechatpayv3 import WeChatPay, WeChatPayType

from connectors import registry
from connectors.conformance.payments import MakeOrder, PaymentConformance, answering, cancel_of, opened, refund_of
from connectors.http import Deadlines
from connectors.payments.wechat_pay import WechatPayConnector, mapping
from connectors.payments.wechat_pay.connector import CERTIFICATES_EVERY_S
from connectors.payments.wechat_pay.credentials import load
from connectors.ports import PaymentConnector
from infra.local.ports import new_port
from infra.sandbox import wechat_pay
from infra.sandbox.faults import Fault
from infra.sandbox.wechat_pay import signing as their_signing
from infra.sandbox.wechat_pay.keys import KeyPair, Keys
from infra.sandbox.wechat_pay.notify import notification
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.ids import PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Cancelled,
    Declined,
    Mismatched,
    NotSubmitted,
    Payer,
    Pending,
    ProviderEvent,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)
from tests.support.peers import let_late_effects_happen

NOBODY = "http://127.0.0.1:1/notifications"
"""An address for notifications at which nobody is."""

Books = Callable[[PaymentId], Awaitable[list[Money]]]


def connector_with(credentials: Mapping[str, str], *, notify_url: str | None = NOBODY) -> WechatPayConnector:
    return WechatPayConnector(load(credentials), notify_url=notify_url, deadlines=Deadlines(connect=2, read=2, total=2))


@pytest.fixture(scope="session")
def credentials(wechat_pay_address: str) -> dict[str, str]:
    return wechat_pay.credentials(wechat_pay_address)


@pytest.fixture(scope="session")
def stranger() -> KeyPair:
    return KeyPair.new("Stranger")


@pytest.fixture
async def connect(credentials: Mapping[str, str]) -> AsyncIterator[Callable[..., WechatPayConnector]]:
    """Connectors with these credentials, and what is given instead; None takes something away."""
    made: list[WechatPayConnector] = []

    def make(*, notify_url: str | None = NOBODY, **other: str | None) -> WechatPayConnector:
        given = {name: value for name, value in {**credentials, **other}.items() if value is not None}
        made.append(connector_with(given, notify_url=notify_url))
        return made[-1]

    yield make
    for connector in made:
        await connector.close()


@asynccontextmanager
async def with_fault(address: str, fault: Fault, **others: Any) -> AsyncIterator[None]:
    """Every request to the gateway meets it."""
    await wechat_pay.set_faults(address, rate=1.0, kinds=[fault], seed=1, **others)
    try:
        yield
    finally:
        await wechat_pay.set_faults(address, rate=0.0)


@asynccontextmanager
async def merchant(status: int = 200) -> AsyncIterator[tuple[str, "asyncio.Queue[tuple[dict[str, str], bytes]]"]]:
    """An address for notifications, and what comes there."""
    received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

    async def receive(request: web.Request) -> web.Response:
        received.put_nowait((dict(request.headers), await request.read()))
        return web.Response(status=status)

    receiver = web.Application()
    receiver.router.add_post("/hook", receive)
    runner = web.AppRunner(receiver)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", received
    finally:
        await runner.cleanup()


def paid(credentials: Mapping[str, str], reference: str) -> dict[str, Any]:
    """What a notification says of a payment, decrypted."""
    return {
        "mchid": credentials["mchid"],
        "appid": credentials["appid"],
        "out_trade_no": reference,
        "trade_state": "SUCCESS",
        "amount": {"total": 650, "payer_total": 600, "currency": "CNY", "payer_currency": "CNY"},
    }


def platform(credentials: Mapping[str, str], pair: KeyPair) -> Keys:
    """What WeChat Pay has to tell this merchant something, signed by `pair`."""
    merchant_pair = KeyPair(credentials["private_key"], credentials["certificate"])
    return Keys(credentials["mchid"], credentials["appid"], credentials["api_v3_key"], merchant_pair, (pair,))


def signed_at(moment: datetime, keys: Keys, body: bytes, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    with monkeypatch.context() as patched:
        patched.setattr(their_signing.time, "time", moment.timestamp)
        return their_signing.headers(keys.signing, body)


@pytest.fixture(scope="session")
def own_platform(wechat_pay_address: str, credentials: Mapping[str, str]) -> KeyPair:
    """A key of WeChat Pay's that the connectors under test trust besides the gateway's."""
    return KeyPair.new("Tests' platform")


class TestWechatPay(PaymentConformance):
    currency = "CNY"

    @pytest.fixture
    def trusted(self, credentials: Mapping[str, str], own_platform: KeyPair) -> dict[str, str]:
        return {
            **credentials,
            "platform_certificates": credentials["platform_certificates"] + own_platform.certificate_pem,
        }

    @pytest.fixture
    async def connector_at(self, trusted: Mapping[str, str]) -> AsyncIterator[Callable[[str], PaymentConnector]]:
        made: list[WechatPayConnector] = []

        def make(address: str) -> PaymentConnector:
            made.append(connector_with({**trusted, "address": address}))
            return made[-1]

        yield make
        for connector in made:
            await connector.close()

    @pytest.fixture
    def address(self, wechat_pay_address: str) -> str:
        return wechat_pay_address

    @pytest.fixture
    async def payer(self, wechat_pay_address: str) -> Payer:
        return await wechat_pay.seed_payer(wechat_pay_address)

    @pytest.fixture
    async def declined_payer(self, wechat_pay_address: str) -> Payer:
        return await wechat_pay.seed_payer(wechat_pay_address, "declined")

    @pytest.fixture
    async def waiting_payer(self, wechat_pay_address: str) -> Payer:
        return await wechat_pay.seed_payer(wechat_pay_address, "needs_action")

    @pytest.fixture
    def unknown_payer(self) -> Payer:
        return Payer(provider="wechat_pay", customer="nobody", payment_method="auth_code:nobody")

    @pytest.fixture
    def charges(self, wechat_pay_address: str) -> Books:
        async def read(payment_id: PaymentId) -> list[Money]:
            orders = await wechat_pay.books(wechat_pay_address)
            return [money(order["total"]) for order in orders if order["attach"] == payment_id and order["paid_at"]]

        return read

    @pytest.fixture
    def given_back(self, wechat_pay_address: str) -> Books:
        async def read(payment_id: PaymentId) -> list[Money]:
            orders = await wechat_pay.books(wechat_pay_address)
            return [money(each["refund"]) for order in orders if order["attach"] == payment_id for each in order["refunds"]]

        return read

    @pytest.fixture
    def sign(
        self, credentials: Mapping[str, str], own_platform: KeyPair, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        keys = platform(credentials, own_platform)

        def make(reference: str, moment: datetime) -> tuple[Mapping[str, str], bytes]:
            body = notification(keys, "TRANSACTION.SUCCESS", paid(credentials, reference))
            return signed_at(moment, keys, body, monkeypatch), body

        return make

    @pytest.fixture
    def forge(
        self, credentials: Mapping[str, str], own_platform: KeyPair, stranger: KeyPair, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        """Encrypted with the right key, under the name of a key that is trusted, signed with another."""
        keys = platform(credentials, stranger)

        def make(reference: str, moment: datetime) -> tuple[Mapping[str, str], bytes]:
            body = notification(keys, "TRANSACTION.SUCCESS", paid(credentials, reference))
            return {**signed_at(moment, keys, body, monkeypatch), "Wechatpay-Serial": own_platform.serial}, body

        return make

    @pytest.fixture
    def without_secret(self) -> list[PaymentConnector]:
        return []

    @pytest.fixture
    def strangers(self, connect: Callable[..., WechatPayConnector], stranger: KeyPair) -> Sequence[PaymentConnector]:
        return [
            connect(private_key=stranger.private_pem, certificate=stranger.certificate_pem, serial_no=stranger.serial),
            connect(mchid="1900000109"),
            connect(api_v3_key="0" * 32),
            # The key that is trusted is not WeChat Pay's, and cannot be replaced.
            connect(
                platform_certificates=None,
                platform_public_key=stranger.public_pem,
                platform_public_key_id="PUB_KEY_ID_0119000001",
            ),
        ]

    @pytest.fixture
    def secrets(self, credentials: Mapping[str, str]) -> Sequence[str]:
        return [credentials["api_v3_key"], *credentials["private_key"].splitlines()[1:-1]]


def money(fen: int) -> Money:
    return Money(minor=fen, currency="CNY")


class Support:
    """What the other classes need of the conformance suite's fixtures."""

    currency = "CNY"
    order = PaymentConformance.order
    payer = TestWechatPay.payer
    waiting_payer = TestWechatPay.waiting_payer
    charges = TestWechatPay.charges
    given_back = TestWechatPay.given_back

    @pytest.fixture
    def connector(self, connect: Callable[..., WechatPayConnector]) -> WechatPayConnector:
        return connect()


async def submitted(connector: WechatPayConnector, command: Authorise) -> tuple[Authorise, Any]:
    command = await opened(connector, command)
    return command, await connector.submit(command, command.attempt_id)


class TestWays(Support):
    """The ways to pay, and what only WeChat Pay does."""

    async def test_a_code_that_is_shown_is_paid_once_it_is_confirmed(
        self,
        connect: Callable[..., WechatPayConnector],
        order: MakeOrder,
        charges: Books,
        waiting_payer: Payer,
        wechat_pay_address: str,
    ) -> None:
        async with merchant() as (url, received):
            connector = connect(notify_url=url)
            command, asked = await submitted(connector, order(by=waiting_payer))
            reference = str(command.reference)
            assert isinstance(asked, Actionable) and str(asked.url).startswith("weixin://wxpay/bizpayurl?pr=")
            assert await connector.submit(command, "again") == asked
            assert await connector.fetch(reference, command) == Actionable(reference=reference, url=None)
            assert await charges(command.payment_id) == []

            await wechat_pay.confirm(wechat_pay_address, reference)
            event = await next_event(connector, received)
            assert (event.reference, event.kind, event.amount) == (reference, "payment", command.total)
            done = Succeeded(reference=reference, total=command.total, captured=True)
            assert await connector.fetch(reference, command) == done
            assert await connector.submit(command, "and again") == done
            assert await charges(command.payment_id) == [command.total]

    async def test_what_the_payer_does_not_confirm_stays_open(
        self, connector: WechatPayConnector, order: MakeOrder, waiting_payer: Payer, wechat_pay_address: str
    ) -> None:
        command, _ = await submitted(connector, order(by=waiting_payer))
        await wechat_pay.confirm(wechat_pay_address, str(command.reference), success=False)
        assert isinstance(await connector.fetch(str(command.reference), command), Actionable)

    async def test_inside_wechat_the_merchants_page_gets_what_it_needs(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, credentials: Mapping[str, str]
    ) -> None:
        payer = Payer(provider="wechat_pay", customer="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o", payment_method="jsapi")
        _, plain = await submitted(connect(), order(by=payer))
        assert isinstance(plain, Actionable) and plain.url is None
        _, asked = await submitted(connect(jsapi_page="https://shop.example/pay"), order(by=payer))
        parts = urlsplit(asked.url)
        given = {name: value for name, (value,) in parse_qs(parts.query).items()}
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == "https://shop.example/pay"
        assert given["appId"] == credentials["appid"] and given["package"].startswith("prepay_id=wx")
        signed = "".join(f"{given[name]}\n" for name in ("appId", "timeStamp", "nonceStr", "package"))
        signature = their_signing.base64.b64decode(given["paySign"])
        KeyPair(credentials["private_key"], "").public_key.verify(signature, signed.encode(), PKCS1v15(), SHA256())

    async def test_a_payer_of_another_app_is_refused(self, connector: WechatPayConnector, order: MakeOrder) -> None:
        payer = Payer(provider="wechat_pay", customer="nobody", payment_method="jsapi")
        _, refused = await submitted(connector, order(by=payer))
        assert isinstance(refused, RefusedByProvider) and refused.code == "OPENID_MISMATCH"

    @pytest.mark.parametrize("success", [True, False])
    async def test_a_password_is_waited_for(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, wechat_pay_address: str, success: bool
    ) -> None:
        command, asked = await submitted(connector, order(by=wechat_pay.by_code("asked")))
        reference = str(command.reference)
        assert asked == Actionable(reference=reference, url=None, within_s=mapping.WITHIN_S)
        assert await connector.submit(command, "again") == asked
        await wechat_pay.confirm(wechat_pay_address, reference, success=success)
        ended = await connector.fetch(reference, command)
        if success:
            assert ended == Succeeded(reference=reference, total=command.total, captured=True)
            assert await charges(command.payment_id) == [command.total]
        else:
            assert isinstance(ended, Declined) and ended.code == "PAYERROR"
            assert await charges(command.payment_id) == []

    @pytest.mark.parametrize("kind", ["asked", "declined"])
    async def test_a_payment_by_code_is_reversed(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, kind: Literal["asked", "declined"]
    ) -> None:
        command, _ = await submitted(connector, order(by=wechat_pay.by_code(kind)))
        cancel = cancel_of(command)
        assert await connector.fetch(str(command.reference), cancel) == NotSubmitted(reference=command.reference)
        for _ in range(2):
            assert await connector.submit(cancel, "b") == Cancelled(reference=command.reference)
        assert await connector.submit(command, "c") == Cancelled(reference=command.reference)
        assert await charges(command.payment_id) == []

    async def test_an_expired_code_is_declined_and_leaves_nothing(
        self, connector: WechatPayConnector, order: MakeOrder, wechat_pay_address: str
    ) -> None:
        command, declined = await submitted(connector, order(by=wechat_pay.by_code("expired")))
        assert isinstance(declined, Declined) and declined.code == "AUTH_CODE_EXPIRE"
        assert await connector.fetch(str(command.reference), command) == NotSubmitted(reference=command.reference)

    async def test_an_expired_code_does_not_hide_what_was_paid(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books
    ) -> None:
        """The answer to a payment was lost, and it is submitted again a minute later."""
        command, done = await submitted(connector, order())
        later = command.model_copy(update={"payer": wechat_pay.by_code("expired")})
        assert await connector.submit(later, "b") == done
        assert await charges(command.payment_id) == [command.total]

    async def test_an_order_that_is_not_there_cannot_be_cancelled(self, connector: WechatPayConnector, order: MakeOrder) -> None:
        command = await opened(connector, order())
        assert await connector.submit(cancel_of(command), "b") == NotSubmitted(reference=command.reference)

    @pytest.mark.parametrize(
        "change",
        [
            {"capture": False},
            {"total": Money(minor=650, currency="EUR")},
            {"payer": Payer(provider="wechat_pay", customer="x", payment_method="card")},
            {"payer": Payer(provider="wechat_pay", customer="x", payment_method="auth_code:12345678901234567")},
            {"payer": Payer(provider="wechat_pay", customer="x", payment_method="auth_code:160000000000000000")},
            {"payer": Payer(provider="wechat_pay", customer="", payment_method="jsapi")},
        ],
    )
    async def test_what_cannot_be_asked_for_is_refused_before_anybody_is_asked(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, change: dict[str, Any]
    ) -> None:
        connector = connect(address="http://127.0.0.1:1")
        command = order().model_copy(update=change)
        assert isinstance(await connector.open(command, command.attempt_id), RefusedByProvider)
        late = command.model_copy(update={"reference": command.attempt_id})
        refused = await connector.submit(late, "a")
        assert isinstance(refused, RefusedByProvider) and refused.reference == command.attempt_id

    async def test_a_reference_that_cannot_be_an_orders_number_is_refused(
        self, connector: WechatPayConnector, order: MakeOrder
    ) -> None:
        for key in ("", "x" * 33, "a/b", "ä"):
            assert isinstance(await connector.open(order(), key), RefusedByProvider)

    async def test_without_an_address_for_notifications_only_codes_are_taken(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, waiting_payer: Payer
    ) -> None:
        connector = connect(notify_url=None)
        assert isinstance(await connector.open(order(by=waiting_payer), "a"), RefusedByProvider)
        late = order(by=waiting_payer).model_copy(update={"reference": "order-never-made"})
        assert isinstance(await connector.submit(late, "a"), RefusedByProvider)
        # What was asked for while there was one is not denied.
        asked, _ = await submitted(connect(), order(by=waiting_payer))
        assert isinstance(await connector.submit(asked, "a"), Actionable)
        command, done = await submitted(connector, order())
        assert isinstance(done, Succeeded)
        assert isinstance(await connector.submit(refund_of(command), "b"), Succeeded)

    async def test_more_than_was_paid_is_not_given_back(
        self, connector: WechatPayConnector, order: MakeOrder, given_back: Books
    ) -> None:
        command, _ = await submitted(connector, order(650))
        assert isinstance(await connector.submit(refund_of(command, money(400)), "b"), Succeeded)
        refused = await connector.submit(refund_of(command, money(251)), "c")
        assert isinstance(refused, RefusedByProvider) and refused.code == "INVALID_REQUEST"
        assert await given_back(command.payment_id) == [money(400)]

    async def test_a_refund_is_notified(self, connect: Callable[..., WechatPayConnector], order: MakeOrder) -> None:
        async with merchant() as (url, received):
            connector = connect(notify_url=url)
            command, _ = await submitted(connector, order())
            for refund in (refund_of(command, money(50)), refund_of(command, money(60))):
                await connector.submit(refund, "b")
                event = await next_event(connector, received)
                # Of this one refund, not the sum.
                assert (event.reference, event.kind, event.amount) == (command.reference, "refund", refund.amount)
                assert (event.attempt_id, event.note) == (refund.attempt_id, "REFUND.SUCCESS")

    async def test_another_amount_of_a_refund_does_not_fit(self, connector: WechatPayConnector, order: MakeOrder) -> None:
        command, _ = await submitted(connector, order())
        refund = refund_of(command, money(50))
        await connector.submit(refund, "b")
        other = refund.model_copy(update={"amount": money(51)})
        assert isinstance(await connector.fetch(str(command.reference), other), Mismatched)
        elsewhere = refund.model_copy(update={"reference": "att_00000000000000000000000000"})
        assert isinstance(await connector.fetch(elsewhere.reference, elsewhere), Mismatched)

    async def test_another_payment_does_not_fit_though_amount_and_number_do(
        self, connector: WechatPayConnector, order: MakeOrder
    ) -> None:
        command, _ = await submitted(connector, order())
        other = command.model_copy(update={"payment_id": PaymentId.new()})
        assert isinstance(await connector.fetch(str(command.reference), other), Mismatched)

    async def test_another_app_does_not_fit(
        self, connector: WechatPayConnector, connect: Callable[..., WechatPayConnector], order: MakeOrder
    ) -> None:
        command, _ = await submitted(connector, order())
        other = connect(appid="wx0000000000000000")
        assert isinstance(await other.fetch(str(command.reference), command), Mismatched)
        _, refused = await submitted(other, order())
        assert isinstance(refused, RefusedByProvider) and refused.code == "APPID_MCHID_NOT_MATCH"

    async def test_a_long_description_is_shortened(self, connector: WechatPayConnector, order: MakeOrder) -> None:
        _, done = await submitted(connector, order().model_copy(update={"description": "牛奶" * 100}))
        assert isinstance(done, Succeeded)

    async def test_no_secret_in_errors_reprs_or_logs(
        self,
        connect: Callable[..., WechatPayConnector],
        order: MakeOrder,
        credentials: Mapping[str, str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        connector = connect()
        payer = wechat_pay.by_code("declined")
        command, declined = await submitted(connector, order(by=payer))
        async with answering(None) as silent:
            lost = await connect(address=silent).submit(command, "a")
        said = [caplog.text, repr(connector), repr(vars(connector)), declined.model_dump_json(), lost.model_dump_json()]
        hidden = [credentials["api_v3_key"], *credentials["private_key"].splitlines()[1:-1]]
        hidden += [payer.payment_method.partition(":")[2], payer.customer]
        for text in said:
            assert not any(secret in text for secret in hidden)


class TestTrust(Support):
    """Only what WeChat Pay has signed counts."""

    async def test_with_a_public_key_instead_of_certificates(self, wechat_pay_address: str, order: MakeOrder) -> None:
        connector = connector_with(wechat_pay.credentials(wechat_pay_address, public_key=True))
        await connector.check()
        command, done = await submitted(connector, order())
        assert isinstance(done, Succeeded)
        assert isinstance(await connector.submit(refund_of(command), "b"), Succeeded)
        await connector.close()

    @pytest.mark.parametrize("fault", ["unsigned", "altered", "old", "another key", "another kind", "probe", "no type"])
    async def test_an_answer_that_is_not_proven_is_unknown(
        self,
        connect: Callable[..., WechatPayConnector],
        order: MakeOrder,
        own_platform: KeyPair,
        stranger: KeyPair,
        credentials: Mapping[str, str],
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        command = await opened(connect(), order())
        said = {**paid(credentials, str(command.reference)), "attach": command.payment_id}
        body = json.dumps(said).encode()
        keys = platform(credentials, stranger if fault == "another key" else own_platform)
        moment = time.time() - (301 if fault == "old" else 0)
        headers = signed_at(datetime.fromtimestamp(moment).astimezone(), keys, body, monkeypatch)
        match fault:
            case "unsigned":
                headers = {}
            case "altered":
                body = body.replace(b'"total": 650', b'"total":  650')
            case "another key":
                headers["Wechatpay-Serial"] = own_platform.serial
            case "another kind":
                headers["Wechatpay-Signature-Type"] = "WECHATPAY2-SHA1-RSA2048"
            case "probe":
                headers["Wechatpay-Signature"] = "WECHATPAY/SIGNTEST/" + headers["Wechatpay-Signature"][19:]
            case "no type":
                # WeChat Pay does not always send it, and there is one algorithm.
                del headers["Wechatpay-Signature-Type"]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        raw = f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        async with answering(raw) as address:
            connector = connect(address=address, platform_certificates=own_platform.certificate_pem)
            outcomes = [await connector.submit(command, "a"), await connector.fetch(str(command.reference), command)]
        for outcome in outcomes:
            assert isinstance(outcome, Succeeded if fault == "no type" else Unknown), outcome

    async def test_a_new_certificate_is_fetched_once(self, order: MakeOrder, tmp_path: Path) -> None:
        async with gateway() as address:
            connector = connector_with(wechat_pay.credentials(address))
            assert isinstance((await submitted(connector, order()))[1], Succeeded)
            await wechat_pay.rotate(address)
            assert isinstance((await submitted(connector, order()))[1], Succeeded)
            # A forged name of a key, or a second change at once, does not make it ask again.
            await wechat_pay.rotate(address)
            assert isinstance((await submitted(connector, order()))[1], Unknown)
            connector._refreshed_at -= CERTIFICATES_EVERY_S
            assert isinstance((await submitted(connector, order()))[1], Succeeded)
            await connector.close()

    async def test_a_notification_under_a_new_certificate_is_believed_once_that_was_fetched(
        self, order: MakeOrder, waiting_payer: Payer
    ) -> None:
        """The gateway's connector makes no calls, by whose answers it would learn of it."""
        async with gateway() as address, merchant() as (url, received):
            connector = connector_with(wechat_pay.credentials(address), notify_url=url)
            commands = [(await submitted(connector, order(by=waiting_payer)))[0] for _ in range(3)]

            async def notified(number: int) -> tuple[dict[str, str], bytes]:
                await wechat_pay.rotate(address)
                await wechat_pay.confirm(address, str(commands[number].reference))
                seen = await asyncio.wait_for(received.get(), 60)
                with pytest.raises(Rejected) as refused:
                    connector.parse_webhook(*seen)
                assert refused.value.problem.code == "credentials-invalid"
                return seen

            first = await notified(0)
            # Of several that come at once each hears that there is something new, and one asks.
            assert await asyncio.gather(*(connector.refresh() for _ in range(3))) == [True, True, True]
            (event,) = connector.parse_webhook(*first)
            assert event.reference == commands[0].reference
            # Not more often than once a minute, whatever comes.
            second = await notified(1)
            assert await connector.refresh() is False
            connector._refreshed_at -= CERTIFICATES_EVERY_S
            assert await connector.refresh() is True
            assert [event.reference for event in connector.parse_webhook(*second)] == [commands[1].reference]
            # Where there is nothing new, that is what is said.
            connector._refreshed_at -= CERTIFICATES_EVERY_S
            assert await connector.refresh() is False
            await connector.close()

    async def test_an_account_in_use_outlives_its_certificates(self, order: MakeOrder, waiting_payer: Payer) -> None:
        """It is started again after all that is stored has expired: that verifies nothing, and is replaced."""
        async with gateway() as address, merchant() as (url, received):
            given = wechat_pay.credentials(address)
            ended = expired(KeyPair(given["private_key"], ""), serial=platform_serial(given))
            with pytest.raises(Misconfigured, match="expired"):
                registry.payments("wechat_pay", {**given, "platform_certificates": ended}, notify_url=url)
            connector = registry.payments(
                "wechat_pay", {**given, "platform_certificates": ended, "certificate": ended}, notify_url=url, strict=False
            )
            other = connector_with(given, notify_url=url)
            command, _ = await submitted(other, order(by=waiting_payer))
            await wechat_pay.confirm(address, str(command.reference))
            seen = await asyncio.wait_for(received.get(), 60)
            with pytest.raises(Rejected):
                connector.parse_webhook(*seen)
            assert await connector.refresh() is True
            assert [event.reference for event in connector.parse_webhook(*seen)] == [command.reference]
            assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)
            await connector.check()
            await connector.close()
            await other.close()

    async def test_a_certificate_that_expires_in_use_verifies_nothing_any_more(
        self, connect: Callable[..., WechatPayConnector], credentials: Mapping[str, str], own_platform: KeyPair
    ) -> None:
        connector = connect(platform_certificates=own_platform.certificate_pem)
        keys = platform(credentials, own_platform)
        body = notification(keys, "TRANSACTION.SUCCESS", paid(credentials, "att_1"))
        assert connector.parse_webhook(their_signing.headers(keys.signing, body), body)
        connector._keys = {serial: replace(key, expires_at=datetime.now(UTC)) for serial, key in connector._keys.items()}
        assert refusal(connector, keys, body) == "credentials-invalid"

    async def test_a_public_key_is_never_replaced(self) -> None:
        async with gateway() as address:
            connector = connector_with(wechat_pay.credentials(address, public_key=True))
            await wechat_pay.rotate(address)
            known = dict(connector._keys)
            assert await connector.refresh() is False
            assert connector._keys == known
            await connector.close()

    async def test_certificates_of_somebody_else_are_not_taken(self, order: MakeOrder, stranger: KeyPair) -> None:
        """A server that does not have the API v3 key cannot make itself trusted."""
        async with gateway() as address:
            given = wechat_pay.credentials(address)
            elsewhere = {**given, "platform_certificates": stranger.certificate_pem, "api_v3_key": "0" * 32}
            connector = connector_with(elsewhere)
            assert isinstance((await submitted(connector, order()))[1], Unknown)
            with pytest.raises(Misconfigured):
                await connector.check()
            await connector.close()
            # With the key, one whose first certificate is out of date finds the new one by itself.
            connector = connector_with({**given, "platform_certificates": stranger.certificate_pem})
            assert isinstance((await submitted(connector, order()))[1], Succeeded)
            await connector.close()


class TestNotifications(Support):
    @pytest.fixture
    def keys(self, credentials: Mapping[str, str], own_platform: KeyPair) -> Keys:
        return platform(credentials, own_platform)

    @pytest.fixture
    def connector(self, connect: Callable[..., WechatPayConnector], own_platform: KeyPair) -> WechatPayConnector:
        return connect(platform_certificates=own_platform.certificate_pem)

    def test_another_merchants_or_apps_is_refused(
        self, connector: WechatPayConnector, credentials: Mapping[str, str], keys: Keys
    ) -> None:
        for change in ({"mchid": "1900000109"}, {"appid": "wx0000000000000000"}, {"mchid": None}):
            body = notification(keys, "TRANSACTION.SUCCESS", {**paid(credentials, "att_1"), **change})
            assert refusal(connector, keys, body) == "credentials-invalid"

    def test_encrypted_with_another_key_or_in_another_way_is_refused(
        self, connector: WechatPayConnector, credentials: Mapping[str, str], keys: Keys
    ) -> None:
        others = Keys(keys.mchid, keys.appid, "1" * 32, keys.merchant, keys.platform)
        assert (
            refusal(connector, keys, notification(others, "TRANSACTION.SUCCESS", paid(credentials, "a"))) == "credentials-invalid"
        )
        for algorithm in ("AEAD_SM4_GCM", "none", "", None):
            message = json.loads(notification(keys, "TRANSACTION.SUCCESS", paid(credentials, "a")))
            message["resource"]["algorithm"] = algorithm
            assert refusal(connector, keys, json.dumps(message).encode()) == "credentials-invalid"

    @pytest.mark.parametrize("kind", ["REFUND.ABNORMAL", "REFUND.CLOSED"])
    def test_a_refund_that_failed_is_a_reversal(
        self, connector: WechatPayConnector, credentials: Mapping[str, str], keys: Keys, kind: str
    ) -> None:
        said = {"mchid": credentials["mchid"], "out_trade_no": "att_1", "amount": {"total": 650, "refund": 200}}
        for number in ({"out_refund_no": "att_2"}, {}):
            body = notification(keys, kind, {**said, **number})
            (event,) = connector.parse_webhook(their_signing.headers(keys.signing, body), body)
            assert (event.kind, event.reference, event.amount) == ("reversal", "att_1", None)
            assert (event.note, event.attempt_id) == (kind, number.get("out_refund_no"))

    def test_what_is_about_something_else_says_nothing(
        self, connector: WechatPayConnector, credentials: Mapping[str, str], keys: Keys
    ) -> None:
        body = notification(keys, "PAYSCORE.USER_OPEN_SERVICE", {"mchid": credentials["mchid"], "appid": credentials["appid"]})
        assert connector.parse_webhook(their_signing.headers(keys.signing, body), body) == []

    @pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{}", b'{"resource": 7}', b"\xff", b"[" * 100_000])
    def test_signed_and_unreadable_is_malformed(self, connector: WechatPayConnector, keys: Keys, body: bytes) -> None:
        assert refusal(connector, keys, body) == "message-malformed"

    @pytest.mark.parametrize("field", ["out_trade_no", "amount"])
    def test_without_a_field_it_is_malformed(
        self, connector: WechatPayConnector, credentials: Mapping[str, str], keys: Keys, field: str
    ) -> None:
        said = paid(credentials, "att_1")
        del said[field]
        assert refusal(connector, keys, notification(keys, "TRANSACTION.SUCCESS", said)) == "message-malformed"

    def test_acknowledged_as_the_documents_say(self, connector: WechatPayConnector) -> None:
        status, media_type, body = connector.acknowledgement()
        assert (status, media_type, json.loads(body)) == (200, "application/json", {"code": "SUCCESS"})


class TestFaults(Support):
    """What the gateway does on its bad days, and what the connector makes of it."""

    async def test_an_answer_lost_after_the_money_moved(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, wechat_pay_address: str
    ) -> None:
        command = await opened(connector, order())
        async with with_fault(wechat_pay_address, Fault.ANSWER_LOST):
            assert isinstance(await connector.submit(command, "a"), Unknown)
        done = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.fetch(str(command.reference), command) == done
        assert await connector.submit(command, "a") == done
        assert await charges(command.payment_id) == [command.total]

    @pytest.mark.parametrize("first", ["the repetition", "the late effect"])
    async def test_an_effect_that_comes_late_comes_once(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, wechat_pay_address: str, first: str
    ) -> None:
        command = await opened(connector, order())
        async with with_fault(wechat_pay_address, Fault.LATE_EFFECT, late_s=[60, 60]):
            assert isinstance(await connector.submit(command, "a"), Unknown)
        assert await connector.fetch(str(command.reference), command) == NotSubmitted(reference=command.reference)
        if first == "the late effect":
            await let_late_effects_happen(wechat_pay_address)
            assert await charges(command.payment_id) == [command.total]
        done = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(command, "a") == done
        if first == "the repetition":
            await let_late_effects_happen(wechat_pay_address)
        assert await connector.fetch(str(command.reference), command) == done
        assert await charges(command.payment_id) == [command.total]

    async def test_a_refund_that_comes_late_comes_once(
        self, connector: WechatPayConnector, order: MakeOrder, given_back: Books, wechat_pay_address: str
    ) -> None:
        command, _ = await submitted(connector, order())
        refund = refund_of(command, money(50))
        async with with_fault(wechat_pay_address, Fault.LATE_EFFECT, late_s=[60, 60]):
            assert isinstance(await connector.submit(refund, "a"), Unknown)
        assert await connector.fetch(str(command.reference), refund) == NotSubmitted(reference=command.reference)
        assert isinstance(await connector.submit(refund, "a"), Succeeded)
        await let_late_effects_happen(wechat_pay_address)
        assert await given_back(command.payment_id) == [money(50)]

    @pytest.mark.parametrize(
        ("code", "refund", "expected"),
        [
            ("INVALID_REQUEST", "PROCESSING", Pending),
            ("INVALID_REQUEST", "SUCCESS", Succeeded),
            ("NOT_ENOUGH", "SUCCESS", Succeeded),
            ("RESOURCE_NOT_EXISTS", "CLOSED", Declined),
            ("INVALID_REQUEST", "RESOURCE_NOT_EXISTS", RefusedByProvider),
            ("NOT_ENOUGH", "RESOURCE_NOT_EXISTS", Declined),
            ("INVALID_REQUEST", "SYSTEM_ERROR", Unknown),
            ("INVALID_REQUEST", None, Unknown),
            # Nobody is asked: what is not sure stays so, and the core asks later.
            ("SYSTEM_ERROR", "RESOURCE_NOT_EXISTS", Unknown),
            ("FREQUENCY_LIMITED", "RESOURCE_NOT_EXISTS", Unknown),
            ("NOWHERE_DOCUMENTED", "RESOURCE_NOT_EXISTS", Unknown),
        ],
    )
    async def test_no_refusal_of_a_refund_counts_before_it_was_asked_for(
        self,
        connect: Callable[..., WechatPayConnector],
        order: MakeOrder,
        credentials: Mapping[str, str],
        own_platform: KeyPair,
        code: str,
        refund: str | None,
        expected: type,
    ) -> None:
        """Its first request may have been slow and its answer lost, so that the repetition is refused while the refund runs."""
        command = refund_of(order().model_copy(update={"reference": "att_paid"}), money(50))
        keys = platform(credentials, own_platform)

        async def answer(request: web.Request) -> web.Response:
            said: dict[str, Any] = {"code": code}
            if request.method == "GET":
                if refund is None:
                    return web.Response(status=502)
                said = {"code": refund}
                if refund in {"PROCESSING", "SUCCESS", "CLOSED"}:
                    amount = {"total": command.total.minor, "refund": 50, "currency": "CNY"}
                    numbers = {"out_trade_no": command.reference, "out_refund_no": command.attempt_id}
                    said = {**numbers, "status": refund, "amount": amount}
            content = json.dumps(said).encode()
            status = 400 if "code" in said else 200
            return web.Response(body=content, status=status, headers=their_signing.headers(keys.signing, content))

        server = web.Application()
        server.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(server)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            address = f"http://127.0.0.1:{runner.addresses[0][1]}"
            connector = connect(address=address, platform_certificates=own_platform.certificate_pem)
            assert isinstance(await connector.submit(command, "a"), expected)
        finally:
            await runner.cleanup()

    @pytest.mark.parametrize(
        "fault", [Fault.CUT, Fault.SLOW, Fault.SERVER_ERROR, Fault.UNKNOWN_CODE, Fault.RATE_LIMIT, Fault.WRONG_AMOUNT]
    )
    async def test_everything_else_is_never_taken_for_an_answer(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, wechat_pay_address: str, fault: Fault
    ) -> None:
        command = await opened(connector, order())
        async with with_fault(wechat_pay_address, fault, slow_s=3.0):
            outcome = await connector.submit(command, "a")
            seen = await connector.fetch(str(command.reference), command)
        expected = Mismatched if fault is Fault.WRONG_AMOUNT else Unknown
        assert isinstance(outcome, expected) and isinstance(seen, expected)
        # Afterwards it can be finished: once.
        assert isinstance(await connector.submit(command, "a"), Succeeded)
        assert await charges(command.payment_id) == [command.total]

    async def test_whatever_happens_everything_is_done_once(
        self, connector: WechatPayConnector, order: MakeOrder, charges: Books, given_back: Books, wechat_pay_address: str
    ) -> None:
        """Half of all requests meet a fault; who is unsure asks, and does again what was not done."""

        async def insist(command: Authorise | Refund) -> Any:
            outcome: Any = await connector.submit(command, command.attempt_id)
            while isinstance(outcome, Unknown | NotSubmitted):
                outcome = await connector.fetch(str(command.reference), command)
                if isinstance(outcome, NotSubmitted):
                    outcome = await connector.submit(command, command.attempt_id)
            return outcome

        async def whole(number: int) -> None:
            command = await opened(connector, order(600 + number))
            assert isinstance(await insist(command), Succeeded)
            assert isinstance(await insist(refund_of(command, money(number + 1))), Succeeded)
            assert await charges(command.payment_id) == [command.total]
            assert await given_back(command.payment_id) == [money(number + 1)]

        kinds = [Fault.ANSWER_LOST, Fault.CUT, Fault.SERVER_ERROR, Fault.UNKNOWN_CODE, Fault.RATE_LIMIT]
        await wechat_pay.set_faults(wechat_pay_address, rate=0.5, kinds=kinds, seed=7)
        try:
            await asyncio.gather(*(whole(number) for number in range(30)))
        finally:
            await wechat_pay.set_faults(wechat_pay_address, rate=0.0)

    async def test_repeated_notifications_are_the_same_event(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, waiting_payer: Payer, wechat_pay_address: str
    ) -> None:
        async with merchant() as (url, received):
            connector = connect(notify_url=url)
            command, _ = await submitted(connector, order(by=waiting_payer))
            async with with_fault(wechat_pay_address, Fault.REPEATED_NOTIFICATION):
                await wechat_pay.confirm(wechat_pay_address, str(command.reference))
            events = [await next_event(connector, received) for _ in range(3)]
        assert len({event.event_id for event in events}) == 1

    async def test_disordered_notifications_come_later_than_those_after_them(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, waiting_payer: Payer, wechat_pay_address: str
    ) -> None:
        async with merchant() as (url, received):
            connector = connect(notify_url=url)
            command, _ = await submitted(connector, order(by=waiting_payer))
            async with with_fault(wechat_pay_address, Fault.DISORDERED_NOTIFICATION):
                await wechat_pay.confirm(wechat_pay_address, str(command.reference))
            await connector.submit(refund_of(command), "b")
            kinds = [(await next_event(connector, received)).kind for _ in range(2)]
        assert kinds == ["refund", "payment"]

    async def test_notifications_are_sent_until_they_are_acknowledged(
        self, connect: Callable[..., WechatPayConnector], order: MakeOrder, waiting_payer: Payer, wechat_pay_address: str
    ) -> None:
        async with merchant(status=500) as (url, received):
            connector = connect(notify_url=url)
            command, _ = await submitted(connector, order(by=waiting_payer))
            await wechat_pay.confirm(wechat_pay_address, str(command.reference))
            first, second = await next_event(connector, received), await next_event(connector, received)
        assert first == second

    async def test_a_bill_with_another_hash_is_not_taken(
        self, connector: WechatPayConnector, order: MakeOrder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await submitted(connector, order())
        today = datetime.now(mapping.ZONE).date()
        assert await connector.statement(today)
        real = connector._send

        async def cut(method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
            answer = await real(method, target, body)
            if not target.startswith("/v3/billdownload"):
                return answer
            return type(answer)(answer.status, answer.headers, answer.body[:-1], truncated=False)

        monkeypatch.setattr(connector, "_send", cut)
        with pytest.raises(Retryable, match="hash"):
            await connector.statement(today)


class TestPeer(Support):
    """`wechatpayv3`, an SDK that is not ours, against the gateway; and the connector against what the SDK makes."""

    @pytest.fixture
    def sdk(
        self, credentials: Mapping[str, str], wechat_pay_address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[WeChatPay]:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        (tmp_path / "platform.pem").write_text(credentials["platform_certificates"])
        yield peer(credentials, wechat_pay_address, cert_dir=str(tmp_path))

    async def test_it_orders_asks_closes_and_gives_back(self, sdk: WeChatPay, wechat_pay_address: str) -> None:
        def number() -> str:
            return f"peer{time.time_ns()}"

        total = {"total": 100, "currency": "CNY"}
        native, gone, code = number(), number(), number()
        status, answer = await ask(sdk.pay, description="牛奶", out_trade_no=native, amount=total)
        assert status == 200 and answer["code_url"].startswith("weixin://")
        assert (await ask(sdk.query, out_trade_no=native))[1]["trade_state"] == "NOTPAY"
        await wechat_pay.confirm(wechat_pay_address, native)
        status, answer = await ask(sdk.query, out_trade_no=native)
        assert (status, answer["trade_state"], answer["amount"]["total"]) == (200, "SUCCESS", 100)

        await ask(sdk.pay, description="牛奶", out_trade_no=gone, amount=total)
        assert (await ask(sdk.close, out_trade_no=gone))[0] == 204
        assert (await ask(sdk.query, out_trade_no=gone))[1]["trade_state"] == "CLOSED"

        by_code = {"auth_code": wechat_pay.by_code("ok").payment_method.partition(":")[2]}
        status, answer = await ask(
            sdk.pay,
            description="牛奶",
            out_trade_no=code,
            amount=total,
            payer=by_code,
            scene_info={"store_info": {"out_id": "1"}},
            pay_type=WeChatPayType.CODEPAY,
        )
        assert (status, answer["trade_state"]) == (200, "SUCCESS")

        part = {"refund": 40, **total}
        status, answer = await ask(sdk.refund, out_refund_no=f"r{code}", out_trade_no=code, amount=part)
        assert (status, answer["status"], answer["amount"]["refund"]) == (200, "SUCCESS", 40)
        assert (await ask(sdk.query_refund, out_refund_no=f"r{code}"))[1]["out_trade_no"] == code
        assert (await ask(sdk.query, out_trade_no="peer-nothing"))[0] == 404

    async def test_it_reads_the_certificates_and_verifies_with_them(self, sdk: WeChatPay, credentials: Mapping[str, str]) -> None:
        await asyncio.to_thread(sdk._core._update_certificates)
        assert [f"{each.serial_number:X}" for each in sdk._core._certificates] == [platform_serial(credentials)]
        assert (await ask(sdk.query, out_trade_no="peer-nothing"))[0] == 404

    async def test_with_a_public_key(self, wechat_pay_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        given = wechat_pay.credentials(wechat_pay_address, public_key=True)
        sdk = peer(
            given,
            wechat_pay_address,
            public_key=given["platform_public_key"],
            public_key_id=given["platform_public_key_id"],
        )
        total = {"total": 100, "currency": "CNY"}
        status, _ = await ask(sdk.pay, description="x", out_trade_no=f"peer{time.time_ns()}", amount=total)
        assert status == 200

    async def test_it_verifies_and_decrypts_notifications(
        self,
        sdk: WeChatPay,
        connect: Callable[..., WechatPayConnector],
        order: MakeOrder,
        waiting_payer: Payer,
        wechat_pay_address: str,
    ) -> None:
        async with merchant() as (url, received):
            connector = connect(notify_url=url)
            command, _ = await submitted(connector, order(by=waiting_payer))
            await wechat_pay.confirm(wechat_pay_address, str(command.reference))
            headers, body = await asyncio.wait_for(received.get(), 60)
            seen = await asyncio.to_thread(sdk.callback, headers, body)
            assert seen["resource"]["out_trade_no"] == command.reference
            assert seen["resource"]["amount"]["total"] == command.total.minor
            altered = body.replace(b"TRANSACTION.SUCCESS", b"TRANSACTION.SUCCES2")
            assert await asyncio.to_thread(sdk.callback, headers, altered) is None
            # Both read the same.
            (event,) = connector.parse_webhook(headers, body)
            assert (event.event_id, event.reference) == (seen["id"], command.reference)

    async def test_the_connector_reads_what_it_ordered(
        self, sdk: WeChatPay, connector: WechatPayConnector, order: MakeOrder, waiting_payer: Payer, wechat_pay_address: str
    ) -> None:
        command = await opened(connector, order(by=waiting_payer))
        amount = {"total": command.total.minor, "currency": "CNY"}
        status, _ = await ask(sdk.pay, description="x", out_trade_no=command.reference, amount=amount, attach=command.payment_id)
        assert status == 200
        assert isinstance(await connector.fetch(str(command.reference), command), Actionable)
        await wechat_pay.confirm(wechat_pay_address, str(command.reference))
        assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)

    async def test_a_stranger_is_not_let_in(
        self, credentials: Mapping[str, str], stranger: KeyPair, wechat_pay_address: str, tmp_path: Path
    ) -> None:
        (tmp_path / "platform.pem").write_text(credentials["platform_certificates"])
        sdk = peer({**credentials, "private_key": stranger.private_pem}, wechat_pay_address, cert_dir=str(tmp_path))
        status, answer = await ask(sdk.query, out_trade_no="peer-nothing")
        assert (status, answer["code"]) == (401, "SIGN_ERROR")


def peer(credentials: Mapping[str, str], address: str, **others: Any) -> WeChatPay:
    sdk = WeChatPay(
        wechatpay_type=WeChatPayType.NATIVE,
        mchid=credentials["mchid"],
        private_key=credentials["private_key"],
        cert_serial_no=credentials["serial_no"],
        appid=credentials["appid"],
        apiv3_key=credentials["api_v3_key"],
        notify_url=NOBODY,
        proxy={"http": None},
        **others,
    )
    # It has no setting for the server.
    sdk._core._gate_way = address
    return sdk


async def ask(call: Callable[..., tuple[int, str]], **arguments: Any) -> tuple[int, Any]:
    """The SDK waits for its answers, and verifies each that is a success."""
    status, text = await asyncio.to_thread(call, **arguments)
    return status, json.loads(text) if text else None


def expired(pair: KeyPair, *, serial: str) -> str:
    """A certificate under that serial that ended a minute ago."""
    now, name = datetime.now(UTC), x509.Name([])
    begun = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(pair.public_key)
    begun = begun.serial_number(int(serial, 16)).not_valid_before(now - timedelta(days=2))
    return begun.not_valid_after(now - timedelta(minutes=1)).sign(pair.key, SHA256()).public_bytes(Encoding.PEM).decode()


def platform_serial(credentials: Mapping[str, str]) -> str:
    return KeyPair("", credentials["platform_certificates"]).serial


def refusal(connector: WechatPayConnector, keys: Keys, body: bytes) -> str:
    with pytest.raises(Rejected) as refused:
        connector.parse_webhook(their_signing.headers(keys.signing, body), body)
    return refused.value.problem.code


async def next_event(connector: WechatPayConnector, received: "asyncio.Queue[tuple[dict[str, str], bytes]]") -> ProviderEvent:
    (event,) = connector.parse_webhook(*await asyncio.wait_for(received.get(), 60))
    return event


@asynccontextmanager
async def gateway() -> AsyncIterator[str]:
    """One of this test's own, in a process."""
    port = new_port()
    process = await asyncio.create_subprocess_exec(*wechat_pay.argv(port))
    try:
        async with asyncio.timeout(120):
            while not await wechat_pay.is_ready(wechat_pay.address(port)):
                await asyncio.sleep(0.1)
        yield wechat_pay.address(port)
    finally:
        process.terminate()
        await process.wait()
