"""What commands share that look at pictures: a Triton that answers, the catalogues, a progress bar."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import Misconfigured
from streams.command_line import console

if TYPE_CHECKING:
    from schemas.ids import MerchantId
    from streams.catalogues.store import KnownProduct
    from streams.core.bootstrap import Parts
    from streams.sightings.catalogues import Snapshot
    from streams.sightings.inspection import ChosenCatalogues
    from streams.sightings.recogniser import Recogniser
    from streams.sightings.triton import Models

DeadlineOption = Annotated[int, typer.Option(min=1, max=600_000, help="how long a picture may take; glasses wait about 1500")]


@asynccontextmanager
async def running_models(parts: "Parts") -> "AsyncIterator[Models]":
    """Raises Misconfigured where Triton does not answer."""
    from streams.core.settings import require
    from streams.sightings.triton import Models

    url = require(parts.settings.triton_url, "triton_url")
    models = Models(url)
    try:
        if not await models.is_ready("codes", 3.0):
            raise Misconfigured(
                f"Triton does not answer at {url}, or has no model `codes`. `augenblick up` starts everything here,"
                " `augenblick up --only triton` only Triton; TRITON_URL names one of your own (gRPC, host:port)."
            )
        yield models
    finally:
        await models.close()


async def recogniser_for(parts: "Parts", models: "Models", catalogue: str | None) -> "Recogniser":
    """One merchant's catalogue, or all current ones as the stage uses them, or none where there is no database."""
    from streams.sightings.catalogues import read_current
    from streams.sightings.recogniser import Recogniser

    if catalogue is not None:
        snapshot, _ = await current_snapshot(parts, catalogue)
        return Recogniser(models, chosen(parts, {snapshot.merchant_id: snapshot}))
    if parts.settings.database_url is None:
        return Recogniser(models)
    async with parts.database().transaction() as connection:
        return Recogniser(models, chosen(parts, await read_current(connection)))


def chosen(parts: "Parts", current: "Mapping[MerchantId, Snapshot]") -> "ChosenCatalogues":
    from streams.sightings.inspection import ChosenCatalogues

    return ChosenCatalogues(parts.database(), current)


async def current_snapshot(parts: "Parts", catalogue: str) -> "tuple[Snapshot, dict[str, KnownProduct]]":
    """The current one, and its products by the merchant's own names for them."""
    from streams.catalogues import store
    from streams.sightings.catalogues import read_current

    async with parts.database().transaction() as connection:
        merchant = await store.find_merchant(connection, catalogue)
        snapshot = (await read_current(connection)).get(merchant)
        if snapshot is None:
            raise Misconfigured(f"{catalogue} has no catalogue yet: `augenblick catalogue import` makes one.")
        return snapshot, await store.find_products(connection, merchant, snapshot.number)


async def snapshot_with_pictures(parts: "Parts", models: "Models", catalogue: str) -> "tuple[Snapshot, dict[str, KnownProduct]]":
    """The same, where products are recognised by picture."""
    snapshot, products = await current_snapshot(parts, catalogue)
    if snapshot.name is None:
        raise Misconfigured(f"No product of {catalogue} has a picture: import it with pictures (`augenblick catalogue import`).")
    if not await models.is_ready("match", 3.0):
        raise Misconfigured("This Triton has no model `match`, which recognises products by their pictures.")
    return snapshot, products


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, where that is a terminal. Standard output stays where it is: only where both are one terminal is
    it led around the bar."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    errors = Console(stderr=True)
    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    together = errors.is_terminal and console().is_terminal
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal, redirect_stdout=together) as progress:
        task = progress.add_task("pictures", total=total)
        yield lambda: progress.advance(task)


def make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be made: {error.strerror}.") from error
