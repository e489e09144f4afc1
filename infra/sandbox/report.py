"""The demo's result: a table a person likes to read, or one JSON document."""

from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.sandbox.demo import Demonstration, Told
from streams.console.service import Hop

_BAR = 28  # characters
_NEXT = (
    ("augenblick demo --keep", "the same, and everything stays up: open the links, Ctrl-C ends it"),
    ("augenblick drill --payments 50 --kills 5", "kill processes while money moves, then count to the cent"),
    ("augenblick up", "the platform for your own glasses; `augenblick status`, `augenblick down`"),
    ("docs/makers.md · docs/merchants.md · docs/operators.md", "how to connect, to be told, and to watch"),
)


def document(shown: Demonstration, seconds: float) -> dict[str, Any]:
    """Times in milliseconds; `starts_ms` counts from the journey's first hop."""
    return {
        "seconds": round(seconds, 1),
        "ready_after_s": round(shown.ready_after_s, 1),
        "notes": shown.notes,
        "addresses": shown.addresses,
        "journeys": [_journey(told) for told in shown.told],
    }


def _journey(told: Told) -> dict[str, Any]:
    journey, records = told.journey, told.records
    return {
        "session": told.replayed.session.name,
        "title": told.replayed.session.title,
        "journey_id": journey.id,
        "ended": told.replayed.ended,
        "told": told.replayed.told,
        "refused": told.replayed.refused,
        "frames_too_late": told.replayed.too_late,
        "charges_in_the_providers_books": told.charges,
        "glance_to_answer_ms": _rounded(journey.glance_to_answer_ms),
        "glance_to_paid_ms": _rounded(journey.glance_to_paid_ms),
        "trace": told.trace,
        "payments": [
            {"payment_id": one.id, "state": one.state, "total": str(one.total), "reference": one.provider_reference}
            for one in records.payments
        ],
        "webhooks": [
            {"id": line["id"], "type": line["type"], "sequence": line["sequence"], "verified": not line["refused"]}
            for line in told.webhooks
        ],
        "receipt": {"entries": [entry.kind for entry in records.receipt.entries], "problems": list(records.receipt.problems)},
        "hops": [
            {
                "name": hop.name,
                "role": hop.role,
                "starts_ms": _starts(told, hop),
                "ms": _rounded(hop.duration_ms),
                "failed": hop.failed,
            }
            for hop in journey.hops
        ],
    }


def print_table(console: Console, shown: Demonstration, seconds: float) -> None:
    for told in shown.told:
        console.print(_panel(told))
    summary = Table("journey", "what the wearer was told last", "glance to answer", "glance to paid", box=box.SIMPLE_HEAD)
    for told in shown.told:
        paid = told.journey.glance_to_paid_ms
        summary.add_row(
            told.replayed.session.name,
            told.replayed.told[-1],
            _milliseconds(told.journey.glance_to_answer_ms),
            _milliseconds(paid) if paid is not None else "nothing was charged",
        )
    console.print(summary)
    for note in shown.notes:
        console.print(f"Note: {note}", style="yellow")
    if any(told.trace for told in shown.told):
        console.print("The traces' links answer while the demo is kept up: augenblick demo --keep.")
    console.print(f"Everything was ready after {shown.ready_after_s:.1f} s; the whole demo took {seconds:.1f} s.\n")
    next_steps = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for command, meaning in _NEXT:
        next_steps.add_row(Text(command, style="bold"), meaning)
    console.print("What to try next", style="bold")
    console.print(next_steps)


def _panel(told: Told) -> Panel:
    wearer = told.replayed.session.wearer
    lines: list[Any] = [Text(f"the wearer is told: {words}", style="italic") for words in told.replayed.told]
    if told.replayed.too_late:
        late = f"{told.replayed.too_late} frames before that were not answered within their deadline"
        lines.append(Text(late, style="yellow"))
    lines += [Text(f"refused: {words}", style="italic yellow") for words in told.replayed.refused]
    lines.append(_hops(told))
    if told.records.payments:
        payment = told.records.payments[-1]
        lines.append(Text(f"payment   {payment.total} {payment.state} at {payment.provider}, {payment.provider_reference}"))
    charges = {0: "nothing was charged", 1: "charged once"}.get(told.charges, f"CHARGED {told.charges} TIMES")
    lines.append(Text(f"books     the provider's own: {charges}"))
    for line in told.webhooks:
        verdict = "refused" if line["refused"] else "signature verified"
        lines.append(Text(f"webhook   {line['type']}, number {line['sequence']} of its order, {verdict} by the merchant"))
    receipt = told.records.receipt
    if receipt.entries:
        holds = "the chain holds" if not receipt.problems else "; ".join(receipt.problems)
        lines.append(Text(f"receipt   {' → '.join(entry.kind for entry in receipt.entries)}: {holds}"))
    if told.trace:
        lines.append(Text(f"trace     {told.trace}", style="blue"))
    times = f"glance to answer {_milliseconds(told.journey.glance_to_answer_ms)}"
    if told.journey.glance_to_paid_ms is not None:
        times += f" · glance to paid {_milliseconds(told.journey.glance_to_paid_ms)}"
    title = f"[bold]{told.replayed.session.title}[/] ({wearer.locale}, {wearer.currency})"
    return Panel(Group(*lines), title=title, title_align="left", subtitle=times, subtitle_align="right", box=box.ROUNDED)


def _hops(told: Told) -> Table:
    table = Table("hop", "role", "starts", "took", "", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in (2, 3):
        table.columns[column].justify = "right"
    whole = max((_starts(told, hop) + hop.duration_ms for hop in told.journey.hops), default=1.0)
    for hop in told.journey.hops:
        left = int(_starts(told, hop) / whole * (_BAR - 1))
        width = max(1, round(hop.duration_ms / whole * _BAR))
        table.add_row(
            hop.name,
            hop.role,
            _milliseconds(_starts(told, hop)),
            _milliseconds(hop.duration_ms),
            Text(" " * left + "█" * min(width, _BAR - left), style="red" if hop.failed else "cyan"),
        )
    return table


def _starts(told: Told, hop: Hop) -> float:
    first = min(each.started_at for each in told.journey.hops)
    return round((hop.started_at - first).total_seconds() * 1000, 1)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} ms"
