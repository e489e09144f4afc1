"""The merchants' API: endpoints for webhooks, what was sent to them, and payments. JSON in and out; refusals are problem
details; every POST takes an Idempotency-Key, and gives the same answer to the same request again."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Path, Query, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import Row, RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.http import HttpClient
from schemas.digests import canonical_json, sha256_hex
from schemas.errors import Problem, Rejected
from schemas.events import CATALOGUE
from schemas.ids import AttemptId, DeliveryId, EndpointId, JourneyId, MerchantId, MessageId, OrderId, PaymentId
from schemas.money import Money, PositiveMoney
from schemas.payments import CartLine, PaymentState
from schemas.webhooks import WebhookMessage
from streams.core.bootstrap import Parts
from streams.core.handling import transaction
from streams.core.outbox import Transaction
from streams.gateway import merchant_store, provisioning
from streams.gateway.credentials import token_hash
from streams.gateway.merchant_store import StoredAnswer
from streams.payments import commands
from streams.payments.accounts import Accounts
from streams.webhooks import store as webhooks
from streams.webhooks.closing import close_when_complete
from streams.webhooks.service import EVENT_TYPES

_PAGE = 100


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _is_event_type(name: str) -> str:
    if name not in EVENT_TYPES:
        raise ValueError(f"is none of {', '.join(sorted(EVENT_TYPES))}")
    return name


EventType = Annotated[str, AfterValidator(_is_event_type), Field(json_schema_extra={"enum": sorted(EVENT_TYPES)})]


class NewEndpoint(_View):
    url: str = Field(min_length=1, max_length=2000, description="https, at a public address")
    event_types: list[EventType] | None = Field(
        default=None, min_length=1, max_length=len(EVENT_TYPES), description="leave it out to hear of everything"
    )


class Endpoint(_View):
    """A webhook address. While it is disabled, what would have been sent is held for it."""

    id: EndpointId
    url: str
    event_types: list[str] | None
    enabled: bool
    disabled_at: AwareDatetime | None
    disabled_reason: str | None = Field(description="`gone`: it answered 410")
    created_at: AwareDatetime


class CreatedEndpoint(Endpoint):
    secret: str = Field(description="signs what is sent here (Standard Webhooks); keep it, for it is not shown again")


class Endpoints(_View):
    data: list[Endpoint]


class Delivery(_View):
    """A message to one endpoint. `next_attempt_at` is null where none is to come."""

    id: DeliveryId
    endpoint_id: EndpointId
    state: Literal["pending", "delivered", "failed", "held"]
    attempts: int
    next_attempt_at: AwareDatetime | None


class Resent(_View):
    message_id: MessageId
    deliveries: list[Delivery]


class Payment(_View):
    id: PaymentId
    order_id: OrderId
    journey_id: JourneyId
    state: PaymentState
    reason: str | None
    frozen: bool = Field(description="an answer of the provider did not fit; a person is looking at it")
    total: Money
    captured: Money = Field(description="taken so far")
    refunded: Money = Field(description="given back so far")
    cart: list[CartLine]
    provider: str
    provider_reference: str | None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class NewCommand(_View):
    """`amount` is a part; leave it out for all there is."""

    amount: PositiveMoney | None = None


class PaymentCommand(_View):
    """A capture, cancellation or refund. It is under way until `ended_at`; `outcome` is then what came of it."""

    id: AttemptId
    kind: Literal["authorise", "capture", "cancel", "refund"]
    amount: Money | None
    outcome: str | None
    created_at: AwareDatetime
    ended_at: AwareDatetime | None


class PaymentCommands(_View):
    data: list[PaymentCommand]


class Commanded(_View):
    """`command` is null where it was done at once."""

    command: PaymentCommand | None
    payment: Payment


class Payments(_View):
    """`next_cursor` is null on the last page."""

    data: list[Payment]
    next_cursor: PaymentId | None


_bearer = HTTPBearer(auto_error=False, description="the merchant's API token")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255, include_in_schema=False)]

# FastAPI would describe the header as optional, since it is checked here for an answer of its own.
_KEY_DESCRIBED: dict[str, Any] = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": "new and unguessable for every request; the same again for a repetition of it",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        }
    ]
}


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How refusals look in the API's description."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    described = {
        400: "The Idempotency-Key is missing, or the request cannot be read",
        401: "Credentials are missing or not valid",
        404: "There is no such thing",
        409: "A request with this key is under way, or the state does not allow it now",
        422: "The request does not fit",
        501: "The provider does not offer this",
        503: "A part we need is not available",
    }
    return {
        status: {"description": described[status], "content": content, "model": Problem if status == 401 else None}
        for status in (401, *statuses, 503)
    }


class _MerchantsApi:
    def __init__(self, parts: Parts, client: HttpClient, accounts: Accounts) -> None:
        self._accounts = accounts
        self._database = parts.database()
        self._sealer = parts.sealer()
        self._client = client

    async def merchant(self, credentials: _Credentials) -> MerchantId:
        if credentials is None:
            raise Rejected("credentials-missing", "an Authorization header with a bearer token is needed")
        async with self._database.transaction() as connection:
            found = await merchant_store.find_merchant(connection, token_hash(credentials.credentials))
        if found is None:
            raise Rejected("credentials-invalid", "the token is not one of a merchant")
        return found

    async def once(
        self,
        merchant_id: MerchantId,
        key: str | None,
        request: dict[str, Any],
        work: Callable[[Transaction], Awaitable[BaseModel]],
        *,
        status: int,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> Response:
        """Do `work` once per key, and answer a repetition with the first answer. Work, key and answer are one transaction; a
        refusal undoes it, and may turn out differently next time. `before` may take long: it runs outside."""
        if not key:
            raise Rejected("idempotency-key-missing", "this request needs an Idempotency-Key")
        digest = sha256_hex(canonical_json(request))
        async with self._database.transaction() as connection:
            stored = await merchant_store.find_answer(connection, merchant_id, key)
        if stored is None and before is not None:
            await before()
        async with transaction(self._database) as unit:
            if not await merchant_store.take_key(unit.connection, merchant_id, key):
                raise Rejected("idempotency-key-in-use", "a request with this Idempotency-Key is under way")
            stored = await merchant_store.find_answer(unit.connection, merchant_id, key)
            if stored is None:
                body = (await work(unit)).model_dump_json().encode()
                # An answer may hold a secret, so it is kept like one.
                sealed = base64.b64encode(self._sealer.seal(body, f"answer:{merchant_id}:{key}")).decode()
                await merchant_store.keep_answer(
                    unit.connection, merchant_id, key, StoredAnswer(digest, status, {"sealed": sealed})
                )
                return Response(body, status, media_type="application/json")
        if stored.request_digest != digest:
            raise Rejected("idempotency-key-reused", "this Idempotency-Key was used for another request")
        body = self._sealer.open(base64.b64decode(stored.response["sealed"]), f"answer:{merchant_id}:{key}")
        return Response(body, stored.status, media_type="application/json")

    async def list_endpoints(self, merchant_id: MerchantId) -> Endpoints:
        async with self._database.transaction() as connection:
            rows = await merchant_store.list_endpoints(connection, merchant_id)
        return Endpoints(data=[_endpoint(row) for row in rows])

    async def add_endpoint(self, merchant_id: MerchantId, key: str | None, new: NewEndpoint) -> Response:
        async def check() -> None:
            await provisioning.check_address(self._client, new.url)

        async def work(unit: Transaction) -> CreatedEndpoint:
            endpoint_id, secret = await provisioning.add_endpoint(
                unit.connection, self._sealer, merchant_id, new.url, new.event_types
            )
            endpoint = await self._endpoint(unit.connection, merchant_id, endpoint_id)
            return CreatedEndpoint(**endpoint.model_dump(), secret=secret)

        request = {"do": "add endpoint", **new.model_dump()}
        return await self.once(merchant_id, key, request, work, status=201, before=check)

    async def delete_endpoint(self, merchant_id: MerchantId, endpoint_id: EndpointId) -> None:
        async with transaction(self._database) as unit:
            orders = await webhooks.delete_endpoint(unit.connection, merchant_id, endpoint_id)
            if orders is None:
                raise Rejected("not-found", "there is no such endpoint", instance=endpoint_id)
            for order_id in orders:  # what waited for this endpoint's acknowledgement alone waits no longer
                await close_when_complete(unit, order_id)

    async def enable_endpoint(self, merchant_id: MerchantId, key: str | None, endpoint_id: EndpointId) -> Response:
        async def work(unit: Transaction) -> Endpoint:
            if not await webhooks.enable_endpoint(unit.connection, merchant_id, endpoint_id):
                raise Rejected("not-found", "there is no such endpoint", instance=endpoint_id)
            await webhooks.notify(unit.connection)
            return await self._endpoint(unit.connection, merchant_id, endpoint_id)

        return await self.once(merchant_id, key, {"do": "enable endpoint", "id": endpoint_id}, work, status=200)

    async def _endpoint(self, connection: AsyncConnection, merchant_id: MerchantId, endpoint_id: EndpointId) -> Endpoint:
        row = await merchant_store.find_endpoint(connection, merchant_id, endpoint_id)
        if row is None:
            raise Rejected("not-found", "there is no such endpoint", instance=endpoint_id)
        return _endpoint(row)

    async def messages(self, merchant_id: MerchantId, order_id: OrderId, after: int) -> Response:
        async with self._database.transaction() as connection:
            if not await merchant_store.has_order(connection, merchant_id, order_id):
                raise Rejected("not-found", "there is no such order", instance=order_id)
            bodies = await merchant_store.bodies_after(connection, merchant_id, order_id, after, _PAGE)
        return Response(b"[" + b",".join(bodies) + b"]", media_type="application/json")

    async def resend(self, merchant_id: MerchantId, key: str | None, message_id: MessageId) -> Response:
        async def work(unit: Transaction) -> Resent:
            type = await merchant_store.type_of_message(unit.connection, merchant_id, message_id)
            if type is None:
                raise Rejected("not-found", "there is no such message", instance=message_id)
            addressees = await webhooks.addressees(unit.connection, merchant_id, type)
            await webhooks.add_deliveries(unit.connection, message_id, addressees)
            await webhooks.notify(unit.connection)
            rows = await merchant_store.deliveries_of(unit.connection, message_id)
            return Resent(message_id=message_id, deliveries=[Delivery(**row) for row in rows])

        return await self.once(merchant_id, key, {"do": "resend", "id": message_id}, work, status=202)

    async def list_payments(self, merchant_id: MerchantId, cursor: PaymentId | None, limit: int) -> Payments:
        async with self._database.transaction() as connection:
            rows = await merchant_store.list_payments(connection, merchant_id, cursor, limit + 1)
        found = [_payment(row) for row in rows[:limit]]
        return Payments(data=found, next_cursor=found[-1].id if len(rows) > limit else None)

    async def payment(self, merchant_id: MerchantId, payment_id: PaymentId) -> Payment:
        async with self._database.transaction() as connection:
            return await self._payment(connection, merchant_id, payment_id)

    async def _payment(self, connection: AsyncConnection, merchant_id: MerchantId, payment_id: PaymentId) -> Payment:
        row = await merchant_store.find_payment(connection, merchant_id, payment_id)
        if row is None:
            raise Rejected("not-found", "there is no such payment", instance=payment_id)
        return _payment(row)

    async def list_commands(self, merchant_id: MerchantId, payment_id: PaymentId) -> PaymentCommands:
        async with self._database.transaction() as connection:
            payment = await self._payment(connection, merchant_id, payment_id)
            rows = await merchant_store.list_attempts(connection, payment_id)
        return PaymentCommands(data=[_command(row, payment.total.currency) for row in rows])

    async def command(
        self, merchant_id: MerchantId, key: str | None, payment_id: PaymentId, kind: commands.Kind, new: NewCommand
    ) -> Response:
        async def touch() -> None:
            await commands.touch(self._database, payment_id, merchant_id)

        async def work(unit: Transaction) -> Commanded:
            attempt_id = await commands.request(
                unit, self._accounts, payment_id, kind, new.amount, requested_by="merchant", merchant_id=merchant_id
            )
            payment = await self._payment(unit.connection, merchant_id, payment_id)
            rows = await merchant_store.list_attempts(unit.connection, payment_id)
            made = next((_command(row, payment.total.currency) for row in rows if row.id == attempt_id), None)
            return Commanded(command=made, payment=payment)

        request = {"do": kind, "id": payment_id, **new.model_dump()}
        return await self.once(merchant_id, key, request, work, status=202, before=touch)


def _command(row: Row[Any], currency: str) -> PaymentCommand:
    return PaymentCommand(
        id=row.id,
        kind=row.kind,
        amount=Money.of(row.amount_minor, currency) if row.amount_minor is not None else None,
        outcome=row.outcome,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )


def _endpoint(row: RowMapping) -> Endpoint:
    return Endpoint(**row, enabled=row["disabled_at"] is None)


def _payment(row: Row[Any]) -> Payment:
    return Payment(
        id=row.id,
        order_id=row.order_id,
        journey_id=row.journey_id,
        state=row.state,
        reason=row.state_reason,
        frozen=row.frozen_at is not None,
        total=Money.of(row.total_minor, row.total_currency),
        captured=Money.of(row.captured_minor, row.total_currency),
        refunded=Money.of(row.refunded_minor, row.total_currency),
        cart=[CartLine.model_validate_json(json.dumps(line)) for line in row.cart],
        provider=row.provider,
        provider_reference=row.provider_reference,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def router(parts: Parts, accounts: Accounts) -> APIRouter:
    """The routes under /v1. Refusals leave as `Rejected`; `streams.gateway.problems` makes answers of them."""
    client = HttpClient(allow_private=parts.settings.allow_private_endpoints)
    parts.closing.push_async_callback(client.close)
    api = _MerchantsApi(parts, client, accounts)
    routes = APIRouter(prefix="/v1", tags=["merchants"])
    merchant = Annotated[MerchantId, Depends(api.merchant)]

    @routes.get("/endpoints", responses=_refusals())
    async def list_endpoints(merchant_id: merchant) -> Endpoints:
        """The merchant's webhook endpoints, oldest first."""
        return await api.list_endpoints(merchant_id)

    @routes.post(
        "/endpoints",
        status_code=201,
        response_model=CreatedEndpoint,
        responses=_refusals(400, 409, 422),
        openapi_extra=_KEY_DESCRIBED,
    )
    async def add_endpoint(merchant_id: merchant, new: Annotated[NewEndpoint, Body()], key: _Key = None) -> Response:
        """Adds an endpoint. The answer holds the secret that signs what is sent to it; it is not shown again."""
        return await api.add_endpoint(merchant_id, key, new)

    @routes.delete("/endpoints/{endpoint_id}", status_code=204, responses=_refusals(404, 422))
    async def delete_endpoint(merchant_id: merchant, endpoint_id: Annotated[EndpointId, Path()]) -> None:
        """Deletes an endpoint. What was still to be sent to it is given up."""
        await api.delete_endpoint(merchant_id, endpoint_id)

    @routes.post(
        "/endpoints/{endpoint_id}/enable",
        response_model=Endpoint,
        responses=_refusals(400, 404, 409, 422),
        openapi_extra=_KEY_DESCRIBED,
    )
    async def enable_endpoint(merchant_id: merchant, endpoint_id: Annotated[EndpointId, Path()], key: _Key = None) -> Response:
        """Enables an endpoint again. What was held for it meanwhile is sent now."""
        return await api.enable_endpoint(merchant_id, key, endpoint_id)

    @routes.get("/orders/{order_id}/messages", response_model=list[WebhookMessage], responses=_refusals(404, 422))
    async def list_messages(
        merchant_id: merchant,
        order_id: Annotated[OrderId, Path()],
        after: Annotated[int, Query(ge=0, le=2**31 - 1, description="the last sequence number that was received")] = 0,
    ) -> Response:
        """The order's webhook messages in order, exactly as they were sent: at most 100, to fill a gap."""
        return await api.messages(merchant_id, order_id, after)

    @routes.get("/payments", responses=_refusals(422))
    async def list_payments(
        merchant_id: merchant,
        cursor: Annotated[PaymentId | None, Query(description="`next_cursor` of the page before")] = None,
        limit: Annotated[int, Query(ge=1, le=_PAGE)] = 50,
    ) -> Payments:
        """The merchant's payments, newest first."""
        return await api.list_payments(merchant_id, cursor, limit)

    @routes.get("/payments/{payment_id}", responses=_refusals(404, 422))
    async def find_payment(merchant_id: merchant, payment_id: Annotated[PaymentId, Path()]) -> Payment:
        """One payment, as it stands now."""
        return await api.payment(merchant_id, payment_id)

    @routes.get("/payments/{payment_id}/commands", responses=_refusals(404, 422))
    async def list_commands(merchant_id: merchant, payment_id: Annotated[PaymentId, Path()]) -> PaymentCommands:
        """Everything that was asked of the provider for this payment, first to last, and what came of it."""
        return await api.list_commands(merchant_id, payment_id)

    def add_command(path: str, kind: commands.Kind, description: str) -> None:
        async def command(
            merchant_id: merchant,
            payment_id: Annotated[PaymentId, Path()],
            new: Annotated[NewCommand | None, Body()] = None,
            key: _Key = None,
        ) -> Response:
            return await api.command(merchant_id, key, payment_id, kind, new or NewCommand())

        routes.add_api_route(
            f"/payments/{{payment_id}}/{path}",
            command,
            methods=["POST"],
            name=f"{kind}_payment",
            summary=f"{kind.capitalize()} a payment",
            description=description,
            status_code=202,
            response_model=Commanded,
            responses=_refusals(400, 404, 409, 422, 501),
            openapi_extra=_KEY_DESCRIBED,
        )

    add_command("capture", "capture", "Takes what was reserved: all of it, or less; the rest is released.")
    add_command("cancel", "cancel", "Gives up what was reserved, or what has not begun. It takes no amount.")
    add_command("refunds", "refund", "Gives back what was taken: all that is left of it, or less, several times if need be.")

    @routes.post(
        "/messages/{message_id}/resend",
        status_code=202,
        response_model=Resent,
        responses=_refusals(400, 404, 409, 422),
        openapi_extra=_KEY_DESCRIBED,
    )
    async def resend_message(merchant_id: merchant, message_id: Annotated[MessageId, Path()], key: _Key = None) -> Response:
        """Sends a message again, with the same `webhook-id`, to every endpoint that wants its type."""
        return await api.resend(merchant_id, key, message_id)

    return routes


def describe_webhooks(app: FastAPI) -> None:
    """Adds what merchants receive to the `webhooks` section of the API's description."""
    headers: dict[str, Any] = {
        "parameters": [
            {"name": name, "in": "header", "required": True, "description": description, "schema": {"type": "string"}}
            for name, description in {
                "webhook-id": "the message's id: the same when it is sent again",
                "webhook-timestamp": "when it was sent, in seconds since 1970",
                "webhook-signature": "`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`, by the endpoint's secret",
            }.items()
        ]
    }

    async def receive(message: WebhookMessage) -> None:
        """Answer 2xx within 15 seconds; 410 to hear no more. Anything else is tried again on a schedule."""

    for name in sorted(EVENT_TYPES):
        app.webhooks.add_api_route(
            name,
            receive,
            methods=["POST"],
            status_code=204,
            name=name,
            summary=CATALOGUE[name].summary,
            openapi_extra=headers,
            responses={410: {"description": "The endpoint wants no more: it is disabled, and what follows is held for it"}},
        )
