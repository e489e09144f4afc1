"""The gateway's SQL: who is paired."""

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import DeviceId
from schemas.tables import devices, makers


@dataclass(frozen=True)
class PairedDevice:
    id: DeviceId
    maker_id: str
    public_key: bytes
    locale: str
    currency: str
    region: str | None
    revoked: bool


async def find_device(connection: AsyncConnection, device_id: DeviceId) -> PairedDevice | None:
    row = (await connection.execute(select(devices).where(devices.c.id == device_id))).one_or_none()
    if row is None:
        return None
    return PairedDevice(
        id=DeviceId(row.id),
        maker_id=row.maker_id,
        public_key=row.public_key,
        locale=row.locale,
        currency=row.currency,
        region=row.region,
        revoked=row.revoked_at is not None,
    )


async def set_link(connection: AsyncConnection, device_id: DeviceId, link: str) -> None:
    """From now on this is the device's connection; the end of an older one means nothing any more."""
    await connection.execute(update(devices).where(devices.c.id == device_id).values(link=link))


async def find_maker(connection: AsyncConnection, token_hash: bytes) -> str | None:
    return (await connection.execute(select(makers.c.id).where(makers.c.token_hash == token_hash))).scalar_one_or_none()
