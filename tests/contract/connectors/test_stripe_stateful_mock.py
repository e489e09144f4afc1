"""What idempotency keys do, by npm's stripe-stateful-mock, which honours them, refuses to give back more than was taken, and
keeps books. It knows Charges and their refunds, and no PaymentIntents, so that the connector's commands cannot be driven against
it. Driven are the connector's own client and its reading of answers and refusals, and its statement, which lists Charges."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.payments.stripe import StripeConnector
from connectors.payments.stripe.connector import _Lost, _Refused
from infra.local.ports import new_port
from schemas.errors import Misconfigured
from schemas.payments import Declined, RefusedByProvider
from tests.support.peers import installed, listens, running

_PROGRAM = 'require("stripe-stateful-mock").createExpressApp().listen(Number(process.argv[1]), "127.0.0.1")'


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, peers = new_port(), installed("tests/peers/node_modules/stripe-stateful-mock").parents[1]
    log = tmp_path_factory.mktemp("stripe-stateful-mock") / "log"
    with running(["node", "-e", _PROGRAM, str(port)], lambda: listens(port), log, cwd=peers):
        yield f"http://127.0.0.1:{port}"


class Driver:
    """The connector's client, with the calls this server knows."""

    def __init__(self, connector: StripeConnector) -> None:
        self.connector = connector

    async def charge(self, key: str, amount: int = 650, source: str = "tok_visa", **other: Any) -> tuple[dict[str, Any], bool]:
        wanted: Any = {"amount": amount, "currency": "eur", "source": source, "metadata": {"attempt_id": key}, **other}
        return await self.connector._call(self.connector._stripe.charges.create_async(wanted, {"idempotency_key": key}))

    async def refund(self, key: str, charge: str, amount: int) -> tuple[dict[str, Any], bool]:
        wanted: Any = {"charge": charge, "amount": amount, "metadata": {"attempt_id": key}}
        return await self.connector._call(self.connector._stripe.refunds.create_async(wanted, {"idempotency_key": key}))

    async def moved(self) -> list[tuple[str, str | None, int]]:
        lines = await self.connector.statement(datetime.now(UTC).date())
        return [(line.kind, line.attempt_id, line.amount.minor) for line in lines]


@pytest.fixture
async def driver(address: str, request: pytest.FixtureRequest) -> AsyncIterator[Driver]:
    # A key of its own is an account of its own there.
    connector = StripeConnector("sk_test_0123456789", address=address, timeout_s=5)
    yield Driver(connector)
    await connector.close()


async def test_the_same_key_charges_once(driver: Driver) -> None:
    before = await driver.moved()
    first, first_replayed = await driver.charge("once")
    second, second_replayed = await driver.charge("once")
    assert (first["id"], first_replayed, second_replayed) == (second["id"], False, True)
    assert [line for line in await driver.moved() if line not in before] == [("payment", "once", 650)]


async def test_another_key_charges_again(driver: Driver) -> None:
    first, _ = await driver.charge("one")
    second, replayed = await driver.charge("two")
    assert first["id"] != second["id"] and not replayed


async def test_a_key_used_for_something_else_is_refused_and_takes_nothing(driver: Driver) -> None:
    await driver.charge("mine")
    before = await driver.moved()
    with pytest.raises(_Refused) as refused:
        await driver.charge("mine", amount=651)
    outcome = refused.value.outcome("pi_1")
    assert isinstance(outcome, RefusedByProvider)
    assert outcome.code == "idempotency_error"
    assert await driver.moved() == before


async def test_the_same_key_refunds_once(driver: Driver) -> None:
    charge, _ = await driver.charge("to be refunded")
    first, _ = await driver.refund("back", charge["id"], 200)
    second, replayed = await driver.refund("back", charge["id"], 200)
    assert first["id"] == second["id"] and replayed
    assert [line for line in await driver.moved() if line[1] == "back"] == [("refund", "back", 200)]
    with pytest.raises(_Refused) as refused:
        await driver.refund("back", charge["id"], 201)
    assert isinstance(refused.value.outcome("pi_1"), RefusedByProvider)
    assert [line for line in await driver.moved() if line[1] == "back"] == [("refund", "back", 200)]


async def test_more_than_was_taken_is_not_given_back(driver: Driver) -> None:
    charge, _ = await driver.charge("a little")
    await driver.refund("most of it", charge["id"], 600)
    for key, amount, code in (
        ("too much", 51, "invalid_request_error"),
        ("the rest", 50, None),
        ("more", 1, "charge_already_refunded"),
    ):
        if code is None:
            await driver.refund(key, charge["id"], amount)
            continue
        with pytest.raises(_Refused) as refused:
            await driver.refund(key, charge["id"], amount)
        outcome = refused.value.outcome("pi_1")
        assert isinstance(outcome, RefusedByProvider)
        assert outcome.code == code
    keys = {"most of it", "too much", "the rest", "more"}
    assert sum(amount for _, key, amount in await driver.moved() if key in keys) == 650


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("tok_chargeDeclined", "generic_decline"),
        ("tok_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("tok_chargeDeclinedFraudulent", "fraudulent"),
        ("tok_chargeDeclinedIncorrectCvc", "incorrect_cvc"),
        ("tok_chargeDeclinedExpiredCard", "expired_card"),
        ("tok_chargeDeclinedProcessingError", "processing_error"),
    ],
)
async def test_declines(driver: Driver, source: str, code: str) -> None:
    """A decline that is repeated under its key is the same decline."""
    for _ in range(2):
        with pytest.raises(_Refused) as refused:
            await driver.charge(f"declined {code}", source=source)
        outcome = refused.value.outcome("pi_1")
        assert isinstance(outcome, Declined)
        assert outcome.code == code
    assert not [line for line in await driver.moved() if line[1] == f"declined {code}"]


@pytest.mark.parametrize("source", ["tok_429", "tok_500"])
async def test_what_says_nothing_of_the_payment_is_lost(driver: Driver, source: str) -> None:
    with pytest.raises(_Lost):
        await driver.charge(f"lost {source}", source=source)


async def test_a_statement_has_what_was_captured_and_no_release_of_the_rest(driver: Driver) -> None:
    reserved, _ = await driver.charge("reserved", capture=False)
    assert not [line for line in await driver.moved() if line[1] == "reserved"]
    before = await driver.moved()
    await driver.connector._call(driver.connector._stripe.charges.capture_async(reserved["id"], {"amount": 250}))
    assert [line for line in await driver.moved() if line not in before] == [("payment", "reserved", 250)]


async def test_a_key_that_is_not_accepted_is_misconfigured(address: str) -> None:
    connector = StripeConnector("rk_test_0123456789", address=address)
    with pytest.raises(Misconfigured):
        await connector.statement(datetime.now(UTC).date())
    await connector.close()
