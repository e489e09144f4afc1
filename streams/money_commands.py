"""Operators' commands about money: accounts, payments, receipts, reconciliation, keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from schemas.errors import Misconfigured, Rejected, Retryable
from streams import connector_commands, payment_commands, receipt_commands
from streams.command_line import JsonOption, counted, explained, moment, parse_id, print_json, print_table, with_parts
from streams.connector_commands import ProviderArgument

if TYPE_CHECKING:
    from schemas.ids import MerchantId
    from streams.core.bootstrap import Parts
    from streams.core.resealing import Count
    from streams.payments.accounts import Account, Accounts
    from streams.payments.reconciliation import Comparison, Difference

app = typer.Typer(no_args_is_help=True)
secrets = typer.Typer(no_args_is_help=True, help="What is sealed in the database, and the keys.")
app.add_typer(connector_commands.app, name="connectors")
app.add_typer(payment_commands.app, name="payments")
app.add_typer(receipt_commands.app, name="receipts")
app.add_typer(secrets, name="secrets")

_CANNOT_BE_HAD = 2


@dataclass(frozen=True)
class _Reconciled:
    """One account at the provider: ours that are it, and what came of it; `trouble`: why there is no `comparison`."""

    accounts: "tuple[Account, ...]"
    comparison: "Comparison | None"
    trouble: str | None = None


@app.command("reconcile")
def reconcile(
    provider: ProviderArgument,
    day: Annotated[str, typer.Argument(metavar="DATE", help="a day in the provider's time zone: 2026-11-22")],
    merchant: Annotated[str | None, typer.Option(help="only accounts of this merchant, mer_…")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare what moved on a day by the provider's books with ours. Exit status 1 on any difference, 2 where the provider's
    statement cannot be had."""
    from connectors import registry
    from schemas.ids import MerchantId

    try:
        wanted = date.fromisoformat(day)
    except ValueError as error:
        raise typer.BadParameter("a day is written 2026-11-22") from error
    if provider not in registry.PAYMENTS:
        raise typer.BadParameter(f"there is no provider {provider}: choose from {', '.join(registry.PAYMENTS)}")
    merchant_id = parse_id(MerchantId, merchant) if merchant else None
    results = with_parts(lambda parts: _reconcile(parts, provider, wanted, merchant_id))
    if as_json:
        print_json({"provider": provider, "date": wanted, "accounts": [_document(each) for each in results]})
    else:
        for each in results:
            _show(each, wanted)
        typer.echo(_summary(results, provider, wanted))
    if any(each.comparison and each.comparison.differences for each in results):
        raise typer.Exit(1)
    if any(each.comparison is None or each.comparison.undecided for each in results):
        raise typer.Exit(_CANNOT_BE_HAD)


async def _reconcile(parts: "Parts", provider: str, day: date, merchant_id: "MerchantId | None") -> list[_Reconciled]:
    from streams.payments import accounts
    from streams.payments.accounts import Accounts

    async with parts.database().transaction() as connection:
        listed = await accounts.listed(connection, provider=provider)
    connectors = Accounts(parts.sealer(), parts.settings.public_url)
    chosen = [
        shared
        for shared in connectors.shared(listed)
        if merchant_id is None or any(account.merchant_id == merchant_id for account in shared)
    ]
    if not chosen:
        raise Misconfigured(f"There is no account with {provider} to reconcile: `augenblick connectors list` shows them.")
    try:
        return [await _reconcile_account(parts, connectors, shared, day) for shared in chosen]
    finally:
        await connectors.close()


async def _reconcile_account(parts: "Parts", connectors: "Accounts", shared: "Sequence[Account]", day: date) -> _Reconciled:
    from streams.payments import reconciliation

    # Credentials that are in use rather than those of an account that was removed.
    account = next((each for each in shared if not each.removed), shared[0])
    try:
        comparison = await reconciliation.reconcile(
            parts.database(), connectors.connector(account), [each.id for each in shared], day, datetime.now(UTC)
        )
    except (Misconfigured, Retryable) as error:
        return _Reconciled(tuple(shared), None, str(error))
    except Rejected as refusal:
        return _Reconciled(tuple(shared), None, explained(refusal))
    return _Reconciled(tuple(shared), comparison)


def _show(each: _Reconciled, day: date) -> None:
    title = f"{each.accounts[0].external_id} on {day} ({', '.join(account.id for account in each.accounts)})"
    if each.comparison is None:
        typer.echo(f"{title}: no statement. {each.trouble}\n")
        return
    compared = each.comparison
    currencies = sorted({*compared.ours, *compared.theirs})
    print_table(
        title,
        ("currency", "ours", "the provider's", "difference"),
        (
            (
                currency,
                _major(compared.ours.get(currency, 0), currency),
                _major(compared.theirs.get(currency, 0), currency),
                _major(compared.theirs.get(currency, 0) - compared.ours.get(currency, 0), currency),
            )
            for currency in currencies
        ),
    )
    for difference in compared.differences:
        typer.echo(_sentence(difference))
    for movement in compared.undecided:
        typer.echo(
            f"undecided  {movement.kind} {movement.amount} of {movement.payment_id} ({movement.reference}) at the end of the day:"
            f" it may stand in the next day's statement, which cannot be had yet"
        )


def _sentence(difference: "Difference") -> str:
    ours, theirs = difference.ours, difference.theirs
    if ours is not None and theirs is not None:
        return (
            f"differing  {ours.kind} of {ours.payment_id} ({ours.reference}, {ours.attempt_id}): ours {ours.amount},"
            f" the provider's {theirs.amount}"
        )
    if ours is not None:
        return (
            f"missing    {ours.kind} {ours.amount} of {ours.payment_id} ({ours.reference}, {ours.attempt_id}),"
            f" known since {moment(ours.ended_at)}: not in the provider's books"
        )
    assert theirs is not None
    return (
        f"extra      {theirs.kind} {theirs.amount} ({theirs.reference}) at {moment(theirs.occurred_at)}:"
        f" not in our books{f'; {difference.remark}' if difference.remark else ''}"
    )


def _major(minor: int, currency: str) -> str:
    from schemas.money import Money

    return str(Money.of(minor, currency).major)


def _document(each: _Reconciled) -> dict[str, object]:
    return {
        "external_id": each.accounts[0].external_id,
        "accounts": [account.id for account in each.accounts],
        "trouble": each.trouble,
        "comparison": each.comparison and _comparison(each.comparison),
    }


def _comparison(compared: "Comparison") -> dict[str, object]:
    return {
        "agreed": compared.agreed,
        "ours_minor": compared.ours,
        "theirs_minor": compared.theirs,
        "differences": [
            {
                "kind": each.kind,
                "ours": each.ours and {**vars(each.ours), "attempt_ids": sorted(each.ours.attempt_ids)},
                "theirs": each.theirs,
                "remark": each.remark,
            }
            for each in compared.differences
        ],
        "reversed": list(compared.reversed),
        "undecided": [{**vars(each), "attempt_ids": sorted(each.attempt_ids)} for each in compared.undecided],
    }


def _summary(results: Sequence[_Reconciled], provider: str, day: date) -> str:
    had = [each.comparison for each in results if each.comparison is not None]
    agreed = sum(each.agreed for each in had)
    counts = {
        kind: sum(each.kind == kind for compared in had for each in compared.differences)
        for kind in ("missing", "extra", "differing")
    }
    found = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    if not had:
        return f"{provider} on {day}: no statement could be had."
    without = len(results) - len(had)
    missing_statements = f" Of {counted(without, 'account')} no statement could be had." if without else ""
    reverted = sum(len(each.reversed) for each in had)
    taken_back = f" {counted(reverted, 'line')} of cancelled payments cancel each other out." if reverted else ""
    undecided = sum(len(each.undecided) for each in had)
    waiting = f" {undecided} undecided." if undecided else ""
    return f"{provider} on {day}: {agreed} agree, {found or 'nothing differs'}.{taken_back}{missing_statements}{waiting}"


@secrets.command("rotate")
def rotate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only count, and see that everything opens")] = False,
    as_json: JsonOption = False,
) -> None:
    """Seal anew, with the first key of AUGENBLICK_SECRET_KEY, what another one has sealed. May be repeated at any time."""
    from streams.core import resealing

    async def work(parts: "Parts") -> "list[Count]":
        do = resealing.survey if dry_run else resealing.reseal
        return await do(parts.database(), parts.sealer())

    counts = with_parts(work)
    if as_json:
        print_json({"counts": counts, "dry_run": dry_run})
        return
    print_table(
        "",
        ("what", "sealed by the newest key", "to be sealed anew" if dry_run else "sealed anew"),
        ((count.title, str(count.current), str(count.anew)) for count in counts),
    )
    if not dry_run:
        typer.echo(
            "Everything is sealed by the newest key. Once every role runs with it, the older keys may be taken out of"
            " AUGENBLICK_SECRET_KEY; keep them as long as you keep backups from before."
        )
    elif any(count.anew for count in counts):
        typer.echo("The older keys are still needed: `augenblick secrets rotate`.")
    else:
        typer.echo("The older keys are not needed any more.")
