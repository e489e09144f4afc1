"""The Stripe connector against localstripe, a server that is not ours."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime

import pytest
import stripe
from aiohttp import web

from connectors.conformance.payments import MakeOrder, PaymentConformance, answering, opened, refund_of
from connectors.payments.stripe import StripeConnector
from connectors.ports import PaymentConnector
from infra.sandbox import localstripe
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.ids import PaymentId
from schemas.money import Money
from schemas.payments import Actionable, Declined, Payer, RefusedByProvider, Succeeded, Unknown

SECRET = "whsec_conformance"


def stripe_at(address: str, **options: object) -> StripeConnector:
    return StripeConnector(localstripe.API_KEY, address=address, timeout_s=2, **{"webhook_secret": SECRET, **options})  # type: ignore[arg-type]


def signed(reference: str, moment: datetime, secret: str) -> tuple[Mapping[str, str], bytes]:
    event = {
        "id": "evt_1",
        "object": "event",
        "type": "payment_intent.succeeded",
        "created": int(moment.timestamp()),
        "data": {"object": {"id": reference, "object": "payment_intent"}},
    }
    body = json.dumps(event)
    header = stripe.WebhookSignature.generate_signature_header(body, secret, int(moment.timestamp()))
    return {"Stripe-Signature": header}, body.encode()


class TestStripe(PaymentConformance):
    @pytest.fixture
    async def connector_at(self) -> AsyncIterator[Callable[[str], PaymentConnector]]:
        made: list[StripeConnector] = []

        def make(address: str) -> PaymentConnector:
            made.append(stripe_at(address))
            return made[-1]

        yield make
        for connector in made:
            await connector.close()

    @pytest.fixture
    def address(self, stripe_address: str) -> str:
        return stripe_address

    @pytest.fixture
    async def payer(self, stripe_address: str) -> Payer:
        return await localstripe.seed_payer(stripe_address)

    @pytest.fixture
    async def declined_payer(self, stripe_address: str) -> Payer:
        return await localstripe.seed_payer(stripe_address, kind="declined")

    @pytest.fixture
    def charges(self, stripe_address: str) -> Callable[[PaymentId], Awaitable[list[Money]]]:
        async def read(payment_id: PaymentId) -> list[Money]:
            taken = []
            for intent in await localstripe.payment_intents(stripe_address):
                charge = intent["latest_charge"]
                if intent["metadata"].get("payment_id") == payment_id and charge and charge["paid"] and charge["captured"]:
                    # A partial capture is a charge whose remainder localstripe refunds at once, without our metadata.
                    rest = sum(refund["amount"] for refund in charge["refunds"]["data"] if not refund["metadata"])
                    taken.append(Money(minor=charge["amount"] - rest, currency=charge["currency"].upper()))
            return taken

        return read

    @pytest.fixture
    def given_back(self, stripe_address: str) -> Callable[[PaymentId], Awaitable[list[Money]]]:
        async def read(payment_id: PaymentId) -> list[Money]:
            return [
                Money(minor=refund["amount"], currency=refund["currency"].upper())
                for refund in await localstripe.refunds(stripe_address)
                if refund["metadata"].get("payment_id") == payment_id
            ]

        return read

    @pytest.fixture
    def sign(self) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        return lambda reference, moment: signed(reference, moment, SECRET)

    @pytest.fixture
    def sign_with_empty_secret(self) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        return lambda reference, moment: signed(reference, moment, "")

    @pytest.fixture
    def without_secret(self, stripe_address: str) -> list[PaymentConnector]:
        return [stripe_at(stripe_address, webhook_secret=secret) for secret in (None, "", "  ")]

    # What only Stripe does.

    async def test_authentication_is_asked_for_and_then_paid(
        self,
        connector: PaymentConnector,
        order: MakeOrder,
        charges: Callable[[PaymentId], Awaitable[list[Money]]],
        stripe_address: str,
    ) -> None:
        payer = await localstripe.seed_payer(stripe_address, kind="needs_action")
        command = await opened(connector, order(by=payer))
        asked = await connector.submit(command, "a")
        assert asked == Actionable(reference=command.reference, url=None)
        assert await connector.submit(command, "a") == asked
        assert await charges(command.payment_id) == []
        await localstripe.authenticate(stripe_address, str(command.reference))
        assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)
        assert isinstance(await connector.submit(command, "a"), Succeeded)
        assert await charges(command.payment_id) == [command.total]

    async def test_a_failed_authentication_is_a_decline(
        self, connector: PaymentConnector, order: MakeOrder, stripe_address: str
    ) -> None:
        payer = await localstripe.seed_payer(stripe_address, kind="needs_action")
        command = await opened(connector, order(by=payer))
        await connector.submit(command, "a")
        await localstripe.authenticate(stripe_address, str(command.reference), success=False)
        outcome = await connector.fetch(str(command.reference), command)
        assert isinstance(outcome, Declined)
        assert outcome.code == "payment_intent_authentication_failure"

    async def test_a_whole_yen_and_a_whole_krona(
        self, connector: PaymentConnector, order: MakeOrder, stripe_address: str
    ) -> None:
        for minor, currency, at_stripe in ((500, "JPY", 500), (500, "ISK", 50_000), (5_000, "KWD", 5_000)):
            command = order().model_copy(update={"total": Money(minor=minor, currency=currency)})
            command = await opened(connector, command)
            outcome = await connector.submit(command, "a")
            assert outcome == Succeeded(reference=command.reference, total=command.total, captured=True)
            books = {intent["id"]: intent["amount"] for intent in await localstripe.payment_intents(stripe_address)}
            assert books[command.reference] == at_stripe

    async def test_an_amount_stripe_cannot_write_is_refused(self, connector: PaymentConnector, order: MakeOrder) -> None:
        command = order().model_copy(update={"total": Money(minor=1234, currency="KWD")})
        refused = await connector.open(command, "a")
        assert isinstance(refused, RefusedByProvider)
        assert refused.code == "amount_not_representable"

    async def test_the_books_name_the_payment(self, connector: PaymentConnector, order: MakeOrder, stripe_address: str) -> None:
        command = await opened(connector, order())
        (intent,) = [each for each in await localstripe.payment_intents(stripe_address) if each["id"] == command.reference]
        assert intent["metadata"] == {
            "payment_id": command.payment_id,
            "attempt_id": command.attempt_id,
            "journey_id": command.journey_id,
            "order_id": command.order_id,
            "description": command.description,
        }

    async def test_more_refunds_than_fit_on_a_page(
        self, connector: PaymentConnector, order: MakeOrder, stripe_address: str
    ) -> None:
        command = await opened(connector, order(20_000))
        await connector.submit(command, "a")
        first = refund_of(command, Money(minor=100, currency="EUR"))
        await connector.submit(first, "first")
        for number in range(101):
            await connector.submit(refund_of(command, Money(minor=1, currency="EUR")), f"{number}")
        assert isinstance(await connector.fetch(str(command.reference), first), Succeeded)
        assert isinstance(await connector.submit(first, "first"), Succeeded)
        given = [refund for refund in await localstripe.refunds(stripe_address) if refund["payment_intent"] == command.reference]
        assert sum(refund["amount"] for refund in given) == 201

    async def test_localstripes_own_webhook_is_understood(
        self, connector: PaymentConnector, order: MakeOrder, stripe_address: str
    ) -> None:
        received: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue()

        async def receive(request: web.Request) -> web.Response:
            received.put_nowait((dict(request.headers), await request.read()))
            return web.Response()

        receiver = web.Application()
        receiver.router.add_post("/hook", receive)
        runner = web.AppRunner(receiver)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            await localstripe.register_webhook(stripe_address, f"http://127.0.0.1:{port}/hook", SECRET)
            command = await opened(connector, order())
            await connector.submit(command, "a")
            references: list[str] = []
            while command.reference not in references:
                headers, body = await asyncio.wait_for(received.get(), 10)
                references += [event.reference for event in connector.parse_webhook(headers, body)]
        finally:
            await runner.cleanup()

    async def test_a_signed_webhook_about_something_else_says_nothing(self, connector: PaymentConnector) -> None:
        body = json.dumps(
            {"id": "evt_1", "object": "event", "created": 1, "data": {"object": {"id": "cus_1", "object": "customer"}}}
        )
        header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
        assert connector.parse_webhook({"stripe-signature": header}, body.encode()) == []

    @pytest.mark.parametrize(
        "body", ["", "[]", "7", "{}", '{"object": "event", "data": {"object": {"object": "payment_intent", "id": "pi_1"}}}']
    )
    async def test_a_signed_webhook_that_cannot_be_read_is_refused_or_ignored(
        self, connector: PaymentConnector, body: str
    ) -> None:
        header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
        try:
            assert connector.parse_webhook({"stripe-signature": header}, body.encode()) == []
        except Rejected as refused:
            assert refused.problem.code == "message-malformed"

    # What only Stripe can be misconfigured for.

    @pytest.mark.parametrize("key", [None, "", "pk_test_123", "hello", "sk_", "sk_test_1\n"])
    async def test_a_key_that_cannot_be_one_is_misconfigured(self, key: str | None) -> None:
        with pytest.raises(Misconfigured, match="AUGENBLICK_STRIPE_API_KEY") as raised:
            StripeConnector(key, address="http://127.0.0.1:1")
        assert "pk_test_123" not in str(raised.value)

    async def test_stripe_itself_wants_a_return_address(self) -> None:
        with pytest.raises(Misconfigured, match="AUGENBLICK_STRIPE_RETURN_URL"):
            StripeConnector("sk_test_1234")

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_key_that_is_not_accepted_is_misconfigured(self, order: MakeOrder, status: int) -> None:
        async with answering(error_answer(status, {"message": "Invalid API Key provided: sk_test_1234"})) as address:
            connector = stripe_at(address)
            with pytest.raises(Misconfigured, match="AUGENBLICK_STRIPE_API_KEY") as raised:
                await connector.open(order(), "a")
            assert "1234" not in str(raised.value)
            with pytest.raises(Misconfigured):
                await connector.fetch("pi_1", order())
            await connector.close()

    async def test_too_many_requests(self, order: MakeOrder) -> None:
        async with answering(error_answer(429, {"message": "slow down"}, "Retry-After: 7\r\n")) as address:
            connector = stripe_at(address)
            with pytest.raises(Retryable) as raised:
                await connector.open(order(), "a")
            assert raised.value.retry_after_s == 7
            command = order().model_copy(update={"reference": "pi_1"})
            assert isinstance(await connector.submit(command, "a"), Unknown)
            await connector.close()

    async def test_deadlines_bound_each_call(self, order: MakeOrder) -> None:
        async with answering(None) as silent:
            connector = StripeConnector(localstripe.API_KEY, address=silent, timeout_s=0.3)
            began = time.monotonic()
            outcome = await connector.submit(order().model_copy(update={"reference": "pi_1"}), "a")
            assert isinstance(outcome, Unknown)
            assert time.monotonic() - began < 1
            await connector.close()

    async def test_a_stand_in_is_reached_without_proxies(
        self, order: MakeOrder, stripe_address: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        connector = stripe_at(stripe_address)
        await opened(connector, order())
        await connector.close()

    # Nothing secret gets out.

    async def test_no_secret_in_errors_repr_or_logs(self, order: MakeOrder, caplog: pytest.LogCaptureFixture) -> None:
        names = "No such customer: 'cus_SECRET' with pm_SECRET and 4242 4242 4242 4242 for sk_test_SECRET"
        caplog.set_level(logging.DEBUG)
        said = []
        for status in (400, 402, 404):
            async with answering(
                error_answer(status, {"message": names, "code": "resource_missing", "param": "customer"})
            ) as address:
                connector = StripeConnector("sk_test_SECRET", address=address, webhook_secret="whsec_SECRET", timeout_s=2)
                command = order(by=Payer(provider="stripe", customer="cus_SECRET", payment_method="pm_SECRET"))
                said += [repr(command), repr(connector), repr(vars(connector)["_webhook_secret"] is None)]
                said.append((await connector.open(command, "a")).model_dump_json())
                paid = command.model_copy(update={"reference": "pi_1"})
                said.append((await connector.submit(paid, "a")).model_dump_json())
                await connector.close()
        everything = "\n".join(said) + caplog.text
        assert "SECRET" not in everything
        assert "4242" not in everything

    # What Stripe does and localstripe does not.

    async def test_a_repeated_answer_is_looked_at_again(self, order: MakeOrder) -> None:
        command = order().model_copy(update={"reference": "pi_1"})
        intent = {
            "id": "pi_1",
            "object": "payment_intent",
            "amount": 650,
            "currency": "eur",
            "metadata": {"payment_id": command.payment_id},
        }
        asked: list[str] = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(f"{request.method} {request.path} {request.headers.get('Idempotency-Key')}")
            if request.method == "POST":
                return web.json_response({**intent, "status": "requires_action"}, headers={"Idempotent-Replayed": "true"})
            return web.json_response({**intent, "status": "succeeded", "amount_received": 650})

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            connector = stripe_at(f"http://127.0.0.1:{runner.addresses[0][1]}")
            outcome = await connector.submit(command, "att_1")
            assert outcome == Succeeded(reference="pi_1", total=command.total, captured=True)
            assert asked == ["POST /v1/payment_intents/pi_1/confirm att_1-authorise", "GET /v1/payment_intents/pi_1 None"]
            await connector.close()
        finally:
            await runner.cleanup()


def error_answer(status: int, error: dict[str, str], headers: str = "") -> bytes:
    body = json.dumps({"error": {"type": "invalid_request_error", **error}})
    return (
        f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
        f"Connection: close\r\n\r\n{body}"
    ).encode()
