"""What pictures are looked at with: Triton's models as they run, and merchants' catalogues as they are current. Where one is
missing, Misconfigured says how to get it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from schemas.errors import Misconfigured
from streams.catalogues import store
from streams.catalogues.store import KnownProduct
from streams.core.bootstrap import Parts
from streams.core.settings import require
from streams.sightings.catalogues import ChosenCatalogues, Snapshot, read_current
from streams.sightings.recogniser import Recogniser
from streams.sightings.triton import Models

_READY_S = 3.0


@asynccontextmanager
async def running_models(parts: Parts) -> AsyncIterator[Models]:
    url = require(parts.settings.triton_url, "triton_url")
    models = Models(url)
    try:
        if not await models.is_ready("codes", _READY_S):
            raise Misconfigured(
                f"Triton does not answer at {url}, or has no model `codes`. `augenblick up` starts everything here,"
                " `augenblick up --only triton` only Triton; TRITON_URL names one of your own (gRPC, host:port)."
            )
        yield models
    finally:
        await models.close()


async def recogniser_for(parts: Parts, models: Models, catalogue: str | None) -> Recogniser:
    """One merchant's catalogue, or all current ones as the stage uses them, or none where there is no database."""
    if catalogue is not None:
        snapshot, _ = await current_snapshot(parts, catalogue)
        return Recogniser(models, ChosenCatalogues(parts.database(), {snapshot.merchant_id: snapshot}))
    if parts.settings.database_url is None:
        return Recogniser(models)
    async with parts.database().transaction() as connection:
        return Recogniser(models, ChosenCatalogues(parts.database(), await read_current(connection)))


async def current_snapshot(parts: Parts, catalogue: str) -> tuple[Snapshot, dict[str, KnownProduct]]:
    """The current one, and its products by the merchant's own names for them."""
    async with parts.database().transaction() as connection:
        merchant = await store.find_merchant(connection, catalogue)
        snapshot = (await read_current(connection)).get(merchant)
        if snapshot is None:
            raise Misconfigured(f"{catalogue} has no catalogue yet: `augenblick catalogue import` makes one.")
        return snapshot, await store.find_products(connection, merchant, snapshot.number)


async def snapshot_with_pictures(parts: Parts, models: Models, catalogue: str) -> tuple[Snapshot, dict[str, KnownProduct]]:
    """The same, where products are recognised by picture."""
    snapshot, products = await current_snapshot(parts, catalogue)
    if snapshot.name is None:
        raise Misconfigured(f"No product of {catalogue} has a picture: import it with pictures (`augenblick catalogue import`).")
    if not await models.is_ready("match", _READY_S):
        raise Misconfigured("This Triton has no model `match`, which recognises products by their pictures.")
    return snapshot, products
