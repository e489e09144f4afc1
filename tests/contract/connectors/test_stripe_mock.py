"""What the connector asks of Stripe, checked by Stripe's own stripe-mock against Stripe's OpenAPI description: any parameter,
value or path that is not in there is an error to it. Its answers are canned, about other payments than ours."""

import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from connectors.conformance.payments import cancel_of, capture_of, refund_of
from connectors.payments.stripe import StripeConnector
from infra.local.ports import new_port
from schemas.errors import Misconfigured
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import Authorise, Command, Mismatched, Payer, RefusedByProvider, Succeeded
from tests.support.peers import Form, installed, listens, running, scripted

KEY = "sk_test_0123456789"
RETURN_URL = "https://shop.example/paid"


class StripeMock:
    """`log` is what it says of each request."""

    def __init__(self, port: int, log: Path) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self._log = log
        self._read = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=self.address, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)

    def judged(self) -> list[tuple[str, str, str, int]]:
        """(method, path, parameters, status) of the requests since it was last asked."""
        said = self._log.read_text()[self._read :]
        self._read += len(said)
        found = re.findall(r"Request: (\w+) (\S+)\n(?:Request data = map\[(.*)\]\n)?(?:.*\n)*?Response: .* status=(\d+)", said)
        return [(method, path, parameters, int(status)) for method, path, parameters, status in found]


@pytest.fixture(scope="module")
def stripe_mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StripeMock]:
    port, log = new_port(), tmp_path_factory.mktemp("stripe-mock") / "log"
    argv = [str(installed(".peers/bin/stripe-mock")), "-http-addr", f"127.0.0.1:{port}"]
    with running(argv, lambda: listens(port), log):
        yield StripeMock(port, log)


@pytest.fixture
async def connector(stripe_mock: StripeMock) -> AsyncIterator[StripeConnector]:
    stripe_mock.judged()
    connector = StripeConnector(KEY, return_url=RETURN_URL, account="acct_1", address=stripe_mock.address)
    yield connector
    await connector.close()


@pytest.fixture
def command() -> Authorise:
    return Authorise(
        payment_id=PaymentId.new(),
        attempt_id=AttemptId.new(),
        journey_id=JourneyId.new(),
        order_id=OrderId.new(),
        total=Money(minor=650, currency="EUR"),
        payee="Hofgut",
        description="Organic whole milk",
        payer=Payer(provider="stripe", customer="cus_1", payment_method="pm_1"),
        reference="pi_1",
    )


async def test_it_finds_fault_with_what_stripe_does_not_know(stripe_mock: StripeMock) -> None:
    """Else the other tests would prove nothing."""
    stripe_mock.judged()
    async with stripe_mock.client() as client:
        for path, form in (
            ("/v1/payment_intents/pi_1/confirm", {"off_session": "true", "colour": "blue"}),
            ("/v1/payment_intents", {"amount": "much", "currency": "eur"}),
            ("/v1/payment_intents/pi_1/pay", {}),
        ):
            assert (await client.post(path, data=form)).is_client_error
    assert [status for *_, status in stripe_mock.judged()] == [400, 400, 404]


@pytest.mark.parametrize("capture", [True, False])
async def test_opening(stripe_mock: StripeMock, connector: StripeConnector, command: Authorise, capture: bool) -> None:
    outcome = await connector.open(command.model_copy(update={"capture": capture}), "a")
    ((method, path, parameters, status),) = stripe_mock.judged()
    assert (method, path, status) == ("POST", "/v1/payment_intents", 200)
    assert f"capture_method:{'automatic_async' if capture else 'manual'}" in parameters
    for wanted in ("amount:650", "currency:eur", "customer:cus_1", "payment_method:pm_1", f"payment_id:{command.payment_id}"):
        assert wanted in parameters
    # The answer has none of our ids.
    assert isinstance(outcome, RefusedByProvider)
    assert outcome.code == "answer_does_not_fit"


async def test_every_command(stripe_mock: StripeMock, connector: StripeConnector, command: Authorise) -> None:
    part = Money(minor=250, currency="EUR")
    commands: dict[str, Command] = {
        "confirm": command,
        "capture": capture_of(command, part),
        "cancel": cancel_of(command),
        "refunds": refund_of(command, part),
    }
    for call, each in commands.items():
        # Past the look that comes first: it would already find that the payment is another one.
        outcome, _ = await connector._act(each, "pi_1", "a")
        ((method, path, parameters, status),) = stripe_mock.judged()
        assert (method, status) == ("POST", 200)
        assert path == ("/v1/refunds" if call == "refunds" else f"/v1/payment_intents/pi_1/{call}")
        wanted = {
            "confirm": "off_session:true return_url:" + RETURN_URL,
            "capture": "amount_to_capture:250",
            "cancel": "",
            "refunds": "amount:250",
        }
        assert wanted[call] in parameters
        assert isinstance(outcome, Mismatched)


async def test_confirming_once_more_with_the_payer(stripe_mock: StripeMock, command: Authorise) -> None:
    """stripe-mock declines nothing: what stands before it here does, after asking it whether the request was right."""
    stripe_mock.judged()

    async def decline_off_session(request: web.Request, form: Form) -> web.Response:
        headers = {"Authorization": request.headers["Authorization"]}
        async with httpx.AsyncClient(base_url=stripe_mock.address, headers=headers, trust_env=False) as client:
            asked = await client.request(request.method, request.path, data=dict(form))
        if "off_session" in form and asked.is_success:
            error = {"type": "card_error", "code": "authentication_required", "decline_code": "authentication_required"}
            return web.json_response({"error": error}, status=402)
        return web.json_response(asked.json(), status=asked.status_code)

    async with scripted(decline_off_session) as address:
        connector = StripeConnector(KEY, return_url=RETURN_URL, address=address)
        assert isinstance(await connector.submit(command, "a"), Mismatched)
        await connector.close()
    assert [(parameters, status) for _, _, parameters, status in stripe_mock.judged()] == [
        (f"off_session:true return_url:{RETURN_URL}", 200),
        (f"payment_method:pm_1 return_url:{RETURN_URL}", 200),
    ]


async def test_every_question(stripe_mock: StripeMock, connector: StripeConnector, command: Authorise) -> None:
    commands: list[Command] = [command, capture_of(command), cancel_of(command), refund_of(command)]
    for each in commands:
        assert isinstance(await connector.fetch("pi_1", each), Mismatched)
        assert isinstance(await connector.submit(each, "a"), Mismatched)
    await connector._pages(connector._stripe.refunds.list_async, {"payment_intent": "pi_1", "starting_after": "re_1"})
    judged = stripe_mock.judged()
    assert {status for *_, status in judged} == {200}
    assert {(method, path) for method, path, *_ in judged} == {
        ("GET", "/v1/payment_intents/pi_1"),
        ("POST", "/v1/payment_intents/pi_1/confirm"),
        ("GET", "/v1/refunds"),
    }


async def test_statements(stripe_mock: StripeMock, connector: StripeConnector) -> None:
    day = date(2026, 11, 20)
    assert await connector.statement(day) == []
    begin = int(datetime(2026, 11, 20, tzinfo=UTC).timestamp())
    charges, refunds = stripe_mock.judged()
    for (method, asked, parameters, status), path in ((charges, "/v1/charges"), (refunds, "/v1/refunds")):
        assert (method, asked, status) == ("GET", path, 200)
        assert f"created:map[gte:{begin} lt:{begin + 86_400}]" in parameters
    # What is asked about a refund that somebody made by hand; its own is of the Charge it listed.
    await connector._call(connector._stripe.charges.retrieve_async("ch_1"))
    assert stripe_mock.judged() == [("GET", "/v1/charges/ch_1", "", 200)]


async def test_the_check(stripe_mock: StripeMock, connector: StripeConnector) -> None:
    with pytest.raises(Misconfigured, match="acct_1"):
        await connector.check()
    assert [(path, status) for _, path, _, status in stripe_mock.judged()] == [("/v1/payment_intents", 200), ("/v1/account", 200)]


async def test_its_answers_are_of_the_shape_the_connector_reads(stripe_mock: StripeMock, command: Authorise) -> None:
    """With our own ids, amount and status put in, Stripe's example of a PaymentIntent is a paid one."""
    async with stripe_mock.client() as client:
        example = (await client.get("/v1/payment_intents/pi_1")).json()
    total = Money(minor=example["amount"], currency=example["currency"].upper())
    ours = {"metadata": {"payment_id": command.payment_id}, "status": "succeeded", "amount_received": example["amount"]}

    async def answer(_: web.Request, __: Form) -> web.Response:
        return web.json_response({**example, **ours})

    async with scripted(answer) as address:
        connector = StripeConnector(KEY, return_url=RETURN_URL, address=address)
        outcome = await connector.fetch("pi_1", command.model_copy(update={"total": total}))
        assert outcome == Succeeded(reference="pi_1", total=total, captured=True)
        await connector.close()
