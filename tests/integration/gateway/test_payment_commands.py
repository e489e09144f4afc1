"""A merchant takes, gives up and gives back, through the API. What a worker then does is tests/integration/payments/."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update

from schemas.ids import EventId, PaymentId
from schemas.payments import PaymentState
from schemas.tables import payments
from streams.core.database import Database
from streams.core.sealing import Sealer
from tests.integration.webhooks.world import SECRET_KEY
from tests.support.rows import ApprovedPayment, Rows, Shop


@pytest.fixture(scope="session")
def sealed_rows(database: Database) -> Rows:
    """Sealed as the API under test opens it."""
    assert len(base64.b64decode(SECRET_KEY)) == 32
    return Rows(database, Sealer(SECRET_KEY))


class Merchant:
    def __init__(self, http: httpx.AsyncClient, rows: Rows, shop: Shop) -> None:
        self._http = http
        self.rows = rows
        self.shop = shop

    async def payment(self, state: PaymentState) -> ApprovedPayment:
        """Of 12.99 EUR, in this state as if a worker had brought it there."""
        payment = await self.rows.approved_payment(shop=self.shop)
        steps = [PaymentState.SUBMITTING, state] if state is not PaymentState.APPROVED else []
        for step in steps:
            values: dict[str, Any] = {"state": step, "provider_reference": f"pi_{payment.id}"}
            if step is PaymentState.CAPTURED:
                values["captured_minor"] = payment.total.minor
            async with self.rows.database.transaction() as connection:
                await connection.execute(update(payments).where(payments.c.id == payment.id).values(values))
        return payment

    async def post(
        self, payment_id: str, path: str, body: Any = None, *, key: str | None = None, token: str = ""
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.shop.token}", "Idempotency-Key": key or str(EventId.new())}
        return await self._http.post(f"/v1/payments/{payment_id}/{path}", json=body, headers=headers)

    async def get(self, path: str) -> Any:
        answer = await self._http.get(f"/v1/payments/{path}", headers={"Authorization": f"Bearer {self.shop.token}"})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
async def merchant(app: FastAPI, sealed_rows: Rows) -> AsyncIterator[Merchant]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test") as http:
        yield Merchant(http, sealed_rows, await sealed_rows.merchant())


def euros(minor: int) -> dict[str, Any]:
    return {"amount": {"minor": minor, "currency": "EUR"}}


@pytest.mark.parametrize(
    ("state", "path", "kind", "body", "minor"),
    [
        (PaymentState.AUTHORISED, "capture", "capture", None, 1299),
        (PaymentState.AUTHORISED, "capture", "capture", euros(500), 500),
        (PaymentState.AUTHORISED, "cancel", "cancel", None, None),
        (PaymentState.CAPTURED, "refunds", "refund", None, 1299),
        (PaymentState.CAPTURED, "refunds", "refund", euros(1), 1),
    ],
)
async def test_a_command_is_accepted_and_put_on_record(
    merchant: Merchant, state: PaymentState, path: str, kind: str, body: Any, minor: int | None
) -> None:
    payment = await merchant.payment(state)
    answer = await merchant.post(payment.id, path, body)
    assert answer.status_code == 202, answer.text
    command = answer.json()["command"]
    assert (command["kind"], command["outcome"], command["ended_at"]) == (kind, None, None)
    assert command["amount"] == (None if minor is None else {"minor": minor, "currency": "EUR"})
    assert answer.json()["payment"]["state"] == state
    assert (await merchant.get(f"{payment.id}/commands"))["data"] == [command]
    assert await merchant.rows.count("outbox", topic="payments.commands", key=payment.id.encode()) == 1


async def test_the_same_key_gives_the_same_command_and_another_body_is_refused(merchant: Merchant) -> None:
    payment = await merchant.payment(PaymentState.CAPTURED)
    first = await merchant.post(payment.id, "refunds", euros(100), key="a-key-of-mine")
    again = await merchant.post(payment.id, "refunds", euros(100), key="a-key-of-mine")
    assert (again.status_code, again.json()) == (202, first.json())
    other = await merchant.post(payment.id, "refunds", euros(101), key="a-key-of-mine")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")
    assert await merchant.rows.count("attempts", payment_id=payment.id) == 1


async def test_of_two_commands_at_once_one_is_taken(merchant: Merchant) -> None:
    payment = await merchant.payment(PaymentState.CAPTURED)
    answers = await asyncio.gather(*(merchant.post(payment.id, "refunds", euros(100)) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"payment-busy"}
    assert await merchant.rows.count("attempts", payment_id=payment.id) == 1


async def test_what_has_not_begun_is_cancelled_at_once(merchant: Merchant) -> None:
    payment = await merchant.payment(PaymentState.APPROVED)
    answer = await merchant.post(payment.id, "cancel")
    assert (answer.status_code, answer.json()["command"]) == (202, None)
    assert (await merchant.get(payment.id))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("state", "path", "body", "status", "code"),
    [
        (PaymentState.CAPTURED, "capture", None, 409, "payment-state"),
        (PaymentState.CAPTURED, "cancel", None, 409, "payment-state"),
        (PaymentState.UNKNOWN, "refunds", None, 409, "payment-state"),
        (PaymentState.CAPTURED, "refunds", euros(1300), 422, "amount-too-large"),
        (PaymentState.CAPTURED, "refunds", {"amount": {"minor": 1, "currency": "USD"}}, 422, "request-invalid"),
        (PaymentState.CAPTURED, "refunds", euros(0), 422, "request-invalid"),
        (PaymentState.CAPTURED, "refunds", euros(-1), 422, "request-invalid"),
        (PaymentState.CAPTURED, "refunds", {"amount": {"minor": 1.5, "currency": "EUR"}}, 422, "request-invalid"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_reason(
    merchant: Merchant, state: PaymentState, path: str, body: Any, status: int, code: str
) -> None:
    payment = await merchant.payment(state)
    answer = await merchant.post(payment.id, path, body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert await merchant.rows.count("attempts", payment_id=payment.id) == 0


async def test_a_frozen_payment_takes_no_commands_and_says_so(merchant: Merchant) -> None:
    payment = await merchant.payment(PaymentState.CAPTURED)
    async with merchant.rows.database.transaction() as connection:
        values = {"frozen_at": payments.c.updated_at, "frozen_reason": "the amount"}
        await connection.execute(update(payments).where(payments.c.id == payment.id).values(values))
    answer = await merchant.post(payment.id, "refunds", euros(1))
    assert (answer.status_code, answer.json()["code"]) == (409, "payment-frozen")
    assert (await merchant.get(payment.id))["frozen"] is True


async def test_another_merchants_payment_is_not_there(merchant: Merchant) -> None:
    payment = await merchant.payment(PaymentState.CAPTURED)
    stranger = await merchant.rows.merchant("A stranger")
    for path in ("capture", "cancel", "refunds"):
        answer = await merchant.post(payment.id, path, token=stranger.token)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
        assert (await merchant.post(PaymentId.new(), path)).status_code == 404
