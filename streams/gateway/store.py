"""The gateway's SQL: who is paired, and by which connection."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import DeviceId
from schemas.payments import WearState
from schemas.tables import devices, makers

# Asked twice a second by every gateway, for all of its connections at once.
_ENDED = text("""
    SELECT devices.id, devices.revoked_at IS NOT NULL AS revoked, devices.link IS NOT NULL AS replaced
    FROM unnest(CAST(:device_ids AS text[]), CAST(:links AS text[])) AS open (device_id, link)
    JOIN devices ON devices.id = open.device_id
    WHERE devices.link IS DISTINCT FROM open.link
""")


@dataclass(frozen=True)
class PairedDevice:
    id: DeviceId
    maker_id: str
    public_key: bytes
    locale: str
    currency: str
    region: str | None
    revoked: bool
    can_pay: bool
    created_at: datetime
    key_changed_at: datetime | None


async def find_device(connection: AsyncConnection, device_id: DeviceId) -> PairedDevice | None:
    row = (await connection.execute(select(devices).where(devices.c.id == device_id))).one_or_none()
    return _device(row) if row else None


async def lock_device(connection: AsyncConnection, device_id: DeviceId) -> PairedDevice | None:
    """Until the transaction ends, the device intends nothing: `streams.intents` locks the same row."""
    query = select(devices).where(devices.c.id == device_id).with_for_update(key_share=True)
    row = (await connection.execute(query)).one_or_none()
    return _device(row) if row else None


async def list_devices(connection: AsyncConnection, maker_id: str | None) -> Sequence[PairedDevice]:
    """A maker's, or everybody's; oldest first."""
    query = select(devices).order_by(devices.c.created_at, devices.c.id)
    if maker_id is not None:
        query = query.where(devices.c.maker_id == maker_id)
    return [_device(row) for row in await connection.execute(query)]


def _device(row: Row[Any]) -> PairedDevice:
    return PairedDevice(
        id=DeviceId(row.id),
        maker_id=row.maker_id,
        public_key=row.public_key,
        locale=row.locale,
        currency=row.currency,
        region=row.region,
        revoked=row.revoked_at is not None,
        can_pay=row.payer_provider is not None,
        created_at=row.created_at,
        key_changed_at=row.key_changed_at,
    )


async def set_link(connection: AsyncConnection, device: PairedDevice, link: str) -> bool:
    """From now on this is the device's connection; an older one is none any more. False where the device was revoked, or its key
    changed, since it was asked for its credentials."""
    statement = (
        update(devices)
        .where(devices.c.id == device.id, devices.c.public_key == device.public_key, devices.c.revoked_at.is_(None))
        .values(link=link)
        .returning(devices.c.id)
    )
    return (await connection.execute(statement)).one_or_none() is not None


@dataclass(frozen=True)
class EndedLink:
    device_id: str
    revoked: bool
    replaced: bool


async def ended_links(connection: AsyncConnection, links: Mapping[str, str]) -> Sequence[EndedLink]:
    """Of these connections (device → link), those that are not their device's any more."""
    parameters = {"device_ids": list(links), "links": list(links.values())}
    rows = await connection.execute(_ENDED, parameters)
    return [EndedLink(row.id, revoked=row.revoked, replaced=row.replaced) for row in rows]


async def end_link(connection: AsyncConnection, device_id: DeviceId, **changes: object) -> None:
    """Changes the device, and takes its connection away: whatever was said over it last, the glasses are not worn any more."""
    values = {"link": None, "wear_state": WearState.LINK_LOST, **changes}
    await connection.execute(update(devices).where(devices.c.id == device_id).values(values))


async def find_maker(connection: AsyncConnection, token_hash: bytes) -> str | None:
    return (await connection.execute(select(makers.c.id).where(makers.c.token_hash == token_hash))).scalar_one_or_none()
