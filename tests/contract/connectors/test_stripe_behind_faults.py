"""The Stripe connector and localstripe with the fault proxy between them: whatever gets lost, nothing is paid twice, and what is
said is true by localstripe's own books."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from connectors.payments.stripe import StripeConnector
from infra.local.ports import new_port
from infra.sandbox import localstripe, proxy
from infra.sandbox.faults import Fault
from schemas.errors import Retryable
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import Authorise, NotSubmitted, Opened, Payer, Succeeded, Unknown
from tests.support.peers import let_late_effects_happen, running

TIMEOUT_S, SLOW_S = 2, 3


@pytest.fixture(scope="module")
def proxied(stripe_address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    address = proxy.address(port := new_port())
    log = tmp_path_factory.mktemp("proxy") / "log"
    with running(proxy.argv(port, stripe_address), lambda: proxy.is_ready(address), log):
        yield address


@pytest.fixture(autouse=True)
async def calm(proxied: str) -> AsyncIterator[None]:
    yield
    await proxy.set_faults(proxied, rate=0, hang=False, delay_s=0)


@pytest.fixture
async def connector(proxied: str) -> AsyncIterator[StripeConnector]:
    connector = StripeConnector(localstripe.API_KEY, address=proxied, timeout_s=TIMEOUT_S)
    yield connector
    await connector.close()


@pytest.fixture
async def payer(stripe_address: str) -> Payer:
    return await localstripe.seed_payer(stripe_address)


async def opened(connector: StripeConnector, payer: Payer) -> Authorise:
    command = Authorise(
        payment_id=PaymentId.new(),
        attempt_id=AttemptId.new(),
        journey_id=JourneyId.new(),
        order_id=OrderId.new(),
        total=Money(minor=650, currency="EUR"),
        payee="Hofgut",
        description="Milk",
        payer=payer,
    )
    while True:
        try:
            answer = await connector.open(command, command.attempt_id)
        except Retryable:
            continue
        assert isinstance(answer, Opened)
        return command.model_copy(update={"reference": answer.reference})


async def taken(address: str, command: Authorise) -> list[int]:
    return [line.amount.minor for line in await localstripe.moved(address) if line.reference == command.reference]


async def test_without_faults_it_is_not_there(
    connector: StripeConnector, payer: Payer, proxied: str, stripe_address: str
) -> None:
    async with httpx.AsyncClient(trust_env=False, auth=(localstripe.API_KEY, "")) as client:
        for path in ("/v1/payment_intents?limit=3", "/v1/payment_intents/pi_%6eobody", "/nowhere"):
            through, direct = await client.get(proxied + path), await client.get(stripe_address + path)
            assert (through.status_code, through.content) == (direct.status_code, direct.content)
            assert through.headers["content-type"] == direct.headers["content-type"]
    command = await opened(connector, payer)
    assert isinstance(await connector.submit(command, "a"), Succeeded)
    assert await taken(stripe_address, command) == [650]


@pytest.mark.parametrize(
    ("fault", "moves"),
    [(Fault.ANSWER_LOST, {True}), (Fault.CUT, {False}), (Fault.SLOW, {True}), (Fault.SERVER_ERROR, {True, False})],
)
async def test_what_each_fault_does(
    connector: StripeConnector, payer: Payer, proxied: str, stripe_address: str, fault: Fault, moves: set[bool]
) -> None:
    seen = set()
    for _ in range(12 if len(moves) > 1 else 2):
        command = await opened(connector, payer)
        await proxy.set_faults(proxied, rate=1, kinds=[fault], slow_s=SLOW_S)
        assert isinstance(await connector.submit(command, "a"), Unknown)
        await proxy.set_faults(proxied, rate=0)
        moved = await taken(stripe_address, command) == [650]
        found = await connector.fetch(str(command.reference), command)
        assert isinstance(found, Succeeded if moved else NotSubmitted)
        seen.add(moved)
    assert seen == moves
    assert (await proxy.read_faults(proxied))["done"][fault] >= 2


@pytest.mark.parametrize("first", ["the repetition", "the late effect"])
async def test_an_effect_that_comes_late_comes_once(
    connector: StripeConnector, payer: Payer, proxied: str, stripe_address: str, first: str
) -> None:
    command = await opened(connector, payer)
    await proxy.set_faults(proxied, rate=1, kinds=[Fault.LATE_EFFECT], late_s=[60, 60])
    assert isinstance(await connector.submit(command, "a"), Unknown)
    await proxy.set_faults(proxied, rate=0)
    assert isinstance(await connector.fetch(str(command.reference), command), NotSubmitted)
    if first == "the late effect":
        await let_late_effects_happen(proxied)
        assert await taken(stripe_address, command) == [650]
    assert isinstance(await connector.submit(command, "a"), Succeeded)
    if first == "the repetition":
        await let_late_effects_happen(proxied)
    assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)
    assert await taken(stripe_address, command) == [650]


async def test_a_provider_that_hangs_and_comes_back(
    connector: StripeConnector, payer: Payer, proxied: str, stripe_address: str
) -> None:
    command = await opened(connector, payer)
    await proxy.set_faults(proxied, hang=True)
    began = time.monotonic()
    assert isinstance(await connector.submit(command, "a"), Unknown)
    assert 0.9 * TIMEOUT_S < time.monotonic() - began < 10
    await proxy.set_faults(proxied, hang=False)
    assert isinstance(await connector.fetch(str(command.reference), command), Succeeded)
    assert await taken(stripe_address, command) == [650]


async def test_a_delay_is_kept(connector: StripeConnector, payer: Payer, proxied: str) -> None:
    await proxy.set_faults(proxied, delay_s=0.3)
    began = time.monotonic()
    await opened(connector, payer)
    assert time.monotonic() - began > 0.3


async def test_a_target_that_is_gone_is_a_bad_gateway(tmp_path_factory: pytest.TempPathFactory) -> None:
    address = proxy.address(port := new_port())
    argv = proxy.argv(port, f"http://127.0.0.1:{new_port()}")
    process = await asyncio.create_subprocess_exec(*argv)
    try:
        while not await proxy.is_ready(address):
            await asyncio.sleep(0.1)
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(address + "/v1/payment_intents")).status_code == 502
    finally:
        process.terminate()
        await process.wait()


async def test_faults_at_random_lose_nothing_and_double_nothing(
    connector: StripeConnector, payer: Payer, proxied: str, stripe_address: str
) -> None:
    await proxy.set_faults(proxied, rate=0.3, kinds=list(proxy.KINDS), seed=7, slow_s=SLOW_S)

    async def pay() -> Authorise:
        """As the core does: what is unknown is asked about, and submitted again only where nothing was submitted."""
        command = await opened(connector, payer)
        outcome = await connector.submit(command, command.attempt_id)
        while not isinstance(outcome, Succeeded):
            outcome = await connector.fetch(str(command.reference), command)
            if isinstance(outcome, NotSubmitted):
                outcome = await connector.submit(command, command.attempt_id)
        return command

    paid = await asyncio.gather(*(pay() for _ in range(40)))
    await proxy.set_faults(proxied, rate=0)
    books, moved = await localstripe.payment_intents(stripe_address), await localstripe.moved(stripe_address)
    for command in paid:
        charged = [
            each for each in books if each["metadata"]["payment_id"] == command.payment_id and each["status"] == "succeeded"
        ]
        assert [each["id"] for each in charged] == [command.reference]
        assert [line.amount for line in moved if line.reference == command.reference] == [command.total]
    assert sum((await proxy.read_faults(proxied))["done"].values()) > 10
