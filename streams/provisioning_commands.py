"""Commands that let makers, devices and merchants in. What they print once (tokens, secrets) cannot be had again."""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from schemas.errors import Misconfigured, Rejected

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from streams.core.bootstrap import Parts

Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True)
maker = typer.Typer(no_args_is_help=True, help="Glasses makers.")
device = typer.Typer(no_args_is_help=True, help="Pairs of glasses.")
merchant = typer.Typer(no_args_is_help=True, help="Merchants.")
endpoint = typer.Typer(no_args_is_help=True, help="Merchants' webhook addresses.")
catalogue = typer.Typer(no_args_is_help=True, help="Merchants' catalogues.")
for name, commands in {
    "maker": maker,
    "device": device,
    "merchant": merchant,
    "endpoint": endpoint,
    "catalogue": catalogue,
}.items():
    app.add_typer(commands, name=name)


@maker.command("add")
def add_maker(name: str) -> None:
    """Let a glasses maker in; prints its id and its cloud's token."""
    from streams.gateway import provisioning

    maker_id, token = _in_transaction(lambda connection, _: provisioning.add_maker(connection, name))
    typer.echo(f"maker {maker_id}\ntoken {token}")


@device.command("add")
def add_device(
    maker: Annotated[str, typer.Option(help="the maker's id, mkr_…")],
    public_key: Annotated[str, typer.Option(help="the device's Ed25519 public key, 32 bytes in base64")],
    locale: Annotated[str, typer.Option(help="the wearer's language and region, as BCP 47: de-DE")],
    currency: Annotated[str, typer.Option(help="the wearer's currency, as ISO 4217: EUR")],
    region: Annotated[str | None, typer.Option(help="where the glasses are used, as ISO 3166: DE")] = None,
    payer: Annotated[str | None, typer.Option(help="provider:customer:payment_method, as the provider names them")] = None,
) -> None:
    """Pair a device; prints its id."""
    from schemas.ids import MakerId
    from schemas.payments import Payer
    from streams.gateway import provisioning

    try:
        key = base64.b64decode(public_key, validate=True)
        maker_id = MakerId(maker)
    except (binascii.Error, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    parts = payer.split(":") if payer else []
    if payer and len(parts) != 3:
        raise typer.BadParameter("--payer has three parts: provider:customer:payment_method")
    means = Payer(provider=parts[0], customer=parts[1], payment_method=parts[2]) if payer else None
    device_id = _in_transaction(
        lambda connection, composition: provisioning.add_device(
            connection,
            composition.sealer(),
            public_key=key,
            maker=maker_id,
            locale=locale,
            currency=currency,
            region=region,
            payer=means,
        )
    )
    typer.echo(f"device {device_id}")


@merchant.command("add")
def add_merchant(name: str) -> None:
    """Let a merchant in; prints its id and its API token."""
    from streams.gateway import provisioning

    merchant_id, token = _in_transaction(lambda connection, _: provisioning.add_merchant(connection, name))
    typer.echo(f"merchant {merchant_id}\ntoken {token}")


@endpoint.command("add")
def add_endpoint(
    url: str,
    merchant: Annotated[str, typer.Option(help="the merchant's id, mer_…")],
    event_type: Annotated[list[str] | None, typer.Option(help="only these events, e.g. payment.captured; all by default")] = None,
) -> None:
    """Tell a merchant's address what happens; prints the secret its messages are signed with."""
    from connectors.http import HttpClient
    from schemas.ids import MerchantId
    from streams.gateway import provisioning

    async def add(connection: "AsyncConnection", parts: "Parts") -> tuple[str, str]:
        async with HttpClient(allow_private=parts.settings.allow_private_endpoints) as client:
            await provisioning.check_address(client, url)
        return await provisioning.add_endpoint(connection, parts.sealer(), MerchantId(merchant), url, event_type)

    endpoint_id, secret = _in_transaction(add)
    typer.echo(f"endpoint {endpoint_id}\nsecret {secret}")


@catalogue.command("import")
def import_products(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV: gtin,title,language,brand,price,currency,url")],
    merchant: Annotated[str, typer.Option(help="the merchant's id, mer_…")],
) -> None:
    """Import a merchant's products: all of them, or none where a row does not fit."""
    from connectors.shops.catalogue.importer import import_catalogue, parse_catalogue
    from schemas.ids import MerchantId

    rows = _or_explain(lambda: parse_catalogue(file.read_bytes()))
    count = _in_transaction(lambda connection, _: import_catalogue(connection, MerchantId(merchant), rows, datetime.now(UTC)))
    typer.echo(f"{count} products of {merchant}")


def _in_transaction(work: Callable[["AsyncConnection", "Parts"], Awaitable[Result]]) -> Result:
    from streams.core.bootstrap import composed
    from streams.core.settings import load

    async def go() -> Result:
        async with composed(load()) as parts, parts.database().transaction() as connection:
            return await work(connection, parts)

    return _or_explain(lambda: asyncio.run(go()))


def _or_explain(work: Callable[[], Result]) -> Result:
    """A refusal is shown with every field it is about."""
    try:
        return work()
    except Rejected as refusal:
        details = [error for error in refusal.problem.errors if error.detail != refusal.problem.detail]
        fields = "".join(f"\n  {error.pointer} {error.detail}" for error in details)
        raise Misconfigured(f"{refusal.problem.title}: {refusal.problem.detail}{fields}") from refusal
    except ValueError as error:
        raise Misconfigured(str(error)) from error
