"""`augenblick catalogue`: merchants' products and their pictures, in numbered snapshots, one of which is current."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from streams.command_line import JsonOption, counted, moment, print_json, print_table, progress_bar, with_parts

if TYPE_CHECKING:
    from connectors.shops.catalogue.importer import CatalogueFile
    from schemas.errors import FieldError
    from schemas.ids import MerchantId
    from streams.catalogues.service import Catalogues, Imported
    from streams.catalogues.store import Snapshot
    from streams.core.bootstrap import Parts

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True, help="Merchants' catalogues: products, prices and pictures, in numbered snapshots.")

MerchantOption = Annotated[str, typer.Option(help="the merchant's id, mer_…, or its name")]

_SHOWN = 20  # of a long list of problems


@app.command("import")
def import_products(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV, or Google's product feed (XML or TSV)")],
    merchant: MerchantOption,
    language: Annotated[str | None, typer.Option(help="of titles where the file does not tell: de, en, zh-Hans")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="the file is the whole catalogue; what it does not name is gone")
    ] = False,
    skip_unusable: Annotated[bool, typer.Option("--skip-unusable", help="import the rest where lines cannot be used")] = False,
    switch: Annotated[bool, typer.Option("--switch/--no-switch", help="use it at once, or wait for `catalogue publish`")] = True,
    as_json: JsonOption = False,
) -> None:
    """Import a merchant's products as a new snapshot, and switch to it: all of them, or none where a line does not fit. Exit
    status 1 also where pictures could not be fetched this time: prices are switched to, those products keep the pictures they
    had, and the same import later fetches the rest."""
    from connectors.shops.catalogue.importer import MAX_FEED_BYTES, read_catalogue, refusal
    from schemas.errors import Misconfigured, Rejected
    from streams.catalogues import store
    from streams.command_line import explained

    def read() -> "CatalogueFile":
        with file.open("rb") as opened:
            found = read_catalogue(opened.read(MAX_FEED_BYTES + 1), language=language)
        if found.problems and not (skip_unusable and found.whole and found.rows):
            raise refusal(found)
        return found

    try:
        listed = read()
    except Rejected as refused:
        raise Misconfigured(explained(refused)) from refused

    async def work(parts: "Parts") -> "Imported":
        async with parts.database().transaction() as connection:
            merchant_id = await store.find_merchant(connection, merchant)
        async with _catalogues(parts) as catalogues:
            with progress_bar() as progress:
                return await catalogues.import_list(
                    merchant_id,
                    listed.rows,
                    datetime.now(UTC),
                    beside=file.parent,
                    replace=replace,
                    switch=switch,
                    progress=progress,
                )

    imported = with_parts(work)
    if as_json:
        print_json({**_document(imported), "skipped": listed.problems})
    else:
        _tell(imported, listed.problems)
    if any(problem.passes for problem in imported.problems):
        raise typer.Exit(1)


@app.command("list")
def list_snapshots(
    merchant: Annotated[str | None, typer.Option(help="only this merchant's: its id, mer_…, or its name")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the snapshots, newest first: when each was made, and when it was live last."""
    from streams.catalogues import store

    async def work(parts: "Parts") -> "list[Snapshot]":
        async with parts.database().transaction() as connection:
            return await store.published(connection, await store.find_merchant(connection, merchant) if merchant else None)

    found = with_parts(work)
    if as_json:
        print_json(found)
        return
    columns = ("merchant", "snapshot", "", "products", "pictures", "matcher", "made", "live")
    print_table("", columns, (_line(snapshot) for snapshot in found))


@app.command("show")
def show_products(
    merchant: Annotated[str, typer.Argument(help="the merchant's id, mer_…, or its name")],
    snapshot: Annotated[int | None, typer.Option(help="another than the current one")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a snapshot has: the current one, unless another is named."""
    from schemas.errors import Misconfigured
    from streams.catalogues import store

    async def work(parts: "Parts") -> "tuple[Snapshot, list[store.KnownProduct]]":
        async with parts.database().transaction() as connection:
            merchant_id = await store.find_merchant(connection, merchant)
            current = await store.current(connection, merchant_id)
            number = snapshot or (current[0].number if current else None)
            found = await store.find(connection, merchant_id, number) if number else None
            if found is None:
                raise Misconfigured(f"{merchant} has no snapshot {number}." if number else f"{merchant} has no current snapshot.")
            return found, list((await store.find_products(connection, merchant_id, found.number)).values())

    found, products = with_parts(work)
    if as_json:
        print_json({"snapshot": found, "products": products})
        return
    rows = ((each.product_id, each.gtin, each.title, each.brand, each.picture and each.picture[:12]) for each in products)
    print_table(f"snapshot {found.number} of {found.merchant_id}", ("product", "GTIN", "title", "brand", "picture"), rows)


@app.command("publish")
def publish(
    number: Annotated[int, typer.Argument(help="the snapshot's number")], merchant: MerchantOption, as_json: JsonOption = False
) -> None:
    """Switch to a snapshot, newer or older. Its directory is made again from the database where it is missing or damaged."""
    _switch(merchant, lambda catalogues, merchant_id: catalogues.publish(merchant_id, number), as_json=as_json)


@app.command("rollback")
def rollback(merchant: MerchantOption, as_json: JsonOption = False) -> None:
    """Switch to what was live before. Once more, and it is what was live before that."""
    _switch(merchant, lambda catalogues, merchant_id: catalogues.rollback(merchant_id), as_json=as_json)


@app.command("withdraw")
def withdraw(merchant: MerchantOption, as_json: JsonOption = False) -> None:
    """Recognise and sell nothing of a merchant any more, until the next import or `catalogue publish`. All snapshots stay."""
    withdrawn = _on_catalogue(merchant, lambda catalogues, merchant_id: catalogues.withdraw(merchant_id))
    if as_json:
        print_json({"withdrawn": withdrawn})
        return
    typer.echo(f"nothing of {withdrawn.merchant_id} is recognised or sold any more")
    typer.echo(f"`augenblick catalogue rollback` brings snapshot {withdrawn.number} back")


@app.command("prune")
def prune(
    keep: Annotated[int, typer.Option(min=1, help="how many snapshots of each merchant stay, the newest")],
    merchant: Annotated[str | None, typer.Option(help="only this merchant's: its id, mer_…, or its name")] = None,
) -> None:
    """Delete old snapshots, with the pictures that nothing else has. The current one always stays, or the one withdrawn."""
    from streams.catalogues import store

    async def work(parts: "Parts") -> int:
        async with parts.database().transaction() as connection:
            if merchant:
                merchant_ids = [await store.find_merchant(connection, merchant)]
            else:
                merchant_ids = list(dict.fromkeys(found.merchant_id for found in await store.published(connection)))
        async with _catalogues(parts) as catalogues:
            return sum(map(len, (await catalogues.prune(merchant_ids, keep)).values()))

    count = with_parts(work)
    typer.echo(f"{counted(count, 'snapshot')} deleted")


def _on_catalogue(merchant: str, work: "Callable[[Catalogues, MerchantId], Awaitable[Result]]") -> Result:
    from streams.catalogues import store

    async def go(parts: "Parts") -> Result:
        async with parts.database().transaction() as connection:
            merchant_id = await store.find_merchant(connection, merchant)
        async with _catalogues(parts) as catalogues:
            return await work(catalogues, merchant_id)

    return with_parts(go)


def _switch(merchant: str, work: "Callable[[Catalogues, MerchantId], Awaitable[Snapshot | None]]", *, as_json: bool) -> None:
    snapshot = _on_catalogue(merchant, work)
    if as_json:
        print_json(snapshot)
    elif snapshot is None:
        typer.echo(f"nothing of {merchant} is current: it was withdrawn then. `augenblick catalogue rollback` goes back further")
    else:
        typer.echo(f"snapshot {snapshot.number} of {snapshot.merchant_id} is current: {counted(snapshot.products, 'product')}")


@asynccontextmanager
async def _catalogues(parts: "Parts") -> "AsyncIterator[Catalogues]":
    from streams.catalogues.pictures import outbound_client
    from streams.catalogues.service import Catalogues
    from streams.sightings.picture_models import TritonPictureModels

    settings = parts.settings
    models = TritonPictureModels(settings.triton_url) if settings.triton_url else None
    try:
        async with outbound_client(allow_private=settings.allow_private_endpoints) as client:
            yield Catalogues(parts.database(), directory=settings.catalogue_directory, models=models, client=client)
    finally:
        if models is not None:
            await models.close()


def _line(snapshot: "Snapshot") -> tuple[str, ...]:
    return (
        snapshot.merchant_id,
        str(snapshot.number),
        "current" if snapshot.is_current else "",
        str(snapshot.products),
        str(snapshot.pictures),
        snapshot.models.matcher if snapshot.models else "",
        moment(snapshot.published_at),
        _live(snapshot),
    )


def _live(snapshot: "Snapshot") -> str:
    if snapshot.live_from is None:
        return "now" if snapshot.is_current else "never"
    return f"until {moment(snapshot.live_until)}" if snapshot.live_until else f"since {moment(snapshot.live_from)}"


def _document(imported: "Imported") -> dict[str, Any]:
    return {
        "snapshot": imported.snapshot,
        "listed": imported.listed,
        "computed": imported.computed,
        "unrecognised": imported.unrecognised,
        "picture_problems": imported.problems,
    }


def _tell(imported: "Imported", skipped: "tuple[FieldError, ...]") -> None:
    snapshot = imported.snapshot
    state = "current" if snapshot.is_current else f"not current: `augenblick catalogue publish {snapshot.number}` switches to it"
    typer.echo(f"snapshot {snapshot.number} of {snapshot.merchant_id} is {state}")
    typer.echo(f"{counted(snapshot.products, 'product')}, {imported.listed} of them from this file")
    if snapshot.pictures:
        typer.echo(f"{counted(snapshot.pictures, 'picture')} to be recognised by, {imported.computed} of them new")
    _some("line", "skipped", [f"{problem.pointer} {problem.detail}" for problem in skipped])
    for how, passes in (("not usable", False), ("not to be had now; import again later", True)):
        found = [each for each in imported.problems if each.passes is passes]
        _some("picture", how, [f"{each.product_id}: {each.picture} {each.reason}" for each in found])
    if imported.unrecognised:
        typer.echo(
            f"{counted(imported.unrecognised, 'product')} with pictures, not recognised by them: the models that run now never "
            "saw these, or they show too little. Offered all the same.",
            err=True,
        )


def _some(what: str, how: str, lines: list[str]) -> None:
    if lines:
        typer.echo(f"{counted(len(lines), what)} {how}:", err=True)
        for line in lines[:_SHOWN]:
            typer.echo(f"  {line}", err=True)
        if len(lines) > _SHOWN:
            typer.echo(f"  and {len(lines) - _SHOWN} more; --json shows all", err=True)
