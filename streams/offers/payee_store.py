"""The payees' codes that glasses saw, and the registry of payees."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.errors import Rejected
from schemas.ids import MerchantId, PayeeCodeId, PayeeId
from schemas.recognition import PayeeCode
from schemas.tables import devices, payee_codes, payees
from streams.offers.payees import Payee, SeenCode


async def lock_device(connection: AsyncConnection, device_id: str) -> None:
    """Frames of one device are counted one after the other, and not while it asks to pay. Raises Rejected("device-unknown")."""
    query = select(devices.c.id).where(devices.c.id == device_id).with_for_update(key_share=True)
    if (await connection.execute(query)).one_or_none() is None:
        raise Rejected("device-unknown", "a sighting of a device that is not paired", instance=device_id)


async def known(connection: AsyncConnection, device_id: str, now: datetime) -> Sequence[SeenCode]:
    """What the device saw and what has not expired."""
    query = select(payee_codes).where(payee_codes.c.device_id == device_id, payee_codes.c.expires_at > now)
    return [
        SeenCode(
            id=PayeeCodeId(row.id),
            digest=row.code_digest,
            code=PayeeCode.model_validate(row.code, strict=False),
            frames=tuple(row.frames),
            last_seen_at=row.last_seen_at,
        )
        for row in await connection.execute(query)
    ]


async def registered(connection: AsyncConnection, codes: Sequence[SeenCode]) -> dict[PayeeCodeId, Payee]:
    """The payees that are registered now, by the codes they are seen as."""
    wanted = [(code.code.scheme, code.code.key) for code in codes]
    query = select(payees).where(tuple_(payees.c.scheme, payees.c.key).in_(wanted), payees.c.removed_at.is_(None))
    found = {
        (row.scheme, row.key): Payee(PayeeId(row.id), MerchantId(row.merchant_id), row.name, row.currency)
        for row in await connection.execute(query)
    }
    return {code.id: found[identity] for code in codes if (identity := (code.code.scheme, code.code.key)) in found}


async def keep(
    connection: AsyncConnection, device_id: str, journey_id: str, codes: Sequence[SeenCode], found: dict[PayeeCodeId, Payee]
) -> None:
    """The journey is that of the last frame: its answer is what the wearer pays by."""
    rows = [
        {
            "id": code.id,
            "device_id": device_id,
            "journey_id": journey_id,
            "code_digest": code.digest,
            "code": code.code.model_dump(mode="json"),
            "frames": list(code.frames),
            "payee_id": found[code.id].id if code.id in found else None,
            "last_seen_at": code.last_seen_at,
            "expires_at": code.expires_at,
        }
        for code in codes
    ]
    statement = insert(payee_codes)
    changed = {name: statement.excluded[name] for name in ("journey_id", "frames", "payee_id", "last_seen_at", "expires_at")}
    await connection.execute(statement.on_conflict_do_update(index_elements=[payee_codes.c.id], set_=changed), rows)
