"""The Stripe connector against localstripe, a server that is not ours."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, date, datetime
from itertools import product

import pytest
import stripe
from aiohttp import web

from connectors.conformance.payments import BROKEN_ANSWERS, MakeOrder, PaymentConformance, answering, opened, refund_of
from connectors.payments.stripe import StripeConnector, connect
from connectors.ports import PaymentConnector
from infra.sandbox import localstripe
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.ids import PaymentId
from schemas.money import Money
from schemas.payments import (
    Actionable,
    Authorise,
    Command,
    Declined,
    Mismatched,
    NotSubmitted,
    Payer,
    ProviderEvent,
    RefusedByProvider,
    Succeeded,
    Unknown,
)
from tests.support.peers import Form, scripted

SECRET = "whsec_conformance_0123456789"


def stripe_at(address: str, **options: object) -> StripeConnector:
    return StripeConnector(localstripe.API_KEY, address=address, timeout_s=2, **{"webhook_secret": SECRET, **options})  # type: ignore[arg-type]


def signed(reference: str, moment: datetime, secret: str = SECRET, **other: object) -> tuple[Mapping[str, str], bytes]:
    event = {
        "id": "evt_1",
        "object": "event",
        "type": "payment_intent.succeeded",
        "livemode": False,
        "created": int(moment.timestamp()),
        "data": {"object": {"id": reference, "object": "payment_intent"}},
        **other,
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
    async def waiting_payer(self, stripe_address: str) -> Payer:
        return await localstripe.seed_payer(stripe_address, kind="needs_action")

    @pytest.fixture
    def unknown_payer(self) -> Payer:
        return Payer(provider="stripe", customer="cus_nobody", payment_method="pm_nobody")

    @pytest.fixture
    async def strangers(self, stripe_address: str) -> AsyncIterator[list[PaymentConnector]]:
        # localstripe takes every secret key, and no restricted one.
        stranger = StripeConnector("rk_test_0123456789", address=stripe_address, timeout_s=2)
        yield [stranger]
        await stranger.close()

    @pytest.fixture
    def secrets(self) -> list[str]:
        return [localstripe.API_KEY, SECRET]

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
        return signed

    @pytest.fixture
    def forge(self) -> Callable[[str, datetime], tuple[Mapping[str, str], bytes]]:
        return lambda reference, moment: signed(reference, moment, "")

    @pytest.fixture
    async def without_secret(self, stripe_address: str) -> AsyncIterator[list[PaymentConnector]]:
        # An empty one is refused when the connector is made.
        connector = stripe_at(stripe_address, webhook_secret=None)
        yield [connector]
        await connector.close()

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
                headers, body = await asyncio.wait_for(received.get(), 60)
                references += [event.reference for event in connector.parse_webhook(headers, body)]
        finally:
            await runner.cleanup()

    async def test_a_signed_webhook_about_something_else_says_nothing(self, connector: PaymentConnector) -> None:
        about = {"object": {"id": "cus_1", "object": "customer"}}
        assert connector.parse_webhook(*signed("", datetime.now(UTC), data=about)) == []

    @pytest.mark.parametrize(
        ("type", "about", "kind", "minor"),
        [
            ("payment_intent.succeeded", {"amount": 650, "amount_received": 250, "currency": "eur"}, "payment", 250),
            (
                "payment_intent.succeeded",
                {"amount_received": 250, "currency": "eur", "capture_method": "manual"},
                "payment",
                None,
            ),
            ("payment_intent.succeeded", {"amount": 650, "currency": "eur"}, "payment", None),
            ("payment_intent.succeeded", {"amount_received": "650", "currency": "eur"}, "payment", None),
            ("payment_intent.payment_failed", {"amount_received": 0, "currency": "eur"}, "payment", None),
            ("charge.captured", {"object": "charge", "amount": 650, "currency": "eur"}, "payment", None),
            ("payment_intent.canceled", {"amount_received": 0, "currency": "eur", "status": "canceled"}, "payment", None),
            ("charge.dispute.created", {"object": "dispute", "amount": 650, "currency": "eur"}, "reversal", 650),
            ("charge.dispute.funds_withdrawn", {"object": "dispute", "amount": 650, "currency": "eur"}, "reversal", 650),
            ("charge.dispute.closed", {"object": "dispute", "amount": 650}, "reversal", None),
            ("charge.refunded", {"object": "charge", "amount_refunded": 400, "currency": "eur"}, "refund", None),
            ("refund.created", {"object": "refund", "amount": 200, "currency": "eur", "status": "succeeded"}, "refund", 200),
            (
                "charge.refund.updated",
                {"object": "refund", "amount": 200, "currency": "eur", "status": "succeeded"},
                "refund",
                200,
            ),
            ("refund.failed", {"object": "refund", "amount": 200, "currency": "eur", "status": "failed"}, "reversal", None),
            ("refund.updated", {"object": "refund", "amount": 200, "currency": "eur", "status": "failed"}, "reversal", None),
            ("refund.updated", {"object": "refund", "amount": 200, "currency": "eur", "status": "pending"}, "refund", None),
            ("charge.refund.updated", {"object": "refund", "amount": 2, "currency": "eur", "status": "failed"}, "reversal", None),
        ],
    )
    async def test_what_a_webhook_says(
        self, connector: PaymentConnector, type: str, about: dict[str, object], kind: str, minor: int | None
    ) -> None:
        seen = {"id": "pi_1", "object": "payment_intent", "payment_intent": "pi_1", **about}
        now = datetime.now(UTC).replace(microsecond=0)
        assert connector.parse_webhook(*signed("", now, type=type, data={"object": seen})) == [
            ProviderEvent(
                provider="stripe",
                event_id="evt_1",
                kind=kind,  # type: ignore[arg-type]
                reference="pi_1",
                amount=None if minor is None else Money(minor=minor, currency="EUR"),
                note=type,
                occurred_at=now,
            )
        ]

    @pytest.mark.parametrize(
        ("about", "attempt_id"),
        [
            ({"object": "refund", "metadata": {"attempt_id": "att_1"}}, "att_1"),
            ({"object": "refund", "metadata": {"attempt_id": "x" * 201}}, None),
            ({"object": "refund", "metadata": {"attempt_id": 7}}, None),
            ({"object": "refund", "metadata": {}}, None),
            ({"object": "refund"}, None),
            # These are of the payment's own attempt, whatever the event is about.
            ({"object": "charge", "metadata": {"attempt_id": "att_1"}}, None),
            ({"object": "payment_intent", "metadata": {"attempt_id": "att_1"}}, None),
        ],
    )
    async def test_a_refunds_webhook_names_its_attempt(
        self, connector: PaymentConnector, about: dict[str, object], attempt_id: str | None
    ) -> None:
        seen = {"id": "pi_1", "payment_intent": "pi_1", **about}
        (event,) = connector.parse_webhook(*signed("", datetime.now(UTC), type="refund.updated", data={"object": seen}))
        assert event.attempt_id == attempt_id

    @pytest.mark.parametrize("other", [{"livemode": True}, {"account": "acct_2"}])
    async def test_an_authentic_webhook_of_another_account_is_refused(self, other: dict[str, object]) -> None:
        for account in (None, "acct_1"):
            connector = stripe_at("http://127.0.0.1:1", account=account)
            with pytest.raises(Rejected) as refused:
                connector.parse_webhook(*signed("pi_1", datetime.now(UTC), **other))
            assert refused.value.problem.code == "credentials-invalid"
            await connector.close()

    async def test_an_authentic_webhook_of_our_account_is_taken(self) -> None:
        connector = stripe_at("http://127.0.0.1:1", account="acct_1")
        for named in ({}, {"account": None}, {"account": "acct_1"}):
            assert connector.parse_webhook(*signed("pi_1", datetime.now(UTC), **named))
        await connector.close()

    @pytest.mark.parametrize(
        "other",
        [
            {"object": "list"},
            {"livemode": None},
            {"id": None},
            {"id": ""},
            {"id": 7},
            {"created": None},
            {"created": "yesterday"},
            {"created": 10**30},
            {"data": None},
            {"data": {"object": None}},
            {"data": {"object": {"object": "payment_intent", "id": "pi_" + "1" * 200}}},
        ],
    )
    async def test_a_signed_webhook_that_cannot_be_read_is_refused(
        self, connector: PaymentConnector, other: dict[str, object]
    ) -> None:
        with pytest.raises(Rejected) as refused:
            connector.parse_webhook(*signed("pi_1", datetime.now(UTC), **other))
        assert refused.value.problem.code == "message-malformed"

    @pytest.mark.parametrize("body", ["", "[]", "7", "{}", "null", '"event"', "[" * 100_000])
    async def test_a_signed_body_that_is_no_event_is_refused(self, connector: PaymentConnector, body: str) -> None:
        header = stripe.WebhookSignature.generate_signature_header(body, SECRET)
        with pytest.raises(Rejected) as refused:
            connector.parse_webhook({"stripe-signature": header}, body.encode())
        assert refused.value.problem.code == "message-malformed"

    # Credentials.

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"api_key": ""}, "api_key"),
            ({"api_key": "pk_test_SECRETSECRET"}, "api_key"),
            ({"api_key": "SECRETSECRETSECRET"}, "api_key"),
            ({"api_key": "sk_SECRETSECRETSECRET"}, "api_key"),
            ({"api_key": "sk_test_SECRET"}, "api_key"),
            ({"api_key": "sk_test_SECRETSECRET\n"}, "api_key"),
            ({"api_key": "sk_live_SECRETSECRET"}, "address"),
            ({"webhook_secret": ""}, "webhook_secret"),
            ({"webhook_secret": "   "}, "webhook_secret"),
            ({"webhook_secret": "whsec_"}, "webhook_secret"),
            ({"webhook_secret": "whsec_SECRET"}, "webhook_secret"),
            ({"webhook_secret": "SECRETSECRETSECRETSECRET"}, "webhook_secret"),
            ({"account": ""}, "account"),
            ({"account": "SECRETSECRET"}, "account"),
            ({"return_url": ""}, "return_url"),
            ({"return_url": "http://shop.example/SECRET"}, "return_url"),
            ({"return_url": "javascript:SECRET"}, "return_url"),
            ({"address": ""}, "address"),
            ({"address": "ftp://SECRET"}, "address"),
            ({"colour": "SECRET"}, "colour"),
        ],
    )
    async def test_credentials_that_cannot_be_right_are_misconfigured(self, wrong: dict[str, str], field: str) -> None:
        with pytest.raises(Misconfigured, match=f"`{field}`|{field}: ") as raised:
            connect({**localstripe.credentials("http://127.0.0.1:1"), **wrong}, notify_url=None)
        assert "SECRET" not in str(raised.value)

    @pytest.mark.parametrize(("missing", "field"), [("api_key", "api_key"), ("address", "account")])
    async def test_credentials_that_are_missing_are_named(self, missing: str, field: str) -> None:
        given = localstripe.credentials("http://127.0.0.1:1")
        del given[missing]
        with pytest.raises(Misconfigured, match=f"`{field}`|{field}: "):
            connect(given, notify_url=None)

    async def test_an_account_must_be_named_unless_it_is_in_use(self) -> None:
        given = {"api_key": "rk_live_0123456789", "return_url": "https://shop.example/paid"}
        with pytest.raises(Misconfigured, match="`account` is missing"):
            connect(given)
        in_use = connect(given, strict=False)
        assert in_use.account == "default"
        await in_use.close()
        with pytest.raises(Misconfigured, match="return_url"):
            connect({**given, "account": "acct_1", "return_url": ""})

    async def test_credentials_that_are_right_make_a_connector(self, stripe_address: str, order: MakeOrder) -> None:
        connector = connect(localstripe.credentials(stripe_address), notify_url="https://platform.example/hook")
        await connector.check()
        assert (connector.name, connector.account) == ("stripe", "default")
        assert isinstance(await connector.submit(await opened(connector, order()), "a"), Succeeded)
        await connector.close()
        real = connect({"api_key": "rk_live_0123456789", "account": "acct_1", "return_url": "https://shop.example/paid"})
        assert real.account == "acct_1"
        await real.close()

    @pytest.mark.parametrize("status", [401, 403])
    async def test_a_key_that_is_not_accepted_is_misconfigured(self, order: MakeOrder, status: int) -> None:
        async with answering(error_answer(status, {"message": "Invalid API Key provided: sk_test_1234"})) as address:
            connector = stripe_at(address)
            command = order().model_copy(update={"reference": "pi_1"})
            calls = (
                connector.check(),
                connector.open(command, "a"),
                connector.submit(command, "a"),
                connector.fetch("pi_1", command),
            )
            for call in calls:
                with pytest.raises(Misconfigured, match="api_key") as raised:
                    await call
                assert "1234" not in str(raised.value)
            await connector.close()

    @pytest.mark.parametrize(("seen", "fits"), [("acct_1", True), ("acct_2", False), (None, False)])
    async def test_checking_tells_the_key_of_another_account(self, seen: str | None, fits: bool) -> None:
        async def answer(request: web.Request, _: Form) -> web.Response:
            if request.path == "/v1/account":
                return web.json_response({"object": "account", "id": seen})
            return web.json_response({"object": "list", "data": []})

        async with scripted(answer) as address:
            connector = stripe_at(address, account="acct_1")
            if fits:
                await connector.check()
            else:
                with pytest.raises(Misconfigured, match="acct_1"):
                    await connector.check()
            await connector.close()

    @pytest.mark.parametrize("answer", BROKEN_ANSWERS)
    async def test_checking_with_a_broken_answer_is_retryable(self, answer: str) -> None:
        async with answering(BROKEN_ANSWERS[answer]) as address:
            connector = stripe_at(address)
            with pytest.raises(Retryable):
                await connector.check()
            with pytest.raises(Retryable):
                await connector.statement(datetime.now(UTC).date())
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
            assert time.monotonic() - began < 5
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
        for status, code in product((400, 402, 404), ("resource_missing", "card_declined", "cus_SECRET")):
            async with answering(error_answer(status, {"message": names, "code": code, "param": "customer"})) as address:
                connector = StripeConnector(
                    "sk_test_SECRETSECRET", address=address, webhook_secret="whsec_SECRETSECRETSECRET", timeout_s=2
                )
                command = order(by=Payer(provider="stripe", customer="cus_SECRET", payment_method="pm_SECRET"))
                said += [repr(command), repr(connector)]
                said.append((await connector.open(command, "a")).model_dump_json())
                paid = command.model_copy(update={"reference": "pi_1"})
                said.append((await connector.submit(paid, "a")).model_dump_json())
                await connector.close()
        everything = "\n".join(said) + caplog.text
        assert "SECRET" not in everything
        assert "4242" not in everything

    # What Stripe does and localstripe does not, as its documentation says.

    async def test_a_repeated_answer_is_looked_at_again(self, order: MakeOrder) -> None:
        command = order().model_copy(update={"reference": "pi_1"})
        asked: list[str] = []

        async def answer(request: web.Request, _: Form) -> web.Response:
            asked.append(f"{request.method} {request.path} {request.headers.get('Idempotency-Key')}")
            if request.method == "POST":
                return web.json_response(intent(command, "requires_action"), headers={"Idempotent-Replayed": "true"})
            return web.json_response(intent(command, "succeeded", amount_received=650))

        async with scripted(answer) as address:
            connector = stripe_at(address)
            outcome = await connector.submit(command, "att_1")
            assert outcome == Succeeded(reference="pi_1", total=command.total, captured=True)
            assert asked == ["POST /v1/payment_intents/pi_1/confirm att_1-authorise", "GET /v1/payment_intents/pi_1 None"]
            await connector.close()

    async def test_a_repeated_answer_about_what_is_not_there_is_unknown(self, order: MakeOrder) -> None:
        refund = refund_of(order().model_copy(update={"reference": "pi_1"}))
        said = {"id": "re_1", "object": "refund", "payment_intent": "pi_1", "amount": 650, "currency": "eur"}
        ids = {"payment_id": refund.payment_id, "attempt_id": refund.attempt_id}

        async def answer(request: web.Request, _: Form) -> web.Response:
            if request.method == "POST":
                return web.json_response(
                    {**said, "metadata": ids, "status": "succeeded"}, headers={"Idempotent-Replayed": "true"}
                )
            if request.path == "/v1/refunds":
                return web.json_response({"object": "list", "data": []})
            return web.json_response(intent(refund, "succeeded", amount_received=650))

        async with scripted(answer) as address:
            connector = stripe_at(address)
            assert isinstance(await connector.submit(refund, "a"), Unknown)
            await connector.close()

    @pytest.mark.parametrize("lose_the_first_answer", [False, True])
    async def test_a_bank_that_wants_to_hear_from_the_payer_gives_a_link(
        self, order: MakeOrder, lose_the_first_answer: bool
    ) -> None:
        command = order().model_copy(update={"reference": "pi_1"})
        stripes = StripesWay(command)
        stripes.lose_next = lose_the_first_answer
        async with scripted(stripes.answer) as address:
            connector = stripe_at(address, return_url="https://shop.example/paid")
            if lose_the_first_answer:
                assert isinstance(await connector.submit(command, "a"), Unknown)
                assert await connector.fetch("pi_1", command) == NotSubmitted(reference="pi_1")
            link = Actionable(reference="pi_1", url="https://hooks.stripe.example/3ds")
            assert await connector.submit(command, "a") == link
            assert await connector.fetch("pi_1", command) == link
            assert await connector.submit(command, "a") == link
            first, second = stripes.confirmed["a-authorise"], stripes.confirmed["a-authorise-with-payer"]
            assert first == {"off_session": "true", "return_url": "https://shop.example/paid"}
            assert second == {"payment_method": command.payer.payment_method, "return_url": "https://shop.example/paid"}
            assert len(stripes.confirmed) == 2
            await connector.close()

    @pytest.mark.parametrize(
        ("error", "found", "kind"),
        [
            ({"code": "card_declined", "decline_code": "brand_new"}, "requires_payment_method", Unknown),
            ({"code": "brand_new"}, "requires_payment_method", Unknown),
            ({"code": "brand_new"}, "requires_confirmation", Unknown),
            ({"code": "brand_new"}, "succeeded", Succeeded),
            ({"code": "brand_new"}, "requires_action", Actionable),
            ({"code": "lock_timeout"}, "requires_confirmation", Unknown),
            ({"code": "payment_intent_unexpected_state"}, "succeeded", Succeeded),
            ({"code": "payment_intent_unexpected_state"}, "requires_confirmation", RefusedByProvider),
            ({"code": "card_declined", "decline_code": "lost_card"}, "requires_payment_method", Declined),
            ({"code": "processing_error"}, "requires_payment_method", Declined),
            ({"type": "idempotency_error"}, "requires_confirmation", RefusedByProvider),
            ({"code": "payment_method_unactivated"}, "requires_confirmation", RefusedByProvider),
        ],
    )
    @pytest.mark.parametrize("status", [400, 402])
    async def test_a_refusal_is_checked_against_the_payment(
        self, order: MakeOrder, error: dict[str, str], found: str, kind: type, status: int
    ) -> None:
        command = order().model_copy(update={"reference": "pi_1"})

        async def answer(request: web.Request, _: Form) -> web.Response:
            if request.method == "POST":
                return web.json_response({"error": {"type": "invalid_request_error", **error}}, status=status)
            failed = {"last_payment_error": error} if found == "requires_payment_method" else {}
            return web.json_response(intent(command, found, amount_received=650, **failed))

        async with scripted(answer) as address:
            connector = stripe_at(address)
            assert isinstance(await connector.submit(command, "a"), kind)
            await connector.close()

    @pytest.mark.parametrize("status", [409, 424, 429, 500, 503])
    async def test_an_answer_that_says_nothing_of_the_payment_is_unknown(self, order: MakeOrder, status: int) -> None:
        async with answering(error_answer(status, {"code": "idempotency_key_in_use", "message": "later"})) as address:
            connector = stripe_at(address)
            command = order().model_copy(update={"reference": "pi_1"})
            assert isinstance(await connector.submit(command, "a"), Unknown)
            with pytest.raises(Retryable):
                await connector.open(command, "a")
            await connector.close()

    async def test_a_live_key_believes_live_answers_only(self, order: MakeOrder) -> None:
        command = order().model_copy(update={"reference": "pi_1"})

        async def answer(request: web.Request, _: Form) -> web.Response:
            return web.json_response(intent(command, "succeeded", amount_received=650))

        async with scripted(answer) as address:
            connector = StripeConnector("sk_live_0123456789", address=address, timeout_s=2)
            for outcome in (await connector.fetch("pi_1", command), await connector.submit(command, "a")):
                assert isinstance(outcome, Mismatched)
            await connector.close()

    async def test_a_statement_is_read_page_by_page(self) -> None:
        asked: list[tuple[str, Mapping[str, str]]] = []
        begin = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())

        def charge(number: int, **other: object) -> dict[str, object]:
            usual = {
                "payment_intent": f"pi_{number}",
                "metadata": {"attempt_id": f"att_{number}"},
                "amount": 650,
                "currency": "eur",
            }
            paid = {"status": "succeeded", "captured": True, "amount_captured": 650, "livemode": False}
            return {"id": f"ch_{number}", "object": "charge", "created": begin + number, **usual, **paid, **other}

        charges = [
            charge(1),
            charge(2, amount_captured=250),
            charge(3, captured=False, amount_captured=0),
            charge(4, status="failed", captured=False),
            charge(5, payment_intent=None, metadata={}),
            charge(6, created=begin - 1),
            charge(7, created=begin + 86_400),
            charge(8, amount=500, amount_captured=500, currency="jpy"),
        ]

        def refund(number: int, **other: object) -> dict[str, object]:
            return {**charge(number), "id": f"re_{number}", "charge": f"ch_{number}", "amount": 200, **other}

        refunds = [
            refund(1),
            refund(2, id="re_2a"),
            refund(2, amount=400, metadata={}),  # what was not captured
            refund(3, amount=650, metadata={}),  # a reservation given up
            refund(5, payment_intent=None),
            refund(9, metadata={}),  # by hand, of what was paid the day before
            refund(6, status="pending"),
            refund(7, status="failed"),
        ]

        async def answer(request: web.Request, _: Form) -> web.Response:
            if request.path == "/v1/charges/ch_9":
                return web.json_response(charge(9, created=begin - 1))
            asked.append((request.path, dict(request.query)))
            all_of_them = charges if request.path == "/v1/charges" else refunds
            ids = [each["id"] for each in all_of_them]
            at = ids.index(request.query["starting_after"]) + 1 if "starting_after" in request.query else 0
            page = {"data": all_of_them[at : at + 3], "has_more": at + 3 < len(all_of_them)}
            return web.json_response({"object": "list", **page})

        async with scripted(answer) as address:
            connector = stripe_at(address, return_url="https://shop.example/paid")
            lines = await connector.statement(date(2026, 11, 20))
            await connector.close()
        assert [(line.kind, line.reference, line.attempt_id, str(line.amount)) for line in lines] == [
            ("payment", "pi_1", "att_1", "6.50 EUR"),
            ("payment", "pi_2", "att_2", "2.50 EUR"),
            ("payment", "ch_5", None, "6.50 EUR"),
            ("payment", "pi_8", "att_8", "500 JPY"),
            ("refund", "pi_1", "att_1", "2.00 EUR"),
            ("refund", "pi_2", "att_2", "2.00 EUR"),
            ("refund", "ch_5", "att_5", "2.00 EUR"),
            ("refund", "pi_9", None, "2.00 EUR"),
        ]
        assert [path for path, _ in asked] == ["/v1/charges"] * 3 + ["/v1/refunds"] * 3
        for _, query in asked:
            assert (query["created[gte]"], query["created[lt]"]) == (str(begin), str(begin + 86_400))

    @pytest.mark.parametrize(
        "page",
        [
            {"data": [{"id": "ch_1"}], "has_more": True},
            {"data": [], "has_more": True},
            {"data": [{"id": "ch_1"}], "has_more": False},
            {"data": [{"id": 7}], "has_more": False},
            {"data": None},
        ],
    )
    async def test_a_statement_that_cannot_be_read_is_retryable(self, page: dict[str, object]) -> None:
        async def answer(request: web.Request, _: Form) -> web.Response:
            return web.json_response({"object": "list", **page})

        async with scripted(answer) as address:
            connector = stripe_at(address)
            with pytest.raises(Retryable):
                await connector.statement(date(2026, 11, 20))
            await connector.close()


def intent(command: Command, status: str, **other: object) -> dict[str, object]:
    return {
        "id": "pi_1",
        "object": "payment_intent",
        "amount": command.total.minor,
        "currency": command.total.currency.lower(),
        "metadata": {"payment_id": command.payment_id},
        "livemode": False,
        "status": status,
        **other,
    }


class StripesWay:
    """A PaymentIntent whose bank demands authentication, as Stripe treats it: confirmed off-session it is declined and loses its
    means of payment; confirmed with one and a payer, it leads to the bank's page. Idempotency keys are honoured."""

    def __init__(self, command: Authorise) -> None:
        self.confirmed: dict[str, Form] = {}
        self.lose_next = False
        self._command = command
        self._state = intent(command, "requires_confirmation")
        self._said: dict[str, tuple[int, dict[str, object]]] = {}

    async def answer(self, request: web.Request, form: Form) -> web.Response:
        if request.method == "GET":
            return web.json_response(self._state)
        key = request.headers["Idempotency-Key"]
        replayed = {"Idempotent-Replayed": "true"} if key in self._said else {}
        if key not in self._said:
            self.confirmed[key] = form
            self._said[key] = self._confirm(form)
        if self.lose_next:
            self.lose_next = False
            return web.Response(status=502, text="lost")
        status, said = self._said[key]
        return web.json_response(said, status=status, headers=replayed)

    def _confirm(self, form: Form) -> tuple[int, dict[str, object]]:
        error = {"type": "card_error", "code": "authentication_required", "decline_code": "authentication_required"}
        if form.get("off_session") == "true":
            self._state = intent(self._command, "requires_payment_method", last_payment_error=error)
            return 402, {"error": error}
        if "payment_method" not in form:
            return 400, {"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}}
        action = {"type": "redirect_to_url", "redirect_to_url": {"url": "https://hooks.stripe.example/3ds"}}
        self._state = intent(self._command, "requires_action", next_action=action)
        return 200, self._state


def error_answer(status: int, error: dict[str, str], headers: str = "") -> bytes:
    body = json.dumps({"error": {"type": "invalid_request_error", **error}})
    return (
        f"HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}"
        f"Connection: close\r\n\r\n{body}"
    ).encode()
