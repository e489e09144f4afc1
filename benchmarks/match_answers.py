"""From `match`'s scores of photographs to what the product says of them: by its calibration and its policy, fitted on other
photographs."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.ids import EventId, MerchantId
from schemas.recognition import Candidate, Intent, Recognition, Undecided
from streams.evaluation import calibration, measures
from streams.evaluation.calibration import Answer
from streams.evaluation.measures import Decision, Outcome
from streams.sightings import service, thresholds
from streams.sightings.service import Frame, Match, Seen
from streams.sightings.thresholds import Thresholds

COVERAGE, PRECISION, UNKNOWN = 0.70, 0.95, 0.98
COLUMNS = (
    "R@1",
    "R@5",
    f"precision at {COVERAGE:.0%}",
    f"coverage at {PRECISION:.0%}",
    f"unknown at {COVERAGE:.0%}",
)
DECIDED = ("acted on", "right of these", "asked about", "offered of these", "left out: acted on", "asked about")

_CANDIDATES = 5  # as many as the stage asks for
_FRAME = Frame(EventId.new(), "0" * 64, Intent.IDENTIFY)
_SHOP = MerchantId.new()

Floats = NDArray[np.float64]


def answers_of(
    files: Sequence[str],
    products: Sequence[str],
    shown: NDArray[np.int64],
    scores: Floats,
    left_out: Floats,
    *,
    scorer: str = "",
) -> list[Answer]:
    """Each photograph twice: `scores` [N, P] are those with its product in the catalogue, `left_out` [N, P] those without;
    -infinity for what was not looked for."""

    def answer(file: str, product: str | None, group: str, own: Floats) -> Answer:
        best = [index for index in np.argsort(-own, kind="stable")[:_CANDIDATES] if np.isfinite(own[index])]
        return Answer(file, product, tuple((products[index], float(own[index])) for index in best), group, scorer)

    groups = [products[index] for index in shown]
    return [
        *(answer(file, group, group, own) for file, group, own in zip(files, groups, scores, strict=True)),
        *(answer(file, None, group, own) for file, group, own in zip(files, groups, left_out, strict=True)),
    ]


def told(held: Sequence[tuple[Sequence[Answer], Sequence[Answer]]], *, offsets: bool = False) -> list[Outcome]:
    """What is said of the second of each pair, by a calibration that was fitted on the first, where so few are acted on that of
    those without their product UNKNOWN are not."""
    fitted = [calibration.fit(others, offsets=offsets) for others, _ in held]
    nothing = [
        answer.confidence(each)
        for each, (_, answers) in zip(fitted, held, strict=True)
        for answer in answers
        if not answer.product
    ]
    act = float(np.nextafter(np.quantile(nothing, UNKNOWN), 1))
    base = thresholds.shipped()
    outcomes = []
    for each, (others, answers) in zip(fitted, held, strict=True):
        outcomes += decided(answers, calibration.acting_from(act, base, others[0].matcher, each, others))
    return outcomes


def decided(answers: Iterable[Answer], limits: Thresholds) -> list[Outcome]:
    """By the stage's own policy, where no code is in view."""
    return [_decided(answer, limits) for answer in answers]


def _decided(answer: Answer, limits: Thresholds) -> Outcome:
    matches = tuple(Match(_SHOP, product, product, "en", 1, score, limits) for product, score in answer.scores)
    ranked = service.rank(matches, answer.matcher)
    result = service.decide(_FRAME, Seen(matches=matches, matcher=answer.matcher, models=("match",)))
    decision: Decision = "look_again"
    choices: list[Candidate] = []
    if isinstance(result, Recognition):
        decision = "act"
    elif isinstance(result, Undecided):
        decision = "ask"
        choices = [choice.candidate for choice in result.choices if choice.candidate]
    return Outcome(
        file=answer.file,
        product=answer.product,
        ranked=tuple(one.candidate.product_id for one in ranked),
        confidence=ranked[0].candidate.confidence if ranked else 0.0,
        decision=decision,
        choices=tuple(one.product_id for one in choices),
        ms=0.0,
    )


def row(outcomes: Sequence[Outcome]) -> list[str]:
    """Under COLUMNS."""
    known, left_out = _split(outcomes)
    found = measures.report(known)
    at = measures.at_coverage(known, COVERAGE)
    covered = max((point.coverage for point in measures.precision_coverage(known) if point.precision >= PRECISION), default=0.0)
    unknown = [outcome.confidence < at.confidence for outcome in left_out]
    return [
        f"{found.recall_at_1.rate:.3f}",
        f"{found.recall_at_5.rate:.3f}",
        f"{at.precision:.3f}",
        f"{covered:.2f}",
        f"{np.mean(unknown):.3f}",
    ]


def decided_row(outcomes: Sequence[Outcome]) -> list[str]:
    """Under DECIDED."""
    known, left_out = _split(outcomes)
    found, nothing = measures.report(known), measures.report(left_out)

    def share(report: measures.Report, decision: Decision) -> str:
        return f"{report.decisions.get(decision, 0) / report.pictures:.2f}"

    def right(share: measures.Share) -> str:
        return "-" if share.rate is None else f"{share.rate:.3f}"

    return [
        share(found, "act"),
        right(found.acted),
        share(found, "ask"),
        right(found.asked),
        f"{nothing.decisions.get('act', 0) / nothing.pictures:.3f}",
        share(nothing, "ask"),
    ]


def _split(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """With the product in the catalogue, and without."""
    return [each for each in outcomes if each.product], [each for each in outcomes if not each.product]
