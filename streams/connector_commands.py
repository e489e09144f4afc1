"""`augenblick connectors`: merchants' accounts with payment providers. What is given is never printed again."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import Misconfigured, Retryable
from streams.command_line import JsonOption, moment, parse_id, print_json, print_table, with_parts

if TYPE_CHECKING:
    from streams.core.bootstrap import Parts
    from streams.payments.accounts import Account, Accounts

app = typer.Typer(no_args_is_help=True, help="Merchants' accounts with payment providers.")

ProviderArgument = Annotated[str, typer.Argument(help="the provider: alipay, stripe, wechat_pay")]
AccountArgument = Annotated[str, typer.Argument(help="the account's id, acc_…")]


@app.command("add")
def add(
    provider: ProviderArgument,
    merchant: Annotated[str, typer.Option(help="the merchant's id, mer_…")],
    file: Annotated[str | None, typer.Option(help="a JSON object with the credentials; - reads it from standard input")] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="one field; FIELD=@FILE reads its value from a file, as secrets must"),
    ] = None,
) -> None:
    """Connect a merchant with a payment provider, or give new credentials for its account. They are sealed, and never shown.

    Which fields a provider needs, and where to get them: connectors/payments/PROVIDER/README.md."""
    from connectors import registry
    from schemas.ids import AccountId, MerchantId
    from streams.payments import accounts

    merchant_id = parse_id(MerchantId, merchant)
    fields = registry.credential_fields(provider)
    credentials = _from_file(file) if file else {}
    for one in given or []:
        name, value = _set(one, fields, provider)
        credentials[name] = value

    async def work(parts: "Parts") -> "tuple[AccountId, Account | None, bool]":
        async with parts.database().transaction() as connection:
            before = {account.id for account in await accounts.listed(connection, merchant_id=merchant_id, provider=provider)}
            account_id = await accounts.add(connection, parts.sealer(), merchant_id, provider, credentials)
            return account_id, await accounts.find(connection, account_id), account_id in before

    from streams.core.settings import load

    account_id, account, known = with_parts(work)
    typer.echo(f"account {account_id}{' (its credentials are replaced)' if known else ''}")
    typer.echo(f"at {provider} {account.external_id if account else ''}")
    _say_where_to_notify(load().public_url, provider, account_id)
    typer.echo(f"Try it: augenblick connectors test {account_id}")


def _say_where_to_notify(public_url: str | None, provider: str, account_id: str) -> None:
    from schemas.ids import AccountId
    from streams.payments.accounts import notification_url

    url = notification_url(public_url, provider, AccountId(account_id))
    if url is not None:
        typer.echo(f"notifications {url}\nEnter this address at the provider, where it asks for one.")
        return
    path = notification_url("https://…", provider, AccountId(account_id))
    typer.echo(
        f"notifications {path}\nAUGENBLICK_PUBLIC_URL is not set: set it to where the gateway is reached from outside, for every"
        f" role, and enter this address with it at the provider. Until then the provider is asked, and tells nothing by itself."
    )


def _from_file(file: str) -> dict[str, str]:
    """Raises Misconfigured without a word of what is in it."""
    source = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = json.loads(text)
    except OSError as error:
        raise Misconfigured(f"{source} cannot be read: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise Misconfigured(f"{source} is not JSON: an object with the credentials' fields is needed.") from None
    if not isinstance(found, dict):
        raise Misconfigured(f"{source} is not a JSON object with the credentials' fields.")
    wrong = [name for name, value in found.items() if not isinstance(value, str)]
    if wrong:
        raise Misconfigured(f"{source}: {', '.join(wrong)} must be text.")
    return found


def _set(one: str, fields: Mapping[str, bool], provider: str) -> tuple[str, str]:
    """`fields`: each with whether it is a secret."""
    name, equals, value = one.partition("=")
    if not equals or name not in fields:
        raise Misconfigured(f"--set takes FIELD=VALUE. The fields of {provider} are {', '.join(fields)}.")
    if value.startswith("@"):
        try:
            return name, Path(value[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError):
            raise Misconfigured(f"--set {name}: the file cannot be read.") from None
    if fields[name]:
        raise Misconfigured(
            f"{name} is a secret, and would stay in the list of processes and in the shell's history: put it into a file and give"
            f" --set {name}=@FILE, or --file with all of them; --file - reads from standard input."
        )
    return name, value


@app.command("test")
def test(
    account: Annotated[str | None, typer.Argument(help="the account's id, acc_…")] = None,
    merchant: Annotated[str | None, typer.Option(help="all accounts in use of this merchant, mer_…, instead")] = None,
) -> None:
    """Make a harmless call with an account's credentials. Exit status 1 where the provider does not take them, or not answer."""
    from schemas.ids import AccountId, MerchantId
    from streams.payments import accounts
    from streams.payments.accounts import Accounts

    if (account is None) == (merchant is None):
        raise typer.BadParameter("give either an account or --merchant")
    account_id = parse_id(AccountId, account) if account else None
    merchant_id = parse_id(MerchantId, merchant) if merchant else None

    async def work(parts: "Parts") -> list[tuple[str, str | None]]:
        async with parts.database().transaction() as connection:
            if account_id is not None:
                found = await accounts.find(connection, account_id)
                chosen: Sequence[Account] = [found] if found else []
            else:
                listed = await accounts.listed(connection, merchant_id=merchant_id)
                chosen = [each for each in listed if not each.removed]
        if not chosen:
            raise Misconfigured("There is no such account: `augenblick connectors list` shows them.")
        connectors = Accounts(parts.sealer(), parts.settings.public_url)
        try:
            return [(f"{each.id} {each.provider} {each.external_id}", await _trouble(connectors, each)) for each in chosen]
        finally:
            await connectors.close()

    results = with_parts(work)
    for name, trouble in results:
        typer.echo(f"{name}: {trouble or 'works'}")
    raise typer.Exit(1 if any(trouble for _, trouble in results) else 0)


async def _trouble(connectors: "Accounts", account: "Account") -> str | None:
    try:
        await connectors.connector(account).check()
    except (Misconfigured, Retryable) as error:
        return str(error)
    return None


@app.command("list")
def show(
    merchant: Annotated[str | None, typer.Option(help="only this merchant's, mer_…")] = None,
    provider: Annotated[str | None, typer.Option(help="only with this provider")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the accounts, removed ones too. No secret is among it."""
    from schemas.ids import MerchantId
    from streams.payments import overview
    from streams.payments.overview import ShownAccount

    merchant_id = parse_id(MerchantId, merchant) if merchant else None

    async def work(parts: "Parts") -> list[ShownAccount]:
        async with parts.database().transaction() as connection:
            return await overview.list_accounts(connection, merchant_id=merchant_id, provider=provider)

    found = with_parts(work)
    if as_json:
        print_json({"accounts": found})
        return
    rows = (
        (
            each.id,
            f"{each.merchant} ({each.merchant_id})",
            each.provider,
            each.external_id,
            "any" if each.currencies is None else ", ".join(each.currencies),
            moment(each.created_at),
            moment(each.removed_at),
        )
        for each in found
    )
    print_table("", ("account", "merchant", "provider", "at the provider", "currencies", "since", "removed"), rows)


@app.command("remove")
def remove(account: AccountArgument) -> None:
    """Let an account take no new payments. Those it took are still asked about, and may be refunded."""
    from schemas.ids import AccountId
    from streams.payments import accounts, overview

    account_id = parse_id(AccountId, account)

    async def work(parts: "Parts") -> int:
        async with parts.database().transaction() as connection:
            if not await accounts.remove(connection, account_id):
                raise Misconfigured(f"There is no account {account_id} in use: `augenblick connectors list` shows them.")
            return await overview.open_payments(connection, account_id)

    still_open = with_parts(work)
    typer.echo(f"{account_id} takes no new payments.")
    if still_open:
        typer.echo(f"{still_open} of its payments {'is' if still_open == 1 else 'are'} still open, and still asked about.")
