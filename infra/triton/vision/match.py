"""Which products of a catalogue a frame shows, from one picture of each.

1. Every point of the frame is compared with every point of every picture (one matrix product for each), and votes for the
   pictures it is like, by how much more it is like them than like most of the catalogue (local naive Bayes: McCann and Lowe,
   2012). Points in the middle of the frame weigh more: the wearer looks at the product.
2. For the pictures with the most votes it is asked where they lie in the frame (`geometry`).
3. There they are compared as pictures: patterns and colours, block by block (`appearance`).
4. What was found out is weighed (`parameters`). The score is the logarithm of how many times likelier it is that the frame shows
   this product than that it shows none of the catalogue, as far as this product alone can tell.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from . import appearance, geometry
from .features import DESCRIPTOR_LENGTH, Features, centrality
from .options import Deadline
from .parameters import PARAMETERS
from .snapshots import Snapshot

EXHAUSTIVE_UP_TO = 200
"""Entries of a snapshot. Above, a first stage chooses which are compared."""
SHORTLIST = 60
VERIFIED = 10
"""Pictures whose place is looked for, most votes first."""
POINTS_IN_MANY = 600
"""Points of a frame, the most central ones, that are compared with a large catalogue. There, what lies around the product is
likelier to be like something else: fewer points tell more, and cost less."""

_SAMPLE = 31
"""Pictures of the catalogue by which it is known what any package is like."""
_RANK_IN_SAMPLE = 8
_USUAL_LIKENESS = 0.86
"""Stands in for what a catalogue of fewer than `_SAMPLE` pictures lacks: the mean likeness at that rank, measured."""
_LEAST_LIKENESS = 0.7
_SLACK = 0.02
_MOST_PAIRS = 150
_CELLS = 6
_DIRECTIONS = 64

Floats = NDArray[np.float32]
Comparison = tuple[Floats, NDArray[np.int64], NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Reference:
    """One catalogue picture, made ready. `descriptors` is float32 [N, 64]: of unit length, in its catalogue's basis."""

    product_id: str
    features: Features
    descriptors: Floats

    @classmethod
    def of(cls, product_id: str, features: Features, basis: Floats) -> "Reference":
        return cls(product_id, features, unit(features.descriptors) @ basis)

    @cached_property
    def look(self) -> appearance.Look:
        """Made when it is first needed: of a shortlist, most are not looked for."""
        return appearance.Look.of(self.features.colour)

    @property
    def side(self) -> int:
        return max(self.features.size)


def basis(features: Iterable[Features]) -> Floats:
    """float32 [128, 64]: the directions that most of a catalogue's descriptors lie in. There, dot products with them are nearly
    what they are in all 128, and take half the time."""
    products = np.zeros((DESCRIPTOR_LENGTH, DESCRIPTOR_LENGTH))
    for each in features:
        descriptors = unit(each.descriptors)
        products += descriptors.T @ descriptors
    return np.ascontiguousarray(np.linalg.eigh(products)[1][:, : -_DIRECTIONS - 1 : -1], np.float32)


@dataclass(frozen=True)
class Evidence:
    """What speaks for one picture: `votes`, a logarithm, and `colours`, of 1, of the whole frame. The rest is 0 where the picture
    was not found in it.

    cover: logarithm of how many of the picture's squares have points that agree (a sixth of its longer side each way). share: of
    the pairs that agree; dense: of the picture's points. off_centre: distance of the product's middle from the frame's.
    block_patterns, block_colours, hue_off, worst_hue_off: see `appearance.Likeness`.
    """

    votes: float = 0.0
    colours: float = 0.0
    cover: float = 0.0
    share: float = 0.0
    dense: float = 0.0
    off_centre: float = 0.0
    block_patterns: float = 0.0
    block_colours: float = 0.0
    hue_off: float = 0.0
    worst_hue_off: float = 0.0


@dataclass(frozen=True, eq=False)
class Found:
    """`outline` [4, 2] and `points` [N, 2] in pixels of the frame as it was looked at; the outline clockwise from the picture's
    own top left. None where the picture was not found in any place."""

    reference: Reference
    evidence: Evidence
    outline: NDArray[np.float64] | None
    points: Floats

    @property
    def score(self) -> float:
        return score(self.evidence, PARAMETERS.weights, PARAMETERS.intercept)


def score(evidence: Evidence, weights: Mapping[str, float], intercept: float) -> float:
    return intercept + math.fsum(weight * getattr(evidence, name) for name, weight in weights.items())


def unit(descriptors: NDArray[np.uint8]) -> Floats:
    """float32, of unit length."""
    floats = descriptors.astype(np.float32)
    floats /= np.sqrt(np.maximum(np.einsum("ij,ij->i", floats, floats), 1))[:, None]
    return floats


class Catalogue:
    """References of a snapshot; made when they are first needed, and all of them kept where the snapshot is small. Raises
    SnapshotRefused where its features are none."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        size = len(snapshot)
        self.sample = tuple(dict.fromkeys(number * size // _SAMPLE for number in range(_SAMPLE))) if size else ()
        self.basis = basis(snapshot.features(index) for index in self.sample)
        self._keep = frozenset(range(size) if self.exhaustive else self.sample)
        self._kept: dict[int, Reference] = {}

    @property
    def exhaustive(self) -> bool:
        return len(self.snapshot) <= EXHAUSTIVE_UP_TO

    def reference(self, index: int) -> Reference:
        reference = self._kept.get(index)
        if reference is None:
            reference = Reference.of(self.snapshot.entries[index].product_id, self.snapshot.features(index), self.basis)
            if index in self._keep:
                self._kept[index] = reference
        return reference


def search(frame: Features, catalogue: Catalogue, chosen: Iterable[int] | None, deadline: Deadline) -> list[Found]:
    """Best first, one for each product that was looked for in the frame. `chosen` are the entries to compare, by default all;
    where time runs out, the rest of them is not looked for."""
    if not catalogue.exhaustive:
        frame = _central(frame)
    indexes = list(range(len(catalogue.snapshot))) if chosen is None else list(dict.fromkeys(chosen))
    asked = len(indexes)
    indexes += sorted(set(catalogue.sample).difference(indexes))
    references = [catalogue.reference(index) for index in indexes]
    positions = {index: position for position, index in enumerate(indexes)}
    in_sample = [positions[index] for index in catalogue.sample]
    found = look(frame, references, compare(frame, references, catalogue.basis), asked, in_sample, deadline)
    best: dict[str, Found] = {}
    for one in sorted(found, key=lambda one: -one.score):
        best.setdefault(one.reference.product_id, one)
    return list(best.values())


def look(
    frame: Features,
    references: Sequence[Reference],
    comparison: Comparison,
    asked: int,
    in_sample: Sequence[int],
    deadline: Deadline,
) -> list[Found]:
    """In no order: what was found out about those of the first `asked` references that have the most votes. `in_sample` are the
    references by which it is known what any package is like."""
    if not len(frame.points) or not asked:
        return []
    likest, which, mutual = comparison
    usual = _usual(likest[in_sample], [references[position].product_id for position in in_sample])
    votes = np.maximum(0, 2 * (likest - usual)) * mutual
    centre = centrality(frame)
    sums = votes[:asked] @ centre
    colours = appearance.colours_of_centre(frame.colour)
    lab = frame.colour.astype(np.float32)
    found: list[Found] = []
    for position in np.argsort(-sums, kind="stable")[:VERIFIED]:
        if found and deadline.passed():
            break
        pairs = np.flatnonzero(mutual[position] & (likest[position] > np.maximum(usual - _SLACK, _LEAST_LIKENESS)))
        pairs = pairs[np.argsort((usual - likest[position])[pairs], kind="stable")[:_MOST_PAIRS]]
        reference = references[position]
        known = {"votes": math.log1p(5 * float(sums[position])), "colours": float(colours @ reference.look.colours)}
        weights = (np.maximum(0, 2 * (likest[position] - usual)) + 0.01)[pairs] * (centre[pairs] + 0.1)
        there = reference.features.points[which[position][pairs]]
        alignment = geometry.align(there, frame.points[pairs], weights, reference.side)
        if alignment is None:
            found.append(Found(reference, Evidence(**known), None, np.zeros((0, 2), np.float32)))
            continue
        inside = pairs[alignment.inliers]
        width, height = reference.features.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height], [width / 2, height / 2]], np.float64)
        *outline, middle = geometry.moved(alignment.homography, corners)
        alike = appearance.likeness(lab, reference.look, alignment.homography, reference.side)
        cells = np.unique((there[alignment.inliers, :2] / reference.side * _CELLS).astype(np.int64), axis=0)
        evidence = Evidence(
            **known,
            cover=math.log1p(len(cells)),
            share=float(alignment.inliers.mean()),
            dense=len(inside) / max(1, len(reference.features.points)),
            off_centre=min(1.0, float(np.hypot(middle[0] / frame.size[0] - 0.5, middle[1] / frame.size[1] - 0.5))),
            block_patterns=alike.patterns,
            block_colours=alike.colours,
            hue_off=alike.hue_off,
            worst_hue_off=alike.worst_hue_off,
        )
        found.append(Found(reference, evidence, np.array(outline), frame.points[inside, :2]))
    return found


def compare(frame: Features, references: Sequence[Reference], basis: Floats) -> Comparison:
    """For each reference and each of the frame's points, [references, points]: how like it is the likest point there (cosine),
    which one that is, and whether that one is itself like no other of the frame's more."""
    descriptors = unit(frame.descriptors) @ basis
    shape = (len(references), len(descriptors))
    likest, which, mutual = np.zeros(shape, np.float32), np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    rows = np.arange(len(descriptors))
    # One piece of memory for all: it stays in the processor's own.
    products = np.empty(len(descriptors) * max((len(each.descriptors) for each in references), default=0), np.float32)
    for position, reference in enumerate(references):
        if not len(reference.descriptors) or not len(descriptors):
            continue
        alike = products[: len(descriptors) * len(reference.descriptors)].reshape(len(descriptors), -1)
        np.matmul(descriptors, reference.descriptors.T, out=alike)
        which[position] = alike.argmax(axis=1)
        likest[position] = alike[rows, which[position]]
        mutual[position] = alike.max(axis=0)[which[position]] == likest[position]
    return likest, which, mutual


def _usual(likest: Floats, products: Sequence[str]) -> Floats:
    """How like each of the frame's points is to what any package has. Pictures of one product count once."""
    order = {product: number for number, product in enumerate(dict.fromkeys(products))}
    by_product = np.full((max(len(order), _SAMPLE), likest.shape[1]), _USUAL_LIKENESS, np.float32)
    by_product[: len(order)] = 0
    for row, product in zip(likest, products, strict=True):
        np.maximum(by_product[order[product]], row, out=by_product[order[product]])
    return np.asarray(np.partition(by_product, -_RANK_IN_SAMPLE, axis=0)[-_RANK_IN_SAMPLE])


def _central(frame: Features) -> Features:
    """With the points in the middle only, in the order they had."""
    if len(frame.points) <= POINTS_IN_MANY:
        return frame
    kept = np.sort(np.argsort(-centrality(frame), kind="stable")[:POINTS_IN_MANY])
    return replace(frame, points=frame.points[kept], descriptors=frame.descriptors[kept])
