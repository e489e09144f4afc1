"""Sealing anew, with the newest key, what an older one has sealed; afterwards the older key may go. What comes next may be begun
again at any time, and runs beside everything else: a row is only changed if it still is as it was read, and opens the same."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, bindparam, literal, select, tuple_, update

from schemas.errors import Misconfigured
from schemas.tables import devices, endpoints, idempotency_keys, provider_accounts
from streams.core.database import Database
from streams.core.sealing import Sealer

_AT_ONCE = 500
_PASSES = 5


@dataclass(frozen=True)
class Sealed:
    """A column of sealed values. `place`: what binds a value to its row, with the names of the key's columns. `in_json`: it is
    base64 in a JSON object, under `sealed`."""

    title: str
    column: Column[Any]
    place: str
    in_json: bool = False

    @property
    def table(self) -> Table:
        return self.column.table

    @property
    def key(self) -> list[Column[Any]]:
        return list(self.table.primary_key.columns)

    def read(self, stored: Any) -> bytes:
        """Empty where there is nothing to be sealed."""
        if not self.in_json:
            return bytes(stored or b"")
        try:
            return base64.b64decode((stored or {}).get("sealed", ""), validate=True)
        except (AttributeError, TypeError, binascii.Error):
            return b"?"  # no version that opens: it is told as such

    def written(self, sealed: bytes) -> Any:
        return {"sealed": base64.b64encode(sealed).decode()} if self.in_json else sealed


EVERYTHING = (
    Sealed("means of payment", devices.c.payer_sealed, "payer:{id}"),
    Sealed("webhook secrets", endpoints.c.secret_sealed, "endpoint:{id}"),
    Sealed("providers' credentials", provider_accounts.c.credentials_sealed, "account:{id}"),
    Sealed("answers to merchants", idempotency_keys.c.response, "answer:{merchant_id}:{key}", in_json=True),
)


@dataclass(frozen=True)
class Count:
    """`anew`: how many were sealed anew, or would have to be."""

    title: str
    current: int
    anew: int


async def survey(database: Database, sealer: Sealer) -> list[Count]:
    """What is to be done. Opens all that is sealed by an older key, and raises Misconfigured where something does not open:
    then a key is missing that must not be."""
    return [await _pass(database, sealer, sealed, change=False) for sealed in EVERYTHING]


async def reseal(database: Database, sealer: Sealer) -> list[Count]:
    """Seals anew what is not sealed by the newest key, until nothing is left. Changes nothing before all of it was seen to open.
    Raises Misconfigured where it does not, or where somebody keeps sealing with another key."""
    await survey(database, sealer)
    counts = []
    for sealed in EVERYTHING:
        anew = 0
        for _ in range(_PASSES):
            done = await _pass(database, sealer, sealed, change=True)
            anew += done.anew
            if done.anew == 0:
                break
        else:
            raise Misconfigured(
                "Something still seals with another key than the first of AUGENBLICK_SECRET_KEY: start every role again with the"
                " new keys, then repeat this."
            )
        counts.append(Count(sealed.title, done.current, anew))
    return counts


async def _pass(database: Database, sealer: Sealer, sealed: Sealed, *, change: bool) -> Count:
    """Once through the table, in the order of its key."""
    current = anew = 0
    last: Sequence[Any] | None = None
    while True:
        async with database.transaction() as connection:
            query = select(*sealed.key, sealed.column.label("stored")).where(sealed.column.is_not(None))
            query = query.order_by(*sealed.key).limit(_AT_ONCE)
            if last is not None:
                query = query.where(tuple_(*sealed.key) > tuple_(*(literal(value) for value in last)))
            rows = (await connection.execute(query)).all()
            if not rows:
                return Count(sealed.title, current, anew)
            changes = []
            for row in rows:
                value = sealed.read(row.stored)
                if value and sealer.is_current(value):
                    current += 1
                elif value:
                    context = sealed.place.format(**row._mapping)  # noqa: SLF001 (SQLAlchemy's public name for it)
                    changes.append((row, sealed.written(sealer.seal(sealer.open(value, context), context))))
            if change and changes:
                await connection.execute(_replace(sealed), [_values(sealed, row, new) for row, new in changes])
            anew += len(changes)
            last = [getattr(rows[-1], column.name) for column in sealed.key]


def _replace(sealed: Sealed) -> Any:
    """What was changed meanwhile stays as it is; the next pass looks at it."""
    unchanged = [column == bindparam(f"key_{column.name}") for column in sealed.key]
    stored = bindparam("stored", type_=sealed.column.type)
    new = bindparam("new", type_=sealed.column.type)
    return update(sealed.table).where(*unchanged, sealed.column == stored).values({sealed.column.name: new})


def _values(sealed: Sealed, row: Any, new: Any) -> dict[str, Any]:
    keys = {f"key_{column.name}": getattr(row, column.name) for column in sealed.key}
    return {**keys, "stored": row.stored, "new": new}
