"""Metrics by name. The names, units and descriptions are in `names.METRICS`; any other name is refused."""

from functools import cache

from opentelemetry import metrics
from opentelemetry.metrics import Counter, Histogram

from streams.core.telemetry import names


@cache
def histogram(name: str) -> Histogram:
    unit, description = names.METRICS[name]
    return metrics.get_meter("augenblick").create_histogram(name, unit=unit, description=description)


@cache
def counter(name: str) -> Counter:
    unit, description = names.METRICS[name]
    return metrics.get_meter("augenblick").create_counter(name, unit=unit, description=description)


def record(name: str, value: float, **attributes: str) -> None:
    """A duration or size. Attribute names use `__` for a dot: `error__type`."""
    histogram(name).record(value, _dotted(attributes))


def count(name: str, amount: int = 1, **attributes: str) -> None:
    counter(name).add(amount, _dotted(attributes))


def _dotted(attributes: dict[str, str]) -> dict[str, str]:
    return {name.replace("__", "."): value for name, value in attributes.items()}
