"""`augenblick payments`: seeing what is not known, asking, saying how it ended, and commanding as merchants do."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from schemas.errors import Misconfigured
from streams.command_line import JsonOption, amount, moment, parse_id, print_json, print_table, with_parts

if TYPE_CHECKING:
    from schemas.ids import AttemptId, PaymentId
    from streams.core.bootstrap import Parts
    from streams.payments.commands import Kind
    from streams.payments.overview import ShownPayment, Unmatched
    from streams.payments.resolving import End, Resolution
    from streams.payments.store import Unclear

app = typer.Typer(no_args_is_help=True, help="Payments: what is not known, and what can be done.")

_MOST = 1000

PaymentArgument = Annotated[str, typer.Argument(metavar="PAYMENT", help="the payment's id, pay_…")]
AmountOption = Annotated[
    str | None, typer.Option("--amount", help="a part, in the payment's currency: 3.50; all there is by default")
]


class As(StrEnum):
    SUCCEEDED = "succeeded"
    DECLINED = "declined"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ACKNOWLEDGED = "acknowledged"


@app.command("unknown")
def unknown(
    older_than: Annotated[float, typer.Option(min=0, help="seconds that a command may run before it is shown")] = 60,
    check: Annotated[bool, typer.Option("--check", help="exit status 1 if there is anything to show")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what is not known: frozen payments, commands that run long, and notifications about no payment of ours."""
    from streams.payments import overview, store

    async def work(parts: "Parts") -> "tuple[Sequence[Unclear], Sequence[Unmatched]]":
        async with parts.database().transaction() as connection:
            age = timedelta(seconds=older_than)
            return (
                await store.unclear_payments(connection, age, _MOST),
                await overview.unmatched(connection, timedelta(0), _MOST),
            )

    payments, notifications = with_parts(work)
    if as_json:
        print_json({"payments": payments, "unmatched_notifications": notifications})
    else:
        _show_unknown(payments, notifications)
    raise typer.Exit(1 if check and (payments or notifications) else 0)


def _show_unknown(payments: "Sequence[Unclear]", notifications: "Sequence[Unmatched]") -> None:
    if payments:
        columns = ("payment", "merchant", "state", "amount", "provider", "reference", "command", "last heard", "asked", "since")
        print_table(
            "Payments",
            (*columns, "next ask"),
            (
                (
                    each.payment_id,
                    each.merchant_id,
                    f"{each.state}{', frozen' if each.frozen_reason else ''}",
                    amount(each.total),
                    each.provider,
                    each.reference,
                    each.attempt,
                    each.frozen_reason or _heard(each),
                    str(each.asked),
                    moment(each.since),
                    moment(each.next_ask_at) or "never",
                )
                for each in payments
            ),
        )
    if notifications:
        print_table(
            "Notifications about no payment of ours",
            ("account", "provider", "event", "about", "reference", "amount", "repeated", "received"),
            (
                (
                    each.account_id,
                    each.provider,
                    each.event_id,
                    each.kind,
                    each.reference,
                    amount(each.amount),
                    str(each.repeated),
                    moment(each.received_at),
                )
                for each in notifications
            ),
        )
    for what, count in (("payments", len(payments)), ("notifications", len(notifications))):
        if count == _MOST:
            typer.echo(f"Only the first {_MOST} {what} are shown.")
    if payments:
        typer.echo("`augenblick payments resolve PAYMENT` asks the provider now.")
    elif not notifications:
        typer.echo("Nothing is unknown.")


def _heard(each: "Unclear") -> str:
    return f"{each.outcome or 'nothing'}{f': {each.reason}' if each.reason else ''}"


@app.command("resolve")
def resolve(
    payment: PaymentArgument,
    end: Annotated[
        As | None,
        typer.Option("--as", help="how its command ended, by the provider's dashboard; else the provider is asked"),
    ] = None,
    note: Annotated[str | None, typer.Option(help="where you saw that; stays in the receipt, so name no person in it")] = None,
    by: Annotated[str | None, typer.Option(help="who says so; stays in the receipt: a role or an initial will do")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask whether you are sure")] = False,
) -> None:
    """Ask the provider about a payment now, and settle what is known; or, with --as, say how it ended."""
    from schemas.ids import PaymentId

    payment_id = parse_id(PaymentId, payment)
    if end is None:
        if note or by:
            raise typer.BadParameter("--note and --by belong to --as")
        told = with_parts(lambda parts: _ask(parts, payment_id))
        typer.echo(f"{payment_id}: {_said(told)}")
        return
    if not note or not by:
        raise typer.BadParameter("--as needs --note and --by: they stand in the receipt")
    if not yes:
        _confirm(payment_id, end)
    told = with_parts(lambda parts: _force(parts, payment_id, end, note, by))
    typer.echo(f"{payment_id} is {told.state} now, as {by} said.")


async def _ask(parts: "Parts", payment_id: "PaymentId") -> "Resolution":
    from streams.payments import resolving
    from streams.payments.agent import payment_work

    return await resolving.ask(parts.database(), payment_work(parts, "operator"), payment_id)


async def _force(parts: "Parts", payment_id: "PaymentId", end: As, note: str, by: str) -> "Resolution":
    from streams.core.handling import transaction
    from streams.payments import resolving
    from streams.payments.agent import payment_work

    work = payment_work(parts, "operator")
    async with transaction(parts.database()) as unit:
        if end is As.ACKNOWLEDGED:
            return await resolving.acknowledge(unit, payment_id, note=note, by=by)
        return await resolving.force(unit, work, payment_id, cast("End", end.value), note=note, by=by)


def _confirm(payment_id: "PaymentId", end: As) -> None:
    shown = _find(payment_id)
    row = shown.payment
    running = next((attempt["kind"] for attempt in shown.attempts if attempt["ended_at"] is None), None)
    what = f"Its {running} is recorded as {end.value}" if running and end is not As.ACKNOWLEDGED else "It is thawed"
    typer.echo(
        f"{payment_id} over {row['total_minor']} {row['total_currency']} (minor units) is {row['state']}"
        f"{', frozen: ' + row['frozen_reason'] if row['frozen_at'] else ''}.\n"
        f"{what}; merchant and wearer are told so. Nobody asks the provider again: if it is not so, our books are wrong."
    )
    typer.confirm("Are you sure?", abort=True)


def _said(told: "Resolution") -> str:
    if told.outcome is None:
        return f"nothing was asked: {told.why}"
    reason = getattr(told.outcome, "reason", None) or getattr(told.outcome, "code", None)
    heard = f"the provider says {told.outcome.kind}{f' ({reason})' if reason else ''}"
    return f"{heard}; it is {told.state}{', and frozen' if told.frozen else ''}"


@app.command("capture")
def capture(payment: PaymentArgument, part: AmountOption = None) -> None:
    """Take what was reserved: all of it, or less."""
    _command(payment, "capture", part)


@app.command("cancel")
def cancel(payment: PaymentArgument) -> None:
    """Give up what was reserved, or what has not begun."""
    _command(payment, "cancel", None)


@app.command("refund")
def refund(payment: PaymentArgument, part: AmountOption = None) -> None:
    """Give back what was taken: all that is left of it, or less, several times if need be."""
    _command(payment, "refund", part)


def _command(payment: str, kind: "Kind", part: str | None) -> None:
    from schemas.ids import PaymentId
    from schemas.money import Money
    from streams.core.handling import transaction
    from streams.payments import commands, overview
    from streams.payments.accounts import Accounts

    payment_id = parse_id(PaymentId, payment)

    async def work(parts: "Parts") -> "AttemptId | None":
        database = parts.database()
        money = None
        if part is not None:
            async with database.transaction() as connection:
                currency = await overview.currency_of(connection, payment_id)
            if currency is None:
                raise Misconfigured(f"There is no payment {payment_id}.")
            try:
                money = Money.from_major(part, currency)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from error
            if money.minor <= 0:
                raise typer.BadParameter("the amount must be above zero")
        await commands.touch(database, payment_id)
        connectors = Accounts(parts.sealer(), parts.settings.public_url)
        try:
            async with transaction(database) as unit:
                return await commands.request(unit, connectors, payment_id, kind, money, requested_by="operator")
        finally:
            await connectors.close()

    attempt_id = with_parts(work)
    if attempt_id is None:
        typer.echo(f"{payment_id} is cancelled: it had not begun")
    else:
        typer.echo(f"{kind} {attempt_id}\n`augenblick payments show {payment_id}` tells what comes of it.")


@app.command("show")
def show(payment: PaymentArgument, as_json: JsonOption = False) -> None:
    """Show all that is on record of a payment: its commands, the provider's notifications, and what its receipt says."""
    from schemas.ids import PaymentId

    shown = _find(parse_id(PaymentId, payment))
    if as_json:
        print_json(
            {
                "payment": dict(shown.payment),
                "attempts": [dict(attempt) for attempt in shown.attempts],
                "notifications": [dict(notification) for notification in shown.notifications],
                "receipt": [vars(entry) for entry in shown.entries],
            }
        )
        return
    _show_payment(shown)


def _find(payment_id: "PaymentId") -> "ShownPayment":
    from streams.payments import overview

    async def work(parts: "Parts") -> "ShownPayment | None":
        async with parts.database().transaction() as connection:
            return await overview.show_payment(connection, payment_id)

    shown = with_parts(work)
    if shown is None:
        raise Misconfigured(f"There is no payment {payment_id}.")
    return shown


def _show_payment(shown: "ShownPayment") -> None:
    row = shown.payment
    currency = row["total_currency"]
    facts: dict[str, Any] = {
        "payment": row["id"],
        "state": f"{row['state']}{' (' + row['state_reason'] + ')' if row['state_reason'] else ''}",
        "frozen": row["frozen_at"] and f"{moment(row['frozen_at'])}: {row['frozen_reason']}",
        "total": _money(row, "total_minor", currency),
        "captured": _money(row, "captured_minor", currency),
        "refunded": _money(row, "refunded_minor", currency),
        "merchant": row["merchant_id"],
        "order": row["order_id"],
        "journey": row["journey_id"],
        "provider": row["provider"],
        "account": row["account_id"],
        "reference": row["provider_reference"],
        "made": moment(row["created_at"]),
        "changed": moment(row["updated_at"]),
    }
    for name, fact in facts.items():
        if fact:
            typer.echo(f"{name:10} {fact}")
    print_table(
        "Commands",
        ("attempt", "command", "amount", "by", "outcome", "reference", "asked", "made", "ended", "next ask"),
        (
            (
                each["id"],
                each["kind"],
                _money(each, "amount_minor", currency),
                each["requested_by"],
                each["outcome"],
                each["reference"],
                str(each["asked"]),
                moment(each["created_at"]),
                moment(each["ended_at"]),
                moment(each["next_ask_at"]),
            )
            for each in shown.attempts
        ),
    )
    if shown.notifications:
        print_table(
            "Notifications",
            ("event", "about", "reference", "amount", "state", "repeated", "received"),
            (
                (
                    each["event_id"],
                    each["kind"],
                    each["reference"],
                    _money(each, "amount_minor", each["amount_currency"]),
                    each["state"],
                    str(each["repeated"]),
                    moment(each["received_at"]),
                )
                for each in shown.notifications
            ),
        )
    print_table(
        "Receipt",
        ("entry", "kind", "digest", "says"),
        ((str(each.position), each.kind, each.digest[:16], _says(each.content)) for each in shown.entries),
    )


def _money(row: Mapping[str, Any], column: str, currency: str | None) -> str | None:
    from schemas.money import Money

    minor = row[column]
    return str(Money.of(minor, currency)) if minor is not None and currency is not None else None


def _says(content: Mapping[str, Any]) -> str:
    told = ("state", "kind", "outcome", "reference", "reason", "as", "by", "note", "presence")
    return ", ".join(f"{name} {content[name]}" for name in told if content.get(name) is not None)
