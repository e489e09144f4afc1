"""A drill's result, for people."""

from collections import Counter

from rich import box
from rich.console import Console
from rich.table import Table

from infra.sandbox.books import Book, Fault
from infra.sandbox.drill import KILLABLE, Report

_BOOKS = {
    Book.WEARERS: ("wearers", "approvals the gateway accepted"),
    Book.DATABASE: ("our database", "payments"),
    Book.PROVIDER: ("provider", "charges"),
    Book.MERCHANTS: ("merchants", "payment.captured received"),
}
_SHOWN = 20


def print_tables(console: Console, report: Report) -> None:
    table = Table("book", "what it counts", box=box.SIMPLE_HEAD)
    for column in ("entries", *Fault):
        table.add_column(str(column), justify="right")
    for book, (name, what) in _BOOKS.items():
        counts = report.counts(book)
        wrong = "red" if any(counts.values()) else "green"
        table.add_row(name, what, str(report.entries[book]), *(str(counts[fault]) for fault in Fault), style=wrong)
    console.print(table)
    for finding in report.findings[:_SHOWN]:
        console.print(f"{finding.fault} by the {finding.book}: {finding.about}: {finding.text}", style="red")
    if len(report.findings) > _SHOWN:
        console.print(f"and {len(report.findings) - _SHOWN} more; --json lists all of them", style="red")
    document = report.document()
    by_role = Counter(kill.role for kill in report.kills)
    killed = ", ".join(f"{role} {by_role[role]}" for role in KILLABLE if by_role[role])
    console.print(f"killed     {len(report.kills)} times: {killed}" if killed else "killed     nobody")
    if times := document["back_s"]:
        console.print(f"back       after {times['median']} s (median), {times['longest']} s (longest)")
    if times := document["glance_to_paid_s"]:
        console.print(f"paid       {times['median']} s after the glance (median), {times['longest']} s (longest)")
    rate = f"{document['payments_per_s']} payments/s"
    console.print(f"took       {document['total_s']} s in all, {document['paying_s']} s of it paying: {rate}")
    console.print(f"seed       {report.plan.seed}")
    for note in report.notes:
        console.print(f"note       {note}")
    if report.ok:
        console.print("\nAll four books agree: nothing lost, nothing doubled, nothing unknown.", style="bold green")
    else:
        console.print(
            "\nThe books do not agree." if report.findings else "\nNot all kills could be carried out.", style="bold red"
        )
