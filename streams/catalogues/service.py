"""Importing a merchant's products and switching to what was imported.

An import takes its time and shows nothing: pictures are obtained and their features computed (kept by the picture's digest, so
that the next import computes only what is new), a draft of the whole catalogue is written, its directory is made, and Triton
opens it. Then one transaction publishes it and switches. Whatever happens before that leaves what was current as it was.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from sqlalchemy.ext.asyncio import AsyncConnection

from connectors.http import HttpClient
from connectors.shops.catalogue.fields import MOST_PICTURES
from connectors.shops.catalogue.importer import CatalogueRow
from schemas.errors import Misconfigured, Retryable
from schemas.ids import MerchantId
from streams.catalogues import pictures, store
from streams.catalogues.directories import SnapshotWriter, Written, damage, listed, remove, remove_unused
from streams.catalogues.pictures import OutOfReach
from streams.catalogues.store import Draft, Models, Place, Snapshot
from streams.core.database import Database
from streams.core.pictures import UnusablePicture
from streams.core.settings import require

log = logging.getLogger(__name__)

_AT_ONCE = 6  # pictures on their way: most of the time they wait for a server
_IN_VAIN = 24  # of one server; with a server that lets everyone wait, two minutes

Progress = Callable[[int, int], None]
"""Pictures done, and how many there are."""


class TooLittleShown(Exception):
    """There is too little on the picture to recognise anything by."""


@dataclass(frozen=True)
class Extracted:
    """`features` are opaque: only the models that made them can read them."""

    models: Models
    features: bytes = field(repr=False)
    points: int


class PictureModels(Protocol):
    """What makes features of pictures, and later compares them. Raises Retryable where it does not answer, and Misconfigured
    where it cannot be used."""

    async def identify(self) -> Models:
        """What is running now."""
        ...

    async def extract(self, jpeg: bytes) -> Extracted:
        """Raises TooLittleShown."""
        ...

    async def open(self, name: str) -> None:
        """Make a snapshot ready to be used, so that no wearer waits for it. Raises Misconfigured where that is not possible: the
        directory is not seen, or was made by other models."""
        ...


@dataclass(frozen=True)
class PictureProblem:
    """Why a product is not recognised by one of its pictures. It is offered all the same. `passes` where the picture could not be
    had this time, and may be the next: until then the product keeps those it had."""

    product_id: str
    picture: str
    reason: str
    passes: bool = False


@dataclass(frozen=True)
class Imported:
    """`listed` products were in the list. `computed` pictures were new to the models; the features of the others were known.
    `unrecognised` products of the whole catalogue have pictures, and none of them has features of these models."""

    snapshot: Snapshot
    listed: int
    computed: int
    unrecognised: int
    problems: tuple[PictureProblem, ...]


@dataclass
class _Pictures:
    """By product, the digests of its pictures."""

    of: dict[str, list[str]] = field(default_factory=dict)
    problems: list[PictureProblem] = field(default_factory=list)
    computed: int = 0


class Catalogues:
    """`directory` is where snapshots lie, `models` make the features, `client` fetches pictures. Those that are None are asked
    for (Misconfigured) when they are needed: a list without pictures needs the database only."""

    def __init__(
        self,
        database: Database,
        *,
        directory: Path | None = None,
        models: PictureModels | None = None,
        client: HttpClient | None = None,
    ) -> None:
        self._database = database
        self.directory = directory
        self.models = models
        self.client = client

    async def import_list(
        self,
        merchant_id: MerchantId,
        rows: Sequence[CatalogueRow],
        observed_at: datetime,
        *,
        beside: Path,
        replace: bool = False,
        switch: bool = True,
        progress: Progress = lambda done, of: None,
    ) -> Imported:
        """`beside` is the list's directory. With `replace` the list is the whole catalogue; otherwise products it does not name
        stay as they are."""
        async with store.only_import(self._database.engine, merchant_id):
            await self._tidy(merchant_id)
            wanted = any(row.pictures for row in rows)
            models = await require(self.models, "triton_url").identify() if wanted else None
            obtained = await self._obtain(merchant_id, rows, beside, models, progress) if models else _Pictures()
            async with self._database.transaction() as connection:
                await store.take_time(connection)
                draft = await _draft(connection, merchant_id, rows, obtained.of, observed_at, replace=replace)
            written, models = await self._written(draft, models)
            async with self._database.transaction() as connection:
                await store.take_time(connection)
                snapshot = await _published(connection, draft, written, models, switch=switch)
                await _move_base(connection, draft, snapshot)
                unrecognised = await store.count_unrecognised(connection, merchant_id, draft.number, models) if models else 0
            return Imported(snapshot, len(rows), obtained.computed, unrecognised, tuple(obtained.problems))

    async def publish(self, merchant_id: MerchantId, number: int) -> Snapshot:
        """Switch to a snapshot, newer or older. Where its directory is missing or damaged it is made again. Raises
        Misconfigured."""
        async with store.only_import(self._database.engine, merchant_id):
            async with self._database.transaction() as connection:
                snapshot = await store.find(connection, merchant_id, number)
                now = await _current(connection, merchant_id)
            if snapshot is None:
                raise Misconfigured(f"{merchant_id} has no snapshot {number}. `augenblick catalogue list` shows which there are.")
            name = await self._made_ready(snapshot)
            async with self._database.transaction() as connection:
                await _move(connection, snapshot, name)
                await store.switch(connection, merchant_id, number, instead_of=now.number if now else None)
                (switched,) = await store.current(connection, merchant_id)
            return switched

    async def rollback(self, merchant_id: MerchantId) -> Snapshot | None:
        """Switch to what was current before, whatever its number; None where the catalogue was withdrawn then. Once more, and it
        is what was current before that. Raises Misconfigured."""
        async with store.only_import(self._database.engine, merchant_id):
            async with self._database.transaction() as connection:
                now = await _current(connection, merchant_id)
                former = await store.find_former(connection, merchant_id)
                if former is None:
                    raise Misconfigured(
                        f"There was no snapshot before what is current of {merchant_id}. `augenblick catalogue publish` switches "
                        "to any, `withdraw` to none."
                    )
                snapshot = await store.find(connection, merchant_id, former.number) if former.number else None
            name = await self._made_ready(snapshot) if snapshot else None
            async with self._database.transaction() as connection:
                await _move(connection, snapshot, name)
                await store.switch_back(connection, merchant_id, former, instead_of=now.number if now else None)
                return await _current(connection, merchant_id)

    async def withdraw(self, merchant_id: MerchantId) -> Snapshot:
        """Nothing of the merchant is recognised or sold until another publication, or a rollback to what is returned. It waits
        for no import; one that has begun its draft by then is refused. Raises Misconfigured where nothing is current."""
        async with self._database.transaction() as connection:
            now = await _current(connection, merchant_id)
            if now is None:
                raise Misconfigured(f"No snapshot of {merchant_id} is current: there is nothing to withdraw.")
            await store.switch(connection, merchant_id, None, instead_of=now.number)
            withdrawn = await store.find(connection, merchant_id, now.number)
        assert withdrawn is not None
        return withdrawn

    async def prune(self, merchant_ids: Iterable[MerchantId], keep: int) -> dict[MerchantId, list[int]]:
        """Deletes all but the newest `keep` snapshots of each, never the current one or the one that was withdrawn, and what only
        those had. Returns the numbers of those deleted."""
        pruned: dict[MerchantId, list[int]] = {}
        for merchant_id in merchant_ids:
            async with store.only_import(self._database.engine, merchant_id):
                async with self._database.transaction() as connection:
                    await store.take_time(connection)
                    pruned[merchant_id] = await store.prune(connection, merchant_id, keep)
                await self._tidy(merchant_id)
        async with store.no_imports(self._database.engine) as alone:
            if alone:
                async with self._database.transaction() as connection:
                    await store.take_time(connection)
                    await store.prune_pictures(connection)
        return pruned

    async def _tidy(self, merchant_id: MerchantId) -> None:
        async with self._database.transaction() as connection:
            await store.take_time(connection)
            await store.discard_drafts(connection, merchant_id)
            used = {snapshot.name for snapshot in await store.published(connection, merchant_id) if snapshot.name}
        if self.directory is not None:
            remove_unused(self.directory, merchant_id, used)

    async def _written(self, draft: Draft, models: Models | None) -> tuple[Written | None, Models | None]:
        """The draft's directory, opened by Triton; the one of its base where nothing in it would differ and it is whole. A list
        of prices alone does not wait for Triton then: there is nothing new to open."""
        identified = models is not None
        async with self._database.transaction() as connection:
            await store.take_time(connection)
            if not await store.has_pictures(connection, draft.merchant_id, draft.number):
                return None, None
            base = await store.find(connection, draft.merchant_id, draft.base) if draft.base else None
            models = models or (base.models if base else None)
            if models is None:
                return None, None  # pictures there are, but none that anything is recognised by
            may_be_same = base is not None and base.models == models
            is_same = may_be_same and await store.has_same_pictures(connection, draft, models)
            # Of pictures that its directory lacks features may have come since.
            recognisable = len(await store.places(connection, draft.merchant_id, draft.number, models)) if is_same else 0
            is_same = is_same and base is not None and recognisable == base.pictures
        if base and base.name and base.sha256 and is_same and await self._is_whole(base):
            if identified:
                await require(self.models, "triton_url").open(base.name)
            return Written(base.name, base.sha256, base.pictures), models
        written = await self._write(draft.merchant_id, draft.number, models)
        if not written.pictures:
            return None, None
        try:
            await require(self.models, "triton_url").open(written.name)
        except (Retryable, Misconfigured) as error:
            if identified or not is_same:
                raise
            log.warning("what was made again is opened by the first frame that needs it, not now: %s", error)
        return written, models

    async def _is_whole(self, snapshot: Snapshot) -> bool:
        """True also where it cannot be looked at, because no directory is named: a list of prices needs none."""
        if self.directory is None:
            return True
        wrong = await what_is_wrong(self._database, self.directory, snapshot)
        if wrong:
            log.warning("the directory of snapshot %s of %s %s: it is made again", snapshot.number, snapshot.merchant_id, wrong)
        return wrong is None

    async def _write(
        self, merchant_id: MerchantId, number: int, models: Models, only: Collection[Place] | None = None
    ) -> Written:
        root = require(self.directory, "catalogue_directory")
        with SnapshotWriter(root, merchant_id, number, models) as writer:
            async with self._database.transaction() as connection:
                await store.take_time(connection)
                async for entry in store.entries(connection, merchant_id, number, models):
                    if only is None or Place(entry.product_id, entry.picture, len(entry.features)) in only:
                        writer.add(entry)
            return await asyncio.to_thread(writer.finish)

    async def _made_ready(self, snapshot: Snapshot) -> str | None:
        """Its directory's name, opened by Triton: a new one where the directory was not whole. None where nothing is recognised
        by picture."""
        name, models = snapshot.name, snapshot.models
        if name is None or models is None:
            return None
        running = await require(self.models, "triton_url").identify()
        if running != models:
            raise Misconfigured(
                f"Snapshot {snapshot.number} was made by {_in_words(models)}, and Triton runs {_in_words(running)}: import the "
                "list and its pictures again."
            )
        root = require(self.directory, "catalogue_directory")
        if not await self._is_whole(snapshot):
            only = listed(root, name, models, snapshot.sha256 or "")
            written = await self._write(snapshot.merchant_id, snapshot.number, models, only)
            if written.sha256 != snapshot.sha256:
                remove(root, written.name)
                raise Misconfigured(f"Snapshot {snapshot.number} cannot be made again from the database: import the list again.")
            name = written.name
        await require(self.models, "triton_url").open(name)
        return name

    async def _obtain(
        self, merchant_id: MerchantId, rows: Sequence[CatalogueRow], beside: Path, models: Models, progress: Progress
    ) -> _Pictures:
        """Keeps each picture as soon as it is known, so that an import that is interrupted goes on where it was. A product of
        which one cannot be had now keeps all that it has in what is current: which address each came from is not known."""
        found = _Pictures()
        products: dict[str, list[str]] = {}
        for row in rows:
            for picture in row.pictures or ():
                products.setdefault(picture, []).append(row.product_id)
        waiting = iter(products)
        digests: dict[str, str] = {}
        out_of_reach: dict[str, str] = {}
        in_vain: Counter[str] = Counter()  # by server, one after the other
        done = 0

        async def work() -> None:
            nonlocal done
            for picture in waiting:
                reason, server = None, urlsplit(picture).netloc
                try:
                    if in_vain[server] >= _IN_VAIN:
                        raise OutOfReach(f"was not asked for: {server} had not given {_IN_VAIN} others.")
                    digests[picture], reason = await self._keep(picture, beside, models, found)
                    in_vain[server] = 0
                except OutOfReach as problem:
                    in_vain[server] += 1
                    out_of_reach[picture] = str(problem)
                except UnusablePicture as problem:
                    reason = str(problem)
                    in_vain[server] = 0
                if reason:
                    found.problems += [PictureProblem(product_id, picture, reason) for product_id in products[picture]]
                done += 1
                progress(done, len(products))

        progress(0, len(products))
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_AT_ONCE, len(products))):
                    tasks.create_task(work())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        former: dict[str, list[str]] = {}
        if out_of_reach:
            async with self._database.transaction() as connection:
                now = await _current(connection, merchant_id)
                former = await store.pictures_of(connection, merchant_id, now.number) if now else {}
        for row in rows:
            named = row.pictures or ()
            had = [digests[each] for each in named if each in digests]
            if missing := [each for each in named if each in out_of_reach]:
                earlier = former.get(row.product_id, [])
                had = [*earlier, *had]  # in their order: the first is the one that is shown
                what = "The product keeps its earlier pictures." if earlier else "The product has no earlier picture."
                found.problems += [
                    PictureProblem(row.product_id, each, f"{out_of_reach[each]} {what}", passes=True) for each in missing
                ]
            found.of[row.product_id] = list(dict.fromkeys(had))[:MOST_PICTURES]
        found.problems.sort(key=lambda problem: (problem.product_id, problem.picture))
        return found

    async def _keep(self, picture: str, beside: Path, models: Models, found: _Pictures) -> tuple[str, str | None]:
        """The picture's digest, and why nothing is recognised by it, where that is so. Raises UnusablePicture."""
        client = self.client
        if client is None:
            raise Misconfigured("Pictures cannot be fetched here.")
        data = await pictures.obtain(picture, beside, client)
        sha256 = pictures.digest(data)
        async with self._database.transaction() as connection:
            is_recognisable = await store.is_recognisable(connection, sha256, models)
        if is_recognisable is None:
            prepared = await asyncio.to_thread(pictures.prepare, data)
            features, points = await self._extract(prepared.jpeg, models)
            async with self._database.transaction() as connection:
                await store.keep_picture(
                    connection, sha256, thumbnail=prepared.thumbnail, width=prepared.width, height=prepared.height
                )
                await store.keep_features(connection, sha256, models, features=features, points=points)
            found.computed += 1
            is_recognisable = features is not None
        return sha256, None if is_recognisable else "shows too little to be recognised by"

    async def _extract(self, jpeg: bytes, models: Models) -> tuple[bytes | None, int]:
        """The picture's features and how many points they have; none where it shows too little."""
        try:
            extracted = await require(self.models, "triton_url").extract(jpeg)
        except TooLittleShown:
            return None, 0
        if extracted.models != models:
            raise Misconfigured("Triton's models changed during the import. Import again.")
        return extracted.features, extracted.points


async def import_prices(
    connection: AsyncConnection,
    merchant_id: MerchantId,
    rows: Sequence[CatalogueRow],
    observed_at: datetime,
    *,
    replace: bool = False,
) -> Snapshot:
    """A list without pictures for a catalogue without any: in the caller's transaction, and switched to with it."""
    draft = await _draft(connection, merchant_id, rows, {}, observed_at, replace=replace)
    if await store.has_pictures(connection, merchant_id, draft.number):
        raise Misconfigured(f"The catalogue of {merchant_id} has pictures: use `augenblick catalogue import`.")
    return await _published(connection, draft, None, None, switch=True)


async def what_is_wrong(database: Database, directory: Path, snapshot: Snapshot, *, read_up_to: int | None = None) -> str | None:
    """With a snapshot's directory: see `directories.damage`. None where it is whole, or there is none."""
    if snapshot.name is None or snapshot.models is None or snapshot.sha256 is None:
        return None
    async with database.transaction() as connection:
        await store.take_time(connection)
        places = await store.places(connection, snapshot.merchant_id, snapshot.number, snapshot.models)
    return await asyncio.to_thread(
        damage, directory, snapshot.name, snapshot.models, snapshot.sha256, snapshot.pictures, places, read_up_to=read_up_to
    )


async def _move(connection: AsyncConnection, snapshot: Snapshot | None, name: str | None) -> None:
    if snapshot and name and name != snapshot.name:
        await store.move(connection, snapshot, name)


async def _move_base(connection: AsyncConnection, draft: Draft, made: Snapshot) -> None:
    """Where its directory was damaged and the one just made holds the same, it has that one, and the damaged one can go."""
    base = await store.find(connection, draft.merchant_id, draft.base) if draft.base else None
    if base and base.sha256 == made.sha256 and base.models == made.models:
        await _move(connection, base, made.name)


async def _current(connection: AsyncConnection, merchant_id: MerchantId) -> Snapshot | None:
    found = await store.current(connection, merchant_id)
    return found[0] if found else None


async def _draft(
    connection: AsyncConnection,
    merchant_id: MerchantId,
    rows: Sequence[CatalogueRow],
    pictures_of: dict[str, list[str]],
    observed_at: datetime,
    *,
    replace: bool,
) -> Draft:
    draft = await store.begin(connection, merchant_id)
    await store.add(connection, draft, rows, pictures_of, observed_at)
    if not replace:
        await store.keep_others(connection, draft)
    return draft


async def _published(
    connection: AsyncConnection, draft: Draft, written: Written | None, models: Models | None, *, switch: bool
) -> Snapshot:
    await store.publish(
        connection,
        draft,
        name=written.name if written else None,
        models=models if written else None,
        sha256=written.sha256 if written else None,
        pictures=written.pictures if written else 0,
    )
    if switch:
        await store.switch(connection, draft.merchant_id, draft.number, instead_of=draft.base)
    snapshot = await store.find(connection, draft.merchant_id, draft.number)
    assert snapshot is not None
    return snapshot


def _in_words(models: Models) -> str:
    return f"{models.matcher} with {models.embedder}" if models.embedder else models.matcher
