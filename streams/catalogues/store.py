"""The catalogues' SQL. A snapshot begins as a draft, which nobody sees; published it never changes (a trigger refuses it). What
is current is one row per merchant, whose every change PostgreSQL announces on `CHANNEL`; what was current before is a stack of
switches, on which a publication puts one and from which a rollback takes one."""

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    Text,
    column,
    delete,
    except_all,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from connectors.shops.catalogue.importer import CatalogueRow
from schemas.errors import Misconfigured
from schemas.ids import MerchantId
from schemas.tables import (
    catalogue_calibrations,
    catalogue_features,
    catalogue_pictures,
    catalogue_products,
    catalogue_snapshots,
    catalogue_switches,
    catalogues,
    merchants,
)

CHANNEL = "catalogue_switched"
"""Its messages are merchants' ids."""

_ROWS_PER_STATEMENT = 5000
_LOCKS = 45330  # the first key of this module's advisory locks; the second is a merchant, or 0 for the pictures of all

# One parameter for many rows: to write and bind one for each value takes many times as long as inserting them.
_ADD = text(
    "INSERT INTO catalogue_products SELECT * FROM jsonb_populate_recordset(NULL::catalogue_products, CAST(:rows AS jsonb))"
)

_products = catalogue_products.c
_snapshots = catalogue_snapshots.c
_features = catalogue_features.c
_switches = catalogue_switches.c


@dataclass(frozen=True)
class Models:
    """What makes features. Those of different models are never compared."""

    matcher: str
    embedder: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """`name` is that of its directory, None where nothing is recognised by picture; several snapshots whose pictures are the same
    have one directory. `published_at` is None for a draft: it says when the snapshot was whole, not whether anybody ever saw it.
    Those who recognise and sell saw it last between `live_from` and `live_until`: both are None where it never was current, and
    the latter while it is."""

    merchant_id: MerchantId
    number: int
    name: str | None
    models: Models | None
    sha256: str | None
    products: int
    pictures: int
    created_at: datetime
    published_at: datetime | None
    is_current: bool
    live_from: datetime | None
    live_until: datetime | None


@dataclass(frozen=True)
class Former:
    """What was current before: `number` is None where nothing was. `switch` is where it lies in the stack."""

    switch: int
    number: int | None


@dataclass(frozen=True)
class KnownProduct:
    """A product of a snapshot, as a choice shows it. `picture` is the main one's SHA-256."""

    merchant_id: MerchantId
    snapshot: int
    product_id: str
    gtin: str | None
    title: str
    language: str
    brand: str | None
    picture: str | None


@dataclass(frozen=True)
class Entry:
    """One picture's features in a snapshot."""

    product_id: str
    picture: str
    features: bytes


@dataclass(frozen=True)
class Place:
    """An entry without its features, of which there are `length` bytes."""

    product_id: str
    picture: str
    length: int


@dataclass(frozen=True)
class Draft:
    """`base` is what was current when it was begun."""

    merchant_id: MerchantId
    number: int
    base: int | None


# Locks.


@asynccontextmanager
async def only_import(engine: AsyncEngine, merchant_id: MerchantId) -> AsyncIterator[None]:
    """One import or publication of a merchant at a time; nothing is pruned meanwhile. Raises Misconfigured where another one is
    at it. The locks are the connection's: they end with this process, however it ends."""
    async with _locking(engine) as connection:
        await connection.execute(select(func.pg_advisory_lock_shared(_LOCKS, 0)))
        try:
            if not await connection.scalar(select(func.pg_try_advisory_lock(_LOCKS, func.hashtext(merchant_id)))):
                raise Misconfigured(f"Another import of {merchant_id} is running. Wait until it has ended.")
            yield
        finally:
            await connection.execute(select(func.pg_advisory_unlock_all()))


@asynccontextmanager
async def no_imports(engine: AsyncEngine) -> AsyncIterator[bool]:
    """False where an import is running, which may be about to use what nobody uses now."""
    async with _locking(engine) as connection:
        try:
            yield bool(await connection.scalar(select(func.pg_try_advisory_lock(_LOCKS, 0))))
        finally:
            await connection.execute(select(func.pg_advisory_unlock_all()))


@asynccontextmanager
async def _locking(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with engine.connect() as connection:
        # An open transaction that waits is ended by the server.
        yield await connection.execution_options(isolation_level="AUTOCOMMIT")


async def take_time(connection: AsyncConnection) -> None:
    """Of this transaction a statement may last longer than those that somebody waits for: it may be about 10^5 products."""
    await connection.execute(text("SET LOCAL statement_timeout = '10min'"))


# Drafts.


async def begin(connection: AsyncConnection, merchant_id: MerchantId) -> Draft:
    """A new draft with a number that no snapshot ever had. Whoever begins another waits until this transaction ends. Raises
    Misconfigured where there is no such merchant."""
    if not await connection.scalar(select(exists().where(merchants.c.id == merchant_id))):
        raise Misconfigured(f"There is no merchant {merchant_id}.")
    await connection.execute(upsert(catalogues).values(merchant_id=merchant_id).on_conflict_do_nothing())
    advanced = (
        update(catalogues)
        .where(catalogues.c.merchant_id == merchant_id)
        .values(last_number=catalogues.c.last_number + 1)
        .returning(catalogues.c.last_number, catalogues.c.current)
    )
    row = (await connection.execute(advanced)).one()
    await connection.execute(insert(catalogue_snapshots).values(merchant_id=merchant_id, number=row.last_number))
    return Draft(merchant_id, row.last_number, row.current)


async def add(
    connection: AsyncConnection,
    draft: Draft,
    rows: Sequence[CatalogueRow],
    pictures: Mapping[str, Sequence[str]],
    observed_at: datetime,
) -> None:
    """`pictures`: by product, the SHA-256 of those it has, which are kept already."""
    former = await pictures_of(connection, draft.merchant_id, draft.base) if any(row.pictures is None for row in rows) else {}
    for start in range(0, len(rows), _ROWS_PER_STATEMENT):
        values = [
            {
                "merchant_id": draft.merchant_id,
                "snapshot": draft.number,
                "product_id": row.product_id,
                "gtin": row.product.gtin,
                "title": row.product.title,
                "language": row.product.language,
                "brand": row.product.brand,
                "item_group": row.item_group,
                "price_minor": row.price.minor if row.price else None,
                "price_currency": row.price.currency if row.price else None,
                "sale_minor": row.sale.price.minor if row.sale else None,
                "sale_from": _iso(row.sale.begins if row.sale else None),
                "sale_until": _iso(row.sale.ends if row.sale else None),
                "available": row.available,
                "url": row.url,
                "pictures": list((former if row.pictures is None else pictures).get(row.product_id, ())),
                "observed_at": _iso(observed_at),
            }
            for row in rows[start : start + _ROWS_PER_STATEMENT]
        ]
        await connection.execute(_ADD, {"rows": json.dumps(values, ensure_ascii=False)})


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


async def pictures_of(connection: AsyncConnection, merchant_id: MerchantId, number: int | None) -> dict[str, list[str]]:
    """By product, the SHA-256 of those it has in that snapshot; products without any are left out."""
    query = select(_products.product_id, _products.pictures).where(*_of(merchant_id, number), _products.pictures != [])
    return {row.product_id: row.pictures for row in await connection.execute(query)}


async def keep_others(connection: AsyncConnection, draft: Draft) -> None:
    """What is current and the list does not name stays. A product whose GTIN the list gives to another name is that other one."""
    listed = catalogue_products.alias()
    in_list = exists().where(listed.c.merchant_id == draft.merchant_id, listed.c.snapshot == draft.number)
    # Two questions: for one with `or` in it every row would be compared with every other.
    not_listed = (
        ~in_list.where(listed.c.product_id == _products.product_id),
        ~in_list.where(listed.c.gtin == _products.gtin),
    )
    columns = [each for each in _products if each.name != "snapshot"]
    others = select(literal(draft.number, Integer), *columns).where(*_of(draft.merchant_id, draft.base), *not_listed)
    names = ["snapshot", *(each.name for each in columns)]
    await connection.execute(insert(catalogue_products).from_select(names, others, include_defaults=False))


async def discard_drafts(connection: AsyncConnection, merchant_id: MerchantId) -> None:
    """What imports left that did not come to their end. Only under `only_import`."""
    left = (_snapshots.merchant_id == merchant_id) & _snapshots.published_at.is_(None)
    await connection.execute(delete(catalogue_snapshots).where(left))


async def has_pictures(connection: AsyncConnection, merchant_id: MerchantId, number: int) -> bool:
    return bool(await connection.scalar(select(exists().where(*_of(merchant_id, number), _products.pictures != []))))


async def publish(
    connection: AsyncConnection, draft: Draft, *, name: str | None, models: Models | None, sha256: str | None, pictures: int
) -> None:
    """From now on nothing of it changes but where its directory is (`move`)."""
    count = select(func.count()).where(*_of(draft.merchant_id, draft.number)).scalar_subquery()
    await connection.execute(
        update(catalogue_snapshots)
        .where(_snapshots.merchant_id == draft.merchant_id, _snapshots.number == draft.number)
        .values(
            name=name,
            matcher=models.matcher if models else None,
            embedder=models.embedder if models else None,
            sha256=sha256,
            products=count,
            pictures=pictures,
            published_at=func.now(),
        )
    )


async def move(connection: AsyncConnection, snapshot: Snapshot, name: str) -> None:
    """Its directory has another name now, and so has that of all who share it. Announced as a switch is: whoever recognises by
    one of them asks for the new one at once."""
    moved = update(catalogue_snapshots).where(_snapshots.merchant_id == snapshot.merchant_id, _snapshots.name == snapshot.name)
    await connection.execute(moved.values(name=name))
    await connection.execute(select(func.pg_notify(CHANNEL, snapshot.merchant_id)))


# Switching.


async def switch(connection: AsyncConnection, merchant_id: MerchantId, number: int | None, *, instead_of: int | None) -> None:
    """With the end of this transaction all that is recognised and sold is another snapshot's, or nothing for None. Raises
    Misconfigured where another than `instead_of` is current by now."""
    await _make_current(connection, merchant_id, number, instead_of)
    if number != instead_of:
        await _end_live(connection, [merchant_id])
        await connection.execute(insert(catalogue_switches).values(merchant_id=merchant_id, snapshot=number))


async def find_former(connection: AsyncConnection, merchant_id: MerchantId) -> Former | None:
    """What was current before what is now. Between two that were, others may have been pruned: what is current now is not what
    was before it."""
    now = select(catalogues.c.current).where(catalogues.c.merchant_id == merchant_id).scalar_subquery()
    query = select(_switches.id, _switches.snapshot).where(*_stack(merchant_id), _switches.snapshot.is_distinct_from(now))
    row = (await connection.execute(query.order_by(_switches.id.desc()).limit(1))).one_or_none()
    return Former(row.id, row.snapshot) if row else None


async def switch_back(connection: AsyncConnection, merchant_id: MerchantId, former: Former, *, instead_of: int | None) -> None:
    """As `switch`, to `former`: what came after it is undone, and no later rollback leads to it."""
    await _make_current(connection, merchant_id, former.number, instead_of)
    await _end_live(connection, [merchant_id])
    later = update(catalogue_switches).where(*_stack(merchant_id), _switches.id > former.switch)
    await connection.execute(later.values(is_undone=True))
    again = update(catalogue_switches).where(_switches.id == former.switch)
    await connection.execute(again.values(live_from=func.now(), live_until=None))


async def _make_current(connection: AsyncConnection, merchant_id: MerchantId, number: int | None, instead_of: int | None) -> None:
    switched = await connection.execute(
        update(catalogues)
        .where(catalogues.c.merchant_id == merchant_id, catalogues.c.current.is_not_distinct_from(instead_of))
        .values(current=number, switched_at=func.now())
    )
    if not switched.rowcount:
        raise Misconfigured(f"The catalogue of {merchant_id} was switched by somebody else meanwhile. Look at it, and try again.")


async def withdraw(connection: AsyncConnection, merchant_ids: Collection[str]) -> None:
    """Nothing of these merchants is recognised or sold any more. Their snapshots stay."""
    withdrawn = (
        update(catalogues)
        .where(catalogues.c.merchant_id.in_(merchant_ids), catalogues.c.current.is_not(None))
        .values(current=None, switched_at=func.now())
        .returning(catalogues.c.merchant_id)
    )
    if changed := (await connection.execute(withdrawn)).scalars().all():
        await _end_live(connection, changed)
        rows = [{"merchant_id": merchant_id, "snapshot": None} for merchant_id in changed]
        await connection.execute(insert(catalogue_switches), rows)


def _stack(merchant_id: str) -> tuple[ColumnElement[bool], ...]:
    return _switches.merchant_id == merchant_id, _switches.is_undone.is_(False)


async def _end_live(connection: AsyncConnection, merchant_ids: Collection[str]) -> None:
    live = update(catalogue_switches).where(_switches.merchant_id.in_(merchant_ids), _switches.live_until.is_(None))
    await connection.execute(live.values(live_until=func.now()))


# Looking.


def _of(merchant_id: str, number: int | None) -> tuple[ColumnElement[bool], ...]:
    return _products.merchant_id == merchant_id, _products.snapshot == number


def _selected() -> Select[Any]:
    live = (
        select(_switches.live_from, _switches.live_until)
        .where(_switches.merchant_id == _snapshots.merchant_id, _switches.snapshot == _snapshots.number)
        .order_by(_switches.live_until.desc().nulls_first())
        .limit(1)
        .lateral("live")
    )
    is_current = (catalogues.c.current == _snapshots.number).is_(true()).label("is_current")
    return (
        select(catalogue_snapshots, is_current, live.c.live_from, live.c.live_until)
        .outerjoin(catalogues, catalogues.c.merchant_id == _snapshots.merchant_id)
        .outerjoin(live, true())
    )


def _snapshot(row: Row[Any]) -> Snapshot:
    return Snapshot(
        merchant_id=MerchantId(row.merchant_id),
        number=row.number,
        name=row.name,
        models=Models(row.matcher, row.embedder) if row.matcher else None,
        sha256=row.sha256,
        products=row.products,
        pictures=row.pictures,
        created_at=row.created_at,
        published_at=row.published_at,
        is_current=row.is_current,
        live_from=row.live_from,
        live_until=row.live_until,
    )


async def published(connection: AsyncConnection, merchant_id: MerchantId | None = None) -> list[Snapshot]:
    """Newest first, one merchant after the other."""
    query = _selected().where(_snapshots.published_at.is_not(None)).order_by(_snapshots.merchant_id, _snapshots.number.desc())
    if merchant_id is not None:
        query = query.where(_snapshots.merchant_id == merchant_id)
    return [_snapshot(row) for row in await connection.execute(query)]


async def find(connection: AsyncConnection, merchant_id: MerchantId, number: int) -> Snapshot | None:
    """A published one."""
    query = _selected().where(
        _snapshots.merchant_id == merchant_id, _snapshots.number == number, _snapshots.published_at.is_not(None)
    )
    row = (await connection.execute(query)).one_or_none()
    return _snapshot(row) if row else None


async def current(connection: AsyncConnection, merchant_id: MerchantId | None = None) -> list[Snapshot]:
    """Of all merchants, or of one."""
    query = _selected().where(catalogues.c.current == _snapshots.number).order_by(_snapshots.merchant_id)
    if merchant_id is not None:
        query = query.where(_snapshots.merchant_id == merchant_id)
    return [_snapshot(row) for row in await connection.execute(query)]


async def find_merchant(connection: AsyncConnection, text: str) -> MerchantId:
    """By its id, or by its name where only one has it. Raises Misconfigured."""
    query = select(merchants.c.id).where(or_(merchants.c.id == text, merchants.c.name == text)).limit(2)
    found = (await connection.execute(query)).scalars().all()
    if len(found) != 1:
        problem = "Several merchants are" if found else "No merchant is"
        raise Misconfigured(f"{problem} named {text!r}: give the merchant's id, mer_…")
    return MerchantId(found[0])


async def find_products(
    connection: AsyncConnection, merchant_id: MerchantId, number: int, product_ids: Collection[str] | None = None
) -> dict[str, KnownProduct]:
    """By product; all of the snapshot where none are named."""
    query = select(catalogue_products).where(*_of(merchant_id, number)).order_by(_products.product_id)
    if product_ids is not None:
        query = query.where(_products.product_id.in_(product_ids))
    return {row.product_id: _known(row) for row in await connection.execute(query)}


def _known(row: Row[Any]) -> KnownProduct:
    return KnownProduct(
        merchant_id=MerchantId(row.merchant_id),
        snapshot=row.snapshot,
        product_id=row.product_id,
        gtin=row.gtin,
        title=row.title,
        language=row.language,
        brand=row.brand,
        picture=row.pictures[0] if row.pictures else None,
    )


# Pictures.


async def find_thumbnail(connection: AsyncConnection, sha256: str) -> bytes | None:
    """A JPEG of at most 256 pixels a side."""
    query = select(catalogue_pictures.c.thumbnail).where(catalogue_pictures.c.sha256 == sha256)
    found = await connection.scalar(query)
    return bytes(found) if found is not None else None


async def is_recognisable(connection: AsyncConnection, sha256: str, models: Models) -> bool | None:
    """Whether these models found enough on the picture; None where they never saw it."""
    query = select(_features.features.is_not(None)).where(_features.picture == sha256, *_made_by(models))
    found: bool | None = await connection.scalar(query)
    return found


async def keep_picture(connection: AsyncConnection, sha256: str, *, thumbnail: bytes, width: int, height: int) -> None:
    values = {"sha256": sha256, "thumbnail": thumbnail, "width": width, "height": height}
    await connection.execute(upsert(catalogue_pictures).values(values).on_conflict_do_nothing())


async def keep_features(connection: AsyncConnection, sha256: str, models: Models, *, features: bytes | None, points: int) -> None:
    """`features` is None where the picture shows too little. What is there already stays: a snapshot may rest on it."""
    values = {"picture": sha256, "matcher": models.matcher, "embedder": models.embedder or "", "features": features}
    await connection.execute(upsert(catalogue_features).values(**values, points=points).on_conflict_do_nothing())


def _made_by(models: Models) -> tuple[ColumnElement[bool], ...]:
    return _features.matcher == models.matcher, _features.embedder == (models.embedder or "")


def _entries(merchant_id: str, number: int | None, models: Models, *more: ColumnElement[Any]) -> Select[Any]:
    """Every picture with features: product, picture, and its place among the product's."""
    shown = (
        func.unnest(_products.pictures)
        .table_valued(column("picture", Text), with_ordinality="position", name="shown")
        .render_derived()
    )
    return (
        select(_products.product_id, shown.c.picture, shown.c.position, *more)
        .select_from(catalogue_products.join(shown, true()))
        .join(catalogue_features, _features.picture == shown.c.picture)
        .where(*_of(merchant_id, number), *_made_by(models), _features.features.is_not(None))
    )


_IN_ORDER = (_products.product_id.collate("C"), text("position"))


async def entries(connection: AsyncConnection, merchant_id: MerchantId, number: int, models: Models) -> AsyncIterator[Entry]:
    """In an order that is always the same; a few at a time, for all of them may be gigabytes."""
    query = _entries(merchant_id, number, models, _features.features).order_by(*_IN_ORDER)
    async with connection.stream(query, execution_options={"max_row_buffer": 64}) as result:
        async for row in result:
            yield Entry(row.product_id, row.picture, bytes(row.features))


async def places(connection: AsyncConnection, merchant_id: MerchantId, number: int, models: Models) -> list[Place]:
    """Of the entries, in their order."""
    length = func.octet_length(_features.features).label("length")
    query = _entries(merchant_id, number, models, length).order_by(*_IN_ORDER)
    return [Place(row.product_id, row.picture, row.length) for row in await connection.execute(query)]


async def has_same_pictures(connection: AsyncConnection, draft: Draft, models: Models) -> bool:
    """Whether a directory of the draft would hold what the one of its base holds."""
    one, other = (_entries(draft.merchant_id, number, models) for number in (draft.number, draft.base))
    different = union_all(except_all(one, other), except_all(other, one)).limit(1)
    return (await connection.execute(different)).first() is None


async def count_unrecognised(connection: AsyncConnection, merchant_id: MerchantId, number: int, models: Models) -> int:
    """Products that have pictures, and none that these models have features of."""
    recognised = _entries(merchant_id, number, models).subquery()
    without = ~exists().where(recognised.c.product_id == _products.product_id)
    query = select(func.count()).where(*_of(merchant_id, number), _products.pictures != [], without)
    return int(await connection.scalar(query) or 0)


# Pruning.


async def prune(connection: AsyncConnection, merchant_id: MerchantId, keep: int) -> list[int]:
    """Deletes whole snapshots: all but the newest `keep`, and never the current one, nor, while the catalogue is withdrawn, the
    one that was. Returns their numbers."""
    is_published = (_snapshots.merchant_id == merchant_id) & _snapshots.published_at.is_not(None)
    newest = select(_snapshots.number).where(is_published).order_by(_snapshots.number.desc()).limit(keep)
    is_current = exists().where(catalogues.c.merchant_id == merchant_id, catalogues.c.current == _snapshots.number)
    seen = select(_switches.snapshot).where(*_stack(merchant_id), _switches.snapshot.is_not(None))
    seen_last = seen.order_by(_switches.id.desc()).limit(1)
    unused = ~is_current & _snapshots.number.not_in(newest) & _snapshots.number.not_in(seen_last)
    old = delete(catalogue_snapshots).where(is_published, unused)
    return sorted((await connection.execute(old.returning(_snapshots.number))).scalars())


async def prune_pictures(connection: AsyncConnection) -> int:
    """Deletes pictures, with their features, that no snapshot has. Only under `no_imports`."""
    used = select(func.unnest(_products.pictures).label("sha256")).subquery()
    unused = ~exists().where(used.c.sha256 == catalogue_pictures.c.sha256)
    return (await connection.execute(delete(catalogue_pictures).where(unused))).rowcount


# Calibrations.


async def keep_calibration(
    connection: AsyncConnection,
    merchant_id: MerchantId,
    matcher: str,
    *,
    thresholds: Mapping[str, Any],
    measured_on: Mapping[str, Any],
) -> None:
    """The newest counts. Announced as a switch is, so that workers use it at once."""
    values = {"merchant_id": merchant_id, "matcher": matcher, "thresholds": dict(thresholds), "measured_on": dict(measured_on)}
    await connection.execute(insert(catalogue_calibrations).values(values))
    await connection.execute(select(func.pg_notify(CHANNEL, merchant_id)))
