"""Percentiles, and a table that holds ours against a peer's."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Latency:
    """In milliseconds."""

    name: str
    samples: Sequence[float]

    def percentile(self, percent: int) -> float:
        return quantiles(self.samples, n=100, method="inclusive")[percent - 1]


def print_latencies(title: str, ours: Latency, peer: Latency) -> None:
    table = Table("", "n", "p50 ms", "p95 ms", "p99 ms", "max ms", title=title)
    for each in (ours, peer):
        figures = [each.percentile(50), each.percentile(95), each.percentile(99), max(each.samples)]
        table.add_row(each.name, str(len(each.samples)), *(f"{figure:.1f}" for figure in figures))
    ratios = [ours.percentile(percent) / peer.percentile(percent) for percent in (50, 95, 99)]
    table.add_row("ratio", "", *(f"{ratio:.2f}" for ratio in ratios), f"{max(ours.samples) / max(peer.samples):.2f}")
    Console().print(table)


def print_rates(title: str, ours: tuple[str, float], *peers: tuple[str, float]) -> None:
    """Events per second; the ratio is ours to each peer's."""
    table = Table("", "events/s", "ours ÷ this", title=title)
    table.add_row(ours[0], f"{ours[1]:,.0f}", "")
    for name, rate in peers:
        table.add_row(name, f"{rate:,.0f}", f"{ours[1] / rate:.2f}")
    Console().print(table)
