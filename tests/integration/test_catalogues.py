"""Catalogues with a real database and a real Triton: importing, switching, and what cannot be done to a snapshot."""

import asyncio
import csv
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from PIL import Image
from sqlalchemy import delete, exc, insert, select, update
from tritonclient.grpc import aio as client_library
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner

from connectors.http import HttpClient
from connectors.shops.catalogue import CatalogueShop
from connectors.shops.catalogue.importer import parse_catalogue
from infra.cli import app
from infra.local.stack import LocalStack
from infra.triton.server import GRPC_CONTROL_HEADER
from schemas.commerce import ProductQuery
from schemas.errors import AugenblickError, Misconfigured, Retryable
from schemas.ids import MerchantId
from schemas.tables import catalogue_features, catalogue_products, catalogue_snapshots, catalogues
from streams.catalogues import pictures, store
from streams.catalogues.service import Catalogues, Imported
from streams.catalogues.store import Models, Snapshot
from streams.core.database import Database
from streams.core.migrate import configuration
from streams.sightings import thresholds
from streams.sightings.catalogues import Catalogues as Watched
from streams.sightings.catalogues import read_current
from streams.sightings.picture_models import TritonPictureModels
from tests.integration.test_match_model import match
from tests.support.packages import front, photo
from tests.support.rows import Rows

pytestmark = pytest.mark.timeout(600)

SWITCH_S = 1.0
"""From the commit to the last worker that uses it. A machine that does something else in between may take longer once."""


@pytest.fixture
async def models(triton_url: str) -> AsyncIterator[TritonPictureModels]:
    models = TritonPictureModels(triton_url)
    yield models
    await models.close()


@pytest.fixture
def directory(triton: LocalStack) -> Path:
    return Path(triton.environment["AUGENBLICK_CATALOGUE_DIRECTORY"])


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with pictures.outbound_client(allow_private=True) as client:
        yield client


@pytest.fixture
def service(database: Database, directory: Path, models: TritonPictureModels, client: HttpClient) -> Catalogues:
    return Catalogues(database, directory=directory, models=models, client=client)


@pytest.fixture
async def seller(rows: Rows) -> MerchantId:
    return (await rows.merchant("Nobody's shop")).merchant_id


def packages(folder: Path, numbers: Iterable[int], *, price: str = "1.50", shown: bool = True, name: str = "list.csv") -> Path:
    """A list of packages, with their pictures beside it."""
    with (folder / name).open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["product_id", "title", "language", "price", "currency", *(["picture"] if shown else [])])
        for number in numbers:
            front(number).save(folder / f"{number}.png")
            lines.writerow([f"p{number}", f"Package {number}", "en", price, "EUR", *([f"{number}.png"] if shown else [])])
    return folder / name


async def imported(service: Catalogues, seller: MerchantId, file: Path, **options: Any) -> Imported:
    return await service.import_list(seller, parse_catalogue(file.read_bytes()), datetime.now(UTC), beside=file.parent, **options)


async def price_of(database: Database, seller: MerchantId, product: str) -> int | None:
    """In cents, as it is offered."""
    offers = await CatalogueShop(database.engine).find(ProductQuery(merchant_id=seller, product_id=product))
    return offers[0].price.minor if offers else None


async def numbers(database: Database, seller: MerchantId) -> dict[int, bool]:
    """The published snapshots' numbers, and which is current."""
    async with database.transaction() as connection:
        return {snapshot.number: snapshot.is_current for snapshot in await store.published(connection, seller)}


async def current(database: Database, seller: MerchantId) -> Snapshot:
    async with database.transaction() as connection:
        (found,) = await store.current(connection, seller)
        return found


def contents(directory: Path, snapshot: Snapshot) -> tuple[dict[str, Any], bytes]:
    assert snapshot.name is not None
    place = directory / snapshot.name
    return json.loads((place / "manifest.json").read_text()), (place / "features.bin").read_bytes()


async def test_a_list_with_pictures(
    service: Catalogues, seller: MerchantId, database: Database, directory: Path, tmp_path: Path
) -> None:
    steps: list[tuple[int, int]] = []
    result = await imported(
        service, seller, packages(tmp_path, range(110, 113)), progress=lambda done, of: steps.append((done, of))
    )
    snapshot = result.snapshot
    assert (snapshot.number, snapshot.is_current, snapshot.products, snapshot.pictures) == (1, True, 3, 3)
    assert (result.listed, result.computed, result.unrecognised, result.problems) == (3, 3, 0, ())
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    manifest, _ = contents(directory, snapshot)
    digests = [pictures.digest((tmp_path / f"{number}.png").read_bytes()) for number in range(110, 113)]
    assert [(entry["product_id"], entry["picture"]) for entry in manifest["products"]] == [
        (f"p{number}", digest) for number, digest in enumerate(digests, 110)
    ]
    assert snapshot.models is not None
    assert (manifest["matcher"], manifest["embedder"]) == (snapshot.models.matcher, snapshot.models.embedder)
    async with database.transaction() as connection:
        thumbnail = await store.find_thumbnail(connection, digests[0])
        known = await store.find_products(connection, seller, 1)
        assert await store.find_thumbnail(connection, "0" * 64) is None
    assert thumbnail is not None
    assert thumbnail.startswith(b"\xff\xd8")
    assert {product: found.picture for product, found in known.items()} == dict(
        zip(("p110", "p111", "p112"), digests, strict=True)
    )
    assert await price_of(database, seller, "p112") == 150


async def test_only_what_is_new_is_computed(
    service: Catalogues, seller: MerchantId, directory: Path, tmp_path: Path, models: TritonPictureModels
) -> None:
    first = await imported(service, seller, packages(tmp_path, range(10, 13)))
    again = await imported(service, seller, packages(tmp_path, range(10, 13), price="2.00"))
    assert (first.computed, again.computed) == (3, 0)
    # The same pictures need no directory of their own.
    assert (again.snapshot.number, again.snapshot.name) == (2, first.snapshot.name)
    packages(tmp_path, range(10, 14))
    front(99).save(tmp_path / "12.png")
    changed = await imported(service, seller, tmp_path / "list.csv")
    assert (changed.computed, changed.snapshot.pictures) == (2, 4)
    assert changed.snapshot.name != first.snapshot.name
    assert len(contents(directory, changed.snapshot)[0]["products"]) == 4


async def test_a_list_of_prices_leaves_the_pictures(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    first = await imported(service, seller, packages(tmp_path, range(20, 22)))
    prices = packages(tmp_path, range(20, 21), price="9.99", shown=False, name="prices.csv")
    # Neither Triton nor its directory is asked for what stays as it is.
    second = await imported(Catalogues(database), seller, prices)
    assert (second.snapshot.name, second.snapshot.pictures, second.snapshot.products) == (first.snapshot.name, 2, 2)
    assert [await price_of(database, seller, product) for product in ("p20", "p21")] == [999, 150]
    gone = await imported(service, seller, prices, replace=True)
    assert (gone.snapshot.products, gone.snapshot.pictures) == (1, 1)
    assert await price_of(database, seller, "p21") is None


async def test_what_cannot_be_recognised_by_its_picture_is_offered_all_the_same(
    service: Catalogues, seller: MerchantId, database: Database, tmp_path: Path
) -> None:
    Image.new("RGB", (300, 300), "white").save(tmp_path / "white.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    front(30).save(tmp_path / "good.png")
    (tmp_path / "list.csv").write_text(
        "product_id,title,language,price,currency,picture\n"
        "white,White,en,1,EUR,white.png\n"
        "broken,Broken,en,2,EUR,broken.jpg\n"
        "missing,Missing,en,3,EUR,missing.jpg\n"
        "refused,Refused,en,4,EUR,http://127.0.0.1:9/a.jpg\n"
        "good,Good,en,5,EUR,good.png|missing.jpg\n"
    )
    result = await imported(service, seller, tmp_path / "list.csv")
    found = {(problem.product_id, problem.picture): problem.reason for problem in result.problems}
    assert "too little" in found["white", "white.png"]
    assert "JPEG" in found["broken", "broken.jpg"]
    assert "no file" in found["missing", "missing.jpg"]
    assert found["refused", "http://127.0.0.1:9/a.jpg"].startswith("could not be fetched now: ")
    assert found["refused", "http://127.0.0.1:9/a.jpg"].endswith("The product has no earlier picture.")
    assert [problem.product_id for problem in result.problems if problem.passes] == ["refused"]
    assert "no file" in found["good", "missing.jpg"]
    assert (result.snapshot.products, result.snapshot.pictures, result.unrecognised) == (5, 1, 1)
    for price, product in enumerate(("white", "broken", "missing", "refused", "good"), 1):
        assert await price_of(database, seller, product) == price * 100


async def test_one_command_brings_back_what_was_before(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    for price in ("1.00", "2.00", "3.00"):
        await imported(service, seller, packages(tmp_path, [40], price=price))
    assert await rolled_back(service, seller) == 2
    assert await price_of(database, seller, "p40") == 200
    assert await rolled_back(service, seller) == 1
    assert await price_of(database, seller, "p40") == 100
    with pytest.raises(Misconfigured, match="no snapshot before"):
        await service.rollback(seller)
    assert (await service.publish(seller, 3)).is_current
    assert await price_of(database, seller, "p40") == 300
    with pytest.raises(Misconfigured, match="no snapshot 4"):
        await service.publish(seller, 4)
    # A number is never used twice, whatever is current.
    await service.publish(seller, 1)
    assert (await imported(service, seller, packages(tmp_path, [40], price="4.00"))).snapshot.number == 4


async def rolled_back(service: Catalogues, seller: MerchantId) -> int | None:
    snapshot = await service.rollback(seller)
    assert snapshot is None or snapshot.is_current
    return snapshot.number if snapshot else None


async def test_a_rollback_leads_to_what_was_live_and_to_nothing_else(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    for number, switch in enumerate((False, True, False, True), 1):
        await imported(service, seller, packages(tmp_path, [48], price=f"{number}.00", shown=False), switch=switch)
    assert await rolled_back(service, seller) == 2
    assert await price_of(database, seller, "p48") == 200
    with pytest.raises(Misconfigured, match="no snapshot before"):
        await service.rollback(seller)
    # What was rolled back is no way back from what comes next, and what is current already is no switch.
    for number in (3, 3, 2, 4):
        await service.publish(seller, number)
    assert [await rolled_back(service, seller) for _ in range(3)] == [2, 3, 2]
    with pytest.raises(Misconfigured, match="no snapshot before"):
        await service.rollback(seller)
    async with database.transaction() as connection:
        known = {snapshot.number: snapshot for snapshot in await store.published(connection, seller)}
    assert known[1].live_from is None and known[1].live_until is None, "it never was"
    assert known[2].live_from is not None and known[2].live_until is None, "it is"
    assert known[3].live_until is not None and known[4].live_until is not None
    assert known[4].live_until < known[3].live_until == known[2].live_from


async def test_what_was_pruned_is_passed_over_by_a_rollback(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    for price in ("1.00", "2.00", "3.00", "4.00"):
        await imported(service, seller, packages(tmp_path, [49], price=price, shown=False))
    for number in (2, 4):
        await service.publish(seller, number)
    assert await service.prune([seller], 2) == {seller: [1, 2]}
    # 1, 2, 3, 4, 2, 4 were live: without those pruned, 3 was before 4.
    assert await rolled_back(service, seller) == 3
    with pytest.raises(Misconfigured, match="no snapshot before"):
        await service.rollback(seller)


async def test_a_catalogue_is_withdrawn_and_brought_back(
    database: Database, database_url: str, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    with pytest.raises(Misconfigured, match="nothing to withdraw"):
        await service.withdraw(seller)
    await imported(service, seller, packages(tmp_path, [39], price="1.00"))
    await imported(service, seller, packages(tmp_path, [39], price="2.00"), switch=False)
    await imported(service, seller, packages(tmp_path, [39], price="3.00"), switch=False)
    worker = Watched(database, database_url)
    watching = asyncio.create_task(worker.watch())

    async def seen(number: int | None) -> None:
        async with asyncio.timeout(20):
            while (worker.current[seller].number if seller in worker.current else None) != number:
                await asyncio.sleep(0.005)

    try:
        await seen(1)
        began = time.monotonic()
        assert (await service.withdraw(seller)).number == 1
        await seen(None)
        took = [time.monotonic() - began]
        assert await price_of(database, seller, "p39") is None
        with pytest.raises(Misconfigured, match="nothing to withdraw"):
            await service.withdraw(seller)
        assert await service.prune([seller], 1) == {seller: [2]}, "what was withdrawn can be brought back"
        began = time.monotonic()
        assert await rolled_back(service, seller) == 1
        await seen(1)
        took.append(time.monotonic() - began)
        assert await price_of(database, seller, "p39") == 100
        assert min(took) < SWITCH_S
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    # A rollback from what came after it does not bring back what was withdrawn; another one does.
    await service.withdraw(seller)
    await service.publish(seller, 3)
    assert await rolled_back(service, seller) is None
    assert await price_of(database, seller, "p39") is None
    assert await rolled_back(service, seller) == 1


async def test_a_withdrawal_waits_for_no_import_and_is_not_overrun_by_it(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    await imported(service, seller, packages(tmp_path, [38], shown=False))
    async with store.only_import(database.engine, seller):
        async with database.transaction() as connection:
            draft = await store.begin(connection, seller)
            await store.keep_others(connection, draft)
        await service.withdraw(seller)
        with pytest.raises(Misconfigured, match="meanwhile"):
            async with database.transaction() as connection:
                await store.publish(connection, draft, name=None, models=None, sha256=None, pictures=0)
                await store.switch(connection, seller, draft.number, instead_of=draft.base)
    assert await price_of(database, seller, "p38") is None


async def test_an_import_can_wait_to_be_switched_to(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    await imported(service, seller, packages(tmp_path, [41], price="1.00"))
    waiting = await imported(service, seller, packages(tmp_path, [41], price="2.00"), switch=False)
    assert not waiting.snapshot.is_current
    assert await price_of(database, seller, "p41") == 100
    await service.publish(seller, waiting.snapshot.number)
    assert await price_of(database, seller, "p41") == 200


async def test_every_worker_uses_a_switch_within_a_second(
    database: Database, database_url: str, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    await imported(service, seller, packages(tmp_path, [42]))
    workers = [Watched(database, database_url) for _ in range(4)]
    watching = [asyncio.create_task(worker.watch()) for worker in workers]

    took = []

    async def all_at(number: int) -> None:
        while not all(seller in worker.current and worker.current[seller].number == number for worker in workers):
            await asyncio.sleep(0.005)

    try:
        await asyncio.wait_for(all_at(1), 20)
        for number, price in ((2, "2.00"), (3, "3.00")):
            await imported(service, seller, packages(tmp_path, [42], price=price), switch=False)
            async with database.transaction() as connection:
                await store.switch(connection, seller, number, instead_of=number - 1)
            began = time.monotonic()
            await asyncio.wait_for(all_at(number), 20)
            took.append(time.monotonic() - began)
            assert await price_of(database, seller, "p42") == number * 100
        assert min(took) < SWITCH_S
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def test_half_of_a_switch_is_never_seen(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    """Prices of a catalogue belong together: who looks while it is switched sees all of one snapshot or all of the other."""
    for price in ("1.00", "2.00"):
        await imported(service, seller, packages(tmp_path, range(43, 46), price=price, shown=False))
    seen: set[tuple[int, ...]] = set()
    done = asyncio.Event()

    async def look() -> None:
        query = (
            select(catalogue_products.c.price_minor)
            .join(catalogues, catalogues.c.current == catalogue_products.c.snapshot)
            .where(catalogues.c.merchant_id == seller, catalogue_products.c.merchant_id == seller)
        )
        while not done.is_set():
            async with database.transaction() as connection:
                seen.add(tuple((await connection.execute(query)).scalars()))

    async def switch() -> None:
        for number, instead in [(1, 2), (2, 1)] * 10:
            async with database.transaction() as connection:
                await store.switch(connection, seller, number, instead_of=instead)
        done.set()

    await asyncio.gather(look(), look(), switch())
    assert seen <= {(100,) * 3, (200,) * 3}


async def test_a_switch_that_somebody_else_has_made_is_noticed(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path
) -> None:
    for price in ("1.00", "2.00"):
        await imported(service, seller, packages(tmp_path, [46], price=price, shown=False))
    with pytest.raises(Misconfigured, match="meanwhile"):
        async with database.transaction() as connection:
            await store.switch(connection, seller, 1, instead_of=1)
    assert await price_of(database, seller, "p46") == 200


async def test_two_imports_of_one_merchant(service: Catalogues, seller: MerchantId, database: Database, tmp_path: Path) -> None:
    async with server({}, stuck=True) as address:
        slow = tmp_path / "slow.csv"
        slow.write_text(f"product_id,title,language,picture\nslow,Slow,en,{address}/a.jpg\n")
        first = asyncio.create_task(imported(service, seller, slow))
        with pytest.raises(Misconfigured, match="Another import"):
            while True:
                await asyncio.sleep(0.05)
                await imported(service, seller, packages(tmp_path, [47], shown=False))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert (await imported(service, seller, packages(tmp_path, [47], shown=False))).snapshot.is_current


async def test_a_published_snapshot_does_not_change(
    service: Catalogues, seller: MerchantId, database: Database, tmp_path: Path
) -> None:
    snapshot = (await imported(service, seller, packages(tmp_path, range(50, 52)))).snapshot
    await imported(service, seller, packages(tmp_path, [50], price="2.00"))
    product, number = catalogue_products.c, catalogue_snapshots.c
    mine = (product.merchant_id == seller) & (product.snapshot == snapshot.number)
    own = (number.merchant_id == seller) & (number.number == snapshot.number)
    row = {
        "merchant_id": seller,
        "snapshot": 1,
        "product_id": "x",
        "title": "X",
        "language": "en",
        "observed_at": datetime.now(UTC),
    }
    for statement in (
        update(catalogue_products).where(mine).values(price_minor=1),
        update(catalogue_products).where(product.merchant_id == seller, product.snapshot == 2).values(snapshot=1, product_id="y"),
        delete(catalogue_products).where(mine, product.product_id == "p50"),
        delete(catalogue_products).where(mine),
        insert(catalogue_products).values(row),
        update(catalogue_snapshots).where(own).values(name=None, matcher=None, sha256=None),
        update(catalogue_snapshots).where(own).values(name=None),
        update(catalogue_snapshots).where(own).values(name="another", sha256="another"),
        update(catalogue_snapshots).where(own).values(pictures=7),
        update(catalogue_snapshots).where(own).values(published_at=None),
        update(catalogue_snapshots).where(own).values(number=7),
        delete(catalogue_snapshots).where(number.merchant_id == seller, number.number == 2),
    ):
        with pytest.raises(exc.IntegrityError):
            async with database.transaction() as connection:
                await connection.execute(statement)
    draft = insert(catalogue_snapshots).values(merchant_id=seller, number=9)
    with pytest.raises(exc.IntegrityError, match="only a published"):
        async with database.transaction() as connection:
            await connection.execute(draft)
            await store.switch(connection, seller, 9, instead_of=2)


async def test_old_snapshots_are_pruned_as_a_whole(
    service: Catalogues, seller: MerchantId, database: Database, directory: Path, tmp_path: Path
) -> None:
    names = [
        (await imported(service, seller, packages(tmp_path, [number]), replace=True)).snapshot.name for number in range(60, 64)
    ]
    await service.publish(seller, 1)
    digests = [pictures.digest((tmp_path / f"{number}.png").read_bytes()) for number in range(60, 64)]
    assert await service.prune([seller], 1) == {seller: [2, 3]}
    assert await numbers(database, seller) == {4: False, 1: True}
    assert [(directory / str(name)).exists() for name in names] == [True, False, False, True]
    async with database.transaction() as connection:
        left = (
            await connection.execute(select(catalogue_products.c.snapshot).where(catalogue_products.c.merchant_id == seller))
        ).scalars()
        assert set(left) == {1, 4}
        assert [await store.find_thumbnail(connection, digest) is not None for digest in digests] == [True, False, False, True]
        kept = (await connection.execute(select(catalogue_features.c.picture))).scalars().all()
        assert [digest in kept for digest in digests] == [True, False, False, True]


async def test_a_missing_directory_is_made_again(
    service: Catalogues, seller: MerchantId, database: Database, directory: Path, tmp_path: Path
) -> None:
    first = (await imported(service, seller, packages(tmp_path, range(70, 73)))).snapshot
    second = (await imported(service, seller, packages(tmp_path, range(70, 73), price="2.00"))).snapshot
    third = (await imported(service, seller, packages(tmp_path, [73]))).snapshot
    before = contents(directory, second)
    for snapshot in (second, third):
        for path in (directory / str(snapshot.name)).iterdir():
            path.unlink()
        (directory / str(snapshot.name)).rmdir()
    assert second.name == first.name
    again = await service.publish(seller, second.number)
    assert again.is_current
    assert contents(directory, again) == before
    assert (await service.publish(seller, first.number)).name == again.name, "it is made once for all who share it"
    # Where the database cannot make it again, what is current stays.
    async with database.transaction() as connection:
        await connection.execute(
            delete(catalogue_features).where(catalogue_features.c.picture == pictures.digest((tmp_path / "73.png").read_bytes()))
        )
    with pytest.raises(Misconfigured, match="cannot be made again"):
        await service.publish(seller, third.number)
    assert (await current(database, seller)).number == first.number


def flip(directory: Path, snapshot: Snapshot) -> None:
    """Fifty bytes, where they lie."""
    assert snapshot.name is not None
    with (directory / snapshot.name / "features.bin").open("r+b") as file:
        file.seek(1000)
        were = file.read(50)
        file.seek(1000)
        file.write(bytes(byte ^ 0xFF for byte in were))


@asynccontextmanager
async def asked(triton: LocalStack) -> AsyncIterator[client_library.InferenceServerClient]:
    client = client_library.InferenceServerClient(triton.environment["TRITON_URL"])
    try:
        yield client
    finally:
        await client.close()


async def loaded_anew(triton: LocalStack, model: str) -> None:
    key = {GRPC_CONTROL_HEADER: (triton.layout.data / "triton.control-key").read_text().strip()}
    async with asked(triton) as client:
        await client.unload_model(model, headers=key)
        while await client.is_model_ready(model):
            await asyncio.sleep(0.05)
        await client.load_model(model, headers=key)


async def recognised(triton: LocalStack, snapshot: Snapshot, number: int) -> str | None:
    """What `match` takes a photo of that package for; None where it refuses the snapshot."""
    async with asked(triton) as client:
        try:
            answer = await match(client, photo(number, 1), snapshots=[snapshot.name], candidates=1)
        except InferenceServerException as refused:
            assert "damaged" in str(refused) or "not there" in str(refused), refused
            return None
    first = answer["candidates"][0]
    return str(first["product_id"]) if first["inliers"] >= 20 else "nothing"


async def test_a_damaged_directory_is_made_anew_by_whatever_uses_it(
    service: Catalogues,
    seller: MerchantId,
    database: Database,
    database_url: str,
    directory: Path,
    triton: LocalStack,
    tmp_path: Path,
) -> None:
    file = packages(tmp_path, range(200, 203))
    first = (await imported(service, seller, file)).snapshot
    assert await recognised(triton, first, 201) == "p201"
    flip(directory, first)
    await loaded_anew(triton, "match")
    assert await recognised(triton, first, 201) is None
    # The same list again: nothing in it has changed.
    again = await imported(service, seller, file)
    assert (again.computed, again.snapshot.is_current) == (0, True)
    assert again.snapshot.name != first.name and again.snapshot.sha256 == first.sha256
    assert await recognised(triton, again.snapshot, 201) == "p201"
    # What it replaces may be in use: `match` has this one mapped.
    worker = Watched(database, database_url)
    await worker.start()
    watching = asyncio.create_task(worker.watch())
    try:
        flip(directory, again.snapshot)
        published = await service.publish(seller, again.snapshot.number)
        assert published.name not in {first.name, again.snapshot.name} and published.is_current
        assert await recognised(triton, published, 201) == "p201"
        async with asyncio.timeout(20):  # less than until workers look without being told
            while worker.current[seller].name != published.name:
                await asyncio.sleep(0.02)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    # The first has the new directory as well; that is gone altogether then.
    back = await service.rollback(seller)
    assert back is not None and back.number == first.number and back.name != first.name
    assert await recognised(triton, back, 202) == "p202"
    shutil.rmtree(directory / str(back.name))
    prices = packages(tmp_path, [201], price="9.00", shown=False, name="prices.csv")
    priced = (await imported(service, seller, prices)).snapshot
    assert await recognised(triton, priced, 201) == "p201"
    # So do prices where Triton is away: the directory is as it should be when it is back.
    shutil.rmtree(directory / str(priced.name))
    nobody = TritonPictureModels("127.0.0.1:9")
    priced = (await imported(Catalogues(database, directory=directory, models=nobody), seller, prices)).snapshot
    await nobody.close()
    assert await recognised(triton, priced, 201) == "p201"
    # Whoever has no directory to look at imports prices all the same.
    shutil.rmtree(directory / str(priced.name))
    blind = (await imported(Catalogues(database), seller, prices)).snapshot
    assert blind.name == priced.name and await price_of(database, seller, "p201") == 900
    await service.publish(seller, blind.number)
    assert await recognised(triton, await current(database, seller), 201) == "p201"


async def test_a_list_that_changes_nothing_is_not_switched_to_where_triton_cannot_use_it(
    service: Catalogues, seller: MerchantId, database: Database, client: HttpClient, tmp_path: Path
) -> None:
    class Blind(TritonPictureModels):
        async def open(self, name: str) -> None:
            raise Misconfigured("Triton cannot use the snapshot")

    await imported(service, seller, packages(tmp_path, [205]))
    assert service.models is not None
    blind = Blind(service.models.url)  # type: ignore[attr-defined]
    unseen = Catalogues(database, directory=service.directory, models=blind, client=client)
    with pytest.raises(Misconfigured, match="cannot use"):
        await imported(unseen, seller, packages(tmp_path, [205], price="2.00"))
    await blind.close()
    assert await numbers(database, seller) == {1: True}


async def test_models_are_never_mixed(
    service: Catalogues, seller: MerchantId, database: Database, models: TritonPictureModels, tmp_path: Path
) -> None:
    """As after an update of the models: what another one made is neither used nor added to."""

    class Former(TritonPictureModels):
        async def identify(self) -> Models:
            return Models("former-1")

        async def extract(self, jpeg: bytes) -> Any:
            extracted = await super().extract(jpeg)
            return type(extracted)(Models("former-1"), extracted.features, extracted.points)

        async def open(self, name: str) -> None:
            """It was the one that ran."""

    former = Former(models.url)
    then = Catalogues(database, directory=service.directory, models=former, client=service.client)
    old = await imported(then, seller, packages(tmp_path, range(80, 82)))
    await former.close()
    assert old.snapshot.models == Models("former-1")
    new = await imported(service, seller, packages(tmp_path, [80]))
    assert new.snapshot.models == await models.identify()
    assert (new.computed, new.snapshot.products, new.snapshot.pictures, new.unrecognised) == (1, 2, 1, 1)
    with pytest.raises(Misconfigured, match="made by former-1"):
        await service.publish(seller, old.snapshot.number)
    with pytest.raises(Misconfigured, match="cannot use the snapshot"):
        await models.open(str(old.snapshot.name))
    assert (await current(database, seller)).number == new.snapshot.number
    # Features that come later are not in what was published without them, which is whole all the same, and stays as it was.
    both = await imported(service, seller, packages(tmp_path, range(80, 82)))
    assert (both.computed, both.snapshot.pictures, both.unrecognised) == (1, 2, 0)
    back = await service.rollback(seller)
    assert back is not None and (back.number, back.name) == (new.snapshot.number, new.snapshot.name)
    assert service.directory is not None
    flip(service.directory, back)
    again = await service.publish(seller, back.number)
    assert again.name != back.name and (again.sha256, again.pictures) == (back.sha256, 1)


async def test_without_triton_nothing_changes(
    database: Database, service: Catalogues, seller: MerchantId, tmp_path: Path, client: HttpClient
) -> None:
    await imported(service, seller, packages(tmp_path, [90]))
    nobody = TritonPictureModels("127.0.0.1:9")
    away = Catalogues(database, directory=service.directory, models=nobody, client=client)
    with pytest.raises(Retryable, match="Triton"):
        await imported(away, seller, packages(tmp_path, range(90, 92), price="9.00"))
    await nobody.close()
    # A server that sees another directory than the one written to is noticed before anybody is shown nothing.
    elsewhere = Catalogues(database, directory=tmp_path / "elsewhere", models=service.models, client=client)
    with pytest.raises(Misconfigured, match="AUGENBLICK_CATALOGUE_DIRECTORY"):
        await imported(elsewhere, seller, packages(tmp_path, range(90, 92), price="9.00"))
    assert await numbers(database, seller) == {1: True}
    assert await price_of(database, seller, "p90") == 150


@asynccontextmanager
async def server(answers: Mapping[str, bytes], *, stuck: bool = False) -> AsyncIterator[str]:
    """Pictures by path; one that is empty is answered with 503. A `stuck` server takes requests and never answers what it does
    not know."""
    open_ones: set[asyncio.StreamWriter] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ones.add(writer)
        path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        body = answers.get(path)
        if body is None and stuck:
            return
        known = b"200 OK\r\nContent-Type: image/png" if body else b"503 Service Unavailable"
        status = b"404 Not Found" if body is None else known
        writer.write(b"HTTP/1.1 " + status + f"\r\nContent-Length: {len(body or b'')}\r\n\r\n".encode() + (body or b""))
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        async with running:
            yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
            for writer in open_ones:
                writer.close()
    finally:
        running.close()


async def test_a_picture_server_that_is_away_costs_nobody_the_pictures_there_were(
    service: Catalogues, seller: MerchantId, database: Database, tmp_path: Path
) -> None:
    files = {f"/{number}.png": encoded(number) for number in range(210, 214)}
    named = {"one": ("/210.png",), "two": ("/211.png", "/212.png"), "gone": ("/213.png",)}

    def listed(address: str, price: str, **more: tuple[str, ...]) -> Path:
        lines = [
            f"{product},Package,en,{price},EUR,{'|'.join(address + path for path in paths)}"
            for product, paths in {**named, **more}.items()
        ]
        (tmp_path / "list.csv").write_text("\n".join(["product_id,title,language,price,currency,picture", *lines]))
        return tmp_path / "list.csv"

    answers = dict(files)
    async with server(answers) as address:
        first = await imported(service, seller, listed(address, "1.00"))
        assert (first.snapshot.pictures, first.problems) == (4, ())
        # One is busy, one is gone, and one that is new cannot be had; the rest answer.
        answers.update({"/211.png": b"", "/new.png": b""})
        del answers["/213.png"]
        busy = await imported(service, seller, listed(address, "2.00", new=("/new.png",)))
    said = {problem.product_id: (problem.passes, problem.reason) for problem in busy.problems}
    assert said == {
        "two": (True, "could not be fetched now: status 503. The product keeps its earlier pictures."),
        "new": (True, "could not be fetched now: status 503. The product has no earlier picture."),
        "gone": (False, "could not be fetched: status 404"),
    }
    before, after = [await pictures_in(database, seller, number) for number in (1, 2)]
    assert after == {**before, "gone": [], "new": []}
    assert await price_of(database, seller, "two") == 200
    # Now nobody is there at all.
    away = await imported(service, seller, listed(address, "3.00"))
    assert (away.snapshot.is_current, away.snapshot.pictures, away.snapshot.name) == (True, 3, busy.snapshot.name)
    assert {problem.product_id for problem in away.problems if problem.passes} == {"one", "two", "gone"}
    assert (await pictures_in(database, seller, 3)) == {product: after[product] for product in ("one", "two", "gone", "new")}
    assert await price_of(database, seller, "one") == 300


async def test_a_server_that_gives_no_picture_is_left_alone(service: Catalogues, seller: MerchantId, tmp_path: Path) -> None:
    front(214).save(tmp_path / "beside.png")
    async with server({f"/{number}.png": b"" for number in range(60)}) as address:
        lines = [f"p{number},Package,en,1,EUR,{address}/{number}.png" for number in range(60)]
        header = "product_id,title,language,price,currency,picture"
        (tmp_path / "list.csv").write_text("\n".join([header, *lines, "own,Package,en,1,EUR,beside.png"]))
        result = await imported(service, seller, tmp_path / "list.csv")
    said = [problem.reason.partition(":")[0] for problem in result.problems if problem.passes]
    assert len(said) == 60
    asked = said.count("could not be fetched now")
    assert 24 <= asked < 30 and said.count("was not asked for") == 60 - asked, "those on their way then end as they do"
    assert (result.snapshot.products, result.snapshot.pictures) == (61, 1)


def encoded(number: int) -> bytes:
    written = io.BytesIO()
    front(number).save(written, "PNG")
    return written.getvalue()


async def pictures_in(database: Database, seller: MerchantId, number: int) -> dict[str, list[str]]:
    """By product, its pictures."""
    query = select(catalogue_products.c.product_id, catalogue_products.c.pictures).where(
        catalogue_products.c.merchant_id == seller, catalogue_products.c.snapshot == number
    )
    async with database.transaction() as connection:
        return {row.product_id: row.pictures for row in await connection.execute(query)}


async def test_an_import_that_is_killed_leaves_everything_as_it_was(
    database: Database,
    database_url: str,
    service: Catalogues,
    seller: MerchantId,
    triton: LocalStack,
    tmp_path: Path,
) -> None:
    first = (await imported(service, seller, packages(tmp_path, [95]))).snapshot
    front(96).save(tmp_path / "96.png")
    files = {"/96.png": (tmp_path / "96.png").read_bytes()}
    digest = pictures.digest(files["/96.png"])
    lines = ["product_id,title,language,price,currency,picture", "p95,Package,en,9.00,EUR,95.png"]
    async with server(files, stuck=True) as address:
        lines += [f"p96,Package,en,9.00,EUR,{address}/96.png", f"p97,Package,en,9.00,EUR,{address}/97.png"]
        (tmp_path / "killed.csv").write_text("\n".join(lines))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli", "catalogue", "import", str(tmp_path / "killed.csv"), "--merchant", seller),
            env={
                **os.environ,
                **triton.environment,
                "DATABASE_URL": database_url,
                "AUGENBLICK_ALLOW_PRIVATE_ENDPOINTS": "true",
            },
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await until(lambda: known(database, digest))  # some of its work is done, and some is not
        finally:
            process.send_signal(signal.SIGKILL)
            await process.communicate()
        assert await current(database, seller) == first
        assert await price_of(database, seller, "p95") == 150
        assert await price_of(database, seller, "p96") is None
    # The next one is not kept waiting, and computes only what the killed one had not.
    async with server({**files, "/97.png": files["/96.png"]}) as address:
        (tmp_path / "again.csv").write_text(f"{lines[0]}\n{lines[1]}\np96,Package,en,9.00,EUR,{address}/96.png\n")
        again = await imported(service, seller, tmp_path / "again.csv")
    assert (again.computed, again.snapshot.products, again.snapshot.is_current) == (0, 2, True)


async def known(database: Database, digest: str) -> bool:
    async with database.transaction() as connection:
        query = select(catalogue_features.c.points).where(catalogue_features.c.picture == digest)
        return (await connection.execute(query)).first() is not None


async def until(condition: Callable[[], Any], timeout_s: float = 60) -> None:
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.05)


async def test_a_draft_that_was_left_behind_is_nobodys_business(
    database: Database, service: Catalogues, seller: MerchantId, directory: Path, tmp_path: Path
) -> None:
    """As an import leaves it that is killed between writing the directory and publishing."""
    first = (await imported(service, seller, packages(tmp_path, [98]))).snapshot
    async with database.transaction() as connection:
        draft = await store.begin(connection, seller)
        await store.keep_others(connection, draft)
    left = directory / f"{seller}-{draft.number}-0123456789ab"
    left.mkdir()
    assert await current(database, seller) == first
    assert list(await numbers(database, seller)) == [1]
    with pytest.raises(Misconfigured, match=f"no snapshot {draft.number}"):
        await service.publish(seller, draft.number)
    again = await imported(service, seller, packages(tmp_path, [98]))
    assert again.snapshot.number == draft.number + 1
    assert not left.exists()
    async with database.transaction() as connection:
        drafts = select(catalogue_snapshots.c.number).where(
            catalogue_snapshots.c.merchant_id == seller, catalogue_snapshots.c.published_at.is_(None)
        )
        assert (await connection.execute(drafts)).all() == []


FEED = """<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><language>en</language>
<item><g:id>p1</g:id><g:title>Package 1</g:title><g:price>3.50 EUR</g:price><g:image_link>{address}/1.png</g:image_link></item>
<item><g:id>p2</g:id><g:title>Package 2</g:title><g:price>free</g:price></item>
</channel></rss>"""


async def test_the_commands(
    database: Database, database_url: str, triton: LocalStack, seller: MerchantId, tmp_path: Path
) -> None:
    environment = {**triton.environment, "DATABASE_URL": database_url, "AUGENBLICK_ALLOW_PRIVATE_ENDPOINTS": "true"}

    async def run(*arguments: str, status: int = 0) -> str:
        result = await asyncio.to_thread(CliRunner().invoke, app, ["catalogue", *arguments], env=environment)
        said = result.output
        if isinstance(result.exception, AugenblickError):
            said += str(result.exception)
        assert result.exit_code == status, said
        return result.stdout if not status else said

    feed = tmp_path / "feed.xml"
    front(100).save(tmp_path / "1.png")  # one that no other test has
    async with server({"/1.png": (tmp_path / "1.png").read_bytes()}) as address:
        feed.write_text(FEED.format(address=address))
        refused = await run("import", str(feed), "--merchant", seller, status=1)
        assert "/lines/3/price must be a number and a currency" in refused
        assert await numbers(database, seller) == {}
        told = json.loads(await run("import", str(feed), "--merchant", seller, "--skip-unusable", "--json"))
    assert (told["snapshot"]["number"], told["snapshot"]["pictures"], told["computed"]) == (1, 1, 1)
    assert [problem["pointer"] for problem in told["skipped"]] == ["/lines/3/price"]
    prices = packages(tmp_path, [1], price="9.00", shown=False)
    assert "snapshot 2 of" in await run("import", str(prices), "--merchant", seller)
    assert [entry["number"] for entry in json.loads(await run("list", "--merchant", seller, "--json"))] == [2, 1]
    assert "current" in await run("list", "--merchant", seller)
    shown = json.loads(await run("show", seller, "--json"))
    assert shown["snapshot"]["is_current"]
    assert [product["product_id"] for product in shown["products"]] == ["p1"]
    assert "snapshot 1 of" in await run("rollback", "--merchant", seller)
    assert await price_of(database, seller, "p1") == 350
    assert "no snapshot before" in await run("rollback", "--merchant", seller, status=1)
    assert "snapshot 2 of" in await run("publish", "2", "--merchant", seller)
    assert f"nothing of {seller}" in await run("withdraw", "--merchant", seller)
    assert "current" not in (listed := await run("list", "--merchant", seller)), listed
    assert "no current snapshot" in await run("show", seller, status=1)
    assert "nothing to withdraw" in await run("withdraw", "--merchant", seller, status=1)
    assert json.loads(await run("rollback", "--merchant", seller, "--json"))["number"] == 2
    waiting = json.loads(await run("import", str(prices), "--merchant", seller, "--no-switch", "--json"))["snapshot"]["number"]
    table = await run("list", "--merchant", seller)
    assert [line.split()[-1] if "never" in line else line.split()[-3] for line in table.splitlines() if seller in line] == [
        "never",
        "since",
        "until",
    ], table
    assert json.loads(await run("withdraw", "--merchant", seller, "--json"))["withdrawn"]["number"] == 2
    assert "snapshot 2 of" in await run("rollback", "--merchant", seller)
    assert "1 snapshot deleted" in await run("prune", "--keep", "1", "--merchant", seller)
    assert await numbers(database, seller) == {waiting: False, 2: True}
    away = await run("import", str(feed), "--merchant", seller, "--skip-unusable", status=1)
    assert "is current" in away and "1 picture not to be had now; import again later:" in away
    assert "The product keeps its earlier pictures." in away
    assert await price_of(database, seller, "p1") == 350
    assert "No merchant is named" in await run("list", "--merchant", "Nobody at all", status=1)


async def test_what_was_sold_before_there_were_snapshots_is_sold_still(empty_database_url: str) -> None:
    config = configuration(empty_database_url)
    await asyncio.to_thread(command.upgrade, config, "0003")
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute("INSERT INTO merchants (id, name) VALUES ('mer_a', 'A'), ('mer_b', 'B')")
        await connection.execute(
            "INSERT INTO catalogue_products (merchant_id, gtin, title, language, price_minor, price_currency, observed_at) "
            "SELECT 'mer_a', gtin, 'Milk', 'en', 149, 'EUR', now() FROM unnest(ARRAY['04006381333931', '00000073513537']) AS gtin"
        )
        sold = "SELECT gtin, title, price_minor, price_currency FROM catalogue_products ORDER BY gtin"
        before = await (await connection.execute(sold)).fetchall()
        await asyncio.to_thread(command.upgrade, config, "0004")
        assert await (await connection.execute(sold)).fetchall() == before
        current = "SELECT merchant_id, current, products FROM catalogues JOIN catalogue_snapshots USING (merchant_id)"
        assert await (await connection.execute(current)).fetchall() == [("mer_a", 1, 2)]
        names = await (await connection.execute("SELECT product_id = gtin, snapshot FROM catalogue_products")).fetchall()
        assert names == [(True, 1), (True, 1)]
        # A later snapshot, of which the former table has no word for one product, is all that a way back can keep.
        await connection.execute("INSERT INTO catalogue_snapshots (merchant_id, number) VALUES ('mer_a', 2)")
        await connection.execute(
            "INSERT INTO catalogue_products (merchant_id, snapshot, product_id, gtin, title, language, price_minor, "
            "price_currency, observed_at) VALUES ('mer_a', 2, 'm', '04006381333931', 'Milk', 'en', 199, 'EUR', now()), "
            "('mer_a', 2, 'bread', NULL, 'Bread', 'en', 320, 'EUR', now())"
        )
        await connection.execute("UPDATE catalogue_snapshots SET published_at = now() WHERE number = 2")
        await connection.execute("UPDATE catalogues SET current = 2")
        await asyncio.to_thread(command.downgrade, config, "0003")
        assert await (await connection.execute(sold)).fetchall() == [("04006381333931", "Milk", 199, "EUR")]


async def test_what_was_current_before_there_were_switches_can_be_rolled_back_to(empty_database_url: str) -> None:
    config = configuration(empty_database_url)
    await asyncio.to_thread(command.upgrade, config, "0004")
    async with await psycopg.AsyncConnection.connect(empty_database_url, autocommit=True) as connection:
        await connection.execute("INSERT INTO merchants (id, name) VALUES ('mer_a', 'A'), ('mer_b', 'B')")
        await connection.execute(
            "INSERT INTO catalogue_snapshots (merchant_id, number, published_at) SELECT 'mer_a', number, now() "
            "FROM unnest(ARRAY[1, 2, 3]) AS number"
        )
        await connection.execute("INSERT INTO catalogues (merchant_id, current) VALUES ('mer_a', 2), ('mer_b', NULL)")
        await asyncio.to_thread(command.upgrade, config, "0005")
        switches = "SELECT merchant_id, snapshot, live_until, is_undone FROM catalogue_switches"
        assert await (await connection.execute(switches)).fetchall() == [("mer_a", 2, None, False)]
        await asyncio.to_thread(command.downgrade, config, "0004")
        await asyncio.to_thread(command.upgrade, config, "0005")
        assert await (await connection.execute(switches)).fetchall() == [("mer_a", 2, None, False)]


async def test_a_calibration_holds_for_the_scores_by_the_weights_it_was_made_with(
    service: Catalogues, seller: MerchantId, database: Database, tmp_path: Path
) -> None:
    snapshot = (await imported(service, seller, packages(tmp_path, range(2)))).snapshot
    assert snapshot.models is not None
    ours, former = f"{snapshot.models.matcher}+aaaaaa", f"{snapshot.models.matcher}+bbbbbb"
    for scorer in (ours, "orb-7+cccccc"):
        own = thresholds.shipped().model_copy(update={"matcher": scorer, "act": 0.5}).model_dump(mode="json")
        async with database.transaction() as connection:
            await store.keep_calibration(connection, seller, scorer, thresholds=own, measured_on={})
    async with database.transaction() as connection:
        known = (await read_current(connection))[seller]
    assert known.thresholds.matcher == ours, "not the newer one, of another matcher's scores"
    assert known.limits(ours).act == 0.5
    assert known.limits(former) == thresholds.shipped() and not known.limits(former).may_act(former)
