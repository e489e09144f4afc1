"""The merchants' API: what it gives, to whom, how often, and what it refuses."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from sqlalchemy import select, update

from connectors.http import HttpClient
from schemas.ids import EndpointId, EventId, MessageId, OrderId, PaymentId
from schemas.payments import PaymentState
from schemas.tables import deliveries, endpoints, idempotency_keys, merchants, messages
from streams.core import receipts
from streams.gateway import merchant_store
from streams.webhooks import store
from streams.webhooks.service import EVENT_TYPES
from tests.integration.webhooks.world import World

PUBLIC_URL = "https://93.184.215.14/webhooks"  # an address, so that no name is looked up


class Merchant:
    """Somebody who calls the API with a token."""

    def __init__(self, client: httpx.AsyncClient, merchant_id: Any, token: str) -> None:
        self.id = merchant_id
        self.token = token
        self._client = client

    async def call(
        self, method: str, path: str, *, key: str | None = None, content_type: str | None = None, **options: Any
    ) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        if content_type is not None:
            headers["Content-Type"] = content_type
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self._client.request(method, path, headers=headers, **options)

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self.call("GET", path, params=parameters)

    async def post(self, path: str, body: Any = None, *, key: str | None = None) -> httpx.Response:
        return await self.call("POST", path, key=key or str(EventId.new()), json=body)

    async def add_endpoint(self, **more: Any) -> dict[str, Any]:
        response = await self.post("/v1/endpoints", {"url": PUBLIC_URL, **more})
        assert response.status_code == 201, response.text
        return dict(response.json())


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway.test") as client:
        yield client


@pytest.fixture
async def merchant(world: World, client: httpx.AsyncClient) -> Merchant:
    return Merchant(client, *await world.merchant())


@pytest.fixture
async def stranger(world: World, client: httpx.AsyncClient) -> Merchant:
    return Merchant(client, *await world.merchant("A stranger"))


def is_problem(response: httpx.Response, status: int, code: str) -> bool:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, body["status"], body["code"]) == (status, status, code), body
    return True


# Who is asking.

EVERY_ROUTE = [
    ("GET", "/v1/endpoints"),
    ("POST", "/v1/endpoints"),
    ("DELETE", f"/v1/endpoints/{EndpointId.new()}"),
    ("POST", f"/v1/endpoints/{EndpointId.new()}/enable"),
    ("GET", f"/v1/orders/{OrderId.new()}/messages"),
    ("GET", "/v1/payments"),
    ("GET", f"/v1/payments/{PaymentId.new()}"),
    ("GET", f"/v1/payments/{PaymentId.new()}/commands"),
    ("POST", f"/v1/payments/{PaymentId.new()}/capture"),
    ("POST", f"/v1/payments/{PaymentId.new()}/cancel"),
    ("POST", f"/v1/payments/{PaymentId.new()}/refunds"),
    ("POST", f"/v1/messages/{MessageId.new()}/resend"),
]


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
async def test_nobody_gets_in_without_a_merchants_token(
    method: str, path: str, client: httpx.AsyncClient, merchant: Merchant
) -> None:
    body = {"url": PUBLIC_URL}
    assert is_problem(await client.request(method, path, json=body), 401, "credentials-missing")
    for header, code in (
        ("Basic YTpi", "credentials-missing"),
        ("Bearer ", "credentials-missing"),
        (f"Bearer {merchant.token}x", "credentials-invalid"),
        ("Bearer wrong", "credentials-invalid"),
    ):
        response = await client.request(method, path, json=body, headers={"Authorization": header})
        assert is_problem(response, 401, code)
        assert response.headers["www-authenticate"] == "Bearer"


async def test_only_a_digest_of_the_token_is_kept(world: World, merchant: Merchant) -> None:
    [row] = await world.rows(select(merchants).where(merchants.c.id == merchant.id))
    assert row.token_hash == hashlib.sha256(merchant.token.encode()).digest()


# Endpoints.


async def test_endpoints_come_and_go(merchant: Merchant) -> None:
    created = await merchant.add_endpoint(event_types=["payment.captured", "payment.refunded"])
    secret = created.pop("secret")
    assert secret.startswith("whsec_")
    assert created["enabled"]
    assert created["event_types"] == ["payment.captured", "payment.refunded"]
    listed = await merchant.get("/v1/endpoints")
    assert listed.json() == {"data": [created]}
    assert secret not in listed.text
    assert (await merchant.call("DELETE", f"/v1/endpoints/{created['id']}")).status_code == 204
    assert (await merchant.get("/v1/endpoints")).json() == {"data": []}
    assert is_problem(await merchant.call("DELETE", f"/v1/endpoints/{created['id']}"), 404, "not-found")
    assert is_problem(await merchant.post(f"/v1/endpoints/{created['id']}/enable"), 404, "not-found")


async def test_the_secret_is_kept_sealed_and_is_the_one_that_signs(world: World, merchant: Merchant) -> None:
    created = await merchant.add_endpoint()
    [row] = await world.rows(select(endpoints).where(endpoints.c.id == created["id"]))
    assert created["secret"].encode() not in row.secret_sealed
    assert world.sealer.open(row.secret_sealed, f"endpoint:{row.id}").decode() == created["secret"]


@pytest.mark.parametrize(
    "url",
    [
        "http://93.184.215.14/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.1.2.3]/",
        "https://user:password@93.184.215.14/",
        "ftp://93.184.215.14/",
        "not a url",
        "https://",
        "https://nowhere.invalid/",
    ],
)
async def test_an_address_that_must_not_be_called_is_refused(merchant: Merchant, url: str) -> None:
    assert is_problem(await merchant.post("/v1/endpoints", {"url": url}), 422, "endpoint-address-refused")
    assert (await merchant.get("/v1/endpoints")).json() == {"data": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": ""},
        {"url": 7},
        {"url": "https://93.184.215.14/" + "x" * 2000},
        {"url": PUBLIC_URL, "event_types": []},
        {"url": PUBLIC_URL, "event_types": ["sighting.captured"]},
        {"url": PUBLIC_URL, "secret": "whsec_mine"},
        [],
        "text",
    ],
)
async def test_what_does_not_fit_is_named(merchant: Merchant, body: Any) -> None:
    response = await merchant.post("/v1/endpoints", body)
    assert is_problem(response, 422, "request-invalid")
    assert all(error["pointer"].startswith("/body") for error in response.json()["errors"])


async def test_deleting_gives_up_what_was_open_and_closes_what_waited_for_it_alone(world: World, merchant: Merchant) -> None:
    created = await merchant.add_endpoint()
    order = await world.order(merchant.id)
    await world.captured(order)
    await merchant.call("DELETE", f"/v1/endpoints/{created['id']}")
    [delivery] = await world.deliveries(order)
    assert delivery.state == "failed"
    async with world.database.transaction() as connection:
        assert [entry.kind for entry in await receipts.read(connection, order.journey_id)] == ["closed"]
    await world.happened(order, PaymentState.REFUNDED)
    assert len(await world.deliveries(order)) == 1


async def test_enabling_releases_what_was_held(world: World, merchant: Merchant) -> None:
    created = await merchant.add_endpoint()
    async with world.database.transaction() as connection:
        await store.disable_endpoint(connection, EndpointId(created["id"]), "gone")
    [listed] = (await merchant.get("/v1/endpoints")).json()["data"]
    assert (listed["enabled"], listed["disabled_reason"]) == (False, "gone")
    order = await world.order(merchant.id)
    await world.captured(order)
    assert [delivery.state for delivery in await world.deliveries(order)] == ["held"]
    response = await merchant.post(f"/v1/endpoints/{created['id']}/enable")
    assert response.status_code == 200
    assert response.json()["enabled"]
    assert [delivery.state for delivery in await world.deliveries(order)] == ["pending"]


async def test_half_a_character_is_refused(merchant: Merchant) -> None:
    content = b'{"url": "https://93.184.215.14/\\ud800"}'
    response = await merchant.call("POST", "/v1/endpoints", key="half", content=content, content_type="application/json")
    assert is_problem(response, 422, "request-invalid")


# Idempotency.


async def test_a_post_needs_a_key(merchant: Merchant) -> None:
    for method, path in EVERY_ROUTE:
        if method == "POST":
            body = {"url": PUBLIC_URL} if path == "/v1/endpoints" else None
            response = await merchant.call(method, path, json=body)
            assert is_problem(response, 400, "idempotency-key-missing")


async def test_the_same_request_has_the_same_answer(world: World, merchant: Merchant) -> None:
    first = await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="again")
    second = await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="again")
    assert (first.status_code, first.content) == (second.status_code, second.content)
    assert len((await merchant.get("/v1/endpoints")).json()["data"]) == 1
    [row] = await world.rows(select(idempotency_keys).where(idempotency_keys.c.merchant_id == merchant.id))
    assert row.status == 201
    assert first.json()["secret"] not in json.dumps(row.response)


async def test_the_key_of_another_request_is_refused(merchant: Merchant) -> None:
    await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="mine")
    other = await merchant.post("/v1/endpoints", {"url": PUBLIC_URL + "/2"}, key="mine")
    assert is_problem(other, 422, "idempotency-key-reused")
    elsewhere = await merchant.post(f"/v1/messages/{MessageId.new()}/resend", key="mine")
    assert is_problem(elsewhere, 422, "idempotency-key-reused")


async def test_two_merchants_may_have_the_same_key(merchant: Merchant, stranger: Merchant) -> None:
    first = await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="1")
    second = await stranger.post("/v1/endpoints", {"url": PUBLIC_URL}, key="1")
    assert first.json()["id"] != second.json()["id"]


async def test_a_request_under_way_keeps_its_key(world: World, merchant: Merchant) -> None:
    async with world.database.transaction() as connection:
        assert await merchant_store.take_key(connection, merchant.id, "slow")
        response = await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="slow")
        assert is_problem(response, 409, "idempotency-key-in-use")
    assert (await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="slow")).status_code == 201


async def test_many_at_once_make_one(merchant: Merchant) -> None:
    answers = await asyncio.gather(*(merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="race") for _ in range(10)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert len((await merchant.get("/v1/endpoints")).json()["data"]) == 1


async def test_a_refusal_is_not_kept(merchant: Merchant) -> None:
    assert is_problem(
        await merchant.post("/v1/endpoints", {"url": "https://10.0.0.1/"}, key="k"), 422, "endpoint-address-refused"
    )
    assert (await merchant.post("/v1/endpoints", {"url": PUBLIC_URL}, key="k")).status_code == 201


# Orders and messages.


async def test_a_gap_can_be_filled_with_exactly_what_was_sent(world: World, merchant: Merchant) -> None:
    order = await world.order(merchant.id)
    path = f"/v1/orders/{order.order_id}/messages"
    assert (await merchant.get(path)).json() == []
    for _ in range(3):
        await world.happened(order, PaymentState.UNKNOWN)
    bodies = [bytes(message.body) for message in await world.messages(order)]
    assert (await merchant.get(path)).content == b"[" + b",".join(bodies) + b"]"
    assert (await merchant.get(path, after=1)).content == b"[" + b",".join(bodies[1:]) + b"]"
    assert (await merchant.get(path, after=3)).json() == []
    assert is_problem(await merchant.get(path, after=-1), 422, "request-invalid")
    assert is_problem(await merchant.get(path, after=2**31), 422, "request-invalid")
    assert is_problem(await merchant.get(f"/v1/orders/{OrderId.new()}/messages"), 404, "not-found")
    assert is_problem(await merchant.get("/v1/orders/ord_1/messages"), 422, "request-invalid")


async def test_a_message_is_sent_again_to_whoever_wants_it(world: World, merchant: Merchant) -> None:
    first = await merchant.add_endpoint()
    order = await world.order(merchant.id)
    await world.captured(order)
    async with world.database.transaction() as connection:
        mine = select(messages.c.id).where(messages.c.order_id == order.order_id)
        delivered = update(deliveries).where(deliveries.c.message_id.in_(mine))
        await connection.execute(delivered.values(state="delivered", attempts=1, next_attempt_at=None))
    second = await merchant.add_endpoint(event_types=["payment.captured"])
    await merchant.add_endpoint(event_types=["payment.refunded"])
    [message] = await world.messages(order)
    response = await merchant.post(f"/v1/messages/{message.id}/resend")
    assert response.status_code == 202
    resent = {item["endpoint_id"]: (item["state"], item["attempts"]) for item in response.json()["deliveries"]}
    assert resent == {first["id"]: ("pending", 1), second["id"]: ("pending", 0)}
    assert is_problem(await merchant.post(f"/v1/messages/{MessageId.new()}/resend"), 404, "not-found")


# Payments.


async def test_payments_are_paged_newest_first(world: World, merchant: Merchant) -> None:
    orders = [await world.order(merchant.id) for _ in range(5)]
    expected = [order.payment_id for order in reversed(orders)]
    everything = (await merchant.get("/v1/payments")).json()
    assert [payment["id"] for payment in everything["data"]] == expected
    assert everything["next_cursor"] is None
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = (await merchant.get("/v1/payments", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        seen += [payment["id"] for payment in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == expected
    for limit in (0, 101, "many"):
        assert is_problem(await merchant.get("/v1/payments", limit=limit), 422, "request-invalid")
    assert (await merchant.get("/v1/payments", cursor=PaymentId.new())).json() == {"data": [], "next_cursor": None}


async def test_a_payment_is_shown_as_it_stands(world: World, merchant: Merchant) -> None:
    order = await world.order(merchant.id)
    await world.captured(order)
    payment = (await merchant.get(f"/v1/payments/{order.payment_id}")).json()
    assert (payment["state"], payment["order_id"], payment["total"]) == (
        "captured",
        order.order_id,
        {"minor": 1299, "currency": "EUR"},
    )
    assert [line["title"] for line in payment["cart"]] == ["Stift"]
    assert "device_id" not in payment


# Others' things.


async def test_what_is_anothers_does_not_exist(world: World, merchant: Merchant, stranger: Merchant) -> None:
    endpoint = await merchant.add_endpoint()
    order = await world.order(merchant.id)
    await world.captured(order)
    [message] = await world.messages(order)
    for response in (
        await stranger.call("DELETE", f"/v1/endpoints/{endpoint['id']}"),
        await stranger.post(f"/v1/endpoints/{endpoint['id']}/enable"),
        await stranger.get(f"/v1/orders/{order.order_id}/messages"),
        await stranger.get(f"/v1/payments/{order.payment_id}"),
        await stranger.post(f"/v1/messages/{message.id}/resend"),
    ):
        assert is_problem(response, 404, "not-found")
    assert (await stranger.get("/v1/endpoints")).json() == {"data": []}
    assert (await stranger.get("/v1/payments")).json()["data"] == []
    assert (await stranger.get("/v1/payments", cursor=order.payment_id)).json()["data"] == []
    assert len((await merchant.get("/v1/endpoints")).json()["data"]) == 1


# The description.


async def test_the_description_tells_of_webhooks_keys_and_problems(app: FastAPI) -> None:
    description = app.openapi()
    assert description["openapi"].startswith("3.1")
    assert set(description["webhooks"]) == EVENT_TYPES
    captured = description["webhooks"]["payment.captured"]["post"]
    assert {parameter["name"] for parameter in captured["parameters"]} == {
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    }
    assert captured["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/WebhookMessage")
    assert "HTTPValidationError" not in json.dumps(description["paths"])
    for path in description["paths"].values():
        for method, operation in path.items():
            assert {"401", "503"} <= set(operation["responses"])
            if method == "post":
                assert "Idempotency-Key" in [parameter["name"] for parameter in operation["parameters"]]


async def _check_without_the_network(self: HttpClient, url: str) -> None:
    self._target(url)


def test_whatever_is_sent_the_answer_is_a_documented_one(
    app: FastAPI, merchant: Merchant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Generated addresses must not be looked up on the real network.
    monkeypatch.setattr(HttpClient, "check", _check_without_the_network)
    description = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations: list[Any] = [found.ok() for found in description.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == len(EVERY_ROUTE)
    for operation in operations:
        for mode in GenerationMode:
            _try_out(operation, mode, {"Authorization": f"Bearer {merchant.token}"})


def _try_out(operation: Any, mode: GenerationMode, headers: dict[str, str]) -> None:
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def answers_as_described(case: Any) -> None:
        response = case.call(headers=headers)
        assert response.status_code < 500
        checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
        case.validate_response(response, checks=checks)
        if response.status_code >= 400:
            assert {"type", "code", "title", "status", "detail", "remedy"} <= response.json().keys()

    answers_as_described()
