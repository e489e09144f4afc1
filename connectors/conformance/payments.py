"""The suite for payment connectors."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

import pytest

from connectors.ports import PaymentConnector
from schemas.errors import Misconfigured, Rejected, Retryable
from schemas.ids import AttemptId, JourneyId, OrderId, PaymentId
from schemas.money import Money
from schemas.payments import (
    Authorise,
    Cancel,
    Cancelled,
    Capture,
    Command,
    Declined,
    Mismatched,
    NotSubmitted,
    Opened,
    Outcome,
    Payer,
    Refund,
    RefusedByProvider,
    Succeeded,
    Unknown,
)

ConnectorAt = Callable[[str], PaymentConnector]
Books = Callable[[PaymentId], Awaitable[list[Money]]]
Sign = Callable[[str, datetime], tuple[Mapping[str, str], bytes]]


class MakeOrder(Protocol):
    def __call__(self, minor: int = 650, *, capture: bool = True, by: Payer | None = None) -> Authorise: ...


# What a server may do instead of answering, as raw bytes; the last one says nothing and keeps the line open.
BROKEN_ANSWERS = {
    "500": b"HTTP/1.1 500 Oops\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "502 in HTML": b"HTTP/1.1 502 Oops\r\nContent-Type: text/html\r\nContent-Length: 8\r\nConnection: close\r\n\r\n<html/>\n",
    "200 in HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 8\r\nConnection: close\r\n\r\n<html/>\n",
    "an empty list": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
    "a number": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\nConnection: close\r\n\r\n7",
    "an empty object": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{",
    "not HTTP": b"hello\r\n\r\n",
    "nothing": b"",
    "silence": None,
}


@pytest.mark.asyncio
class PaymentConformance:
    """Give these fixtures:

    - `connector_at`: (address) -> a connector for a server at this address, whose calls take 2 s at most
    - `address`: of a provider's test server
    - `payer`, `declined_payer`, `waiting_payer`: Payers whose means of payment are accepted there, declined, or ask the payer to
      act first, who then does not
    - `unknown_payer`: a Payer nobody knows there; its customer and payment_method contain `nobody`
    - `charges`, `given_back`: async (payment_id) -> list of Money, from the server's own books: what was really taken
      (captured) and what was really given back
    - `sign`: (reference, moment) -> (headers, body), a webhook about the reference as the provider sends it
    - `forge`: the same, signed by somebody who does not have the secret: with an empty one, or a key of their own
    - `without_secret`: connectors for which no webhook secret, and an empty one, is configured; none where that is refused when
      a connector is made

    and, where the default does not do:

    - `strangers`: connectors for the test server with well-formed credentials that it does not accept; none by default
    - `secrets`: what of the credentials nobody may see; nothing by default

    Override `currency` where the server does not take euros, `day` where its books do not begin a day as the statement's time
    zone does, `unsigned` where a webhook's signature is not in its headers, and `remembers_declines` where the provider keeps
    nothing of a payment that was declined: it is then as if it had not been submitted."""

    currency = "EUR"
    remembers_declines = True

    def unsigned(self, headers: Mapping[str, str], body: bytes) -> tuple[Mapping[str, str], bytes]:
        return {}, body

    @pytest.fixture
    def day(self, connector: PaymentConnector) -> Callable[[], date]:
        zone = ZoneInfo(connector.capabilities.statement_zone or "UTC")
        return lambda: datetime.now(zone).date()

    @pytest.fixture
    def connector(self, connector_at: ConnectorAt, address: str) -> PaymentConnector:
        return connector_at(address)

    @pytest.fixture
    def strangers(self) -> Sequence[PaymentConnector]:
        return []

    @pytest.fixture
    def secrets(self) -> Sequence[str]:
        return []

    @pytest.fixture
    def order(self, payer: Payer) -> MakeOrder:
        def make(minor: int = 650, *, capture: bool = True, by: Payer | None = None) -> Authorise:
            return Authorise(
                payment_id=PaymentId.new(),
                attempt_id=AttemptId.new(),
                journey_id=JourneyId.new(),
                order_id=OrderId.new(),
                total=Money(minor=minor, currency=self.currency),
                payee="Hofgut",
                description="Organic whole milk",
                payer=by or payer,
                capture=capture,
            )

        return make

    # Opening.

    async def test_opening_moves_no_money_and_may_be_repeated(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books
    ) -> None:
        command = order()
        first, second = await connector.open(command, "a"), await connector.open(command, "a")
        assert isinstance(first, Opened) and isinstance(second, Opened)
        for opened in (first, second):
            seen = await connector.fetch(opened.reference, command)
            assert seen == NotSubmitted(reference=opened.reference)
        assert await charges(command.payment_id) == []

    async def test_opening_where_nobody_answers_is_retryable(self, connector_at: ConnectorAt, order: MakeOrder) -> None:
        calls_to_open(connector_at("http://127.0.0.1:1"))
        async with refusing_address() as nowhere:
            with pytest.raises(Retryable):
                await connector_at(nowhere).open(order(), "a")

    @pytest.mark.parametrize("answer", BROKEN_ANSWERS)
    async def test_opening_with_a_broken_answer_is_retryable(
        self, connector_at: ConnectorAt, order: MakeOrder, answer: str
    ) -> None:
        calls_to_open(connector_at("http://127.0.0.1:1"))
        async with answering(BROKEN_ANSWERS[answer]) as broken:
            with pytest.raises(Retryable):
                await connector_at(broken).open(order(), "a")

    async def test_an_unknown_payer_is_refused(self, connector: PaymentConnector, order: MakeOrder, unknown_payer: Payer) -> None:
        command = order(by=unknown_payer)
        refused: Opened | Outcome = await connector.open(command, command.attempt_id)
        if isinstance(refused, Opened):
            refused = await connector.submit(command.model_copy(update={"reference": refused.reference}), "a")
        assert isinstance(refused, RefusedByProvider | Declined)
        assert "nobody" not in refused.model_dump_json()

    # Paying.

    async def test_submitting_takes_the_money(self, connector: PaymentConnector, order: MakeOrder, charges: Books) -> None:
        command = await opened(connector, order())
        expected = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(command, "a") == expected
        assert await connector.fetch(reference_of(command), command) == expected
        assert await charges(command.payment_id) == [command.total]

    @pytest.mark.parametrize("key", ["a", "another"])
    async def test_submitting_twice_takes_the_money_once(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books, key: str
    ) -> None:
        command = await opened(connector, order())
        first = await connector.submit(command, "a")
        assert await connector.submit(command, key) == first
        assert await charges(command.payment_id) == [command.total]

    async def test_submitting_twice_at_once_takes_the_money_once(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books
    ) -> None:
        command = await opened(connector, order())
        outcomes = await asyncio.gather(*(connector.submit(command, "a") for _ in range(5)))
        assert {type(outcome) for outcome in outcomes} <= {Succeeded, Unknown}
        assert await charges(command.payment_id) == [command.total]

    async def test_opening_twice_and_submitting_one_takes_the_money_once(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books
    ) -> None:
        command = order()
        await connector.open(command, "a")
        command = await opened(connector, command)
        await connector.submit(command, "a")
        assert await charges(command.payment_id) == [command.total]

    async def test_a_decline_is_an_answer(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books, declined_payer: Payer
    ) -> None:
        command = await opened(connector, order(by=declined_payer))
        first = await connector.submit(command, "a")
        assert isinstance(first, Declined)
        assert first.reference == command.reference and first.code
        assert declined_payer.customer not in first.model_dump_json()
        kept = first if self.remembers_declines else NotSubmitted(reference=command.reference)
        assert await connector.fetch(reference_of(command), command) == kept
        assert isinstance(await connector.submit(command, "a"), Declined)
        assert await charges(command.payment_id) == []

    # What does not fit is unknown.

    async def test_another_amount_does_not_fit(self, connector: PaymentConnector, order: MakeOrder) -> None:
        command = await opened(connector, order(650))
        await connector.submit(command, "a")
        for total in (Money(minor=651, currency=self.currency), Money(minor=650, currency="CHF")):
            seen = await connector.fetch(reference_of(command), command.model_copy(update={"total": total}))
            assert isinstance(seen, Mismatched)

    async def test_another_payments_reference_does_not_fit(self, connector: PaymentConnector, order: MakeOrder) -> None:
        mine, other = await opened(connector, order()), await opened(connector, order())
        await connector.submit(other, "a")
        assert isinstance(await connector.fetch(reference_of(other), mine), Mismatched | NotSubmitted)

    async def test_a_reference_nobody_knows_is_unknown(self, connector: PaymentConnector, order: MakeOrder) -> None:
        calls_to_open(connector)
        command = await opened(connector, order())
        lost = command.model_copy(update={"reference": reference_of(command)[:-4] + "0000"})
        for outcome in await everything(connector, lost):
            assert isinstance(outcome, Unknown | RefusedByProvider)
        assert isinstance(await connector.fetch(reference_of(lost), lost), Unknown)

    # Where no answer comes.

    @pytest.mark.parametrize("answer", BROKEN_ANSWERS)
    async def test_a_broken_answer_is_unknown(
        self, connector: PaymentConnector, connector_at: ConnectorAt, order: MakeOrder, answer: str
    ) -> None:
        command = await opened(connector, order())
        async with answering(BROKEN_ANSWERS[answer]) as broken:
            for outcome in await everything(connector_at(broken), command):
                assert isinstance(outcome, Unknown)
                assert outcome.reference == command.reference

    async def test_where_nobody_listens_is_unknown(
        self, connector: PaymentConnector, connector_at: ConnectorAt, order: MakeOrder
    ) -> None:
        command = await opened(connector, order())
        async with refusing_address() as nowhere:
            for outcome in await everything(connector_at(nowhere), command):
                assert isinstance(outcome, Unknown)

    # Capture, cancel, refund, as far as they are offered.

    async def test_reserving_then_taking(self, connector: PaymentConnector, order: MakeOrder, charges: Books) -> None:
        offered(connector, "capture")
        command = await opened(connector, order(capture=False))
        reserved = Succeeded(reference=command.reference, total=command.total, captured=False)
        assert await connector.submit(command, "a") == reserved
        assert await charges(command.payment_id) == []

        capture = capture_of(command)
        assert await connector.fetch(reference_of(command), capture) == NotSubmitted(reference=command.reference)
        taken = Succeeded(reference=command.reference, total=command.total, captured=True)
        assert await connector.submit(capture, "b") == taken
        assert await connector.submit(capture, "b") == taken
        assert await connector.fetch(reference_of(command), capture) == taken
        assert await charges(command.payment_id) == [command.total]

    async def test_taking_less_than_was_reserved(self, connector: PaymentConnector, order: MakeOrder, charges: Books) -> None:
        offered(connector, "capture", partial=connector.capabilities.partial_capture)
        command = await opened(connector, order(650, capture=False))
        await connector.submit(command, "a")
        part = Money(minor=250, currency=self.currency)
        outcome = await connector.submit(capture_of(command, part), "b")
        # A provider that does not say how much it took leaves it unknown; never is it said to be something else.
        assert isinstance(outcome, Unknown) or outcome == Succeeded(reference=command.reference, total=part, captured=True)
        assert await charges(command.payment_id) == [part]

    async def test_taking_what_was_not_reserved_is_refused(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books
    ) -> None:
        offered(connector, "capture")
        command = await opened(connector, order(capture=False))
        capture = capture_of(command)
        assert isinstance(await connector.submit(capture, "b"), RefusedByProvider)
        assert await charges(command.payment_id) == []

    @pytest.mark.parametrize("reserve_first", [True, False])
    async def test_cancelling(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books, reserve_first: bool, waiting_payer: Payer
    ) -> None:
        offered(connector, "cancel")
        if not reserve_first:
            calls_to_open(connector)
        reserves = "capture" in connector.capabilities.commands
        command = await opened(connector, order(capture=False) if reserves else order(by=waiting_payer))
        if reserve_first:
            await connector.submit(command, "a")
        cancel = cancel_of(command)
        assert await connector.fetch(reference_of(command), cancel) == NotSubmitted(reference=command.reference)
        for _ in range(2):
            assert await connector.submit(cancel, "b") == Cancelled(reference=command.reference)
        assert await connector.fetch(reference_of(command), cancel) == Cancelled(reference=command.reference)
        assert await connector.submit(command, "c") == Cancelled(reference=command.reference)
        assert await charges(command.payment_id) == []

    async def test_cancelling_what_was_paid_is_refused(
        self, connector: PaymentConnector, order: MakeOrder, charges: Books
    ) -> None:
        offered(connector, "cancel")
        command = await opened(connector, order())
        await connector.submit(command, "a")
        cancel = cancel_of(command)
        assert isinstance(await connector.submit(cancel, "b"), RefusedByProvider)
        assert await charges(command.payment_id) == [command.total]

    async def test_refunding_all(self, connector: PaymentConnector, order: MakeOrder, given_back: Books) -> None:
        offered(connector, "refund")
        command = await opened(connector, order())
        await connector.submit(command, "a")
        refund = refund_of(command)
        assert await connector.fetch(reference_of(command), refund) == NotSubmitted(reference=command.reference)
        done = Succeeded(reference=command.reference, total=command.total, captured=True)
        for _ in range(2):
            assert await connector.submit(refund, "b") == done
        assert await connector.fetch(reference_of(command), refund) == done
        assert await given_back(command.payment_id) == [command.total]

    async def test_refunding_in_parts(self, connector: PaymentConnector, order: MakeOrder, given_back: Books) -> None:
        offered(connector, "refund", partial=connector.capabilities.partial_refund)
        command = await opened(connector, order(650))
        await connector.submit(command, "a")
        parts = [Money(minor=minor, currency=self.currency) for minor in (200, 200)]
        for number, part in enumerate(parts):
            refund = refund_of(command, part)
            assert isinstance(await connector.submit(refund, f"refund {number}"), Succeeded)
        assert await given_back(command.payment_id) == parts

    async def test_refunding_what_was_not_paid_is_refused(
        self, connector: PaymentConnector, order: MakeOrder, given_back: Books
    ) -> None:
        offered(connector, "refund")
        command = await opened(connector, order())
        refund = refund_of(command)
        assert isinstance(await connector.submit(refund, "b"), RefusedByProvider)
        assert await given_back(command.payment_id) == []

    async def test_what_is_not_offered_is_refused(self, connector: PaymentConnector, order: MakeOrder) -> None:
        command = await opened(connector, order())
        others: list[Command] = [
            capture_of(command),
            cancel_of(command),
            refund_of(command),
        ]
        assert "authorise" in connector.capabilities.commands
        for other in others:
            if other.kind not in connector.capabilities.commands:
                with pytest.raises(Rejected) as refused:
                    await connector.submit(other, "b")
                assert refused.value.problem.code == "capability-not-offered"

    # Webhooks.

    async def test_a_signed_webhook_says_what_to_ask_about(
        self, connector: PaymentConnector, order: MakeOrder, sign: Sign
    ) -> None:
        command = await opened(connector, order())
        events = connector.parse_webhook(*sign(reference_of(command), datetime.now(UTC)))
        assert [(event.provider, event.reference) for event in events] == [(connector.name, command.reference)]
        # It is about the payment itself, and says so by the provider's own word.
        assert [(event.kind, event.attempt_id) for event in events] == [("payment", None)]
        assert all(event.note for event in events)

    @pytest.mark.parametrize("fault", ["altered", "unsigned", "old", "forged"])
    async def test_any_other_webhook_is_refused(
        self, connector: PaymentConnector, order: MakeOrder, sign: Sign, forge: Sign, fault: str
    ) -> None:
        command = await opened(connector, order())
        now = datetime.now(UTC)
        headers, body = sign(reference_of(command), now)
        match fault:
            case "altered":
                altered = body.replace(reference_of(command).encode(), reference_of(command)[:-4].encode() + b"0000")
                # Where it is encrypted, the reference cannot be found in it.
                body = altered if altered != body else body[:-1] + b" " + body[-1:]
            case "unsigned":
                headers, body = self.unsigned(headers, body)
            case "old":
                headers, body = sign(reference_of(command), now - timedelta(hours=1))
            case _:
                headers, body = forge(reference_of(command), now)
        assert_refused(connector, headers, body)

    async def test_without_a_secret_every_webhook_is_refused(
        self, without_secret: Sequence[PaymentConnector], sign: Sign, forge: Sign
    ) -> None:
        for connector in without_secret:
            for make in (sign, forge):
                assert_refused(connector, *make("pi_0000", datetime.now(UTC)))

    async def test_refreshing_asks_at_most_once_a_minute_and_forgets_nothing(
        self, connector: PaymentConnector, order: MakeOrder, sign: Sign
    ) -> None:
        command = await opened(connector, order())
        await connector.refresh()
        assert await connector.refresh() is False
        assert connector.parse_webhook(*sign(reference_of(command), datetime.now(UTC)))

    async def test_refreshing_where_nobody_answers_changes_nothing(self, connector_at: ConnectorAt) -> None:
        async with refusing_address() as nowhere:
            assert await connector_at(nowhere).refresh() is False

    # The provider's own books.

    async def test_the_statement_lists_what_moved(
        self, connector: PaymentConnector, order: MakeOrder, day: Callable[[], date]
    ) -> None:
        if connector.capabilities.statement_zone is None:
            pytest.skip(f"{connector.name} offers no statement")
        paid, idle = await opened(connector, order()), await opened(connector, order())
        await connector.submit(paid, paid.attempt_id)
        refund = refund_of(paid, Money(minor=200, currency=self.currency))
        await connector.submit(refund, refund.attempt_id)
        lines = await connector.statement(day())
        mine = {(line.kind, line.amount.minor) for line in lines if line.reference == paid.reference}
        assert mine == {("payment", paid.total.minor), ("refund", 200)}
        assert not any(line.reference == idle.reference for line in lines)

    async def test_a_reservation_that_was_given_up_is_in_no_statement(
        self, connector: PaymentConnector, order: MakeOrder, day: Callable[[], date]
    ) -> None:
        offered(connector, "capture", partial=connector.capabilities.statement_zone is not None)
        offered(connector, "cancel")
        command = await opened(connector, order(capture=False))
        await connector.submit(command, command.attempt_id)
        assert isinstance(await connector.submit(cancel_of(command), "b"), Cancelled)
        assert not any(line.reference == command.reference for line in await connector.statement(day()))

    async def test_days_nobody_paid_on_have_empty_statements(self, connector: PaymentConnector, day: Callable[[], date]) -> None:
        if connector.capabilities.statement_zone is None:
            pytest.skip(f"{connector.name} offers no statement")
        for other in (day() - timedelta(days=3), day() + timedelta(days=3)):
            assert list(await connector.statement(other)) == []

    async def test_a_statement_that_cannot_be_had_is_retryable(
        self, connector: PaymentConnector, connector_at: ConnectorAt, day: Callable[[], date]
    ) -> None:
        if connector.capabilities.statement_zone is None:
            pytest.skip(f"{connector.name} offers no statement")
        async with refusing_address() as nowhere:
            with pytest.raises(Retryable):
                await connector_at(nowhere).statement(day())

    # The account.

    async def test_credentials_that_are_not_accepted_are_misconfigured(self, strangers: Sequence[PaymentConnector]) -> None:
        for stranger in strangers:
            with pytest.raises(Misconfigured):
                await stranger.check()

    async def test_the_account_has_a_name_and_no_secret_is_shown(
        self, connector: PaymentConnector, secrets: Sequence[str]
    ) -> None:
        assert connector.account and connector.account.isprintable()
        for secret in secrets:
            for shown in (connector.account, repr(connector), str(connector)):
                assert secret not in shown

    async def test_a_notification_is_acknowledged(self, connector: PaymentConnector) -> None:
        status, media_type, body = connector.acknowledgement()
        assert 200 <= status < 300
        assert status == 204 or (body and "/" in media_type)

    async def test_the_credentials_are_checked(self, connector: PaymentConnector, connector_at: ConnectorAt) -> None:
        await connector.check()
        async with refusing_address() as nowhere:
            with pytest.raises(Retryable):
                await connector_at(nowhere).check()


def calls_to_open(connector: PaymentConnector) -> None:
    if connector.capabilities.reference_is_key:
        pytest.skip(f"{connector.name} calls nobody to open")


async def opened(connector: PaymentConnector, command: Authorise) -> Authorise:
    """The command with the reference that `open` gave."""
    answer = await connector.open(command, command.attempt_id)
    assert isinstance(answer, Opened), answer
    return command.model_copy(update={"reference": answer.reference})


async def everything(connector: PaymentConnector, command: Authorise) -> list[Outcome]:
    """The outcomes of every command the connector offers, and of asking."""
    commands: list[Command] = [
        command,
        capture_of(command),
        cancel_of(command),
        refund_of(command),
    ]
    offered_here = [each for each in commands if each.kind in connector.capabilities.commands]
    asked = [connector.fetch(reference_of(command), each) for each in offered_here]
    return await asyncio.gather(*(connector.submit(each, "a") for each in offered_here), *asked)


def reference_of(command: Authorise) -> str:
    assert command.reference is not None
    return command.reference


def capture_of(command: Authorise, amount: Money | None = None) -> Capture:
    return Capture(
        payment_id=command.payment_id,
        attempt_id=AttemptId.new(),
        journey_id=command.journey_id,
        total=command.total,
        reference=reference_of(command),
        amount=amount or command.total,
    )


def cancel_of(command: Authorise) -> Cancel:
    return Cancel(
        payment_id=command.payment_id,
        attempt_id=AttemptId.new(),
        journey_id=command.journey_id,
        total=command.total,
        reference=reference_of(command),
    )


def refund_of(command: Authorise, amount: Money | None = None) -> Refund:
    return Refund(
        payment_id=command.payment_id,
        attempt_id=AttemptId.new(),
        journey_id=command.journey_id,
        total=command.total,
        reference=reference_of(command),
        amount=amount or command.total,
    )


def offered(connector: PaymentConnector, kind: str, *, partial: bool = True) -> None:
    if kind not in connector.capabilities.commands or not partial:
        pytest.skip(f"{connector.name} does not offer it")


def assert_refused(connector: PaymentConnector, headers: Mapping[str, str], body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        connector.parse_webhook(headers, body)
    assert refused.value.problem.code == "credentials-invalid"


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that gives every request this answer and closes; with None it says nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(65536)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@asynccontextmanager
async def refusing_address() -> AsyncIterator[str]:
    """An address where connections are refused: bound, so that nobody else takes it, but not listened to."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
