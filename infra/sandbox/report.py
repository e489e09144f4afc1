"""The demo's result: a table a person likes to read, or one JSON document."""

from typing import Any
from zoneinfo import ZoneInfo

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.sandbox import providers
from infra.sandbox.demo import Confirmed, Demonstration, Notification, Told
from streams.console.service import Hop

_BAR = 28  # characters
_NEXT = (
    ("augenblick demo --keep", "the same, and everything stays up: open the links, Ctrl-C ends it; meanwhile, elsewhere:"),
    ("  augenblick payments show {payment}", "all that is known of the payment: commands, notifications, webhooks"),
    ("  augenblick receipts verify {journey}", "that nothing in the journey's record was altered or removed"),
    ("  augenblick reconcile {provider} {day}", "the provider's own list of the day against ours"),
    ("augenblick demo --provider {other}", "the same with another payment provider"),
    ("augenblick drill --payments 50 --kills 5 --faults 0.2", "kill processes while money moves, then count to the cent"),
    ("augenblick up", "the platform for your own glasses; `augenblick status`, `augenblick down`"),
    ("docs/makers.md · docs/merchants.md · docs/operators.md", "how to connect, to be told, and to watch"),
)


def document(shown: Demonstration, seconds: float) -> dict[str, Any]:
    """Times in milliseconds; `starts_ms` counts from the journey's first hop."""
    return {
        "seconds": round(seconds, 1),
        "provider": shown.provider,
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
        "moved_in_the_providers_books": [
            {"kind": line.kind, "reference": line.reference, "amount": str(line.amount)} for line in told.moved
        ],
        "notifications": [
            {"kind": each.kind, "repeated": each.repeated, "processed": each.after is not None} for each in told.notifications
        ],
        "confirmed_on_the_phone": _confirmed(told.confirmed) if told.confirmed else None,
        "glance_to_answer_ms": _rounded(journey.glance_to_answer_ms),
        "glance_to_paid_ms": _rounded(journey.glance_to_paid_ms),
        "trace": told.trace,
        "payments": [
            {
                "payment_id": one.id,
                "provider": one.provider,
                "state": one.state,
                "total": str(one.total),
                "reference": one.provider_reference,
            }
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


def _confirmed(confirmed: Confirmed) -> dict[str, float]:
    """`heard_after_ms`: what the wearer heard of it; `next_question_after_ms`: when the janitor would have asked."""
    return {
        "heard_after_ms": _rounded((confirmed.heard - confirmed.at).total_seconds() * 1000) or 0.0,
        "next_question_after_ms": _rounded((confirmed.next_question - confirmed.at).total_seconds() * 1000) or 0.0,
    }


def print_table(console: Console, shown: Demonstration, seconds: float) -> None:
    console.print(f"Paid with {providers.find(shown.provider).TITLE}.", style="bold")
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
    words = _words(shown)
    for command, meaning in _NEXT:
        next_steps.add_row(Text(command.format(**words), style="bold"), meaning)
    console.print("What to try next", style="bold")
    console.print(next_steps)


def _words(shown: Demonstration) -> dict[str, str]:
    """For the commands to try: of the first journey that was paid."""
    told = next(each for each in shown.told if each.moved)
    return {
        "payment": told.records.payments[-1].id,
        "journey": told.journey.id,
        "provider": shown.provider,
        "day": f"{told.moved[0].occurred_at.astimezone(_zone(shown.provider)):%Y-%m-%d}",
        "other": next(name for name in providers.NAMES if name != shown.provider),
    }


def _zone(provider: str) -> ZoneInfo:
    """Where the provider's days begin."""
    return ZoneInfo("Asia/Shanghai" if providers.find(provider).CURRENCY == "CNY" else "UTC")


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
    if told.confirmed:
        phone = _confirmed(told.confirmed)
        lines.append(
            Text(f"phone     confirmed there; the glasses heard of it {_milliseconds(phone['heard_after_ms'])} later, by the")
        )
        lines.append(
            Text(f"          notification: nobody was to ask the provider for {_milliseconds(phone['next_question_after_ms'])}")
        )
    lines.append(Text(f"books     the provider's own: {_charged(told)}"))
    lines += [Text(f"notified  {_notified(each)}") for each in told.notifications]
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


def _charged(told: Told) -> str:
    if not told.moved:
        return "nothing was charged"
    times = "charged once" if told.charges == 1 else f"CHARGED {told.charges} TIMES"
    return f"{times}, {', '.join(str(line.amount) for line in told.moved)}"


def _notified(each: Notification) -> str:
    looked = "not looked at yet" if each.after is None else f"looked at within {_milliseconds(each.after.total_seconds() * 1000)}"
    return f"of a {each.kind} by the provider, signature verified, {looked}"


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
