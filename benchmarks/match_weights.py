"""Fits the weights that make `match`'s score of a candidate's evidence (infra/triton/vision/matcher.json), and answers with them.

The model is a multinomial logit with one choice more: none. Each photograph is a case twice, once with its product in the
catalogue and once without (`none` is right then), so that a score compares a product both with the others and with nothing.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from infra.triton.vision.match import Evidence, Found

NAMES = tuple(field.name for field in fields(Evidence))
FOLDS = 5
_PRIOR = 10.0  # one over the variance that the weights are taken to have, in units of one deviation of their evidence
_WEIGHT_OF_NONE = 0.5
_ROUNDS = 50

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """In the order of `NAMES`, then the intercept."""

    values: Floats

    def as_json(self) -> dict[str, object]:
        *weights, intercept = (round(float(value), 3) for value in self.values)
        return {"weights": dict(zip(NAMES, weights, strict=True)), "intercept": intercept}


@dataclass(frozen=True, eq=False)
class Cases:
    """`evidence` is [C, P, K], NaN for products that were not looked for. `shown` [C] is the product on the photograph, in the
    catalogue or not; `right` [C] is the same, or P where none is right."""

    evidence: Floats
    shown: NDArray[np.int64]
    right: NDArray[np.int64]

    @classmethod
    def of(cls, looks: Sequence[tuple[int, Sequence[tuple[int, Evidence]], bool]], products: int) -> "Cases":
        """Each look: the product shown, what was found out about which products, whether the one shown was in the catalogue."""
        evidence = np.full((len(looks), products, len(NAMES)), np.nan)
        for row, (_, found, _) in enumerate(looks):
            for product, one in found:
                evidence[row, product] = astuple(one)
        shown = np.array([look[0] for look in looks], np.int64)
        listed = np.array([look[2] for look in looks])
        looked_for = ~np.isnan(evidence[np.arange(len(looks)), shown, 0])
        return cls(evidence, shown, np.where(listed & looked_for, shown, products))

    def of_products(self, products: NDArray[np.int64]) -> "Cases":
        chosen = np.isin(self.shown, products)
        return Cases(self.evidence[chosen], self.shown[chosen], self.right[chosen])

    def scores(self, weights: Weights) -> Floats:
        """[C, P], -infinity where a product was not looked for."""
        scores = np.nan_to_num(self.evidence) @ weights.values[:-1] + weights.values[-1]
        return np.where(np.isnan(self.evidence[..., 0]), -np.inf, scores)


def evidence_of(found: Sequence[Found], number: dict[str, int]) -> list[tuple[int, Evidence]]:
    return [(number[one.reference.product_id], one.evidence) for one in found]


def fit(cases: Cases) -> Weights:
    """The likeliest, by Newton's method with halved steps."""
    missing = np.isnan(cases.evidence[..., 0])
    known = np.nan_to_num(cases.evidence)
    deviation = known[~missing].std(axis=0) + 1e-6
    count, products, kinds = known.shape
    design = np.concatenate([known / deviation, np.ones((count, products, 1))], axis=2) * ~missing[..., None]
    importance = np.where(cases.right == products, _WEIGHT_OF_NONE, 1.0)
    prior = np.append(np.full(kinds, _PRIOR), 1e-6)
    observed = np.zeros((count, kinds + 1))
    listed = np.flatnonzero(cases.right < products)
    observed[listed] = design[listed, cases.right[listed]]

    def likelihood(weights: Floats) -> tuple[float, Floats]:
        """With its sign changed; and how probable each product is."""
        scores = np.where(missing, -np.inf, design @ weights)
        odds = np.exp(np.concatenate([scores, np.zeros((count, 1))], axis=1))
        share = odds / odds.sum(axis=1, keepdims=True)
        lost = -(np.log(share[np.arange(count), cases.right]) * importance).sum()
        return float(lost + (prior * weights**2).sum() / 2), share[:, :products]

    weights = np.zeros(kinds + 1)
    lost, share = likelihood(weights)
    for _ in range(_ROUNDS):
        expected = np.einsum("cp,cpk->ck", share, design)
        slope = ((observed - expected) * importance[:, None]).sum(axis=0) - prior * weights
        spread = np.einsum("cp,cpi,cpj->ij", share * importance[:, None], design, design, optimize=True)
        step = np.linalg.solve(spread - (expected * importance[:, None]).T @ expected + np.diag(prior), slope)
        while (better := likelihood(weights + step))[0] > lost and np.abs(step).max() > 1e-9:
            step /= 2
        gained, weights = lost - better[0], weights + step
        lost, share = better
        if gained < 1e-6:
            break
    return Weights(np.append(weights[:-1] / deviation, weights[-1]))


def cross_validated(cases: Cases) -> Floats:
    """Scores [C, P]: each product's photographs by weights that no photograph of that product took part in."""
    fold = cases.shown % FOLDS
    scores = np.empty(cases.evidence.shape[:2])
    for number in range(FOLDS):
        others = cases.of_products(np.unique(cases.shown[fold != number]))
        scores[fold == number] = cases.scores(fit(others))[fold == number]
    return scores
