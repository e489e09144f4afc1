"""The makers' API for devices: pairing, another key, revocation. By a maker's token, for its own devices only. JSON in and out;
refusals are problem details.

No Idempotency-Key: a device's id follows from its maker and its first key, so that a pairing that is sent again is the same one;
and a change of the key or a revocation that is sent again finds that it was done.
"""

import base64
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import FieldError, Problem, Rejected
from schemas.gateway import PublicKey
from schemas.ids import DeviceId, MakerId
from streams.core.database import Database
from streams.core.handling import transaction
from streams.core.sealing import Sealer
from streams.gateway import credentials, provisioning, store
from streams.gateway.store import PairedDevice

PATH = "/v1/devices"

_JWS = r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$"
Proof = Annotated[str, Field(max_length=4096, pattern=_JWS)]


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NewDevice(_View):
    public_key: PublicKey
    locale: str = Field(max_length=35, description="the wearer's language and region, as BCP 47: de-DE")
    currency: str = Field(max_length=3, description="the wearer's currency, as ISO 4217: EUR")
    region: str | None = Field(default=None, max_length=2, description="where the glasses are used, as ISO 3166: DE")
    proof: Proof = Field(description="a JWS by the new key, `typ` augenblick-pairing+jws, over maker_id, public_key, iat, exp")


class NewKey(_View):
    public_key: PublicKey
    proof_old: Proof = Field(
        description="a JWS by the present key, `typ` augenblick-key-change+jws, over device_id, the new public_key, iat, exp"
    )
    proof_new: Proof = Field(description="the same by the new key")


class Device(_View):
    """`can_pay`: a means of payment is set up for it."""

    id: DeviceId
    public_key: PublicKey
    locale: str
    currency: str
    region: str | None
    can_pay: bool
    revoked: bool
    created_at: AwareDatetime
    key_changed_at: AwareDatetime | None


_bearer = HTTPBearer(auto_error=False, scheme_name="MakerToken", description="the maker's token")
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    described = {
        401: "Credentials are missing or not valid",
        403: "The device is not yours, or was revoked, or a key's proof does not hold",
        422: "The request does not fit",
        503: "A part we need is not available",
    }
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": described[status], "content": content, "model": Problem if status == 401 else None}
        for status in (401, *statuses, 503)
    }


class DevicesApi:
    def __init__(self, database: Database, sealer: Sealer) -> None:
        self._database = database
        self._sealer = sealer

    async def maker(self, given: _Credentials) -> MakerId:
        return MakerId(await credentials.maker(self._database, f"Bearer {given.credentials}" if given else None))

    async def pair(self, maker_id: MakerId, new: NewDevice) -> tuple[Device, bool]:
        """The device, and whether it is new."""
        key = _key(new.public_key)
        credentials.check_pairing(new.proof, maker_id, key, datetime.now(UTC))
        device_id = provisioning.device_id_of(maker_id, key)
        async with self._database.transaction() as connection:
            before = await store.find_device(connection, device_id)
            if before is not None:
                return _paired_before(before, key), False
            await provisioning.add_device(
                connection,
                self._sealer,
                public_key=key,
                maker=maker_id,
                locale=new.locale,
                currency=new.currency,
                region=new.region,
            )
            return await _device(connection, device_id), True

    async def change_key(self, maker_id: MakerId, device_id: DeviceId, new: NewKey) -> Device:
        key, now = _key(new.public_key), datetime.now(UTC)
        async with transaction(self._database) as unit:
            device = await _lock(unit.connection, maker_id, device_id)
            if device.public_key == key:
                raise Rejected("key-proof-invalid", "this is the device's key already", instance=device_id)
            changed_at = credentials.check_key_change(new.proof_old, new.proof_new, device, key, now)
            await provisioning.change_key(unit, device, key, changed_at)
            return await _device(unit.connection, device_id)

    async def revoke(self, maker_id: MakerId, device_id: DeviceId) -> None:
        async with transaction(self._database) as unit:
            await provisioning.revoke_device(unit, await _lock(unit.connection, maker_id, device_id))

    def router(self) -> APIRouter:
        """The routes under /v1/devices. Refusals leave as `Rejected`; `streams.gateway.problems` makes answers of them."""
        routes = APIRouter(prefix=PATH, tags=["makers"])
        maker = Annotated[MakerId, Depends(self.maker)]

        @routes.post(
            "", status_code=201, responses={200: {"model": Device, "description": "It was paired before"}, **_refusals(403, 422)}
        )
        async def pair_device(maker_id: maker, new: Annotated[NewDevice, Body()], response: Response) -> Device:
            """Pairs a device by its public key, with the proof that it has the private one."""
            device, is_new = await self.pair(maker_id, new)
            response.status_code = 201 if is_new else 200
            return device

        @routes.post("/{device_id}/key", responses=_refusals(403, 422))
        async def change_key(maker_id: maker, device_id: Annotated[DeviceId, Path()], new: Annotated[NewKey, Body()]) -> Device:
            """Gives a device another key. What was open to be approved is cancelled, and the device connects anew."""
            return await self.change_key(maker_id, device_id, new)

        @routes.delete("/{device_id}", status_code=204, responses=_refusals(403, 422))
        async def revoke_device(maker_id: maker, device_id: Annotated[DeviceId, Path()]) -> None:
            """Revokes a device for good. What was open to be approved is cancelled, and its connection is ended."""
            await self.revoke(maker_id, device_id)

        return routes


async def _lock(connection: AsyncConnection, maker_id: MakerId, device_id: DeviceId) -> PairedDevice:
    device = await store.lock_device(connection, device_id)
    if device is None or device.maker_id != maker_id:  # which of the two is nobody else's business
        raise Rejected("device-not-yours", "this is no device of yours", instance=device_id)
    return device


async def _device(connection: AsyncConnection, device_id: DeviceId) -> Device:
    device = await store.find_device(connection, device_id)
    assert device is not None
    return _view(device)


def _paired_before(device: PairedDevice, key: bytes) -> Device:
    if device.revoked:
        raise Rejected("device-revoked", "this key's device was revoked", instance=device.id)
    if device.public_key != key:
        raise Rejected("key-proof-invalid", "this key was replaced by another one", instance=device.id)
    return _view(device)


def _view(device: PairedDevice) -> Device:
    return Device(
        id=device.id,
        public_key=base64.b64encode(device.public_key).decode(),
        locale=device.locale,
        currency=device.currency,
        region=device.region,
        can_pay=device.can_pay,
        revoked=device.revoked,
        created_at=device.created_at,
        key_changed_at=device.key_changed_at,
    )


def _key(text: str) -> bytes:
    """Raises Rejected where the base64 is not the one way of writing those bytes."""
    key = base64.b64decode(text)
    if base64.b64encode(key).decode() != text:
        detail = "the base64 has spare bits that are not zero"
        raise Rejected("request-invalid", detail, errors=(FieldError(pointer="/public_key", detail=detail),))
    return key
