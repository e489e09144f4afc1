"""From a matcher's scores to confidences, and to the confidence from which on an answer is acted on: fitted on one half of the
pictures, promised by the other, and both ways round.

The model is a logistic one: the odds that the best candidate is right grow with its score and with its margin over the next
product, and, where enough pictures show it, by a product's own offset. What is promised was not fitted to: the halves share no
picture, and unless products' own offsets are wanted, no product.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from streams.evaluation.measures import SURE, Share, needed_for
from streams.sightings.service import CHOICES_AT_MOST, choices_among
from streams.sightings.thresholds import Calibration, Promise, Thresholds

SplitBy = Literal["product", "picture"]

ENOUGH_OF_A_PRODUCT = 20
"""Pictures on which a product was the best candidate, before it gets an offset of its own."""

ASKING_IS_WORTHWHILE = 0.7
"""Of what is asked, so often the right one is among the choices; also of pictures that show nothing of the catalogue."""
ASKED_IN_VAIN_AT_MOST = 0.1
"""Of pictures that show nothing of the catalogue, so many are asked about. Most of what a wearer looks at is in no catalogue."""

_LEFT_OUT_OF = 20  # right products that could be offered as choices, one is not: it would bring many wrong ones with it
_STEPS = 40  # of the coverage, at which an acting confidence is looked for
_ROUNDS = 50  # of Newton's method; it needs fewer than ten
_PRIOR = 1e-3  # keeps coefficients finite where right and wrong do not overlap at all
_OFFSET_PRIOR = 1.0  # one over the variance that products' offsets are taken to have


@dataclass(frozen=True, slots=True)
class Answer:
    """A matcher's answer to one picture. `product` is what the picture shows, None where that is not in the catalogue; `scores`
    are the best products, each once, best first. `group` is what the picture shows in any case: a picture and the same one
    without its product in the catalogue belong together. `matcher` is whose scores they are."""

    file: str
    product: str | None
    scores: tuple[tuple[str, float], ...]
    group: str
    matcher: str = ""

    @property
    def is_right(self) -> bool:
        return bool(self.scores) and self.scores[0][0] == self.product

    @property
    def margin(self) -> float:
        """Over the next product; over 0, where there is none."""
        return self.scores[0][1] - (self.scores[1][1] if len(self.scores) > 1 else 0.0)

    def confidence(self, calibration: Calibration) -> float:
        """Of the best candidate; 0 where there is none."""
        if not self.scores:
            return 0.0
        product, score = self.scores[0]
        return calibration.confidence(product, score, self.scores[1][1] if len(self.scores) > 1 else None)


@dataclass(frozen=True)
class Shown:
    """What the held half shows of acting from `confidence` on. `right`: of the pictures acted on that show a product of the
    catalogue; `covered`: so many of those there are were acted on; `unknown`: the pictures of none that were not."""

    confidence: float
    right: Share
    covered: Share
    unknown: Share

    def keeps(self, precision: float, unknown: float | None) -> bool:
        """With certainty `SURE`."""
        return self.right.at_least >= precision and (unknown is None or not self.unknown.of or self.unknown.at_least >= unknown)


@dataclass(frozen=True)
class Fitted:
    """A calibration with what other pictures than those it was `fitted_on` show of it."""

    calibration: Calibration
    shown: Shown
    fitted_on: Sequence[Answer]


class TooLittleShown(Exception):
    """The pictures do not show what was to be promised. The message says what they show, and what would be needed."""


def fit(answers: Iterable[Answer], *, offsets: bool = False) -> Calibration:
    """The likeliest coefficients. Neither a higher score nor a greater margin may count against an answer: a coefficient below
    zero is an accident of few pictures, and left out. ValueError where all are right or all wrong."""
    used = [answer for answer in answers if answer.scores]
    right = np.array([answer.is_right for answer in used], dtype=np.float64)
    if not used or right.min() == right.max():
        raise ValueError("it takes right answers and wrong ones to tell them apart")
    measured = np.array([(answer.scores[0][1], answer.margin) for answer in used], dtype=np.float64)
    columns = [0, 1]
    while True:
        weights = _newton(measured[:, columns], right)
        negative = [column for column, weight in zip(columns, weights[1:], strict=True) if weight < 0]
        if not negative:
            break
        columns = [column for column in columns if column not in negative]
    by_column = dict(zip(columns, (float(weight) for weight in weights[1:]), strict=True))
    general = Calibration(
        intercept=_readable(weights[0]), score=_readable(by_column.get(0, 0.0)), margin=_readable(by_column.get(1, 0.0))
    )
    return general.model_copy(update={"offsets": _offsets(general, used)}) if offsets else general


def halves(answers: Sequence[Answer], by: SplitBy) -> tuple[list[Answer], list[Answer]]:
    """The same halves whenever it is asked: no picture in both, and by "product" no product either. Of about the same size."""
    together: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        together[answer.group if by == "product" else answer.file].append(answer)
    first: list[Answer] = []
    second: list[Answer] = []
    for key in sorted(together, key=lambda key: hashlib.sha256(key.encode()).digest()):
        (first if len(first) <= len(second) else second).extend(together[key])
    return first, second


def shown_by(answers: Iterable[Answer], calibration: Calibration, act: float) -> Shown:
    """What `answers` show of acting from a confidence of `act` on."""
    acted_known = right = known = kept = empty = 0
    for answer in answers:
        acted = answer.confidence(calibration) >= act
        if answer.product is None:
            empty += 1
            kept += not acted
        else:
            known += 1
            acted_known += acted
            right += acted and answer.is_right
    return Shown(act, Share(right, acted_known), Share(acted_known, known), Share(kept, empty))


def acting_confidence(
    fitted_on: Sequence[Answer],
    held: Sequence[Answer],
    calibration: Calibration,
    *,
    precision: float,
    unknown: float | None,
) -> Shown:
    """The lowest confidence to act from that keeps the precision, and the rate of "unknown" where there are pictures of none,
    shown by `held` with certainty `SURE`.

    Many confidences are tried, and the more are tried the likelier one of them looks good by luck. So the order in which they
    are tried is fixed without knowing what of `held` is right: downwards from the highest that the other half keeps and that
    leaves enough of `held` to show it (where there is none, from where the other half is surest), and the first that `held` does
    not show ends the search. Whatever is found then holds with the certainty of a single test. Raises TooLittleShown.
    """
    steps = _steps(fitted_on, calibration)
    on_own = [shown_by(fitted_on, calibration, act) for act in steps]
    if not on_own:
        raise TooLittleShown("No picture of a product of the catalogue was answered at all.")
    surest = max(range(len(on_own)), key=lambda place: (_spare(on_own[place], precision, unknown), place))
    enough = needed_for(precision)
    start = next(
        (
            place
            for place, own in enumerate(on_own)
            if own.keeps(precision, unknown) and shown_by(held, calibration, own.confidence).right.of >= enough
        ),
        surest,
    )
    kept: Shown | None = None
    for act in steps[start:]:
        shown = shown_by(held, calibration, act)
        if not shown.keeps(precision, unknown):
            break
        kept = shown
    if kept is None:
        raise TooLittleShown(_why(shown_by(held, calibration, steps[start]), precision, unknown))
    return kept


def choosing_confidence(answers: Iterable[Answer], calibration: Calibration, act: float) -> float:
    """What a product needs to be one of the choices: so much that where an answer is not acted on, and the right product is among
    the first three, it nearly always is offered."""
    right = sorted(
        confidence
        for answer in answers
        if answer.confidence(calibration) < act
        for product, confidence in _rated(answer, calibration)[:CHOICES_AT_MOST]
        if product == answer.product
    )
    return right[len(right) // _LEFT_OUT_OF] if right else act


def asking_confidence(
    answers: Iterable[Answer], calibration: Calibration, act: float, choice: float, *, worthwhile: float, in_vain: float
) -> float:
    """The lowest confidence to ask from: the product is among the choices of `worthwhile` of what would be asked, and no more
    than `in_vain` of the pictures of none are asked about. `act`, where none is low enough: then nothing is asked."""
    asked = []
    empty = 0
    for answer in answers:
        empty += answer.product is None
        rated = _rated(answer, calibration)
        offered = rated[: choices_among(len(rated), sum(confidence >= choice for _, confidence in rated))]
        if offered and (confidence := answer.confidence(calibration)) < act:
            asked.append((confidence, answer.product in dict(offered), answer.product is None))
    asked.sort(reverse=True)
    found, among, vain = act, 0, 0
    for number, (confidence, is_among, is_vain) in enumerate(asked, 1):
        among += is_among
        vain += is_vain
        is_last_of_its_confidence = number == len(asked) or asked[number][0] < confidence
        if is_last_of_its_confidence and among >= worthwhile * number and vain <= in_vain * empty:
            found = confidence
    return found


def _rated(answer: Answer, calibration: Calibration) -> list[tuple[str, float]]:
    """Each product with its own confidence, as the policy counts it: against the best of the others. Best score first."""
    best, *others = [score for _, score in answer.scores] or [0.0]
    rivals = [others[0] if others else None, *(best for _ in others)]
    return [
        (product, calibration.confidence(product, score, rival))
        for (product, score), rival in zip(answer.scores, rivals, strict=False)
    ]


def acting_from(act: float, base: Thresholds, matcher: str, calibration: Calibration, answers: Sequence[Answer]) -> Thresholds:
    """`base` with another calibration, which acts from a confidence of `act` on, and asks where `answers` show that asking is
    worthwhile. It promises nothing."""
    choice = choosing_confidence(answers, calibration, act)
    ask = asking_confidence(answers, calibration, act, choice, worthwhile=ASKING_IS_WORTHWHILE, in_vain=ASKED_IN_VAIN_AT_MOST)
    return base.model_copy(
        update={
            "matcher": matcher,
            "calibration": calibration,
            "act": act,
            "ask": min(_down(ask), act),
            "choice": min(_down(choice), _down(ask), act),
            "promise": None,
        }
    )


def calibrated(base: Thresholds, matcher: str, fitted: Fitted, *, measured_on: str) -> Thresholds:
    """`base` with what was fitted, and with what is promised of it."""
    shown = fitted.shown
    promise = Promise(
        precision=round(shown.right.rate or 0.0, 4),
        precision_at_least=round(shown.right.at_least, 4),
        level=SURE,
        coverage=round(shown.covered.rate or 0.0, 4),
        unknown=None if shown.unknown.rate is None else round(shown.unknown.rate, 4),
        pictures=shown.covered.of,
        unknown_pictures=shown.unknown.of,
        measured_on=measured_on,
    )
    made = acting_from(shown.confidence, base, matcher, fitted.calibration, fitted.fitted_on)
    return made.model_copy(update={"promise": promise})


def _down(confidence: float) -> float:
    """To four digits, and not above: what had this confidence still has it."""
    return math.floor(confidence * 1e4) / 1e4


def _readable(value: float) -> float:
    """Before anything is measured with it, so that what is written down is what was measured."""
    return float(f"{value:.5g}")


def weaker_half(
    answers: Sequence[Answer], by: SplitBy, *, precision: float, unknown: float | None, offsets: bool = False
) -> Fitted:
    """Fits each half and lets the other show what it is worth; the one that acts on less is the result. Pictures of one product,
    and of its siblings, succeed or fail together, so that one half alone may be an easy one: what is promised has to hold by
    either. Raises TooLittleShown, and ValueError as `fit` does."""
    first, second = halves(answers, by)
    found = []
    for fitting, held in ((first, second), (second, first)):
        calibration = fit(fitting, offsets=offsets)
        shown = acting_confidence(fitting, held, calibration, precision=precision, unknown=unknown)
        found.append(Fitted(calibration, shown, fitting))
    return min(found, key=lambda one: one.shown.covered.rate or 0.0)


def _spare(shown: Shown, precision: float, unknown: float | None) -> float:
    """How far above what is promised the bounds are; below zero where they are not."""
    spare = (shown.right.at_least - precision) / (1 - precision)
    if unknown is None or not shown.unknown.of:
        return spare
    return min(spare, (shown.unknown.at_least - unknown) / (1 - unknown))


def _steps(answers: Sequence[Answer], calibration: Calibration) -> list[float]:
    """Confidences to try, descending: each covers about as many pictures more than the one before."""
    values = sorted(
        (value for answer in answers if answer.product and (value := answer.confidence(calibration)) > 0), reverse=True
    )
    places = {max(0, round(len(values) * step / _STEPS) - 1) for step in range(1, _STEPS + 1)}
    return sorted({_down(values[place]) for place in places}, reverse=True) if values else []


def _why(shown: Shown, precision: float, unknown: float | None) -> str:
    reasons = []
    if shown.right.at_least < precision:
        reasons.append(
            f"A precision of {precision:.3g} cannot be promised: of {shown.right.of} pictures that would be acted on"
            f" {shown.right.hits} are right, which shows {shown.right.at_least:.3f} or more with {SURE:.0%} certainty."
            f" {_needed(shown.right, precision)}"
        )
    if unknown is not None and shown.unknown.of and shown.unknown.at_least < unknown:
        reasons.append(
            f"An unknown rate of {unknown:.3g} cannot be promised: of {shown.unknown.of} pictures of no product of the catalogue"
            f" {shown.unknown.hits} are left alone, which shows {shown.unknown.at_least:.3f} or more with {SURE:.0%} certainty."
            f" {_needed(shown.unknown, unknown)}"
        )
    return "\n".join(reasons)


def _needed(share: Share, rate: float) -> str:
    wrong = share.of - share.hits
    if wrong > (1 - rate) * share.of:
        return f"More pictures do not help as long as so many of them are errors: at most {1 - rate:.3g} of them may be."
    errors = "without an error" if not wrong else f"with no more than {wrong} of them wrong"
    return f"It takes {needed_for(rate, wrong=wrong)} pictures {errors} to show it."


def _newton(measured: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intercept and coefficients of a logistic regression, in the units of `measured`."""
    centre, spread = measured.mean(axis=0), measured.std(axis=0)
    spread[spread == 0] = 1.0
    design = np.column_stack([np.ones(len(measured)), (measured - centre) / spread])
    prior = np.full(design.shape[1], _PRIOR * len(measured))
    prior[0] = 0.0
    weights = np.zeros(design.shape[1])
    weights[0] = math.log(right.mean() / (1 - right.mean()))
    for _ in range(_ROUNDS):
        rate = 1 / (1 + np.exp(-np.clip(design @ weights, -500, 500)))
        curvature = (design * (rate * (1 - rate))[:, None]).T @ design + np.diag(prior)
        step = np.linalg.lstsq(curvature, design.T @ (right - rate) - prior * weights, rcond=None)[0]
        # A step too far, where the curve is flat, would go back and forth for ever.
        weights += step / max(1.0, float(np.abs(step).max()) / 2)
        if np.abs(step).max() < 1e-9:
            break
    slopes = weights[1:] / spread
    return np.concatenate([[weights[0] - float(slopes @ centre)], slopes])


def _offsets(general: Calibration, answers: Iterable[Answer]) -> dict[str, float]:
    """By product, how much its odds differ from the general ones: drawn towards nothing, the more so the fewer its pictures."""
    by_product: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_product[answer.scores[0][0]].append(answer)
    found = {}
    for product, own in sorted(by_product.items()):
        if len(own) < ENOUGH_OF_A_PRODUCT:
            continue
        odds = np.array(
            [general.intercept + general.score * answer.scores[0][1] + general.margin * answer.margin for answer in own]
        )
        right = sum(answer.is_right for answer in own)
        offset = 0.0
        for _ in range(_ROUNDS):
            rate = 1 / (1 + np.exp(-np.clip(odds + offset, -500, 500)))
            step = (right - rate.sum() - _OFFSET_PRIOR * offset) / (float((rate * (1 - rate)).sum()) + _OFFSET_PRIOR)
            offset += float(np.clip(step, -1, 1))
            if abs(step) < 1e-9:
                break
        found[product] = round(offset, 4)
    return found
