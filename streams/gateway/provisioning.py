"""Letting makers, devices, merchants and endpoints in. Used by the command line, the demo and the merchants' API.

Every function works in its caller's transaction. Tokens and secrets are returned once and kept as a SHA-256 digest (what is only
compared) or sealed (what must be used); nobody can be told them again.
"""

import re
import secrets
from collections.abc import Sequence

from babel import Locale, UnknownLocaleError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import exists, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.http import HttpClient
from schemas.errors import FieldError, Rejected, Retryable
from schemas.ids import DeviceId, EndpointId, MakerId, MerchantId
from schemas.money import Currency
from schemas.payments import Payer
from schemas.tables import devices, makers, merchants
from streams.core.sealing import Sealer
from streams.gateway.credentials import token_hash
from streams.webhooks import signing
from streams.webhooks import store as webhooks
from streams.webhooks.service import EVENT_TYPES

_TOKEN_BYTES = 32


def _new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _refuse(pointer: str, detail: str) -> Rejected:
    return Rejected("request-invalid", detail, errors=(FieldError(pointer=pointer, detail=detail),))


async def add_maker(connection: AsyncConnection, name: str) -> tuple[MakerId, str]:
    """Returns the token for the maker's cloud, too. Raises Rejected."""
    maker_id, token = MakerId.new(), _new_token()
    values = {"id": maker_id, "name": _name(name), "token_hash": token_hash(token)}
    await connection.execute(insert(makers).values(values))
    return maker_id, token


async def add_device(
    connection: AsyncConnection,
    sealer: Sealer,
    *,
    public_key: bytes,
    maker: MakerId,
    locale: str,
    currency: str,
    region: str | None = None,
    payer: Payer | None = None,
) -> DeviceId:
    """`public_key`: Ed25519, 32 bytes. `locale`: BCP 47. `region`: ISO 3166, two letters. Raises Rejected where one of them is
    none, or the maker is not known."""
    if len(public_key) != 32:
        raise _refuse("/public_key", f"an Ed25519 public key has 32 bytes; this one has {len(public_key)}")
    if region is not None and not re.fullmatch("[A-Z]{2}", region):
        raise _refuse("/region", "a region is two capital letters (ISO 3166)")
    try:
        Locale.parse(locale, sep="-")
    except (ValueError, UnknownLocaleError) as error:
        raise _refuse("/locale", "this is not a locale (BCP 47) that is known") from error
    try:
        TypeAdapter(Currency).validate_python(currency)
    except ValidationError as error:
        raise _refuse("/currency", "this is not an ISO 4217 currency code") from error
    if not (await connection.execute(select(exists().where(makers.c.id == maker)))).scalar_one():
        raise Rejected("not-found", f"there is no maker {maker}")
    device_id = DeviceId.new()
    sealed = sealer.seal(payer.model_dump_json().encode(), f"payer:{device_id}") if payer else None
    await connection.execute(
        insert(devices).values(
            id=device_id,
            maker_id=maker,
            public_key=public_key,
            locale=locale,
            currency=currency,
            region=region,
            payer_sealed=sealed,
        )
    )
    return device_id


async def add_merchant(connection: AsyncConnection, name: str) -> tuple[MerchantId, str]:
    """Returns the token for the merchants' API, too. Raises Rejected."""
    merchant_id, token = MerchantId.new(), _new_token()
    values = {"id": merchant_id, "name": _name(name), "token_hash": token_hash(token)}
    await connection.execute(insert(merchants).values(values))
    return merchant_id, token


async def check_address(client: HttpClient, url: str) -> None:
    """Looks a webhook's address up, and refuses what the dispatcher would never call: Rejected("endpoint-address-refused").
    Takes as long as the name's lookup, so it belongs before the transaction."""
    try:
        await client.check(url)
    except Retryable as error:
        raise Rejected("endpoint-address-refused", str(error)) from error


async def add_endpoint(
    connection: AsyncConnection, sealer: Sealer, merchant_id: MerchantId, url: str, event_types: Sequence[str] | None
) -> tuple[EndpointId, str]:
    """Returns the endpoint's `whsec_` secret, too. `event_types` None is all. `url` has passed `check_address`. Raises
    Rejected where the merchant or an event type is not known."""
    if event_types is not None and (not event_types or not EVENT_TYPES.issuperset(event_types)):
        raise _refuse("/event_types", f"choose from {', '.join(sorted(EVENT_TYPES))}; or leave it out for all")
    if not (await connection.execute(select(exists().where(merchants.c.id == merchant_id)))).scalar_one():
        raise Rejected("not-found", f"there is no merchant {merchant_id}")
    endpoint_id, secret = EndpointId.new(), signing.new_secret()
    sealed = sealer.seal(secret.encode(), f"endpoint:{endpoint_id}")
    await webhooks.add_endpoint(connection, endpoint_id, merchant_id, url, event_types, sealed)
    return endpoint_id, secret


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= 200 or "\x00" in name:
        raise _refuse("/name", "a name has 1 to 200 characters")
    return name
