"""Letting makers, devices, merchants and endpoints in. Used by the command line, the demo and the merchants' API.

Every function works in its caller's transaction. Tokens and secrets are returned once and kept as a SHA-256 digest (what is only
compared) or sealed (what must be used); nobody can be told them again.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from babel import Locale, UnknownLocaleError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.http import HttpClient
from schemas.errors import FieldError, Rejected, Retryable
from schemas.ids import DeviceId, EndpointId, MakerId, MerchantId
from schemas.money import Currency
from schemas.payments import Payer, PaymentPolicy
from schemas.tables import devices, makers, merchants, payment_policies
from streams.core.device_keys import check_public_key
from streams.core.outbox import Transaction
from streams.core.sealing import Sealer
from streams.gateway import store
from streams.gateway.credentials import token_hash
from streams.gateway.store import PairedDevice
from streams.intents import closing
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


# Devices.


def device_id_of(maker: MakerId, public_key: bytes) -> DeviceId:
    """The id of the device that this maker pairs with this key: always the same, so that a pairing that is repeated is the same
    pairing, and a key that was revoked or replaced never comes back as another device. It does not tell when it was made."""
    value = bytearray(hashlib.sha256(f"device\x00{maker}\x00".encode() + public_key).digest()[:16])
    value[6] = 0x70 | (value[6] & 0x0F)
    value[8] = 0x80 | (value[8] & 0x3F)
    return DeviceId.from_uuid(UUID(bytes=bytes(value)))


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
    none, the maker is not known, or the maker paired this key before."""
    _check_key(public_key)
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
    device_id = device_id_of(maker, public_key)
    values = {
        "id": device_id,
        "maker_id": maker,
        "public_key": public_key,
        "locale": locale,
        "currency": currency,
        "region": region,
        **_payer(sealer, device_id, payer),
    }
    statement = insert(devices).values(values).on_conflict_do_nothing(index_elements=["id"]).returning(devices.c.id)
    if (await connection.execute(statement)).one_or_none() is None:
        raise _refuse("/public_key", f"the maker has paired this key before, as {device_id}")
    return device_id


async def set_payer(connection: AsyncConnection, sealer: Sealer, device_id: DeviceId, payer: Payer) -> None:
    """The wearer's means of payment from now on. Raises Rejected("not-found")."""
    values = _payer(sealer, device_id, payer)
    changed = await connection.execute(update(devices).where(devices.c.id == device_id).values(values).returning(devices.c.id))
    if changed.one_or_none() is None:
        raise _no_device(device_id)


async def change_key(unit: Transaction, device: PairedDevice, public_key: bytes, changed_at: datetime) -> None:
    """From the commit on the old key counts nowhere: not for approvals, not to connect, and the connection it opened is ended.
    The device's row must be locked. Raises Rejected for a key that cannot be, and for a device that was revoked."""
    if device.revoked:
        raise Rejected("device-revoked", "this device was revoked", instance=device.id)
    _check_key(public_key)
    if public_key == device.public_key:
        raise Rejected("key-proof-invalid", "this is the device's key already")
    at = max(changed_at, device.key_changed_at or changed_at)
    await store.end_link(unit.connection, device.id, public_key=public_key, key_changed_at=at)
    await closing.close_all(unit, device.id, "key_changed", device.locale)


async def revoke_device(unit: Transaction, device: PairedDevice) -> None:
    """From the commit on the device counts for nothing, and its connection is ended. Revoking it again changes nothing. What it
    has approved before stays approved. The device's row must be locked."""
    if device.revoked:
        return
    await store.end_link(unit.connection, device.id, revoked_at=func.now())
    await closing.close_all(unit, device.id, "revoked", device.locale)


async def lock_device(connection: AsyncConnection, device_id: DeviceId) -> PairedDevice:
    """Raises Rejected("not-found")."""
    device = await store.lock_device(connection, device_id)
    if device is None:
        raise _no_device(device_id)
    return device


def _check_key(public_key: bytes) -> None:
    try:
        check_public_key(public_key)
    except ValueError as error:
        raise _refuse("/public_key", str(error)) from error


def _payer(sealer: Sealer, device_id: DeviceId, payer: Payer | None) -> dict[str, object]:
    if payer is None:
        return {}
    sealed = sealer.seal(payer.model_dump_json().encode(), f"payer:{device_id}")
    return {"payer_sealed": sealed, "payer_provider": payer.provider}


def _no_device(device_id: str) -> Rejected:
    return Rejected("not-found", f"there is no device {device_id}")


# Merchants.


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


# Who may pay how much, and how.


async def set_policy(connection: AsyncConnection, subject: MerchantId | DeviceId, policy: PaymentPolicy) -> None:
    """The subject's rules from now on, for proposals and for approvals. Raises Rejected where there is no such subject, or a
    device is to reserve instead of pay."""
    table = merchants if isinstance(subject, MerchantId) else devices
    if isinstance(subject, DeviceId) and not policy.capture:
        raise _refuse("/capture", "whether money is only reserved is for merchants to say")
    if not (await connection.execute(select(exists().where(table.c.id == subject)))).scalar_one():
        raise Rejected("not-found", f"there is no {subject}")
    values = {"subject": subject, "policy": policy.model_dump(mode="json")}
    statement = insert(payment_policies).values(values)
    changes = {"policy": statement.excluded.policy, "updated_at": func.now()}
    await connection.execute(statement.on_conflict_do_update(index_elements=["subject"], set_=changes))


async def find_policy(connection: AsyncConnection, subject: MerchantId | DeviceId) -> PaymentPolicy | None:
    query = select(payment_policies.c.policy).where(payment_policies.c.subject == subject)
    stored = (await connection.execute(query)).scalar_one_or_none()
    return PaymentPolicy.model_validate(stored, strict=False) if stored is not None else None


async def remove_policy(connection: AsyncConnection, subject: MerchantId | DeviceId) -> bool:
    """False where there was none."""
    statement = delete(payment_policies).where(payment_policies.c.subject == subject).returning(payment_policies.c.subject)
    return (await connection.execute(statement)).one_or_none() is not None


def _name(text: str) -> str:
    name = " ".join(text.split())
    if not 1 <= len(name) <= 200 or "\x00" in name:
        raise _refuse("/name", "a name has 1 to 200 characters")
    return name
