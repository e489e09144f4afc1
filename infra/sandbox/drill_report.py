"""A drill's result, for people."""

from collections import Counter
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from infra.sandbox.books import Book, Fault
from infra.sandbox.disturbances import KILLABLE
from infra.sandbox.drill import Report
from schemas.money import Money

_BOOKS = {
    Book.WEARERS: ("wearers", "approvals the gateway accepted"),
    Book.DATABASE: ("our database", "payments"),
    Book.PROVIDER: ("provider", "charges"),
    Book.MERCHANTS: ("merchants", "payment.captured received"),
}
_SERVERS = {"kafka": "Kafka", "postgres": "PostgreSQL"}
_SHOWN = 20


def print_tables(console: Console, report: Report) -> None:
    table = Table("book", "what it counts", box=box.SIMPLE_HEAD)
    for column in ("entries", "taken", "given back", *Fault):
        table.add_column(str(column), justify="right")
    for book, (name, what) in _BOOKS.items():
        counts = report.counts(book)
        sums = [(Money.of(taken, code), Money.of(back, code)) for code, (taken, back) in report.sums[book].items()]
        money = ["\n".join(str(pair[column]) for pair in sums) for column in (0, 1)]
        if book is Book.WEARERS:
            money[1] = "–"
        wrong = "red" if any(counts.values()) else "green"
        table.add_row(name, what, str(report.entries[book]), *money, *(str(counts[fault]) for fault in Fault), style=wrong)
    console.print(table)
    for finding in report.findings[:_SHOWN]:
        console.print(f"{finding.fault} by the {finding.book}: {finding.about}: {finding.text}", style="red")
    if len(report.findings) > _SHOWN:
        console.print(f"and {len(report.findings) - _SHOWN} more; --json lists all of them", style="red")
    for name, text in _lines(report):
        console.print(f"{name:10} {text}")
    if report.ok:
        console.print("\nAll four books agree: nothing lost, nothing doubled, nothing unknown.", style="bold green")
    else:
        text = "The books do not agree." if report.findings else "Not all kills and restarts could be carried out."
        console.print(f"\n{text}", style="bold red")


def _lines(report: Report) -> list[tuple[str, str]]:
    document = report.document()
    plan = report.plan
    whom = {each.whom for each in report.disturbances} - set(KILLABLE)
    roles = {role: report.killed(role) for role in KILLABLE}
    lines = [
        ("payments", _counted(report.states)),
        ("refunds", _counted({name.replace("_", " "): count for name, count in report.refunds.items()})),
        ("unknown", f"{report.tally.unknown_at_first} at first"),
        ("frozen", f"by a wrong amount and released by the operator: {report.frozen}"),
        ("killed", f"roles {sum(roles.values())} times: {_counted(roles)}"),
        *((name, _counted(_happened(report, [server]))) for server, name in _SERVERS.items()),
        ("provider", _counted(_happened(report, whom - set(_SERVERS)))),
        ("faults", f"of {plan.provider}, rate {plan.faults:g}: {_counted(report.faults_done)}"),
    ]
    if times := document["back_s"]:
        lines.append(("back", f"after {times['median']} s (median), {times['longest']} s (longest)"))
    if times := document["glance_to_paid_s"]:
        lines.append(("paid", f"{times['median']} s after the glance (median), {times['longest']} s (longest)"))
    rate = f"{document['payments_per_s']} payments/s"
    lines.append(("took", f"{document['total_s']} s in all, {document['paying_s']} s of it paying: {rate}"))
    lines.append(("seed", str(plan.seed)))
    return lines + [("note", note) for note in report.notes]


def _happened(report: Report, whom: Iterable[str]) -> dict[str, int]:
    wanted = set(whom)
    return Counter(each.what for each in report.disturbances if each.whom in wanted)


def _counted(counts: dict[str, int]) -> str:
    """Most first."""
    return ", ".join(f"{name} {count}" for name, count in Counter(counts).most_common() if count) or "none"
