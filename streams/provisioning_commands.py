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

    from schemas.ids import DeviceId, MerchantId
    from schemas.payments import Payer
    from streams.core.bootstrap import Parts
    from streams.core.outbox import Transaction

AnyId = TypeVar("AnyId", bound=str)
Result = TypeVar("Result")

app = typer.Typer(no_args_is_help=True)
maker = typer.Typer(no_args_is_help=True, help="Glasses makers.")
device = typer.Typer(no_args_is_help=True, help="Pairs of glasses.")
merchant = typer.Typer(no_args_is_help=True, help="Merchants.")
endpoint = typer.Typer(no_args_is_help=True, help="Merchants' webhook addresses.")
payee = typer.Typer(no_args_is_help=True, help="Payees whose codes may be paid by looking.")
policy = typer.Typer(no_args_is_help=True, help="What merchants and devices may be paid and pay, and how.")
for name, commands in {
    "maker": maker,
    "device": device,
    "merchant": merchant,
    "endpoint": endpoint,
    "payee": payee,
    "policy": policy,
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
    from streams.gateway import provisioning

    key, maker_id = _key(public_key), _id(MakerId, maker)
    device_id = _in_transaction(
        lambda connection, composition: provisioning.add_device(
            connection,
            composition.sealer(),
            public_key=key,
            maker=maker_id,
            locale=locale,
            currency=currency,
            region=region,
            payer=_payer(payer) if payer else None,
        )
    )
    typer.echo(f"device {device_id}")


@device.command("list")
def list_devices(maker: Annotated[str | None, typer.Option(help="only this maker's, mkr_…")] = None) -> None:
    """Show the devices, oldest first: id, maker, what it is worth, and since when."""
    from schemas.ids import MakerId
    from streams.gateway import store

    maker_id = _id(MakerId, maker) if maker else None
    for found in _in_transaction(lambda connection, _: store.list_devices(connection, maker_id)):
        state = "revoked" if found.revoked else "can pay" if found.can_pay else "cannot pay"
        changed = f"  key changed {found.key_changed_at:%Y-%m-%d %H:%M}" if found.key_changed_at else ""
        typer.echo(f"{found.id}  {found.maker_id}  {state:10}  {found.locale}  paired {found.created_at:%Y-%m-%d %H:%M}{changed}")


@device.command("payer")
def set_payer(
    device: Annotated[str, typer.Argument(help="the device's id, dev_…")],
    payer: Annotated[str, typer.Argument(help="provider:customer:payment_method, as the provider names them")],
) -> None:
    """Set the wearer's means of payment."""
    from schemas.ids import DeviceId
    from streams.gateway import provisioning

    device_id, means = _id(DeviceId, device), _payer(payer)
    _in_transaction(lambda connection, composition: provisioning.set_payer(connection, composition.sealer(), device_id, means))
    typer.echo(f"{device_id} pays by {means.provider}")


@device.command("rotate-key")
def rotate_key(
    device: Annotated[str, typer.Argument(help="the device's id, dev_…")],
    public_key: Annotated[str, typer.Option(help="the new Ed25519 public key, 32 bytes in base64")],
) -> None:
    """Give a device another key, on the operator's word: no proof is asked for. The old one counts nowhere from now on."""
    from schemas.ids import DeviceId
    from streams.gateway import provisioning

    device_id, key = _id(DeviceId, device), _key(public_key)

    async def change(unit: "Transaction") -> None:
        found = await provisioning.lock_device(unit.connection, device_id)
        await provisioning.change_key(unit, found, key, datetime.now(UTC))

    _with_outbox(change)
    typer.echo(f"{device_id} has a new key")


@device.command("revoke")
def revoke_device(device: Annotated[str, typer.Argument(help="the device's id, dev_…")]) -> None:
    """Revoke a device for good: nothing more is accepted of it, what was open is cancelled, and its connection ends."""
    from schemas.ids import DeviceId
    from streams.gateway import provisioning

    device_id = _id(DeviceId, device)

    async def revoke(unit: "Transaction") -> None:
        await provisioning.revoke_device(unit, await provisioning.lock_device(unit.connection, device_id))

    _with_outbox(revoke)
    typer.echo(f"{device_id} is revoked")


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


@policy.command("set")
def set_policy(
    subject: Annotated[str, typer.Argument(help="whose: a merchant's id, mer_…, or a device's, dev_…")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JSON; see the makers' guide, or `policy show`")],
) -> None:
    """Set a merchant's or a device's rules, instead of those it had."""
    from pydantic import ValidationError

    from schemas.errors import field_errors
    from schemas.payments import PaymentPolicy
    from streams.gateway import provisioning

    def read() -> PaymentPolicy:
        try:
            return PaymentPolicy.model_validate_json(file.read_bytes())
        except ValidationError as error:
            errors = field_errors(error.errors(include_url=False, include_input=False))
            raise Rejected("request-invalid", "this is not a policy", errors=errors) from error

    whose, rules = _subject(subject), _or_explain(read)
    _in_transaction(lambda connection, _: provisioning.set_policy(connection, whose, rules))
    typer.echo(f"{whose} has these rules from now on")


@policy.command("show")
def show_policy(subject: Annotated[str, typer.Argument(help="a merchant's id, mer_…, or a device's, dev_…")]) -> None:
    """Show a merchant's or a device's rules, as `policy set` takes them."""
    from streams.gateway import provisioning

    whose = _subject(subject)
    found = _in_transaction(lambda connection, _: provisioning.find_policy(connection, whose))
    if found is None:
        raise Misconfigured(f"{whose} has no rules of its own.")
    typer.echo(found.model_dump_json(indent=2, exclude_none=True))


@policy.command("remove")
def remove_policy(subject: Annotated[str, typer.Argument(help="a merchant's id, mer_…, or a device's, dev_…")]) -> None:
    """Remove a merchant's or a device's rules: it is limited no more."""
    from streams.gateway import provisioning

    whose = _subject(subject)
    if not _in_transaction(lambda connection, _: provisioning.remove_policy(connection, whose)):
        raise Misconfigured(f"{whose} has no rules of its own.")
    typer.echo(f"{whose} has no rules of its own any more")


def _id(kind: type[AnyId], text: str) -> AnyId:
    try:
        return kind(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _subject(text: str) -> "MerchantId | DeviceId":
    from schemas.ids import DeviceId, MerchantId

    return _id(DeviceId, text) if text.startswith("dev_") else _id(MerchantId, text)


def _key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise typer.BadParameter(str(error)) from error


def _payer(text: str) -> "Payer":
    from connectors.registry import PAYMENTS
    from schemas.payments import Payer

    parts = text.split(":", 2)  # a provider's name of a means of payment may have colons of its own
    if len(parts) != 3 or not all(parts):
        raise typer.BadParameter("a means of payment has three parts: provider:customer:payment_method")
    if parts[0] not in PAYMENTS:
        raise typer.BadParameter(f"the provider is one of {', '.join(PAYMENTS)}")
    return Payer(provider=parts[0], customer=parts[1], payment_method=parts[2])


@payee.command("add")
def add_payee(
    merchant: Annotated[str, typer.Option(help="who gets the money: the merchant's id, mer_…")],
    name: Annotated[str, typer.Option(help="the payee's name, as wearers are shown it")],
    currency: Annotated[str, typer.Option(help="what is paid in where the code names none, as ISO 4217: CNY")],
    code: Annotated[str | None, typer.Argument(help="the text of the payee's code")] = None,
    picture: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="a PNG or JPEG of the code, instead")] = None,
) -> None:
    """Register a payee by its code (EMVCo, Alipay or WeChat Pay), of which only a digest is kept; prints its id."""
    from schemas.ids import MerchantId
    from streams.gateway import payees

    if (code is None) == (picture is None):
        raise typer.BadParameter("give either the code's text or --picture")
    merchant_id = _id(MerchantId, merchant)
    text = _or_explain(lambda: payees.text_of_picture(picture.read_bytes())) if picture else str(code)
    payee_id = _in_transaction(lambda connection, _: payees.add(connection, merchant_id, name=name, currency=currency, code=text))
    typer.echo(f"payee {payee_id}")


@payee.command("list")
def list_payees(merchant: Annotated[str | None, typer.Option(help="only this merchant's, mer_…")] = None) -> None:
    """Show the payees that may be paid, oldest first: id, merchant, whose code it is, currency, name, and since when."""
    from schemas.ids import MerchantId
    from streams.gateway import payees

    merchant_id = _id(MerchantId, merchant) if merchant else None
    for found in _in_transaction(lambda connection, _: payees.listed(connection, merchant_id)):
        since = f"{found.created_at:%Y-%m-%d %H:%M}"
        typer.echo(f"{found.id}  {found.merchant_id}  {found.scheme:10}  {found.currency}  {since}  {found.name}")


@payee.command("remove")
def remove_payee(payee: Annotated[str, typer.Argument(help="the payee's id, pye_…")]) -> None:
    """Let nobody pay a payee any more, and cancel what was proposed. What was approved already is not undone."""
    from schemas.ids import PayeeId
    from streams.gateway import payees

    payee_id = _id(PayeeId, payee)
    _in_transaction(lambda connection, _: payees.remove(connection, payee_id))
    cancelled = _with_outbox(lambda unit: payees.cancel_open(unit, payee_id))
    typer.echo(f"{payee_id} is removed; {cancelled} open proposals cancelled")


def _in_transaction(work: Callable[["AsyncConnection", "Parts"], Awaitable[Result]]) -> Result:
    from streams.core.bootstrap import composed
    from streams.core.settings import load

    async def go() -> Result:
        async with composed(load()) as parts, parts.database().transaction() as connection:
            return await work(connection, parts)

    return _or_explain(lambda: asyncio.run(go()))


def _with_outbox(work: Callable[["Transaction"], Awaitable[Result]]) -> Result:
    """The same where something is published."""

    async def go() -> Result:
        from streams.core.bootstrap import composed
        from streams.core.handling import transaction
        from streams.core.settings import load

        async with composed(load()) as parts, transaction(parts.database()) as unit:
            return await work(unit)

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
