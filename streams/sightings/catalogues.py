"""The workers' view of the merchants' catalogues: which snapshots are current, and what is known of their products.

A switch is announced by PostgreSQL (LISTEN) and used at once; while nobody listens, because the connection broke, it is asked
for. What is current is one value that is replaced as a whole: a look that began with one set of snapshots ends with it, and
products are only read of snapshots, which do not change.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql
from pydantic import ValidationError
from sqlalchemy import Row, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.ids import MerchantId
from schemas.tables import catalogue_calibrations, catalogue_products, catalogue_snapshots, catalogues
from streams.catalogues.store import CHANNEL
from streams.core.database import Database, is_unavailable
from streams.sightings import thresholds
from streams.sightings.thresholds import WEIGHTS, Thresholds

log = logging.getLogger(__name__)

_ASKED_EVERY_S = 0.5  # while nobody listens
_LOOKED_AFTER_S = 30.0  # while somebody does
# A listener whose server vanished without a word would listen for ever. In seconds, and milliseconds for the last.
_NOTICED: Mapping[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 9000,
}
_TRIED_AGAIN_S = 0.5


@dataclass(frozen=True)
class Market:
    """What a snapshot's prices are in, ISO 4217, and what its products are described in, ISO 639."""

    currencies: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Snapshot:
    """What a merchant sells now. `name` is what `match` knows it by; None where no product of it is recognised by picture.
    `matcher` extracted its features; `thresholds` are those that were calibrated last, by whatever weights. `market` is told of
    those with a name only."""

    merchant_id: MerchantId
    number: int
    name: str | None = None
    pictures: int = 0
    matcher: str | None = None
    thresholds: Thresholds = field(default_factory=thresholds.shipped, repr=False)
    market: Market = field(default_factory=Market, repr=False)

    def limits(self, scorer: str) -> Thresholds:
        """For scores of `scorer`, as `match` names it: its own, if they were calibrated with that one."""
        return self.thresholds if self.thresholds.may_act(scorer) else thresholds.shipped()


@dataclass(frozen=True)
class Product:
    """As its merchant describes it. `picture` is the SHA-256 of the main one; `recognisable` says whether there are any."""

    snapshot: Snapshot
    product_id: str
    gtin: str | None
    title: str
    language: str
    picture: str | None = None

    @property
    def recognisable(self) -> bool:
        return self.picture is not None and self.snapshot.name is not None


NONE: Mapping[MerchantId, Snapshot] = MappingProxyType({})


class ChosenCatalogues:
    """These snapshots and no others."""

    def __init__(self, database: Database, current: Mapping[MerchantId, Snapshot]) -> None:
        self._database = database
        self._current = current

    @property
    def current(self) -> Mapping[MerchantId, Snapshot]:
        """By merchant. Never changed in place."""
        return self._current

    async def find(
        self,
        snapshots: Mapping[MerchantId, Snapshot],
        *,
        gtins: Collection[str] = (),
        own: Collection[tuple[MerchantId, str]] = (),
    ) -> tuple[Product, ...]:
        """Those of these snapshots' products that have one of the GTINs, or are `own`: a merchant's, by his name for it."""
        async with self._database.transaction() as connection:
            return await find_products(connection, snapshots, gtins=gtins, own=own)


class Catalogues(ChosenCatalogues):
    """Those that are current. `watch` is for the caller to run beside. While the database is away, what was known before is
    current."""

    def __init__(self, database: Database, url: str) -> None:
        """`url` as psycopg takes it: listening needs a connection of its own."""
        super().__init__(database, NONE)
        self._url = url

    async def start(self) -> None:
        """Reads what is current for the first time. Raises where the database is away."""
        async with self._database.transaction() as connection:
            self._current = await read_current(connection)

    async def watch(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            listening = asyncio.Event()
            tasks.create_task(self._listen(listening))
            while True:
                await self._refresh()
                # Waking up often is enough to notice that the listener was lost.
                waited = 0.0
                while waited < (_LOOKED_AFTER_S if listening.is_set() else _ASKED_EVERY_S):
                    await asyncio.sleep(_ASKED_EVERY_S)
                    waited += _ASKED_EVERY_S

    async def _listen(self, listening: asyncio.Event) -> None:
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True, connect_timeout=5, **_NOTICED)
                async with connection:
                    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))
                    listening.set()
                    await self._refresh()  # what was switched before anybody listened
                    async for _ in connection.notifies():
                        await self._refresh()
            except psycopg.Error as error:
                log.warning("catalogues' switches are asked for, not heard: %s", type(error).__qualname__)
            finally:
                listening.clear()
            await asyncio.sleep(_TRIED_AGAIN_S)

    async def _refresh(self) -> None:
        try:
            async with self._database.transaction() as connection:
                self._current = await read_current(connection, self._current)
        except Exception as error:
            if not is_unavailable(error):
                raise
            log.warning("the current catalogues cannot be read: %s", type(error).__qualname__)


async def read_current(connection: AsyncConnection, known: Mapping[MerchantId, Snapshot] = NONE) -> Mapping[MerchantId, Snapshot]:
    """With the newest calibration of each that fits its matcher, by whatever weights. What cannot have changed is taken from
    `known`."""
    is_current = and_(
        catalogue_snapshots.c.merchant_id == catalogues.c.merchant_id, catalogue_snapshots.c.number == catalogues.c.current
    )
    columns = (catalogue_snapshots.c.merchant_id, catalogue_snapshots.c.number, catalogue_snapshots.c.name)
    query = (
        select(*columns, catalogue_snapshots.c.pictures, catalogue_snapshots.c.matcher, catalogue_calibrations.c.thresholds)
        .select_from(catalogues)
        .join(catalogue_snapshots, is_current)
        .outerjoin(
            catalogue_calibrations,
            and_(
                catalogue_calibrations.c.merchant_id == catalogue_snapshots.c.merchant_id,
                func.split_part(catalogue_calibrations.c.matcher, WEIGHTS, 1) == catalogue_snapshots.c.matcher,
            ),
        )
        .order_by(catalogue_snapshots.c.merchant_id, catalogue_calibrations.c.created_at.desc())
        .distinct(catalogue_snapshots.c.merchant_id)
    )
    rows = (await connection.execute(query)).all()
    markets = {(str(one.merchant_id), one.number): one.market for one in known.values()}
    markets |= await _markets(connection, {(row.merchant_id, row.number) for row in rows if row.name} - markets.keys())
    return MappingProxyType(
        {
            MerchantId(row.merchant_id): Snapshot(
                merchant_id=MerchantId(row.merchant_id),
                number=row.number,
                name=row.name,
                pictures=row.pictures,
                matcher=row.matcher,
                thresholds=_thresholds(row.merchant_id, row.thresholds),
                market=markets.get((row.merchant_id, row.number), Market()),
            )
            for row in rows
        }
    )


async def _markets(connection: AsyncConnection, numbers: Collection[tuple[str, int]]) -> dict[tuple[str, int], Market]:
    """By merchant and number. A snapshot does not change: this is read once for each."""
    if not numbers:
        return {}
    columns = catalogue_products.c
    key = (columns.merchant_id, columns.snapshot)
    query = (
        select(
            *key,
            func.array_agg(columns.price_currency.distinct()).label("currencies"),
            func.array_agg(func.split_part(columns.language, "-", 1).distinct()).label("languages"),
        )
        .where(tuple_(*key).in_(sorted(numbers)))
        .group_by(*key)
    )
    return {
        (row.merchant_id, row.snapshot): Market(frozenset(row.currencies) - {None}, frozenset(row.languages))
        for row in await connection.execute(query)
    }


def _thresholds(merchant_id: str, stored: object) -> Thresholds:
    if stored is None:
        return thresholds.shipped()
    try:
        return Thresholds.model_validate(stored, strict=False)
    except ValidationError as error:
        log.warning("the calibration of %s is of another form and is not used: %s fields", merchant_id, error.error_count())
        return thresholds.shipped()


async def find_products(
    connection: AsyncConnection,
    snapshots: Mapping[MerchantId, Snapshot],
    *,
    gtins: Collection[str] = (),
    own: Collection[tuple[MerchantId, str]] = (),
) -> tuple[Product, ...]:
    """See `Catalogues.find`."""
    columns = catalogue_products.c
    exactly = [(merchant, snapshots[merchant].number, product) for merchant, product in own if merchant in snapshots]
    wanted = []
    if gtins and snapshots:
        numbers = [(merchant, snapshot.number) for merchant, snapshot in snapshots.items()]
        wanted.append(and_(columns.gtin.in_(sorted(gtins)), tuple_(columns.merchant_id, columns.snapshot).in_(numbers)))
    if exactly:
        wanted.append(tuple_(columns.merchant_id, columns.snapshot, columns.product_id).in_(exactly))
    if not wanted:
        return ()
    rows = await connection.execute(select(catalogue_products).where(or_(*wanted)))
    return tuple(_product(snapshots, row) for row in rows)


def _product(snapshots: Mapping[MerchantId, Snapshot], row: Row[Any]) -> Product:
    return Product(
        snapshot=snapshots[MerchantId(row.merchant_id)],
        product_id=row.product_id,
        gtin=row.gtin,
        title=row.title,
        language=row.language,
        picture=row.pictures[0] if row.pictures else None,
    )
