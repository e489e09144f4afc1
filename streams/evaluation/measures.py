"""How well a catalogue's products are recognised: recall, precision at coverage, how often "none of them" is said rightly. Plain
arithmetic on what was answered, without the pictures."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Decision = Literal["act", "ask", "look_again"]

SURE = 0.95
"""How sure a stated bound is, one-sided: of a hundred bounds stated, about five are not kept."""

COVERAGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was answered to one picture. `product` is the one that it shows, None where it shows none of the catalogue. `ranked`
    are the products it may be, best first, and `confidence` is that of the first (0 where there is none). `choices` are those
    that the wearer was asked to choose from, where that was decided."""

    file: str
    product: str | None
    ranked: tuple[str, ...]
    confidence: float
    decision: Decision
    ms: float
    choices: tuple[str, ...] = ()

    @property
    def first(self) -> str | None:
        return self.ranked[0] if self.ranked else None

    @property
    def is_error(self) -> bool:
        """The first is another product than the picture shows, or the picture shows none and one was acted on."""
        return self.first != self.product if self.product else self.decision == "act"


@dataclass(frozen=True, slots=True)
class Point:
    """The surest `coverage` of the pictures: of those of `confidence` or above, `pictures` in all, so many are `right`."""

    coverage: float
    confidence: float
    pictures: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.pictures

    @property
    def at_least(self) -> float:
        return lower_bound(self.right, self.pictures)


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `of`, and the rate that is at least (`SURE`) behind it."""

    hits: int
    of: int

    @property
    def rate(self) -> float | None:
        return self.hits / self.of if self.of else None

    @property
    def at_least(self) -> float:
        return lower_bound(self.hits, self.of)

    def document(self) -> dict[str, object]:
        return {"hits": self.hits, "of": self.of, "rate": _rounded(self.rate), "at_least": _rounded(self.at_least)}

    def __str__(self) -> str:
        return f"{self.rate:.3f} ({self.hits} of {self.of})" if self.rate is not None else "not measured"


@dataclass(frozen=True)
class Report:
    """`recall_at_1` and `recall_at_5` are of the pictures that show a product of the catalogue. `unknown` is of those that show
    none, and counts those on which nothing was acted. `acted` counts the right ones among all that were acted on, whatever they
    show; `asked` those whose product was among the choices. `ms` are percentiles of the time from picture to decision."""

    pictures: int
    recall_at_1: Share
    recall_at_5: Share
    unknown: Share
    acted: Share
    asked: Share
    decisions: dict[str, int]
    curve: tuple[Point, ...]
    ms_p50: float | None
    ms_p95: float | None

    def document(self) -> dict[str, object]:
        return {
            "pictures": self.pictures,
            "recall_at_1": self.recall_at_1.document(),
            "recall_at_5": self.recall_at_5.document(),
            "unknown": self.unknown.document(),
            "acted": self.acted.document(),
            "asked": self.asked.document(),
            "decisions": self.decisions,
            "precision_at_coverage": [
                {
                    "coverage": _rounded(point.coverage),
                    "confidence": _rounded(point.confidence),
                    "pictures": point.pictures,
                    "precision": _rounded(point.precision),
                    "at_least": _rounded(point.at_least),
                }
                for point in self.curve
            ],
            "ms": {"p50": self.ms_p50, "p95": self.ms_p95},
        }


def report(outcomes: Sequence[Outcome]) -> Report:
    known = [outcome for outcome in outcomes if outcome.product]
    empty = [outcome for outcome in outcomes if not outcome.product]
    acted = [outcome for outcome in outcomes if outcome.decision == "act"]
    asked = [outcome for outcome in outcomes if outcome.decision == "ask"]
    times = sorted(outcome.ms for outcome in outcomes)
    return Report(
        pictures=len(outcomes),
        recall_at_1=_share(outcome.product == outcome.first for outcome in known),
        recall_at_5=_share(outcome.product in outcome.ranked[:5] for outcome in known),
        unknown=_share(outcome.decision != "act" for outcome in empty),
        acted=_share(outcome.product is not None and outcome.product == outcome.first for outcome in acted),
        asked=_share(outcome.product in outcome.choices for outcome in asked),
        decisions=dict(Counter(outcome.decision for outcome in outcomes)),
        # Of few pictures several coverages are the same one.
        curve=tuple(dict.fromkeys(at_coverage(known, coverage) for coverage in COVERAGES)) if known else (),
        ms_p50=percentile(times, 50),
        ms_p95=percentile(times, 95),
    )


def precision_coverage(outcomes: Iterable[Outcome]) -> list[Point]:
    """The whole curve, from the surest picture to all of them: one point for every confidence that occurs. Pictures of one
    confidence are told apart by nothing, so that none of them comes in without the others."""
    ordered = sorted(outcomes, key=lambda outcome: -outcome.confidence)
    points, right = [], 0
    for number, outcome in enumerate(ordered, 1):
        right += outcome.product is not None and outcome.first == outcome.product
        if number == len(ordered) or ordered[number].confidence != outcome.confidence:
            points.append(Point(number / len(ordered), outcome.confidence, number, right))
    return points


def at_coverage(outcomes: Sequence[Outcome], coverage: float) -> Point:
    """The first point of the curve that covers at least so much. ValueError where there are no outcomes."""
    for point in precision_coverage(outcomes):
        if point.coverage >= coverage - 1e-9:
            return point
    raise ValueError("nothing was measured")


def lower_bound(hits: int, of: int, sure: float = SURE) -> float:
    """The rate that is exceeded with certainty `sure`, after Clopper and Pearson: the one at which as many hits, or more, would
    be seen with probability 1 - `sure` only. 0 where nothing was measured."""
    if not 0 <= hits <= of:
        raise ValueError("there cannot be more hits than tries")
    if hits == 0:
        return 0.0
    if hits == of:
        return float((1 - sure) ** (1 / of))
    low, high = 0.0, hits / of
    while high - low > 1e-7:
        middle = (low + high) / 2
        if _at_least_so_many(hits, of, middle) < 1 - sure:
            low = middle
        else:
            high = middle
    return low


def needed_for(rate: float, sure: float = SURE, *, wrong: int = 0) -> int:
    """How many tries show this rate, of which so many are no hits. 2**31, where it is certainty that is to be shown."""
    if not 0 < rate < 1:
        return 1 if rate <= 0 else 2**31
    most = math.ceil(math.log(1 - sure) / math.log(rate) - 1e-9)
    if not wrong:
        return most
    least, most = wrong, most + wrong
    while lower_bound(most - wrong, most, sure) < rate:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if lower_bound(middle - wrong, middle, sure) >= rate else (middle, most)
    return most


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """Of values in ascending order, between neighbours where it falls between them. None of none."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * percent / 100
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _at_least_so_many(hits: int, of: int, rate: float) -> float:
    """The probability of `hits` or more of `of` at this rate: the shorter tail of the binomial distribution is summed."""
    all_ways = math.lgamma(of + 1)
    on, off = math.log(rate), math.log1p(-rate)

    def tail(numbers: range) -> float:
        return math.fsum(
            math.exp(all_ways - math.lgamma(n + 1) - math.lgamma(of - n + 1) + n * on + (of - n) * off) for n in numbers
        )

    return tail(range(hits, of + 1)) if hits > of / 2 else 1 - tail(range(hits))


def _share(hits: Iterable[bool]) -> Share:
    counted = Counter(hits)
    return Share(counted[True], counted[True] + counted[False])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
