"""`match` against 31 products, from one catalogue picture each: `python -m benchmarks.match DATASET [EVERY] [--fit]`.

DATASET has `catalogue/<product>.jpg`, `val/<product>/*.jpg` and `train/<product>/*.jpg`. All photographs of `val` are used, and
every EVERY-th of `train` (1). The peer is what one would write in an afternoon: SIFT, ratio test, homography by RANSAC, most
inliers; it takes its time, so that it is given every twelfth photograph of `train`. Its confidence is its number of inliers, ours
the share of the best product in the sum of all odds.

What weights were fitted on which photographs is told in each row. `--fit` fits them on these photographs of `train` and writes
them to infra/triton/vision/matcher.json.

"Unknown" is leave-one-product-out: each photograph is shown to a catalogue without its product, in which most products have a
sibling that differs in a word and a colour. Times are of one thread; where others use the machine, look at the processor's.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.match_weights import Cases, Floats, Weights, cross_validated, evidence_of, fit
from infra.triton.vision import extract, match
from infra.triton.vision.match import Evidence
from infra.triton.vision.options import Deadline
from infra.triton.vision.parameters import PARAMETERS
from streams.sightings import calibration

PARAMETERS_FILE = Path(match.__file__).parent / "matcher.json"
PEERS_EVERY = 12
PRECISION, COVERAGE, UNKNOWN = 0.95, 0.70, 0.98
BAR_MS = 150
Picture = NDArray[np.uint8]


@dataclass
class Seen:
    """Photographs of one split. `known` and `left_out` are cases of the same photographs, in the same order. In milliseconds."""

    files: list[str]
    known: Cases
    left_out: Cases
    wall_ms: list[float]
    processor_ms: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answers:
    """Scores [N, P] with the product in the catalogue and without; higher confidences are surer."""

    scores: Floats
    left_out: Floats
    shown: NDArray[np.int64]
    confidence: Callable[[Floats], Floats]

    def row(self) -> list[str]:
        count = len(self.shown)
        own = self.scores[np.arange(count), self.shown]
        rank = np.where(np.isinf(own), self.scores.shape[1], (self.scores > own[:, None]).sum(axis=1))
        sure, sure_of_none = self.confidence(self.scores), self.confidence(self.left_out)
        order = np.argsort(-sure, kind="stable")
        precision = np.cumsum(rank[order] == 0) / np.arange(1, count + 1)
        kept = np.flatnonzero(precision >= PRECISION)
        covered = (kept[-1] + 1) / count if len(kept) else 0.0
        at = int(np.ceil(COVERAGE * count)) - 1
        strict = np.quantile(sure_of_none, UNKNOWN)
        acted = sure > strict
        return [
            f"{np.mean(rank == 0):.3f}",
            f"{np.mean(rank < 5):.3f}",
            f"{precision[at]:.3f}",
            f"{covered:.2f}",
            f"{np.mean(sure_of_none < sure[order][at]):.3f}",
            f"{np.mean(acted):.2f}",
            f"{np.mean(rank[acted] == 0):.3f}" if acted.any() else "-",
        ]


def share_of_odds(scores: Floats) -> Floats:
    odds = np.exp(np.minimum(scores, 50))
    return np.asarray(odds.max(axis=1) / (1 + odds.sum(axis=1)))


def read(path: Path) -> Picture:
    picture = cv2.imread(str(path))
    if picture is None:
        raise SystemExit(f"{path} is no picture")
    return np.asarray(picture, np.uint8)


def look_at(photos: Sequence[Path], references: Sequence[match.Reference], basis: match.Floats) -> Seen:
    number = {reference.product_id: index for index, reference in enumerate(references)}
    wall: list[float] = []
    processor: dict[str, list[float]] = {"extraction": [], "comparison": [], "verification": []}
    looks: dict[bool, list[tuple[int, list[tuple[int, Evidence]], bool]]] = {True: [], False: []}
    for path in track(photos, photos[0].parts[-3]):
        picture, shown = read(path), number[path.parts[-2]]
        began, at = perf_counter(), [process_time()]
        frame = extract.of_frame(picture)
        at.append(process_time())
        comparison = match.compare(frame, references, basis)
        at.append(process_time())
        found = match.look(frame, references, comparison, len(references), range(len(references)), Deadline())
        at.append(process_time())
        wall.append((perf_counter() - began) * 1000)
        for times, start, end in zip(processor.values(), at, at[1:], strict=False):
            times.append((end - start) * 1000)
        looks[True].append((shown, evidence_of(found, number), True))
        kept = [index for index in range(len(references)) if index != shown]
        others = [references[index] for index in kept]
        likest, which, mutual = comparison
        without = (likest[kept], which[kept], mutual[kept])
        found = match.look(frame, others, without, len(others), range(len(others)), Deadline())
        looks[False].append((shown, evidence_of(found, number), False))
    known, left_out = (Cases.of(looks[listed], len(references)) for listed in (True, False))
    return Seen([str(path) for path in photos], known, left_out, wall, processor)


def together(seen: Seen) -> Cases:
    columns = (getattr(seen.known, each.name) for each in fields(Cases))
    others = (getattr(seen.left_out, each.name) for each in fields(Cases))
    return Cases(*(np.concatenate(pair) for pair in zip(columns, others, strict=True)))


def answered(seen: Seen, weights: Weights | None) -> Answers:
    """By the weights; by cross-validation over products where there are none."""
    count = len(seen.files)
    scores = cross_validated(together(seen)) if weights is None else together(seen).scores(weights)
    return Answers(scores[:count], scores[count:], seen.known.shown, share_of_odds)


class Peer:
    """SIFT, Lowe's ratio test, a homography by RANSAC: as many points as there are, at the pictures' own sizes."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._sift = cv2.SIFT.create()
        self._matcher = cv2.BFMatcher(cv2.NORM_L2)
        self._known = [self._points(picture) for picture in pictures]

    def inliers(self, picture: Picture) -> list[int]:
        """By product."""
        points, descriptors = self._points(picture)
        return [self._inliers(points, descriptors, *known) for known in self._known]

    def _points(self, picture: Picture) -> tuple[NDArray[np.float32], Any]:
        found, descriptors = self._sift.detectAndCompute(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), None)
        return np.array([point.pt for point in found], np.float32).reshape(-1, 2), descriptors

    def _inliers(self, points: NDArray[np.float32], descriptors: Any, there: NDArray[np.float32], known: Any) -> int:
        if descriptors is None or known is None or len(known) < 2:
            return 0
        pairs = [pair for pair in self._matcher.knnMatch(descriptors, known, k=2) if len(pair) == 2]
        good = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        if len(good) < 4:
            return 0
        here = np.array([points[one.queryIdx] for one in good])
        _, agree = cv2.findHomography(np.array([there[one.trainIdx] for one in good]), here, cv2.RANSAC, 5.0)
        return 0 if agree is None else int(agree.sum())


def peers_answers(photos: Sequence[Path], peer: Peer, products: Sequence[str]) -> tuple[Answers, list[float]]:
    times, rows = [], []
    for path in track(photos, "peer"):
        picture = read(path)
        started = process_time()
        rows.append(peer.inliers(picture))
        times.append((process_time() - started) * 1000)
    shown = np.array([products.index(path.parts[-2]) for path in photos], np.int64)
    scores = np.array(rows, np.float64)
    left_out = scores.copy()
    left_out[np.arange(len(shown)), shown] = -np.inf
    # Of two with as many inliers neither is first: not the peer's luck in the order of the alphabet.
    return Answers(
        scores - np.linspace(0, 1e-6, scores.shape[1]), left_out, shown, lambda each: np.asarray(each.max(axis=1))
    ), times


def by_product(answers: Answers, seen: Seen, products: Sequence[str]) -> str:
    """With confidences calibrated for each product on one half of the photographs (`augenblick catalogue calibrate`), what the
    other half shows; both ways round, together."""

    def answer(file: str, product: str | None, group: str, scores: Floats) -> calibration.Answer:
        best = np.argsort(-scores)[:5]
        ranked = tuple((products[index], float(scores[index])) for index in best if np.isfinite(scores[index]))
        return calibration.Answer(file, product, ranked, group)

    all_answers = []
    for file, shown, scores, left_out in zip(seen.files, answers.shown, answers.scores, answers.left_out, strict=True):
        all_answers.append(answer(file, products[shown], products[shown], scores))
        all_answers.append(answer(file, None, products[shown], left_out))
    known: list[tuple[float, bool]] = []
    unknown: list[float] = []
    for fitting, held in (halves := calibration.halves(all_answers, "picture")), halves[::-1]:
        fitted = calibration.fit(fitting, offsets=True)
        known += [(one.confidence(fitted), one.is_right) for one in held if one.product]
        unknown += [one.confidence(fitted) for one in held if one.product is None]
    strict = np.quantile(unknown, UNKNOWN)
    acted = [right for confidence, right in known if confidence > strict]
    return (
        f"with a calibration by product, at {UNKNOWN:.0%} unknown: {len(acted) / len(known):.2f} acted on, "
        f"{np.mean(acted):.3f} of these right"
    )


def report(console: Console, rows: Sequence[tuple[str, str, Answers]]) -> None:
    table = Table(
        "photographs",
        "n",
        "by",
        "R@1",
        "R@5",
        f"precision at {COVERAGE:.0%}",
        f"coverage at {PRECISION:.0%}",
        f"unknown at {COVERAGE:.0%}",
        f"coverage at {UNKNOWN:.0%} unknown",
        "precision there",
        title=f"{PARAMETERS.matcher}, one catalogue picture for each of {rows[0][2].scores.shape[1]} products",
    )
    for photographs, by, answers in rows:
        table.add_row(photographs, str(len(answers.shown)), by, *answers.row())
    console.print(table)


def report_times(console: Console, seen: Seen, peer_ms: Sequence[float]) -> None:
    table = Table("", "p50 ms", "p95 ms", "÷ bar", title="one frame against 31 products, one thread")
    whole = np.sum(list(seen.processor_ms.values()), axis=0)
    rows = {**seen.processor_ms, "all, of the processor": whole, "all, by the clock": seen.wall_ms, "peer": peer_ms}
    for name, times in rows.items():
        median, late = np.percentile(times, [50, 95])
        table.add_row(name, f"{median:.0f}", f"{late:.0f}", f"{median / BAR_MS:.2f}" if name.startswith("all") else "")
    console.print(table)


def main(dataset: Path, every: int, write: bool) -> None:
    cv2.setNumThreads(1)
    console = Console(width=170)
    pictures = sorted((dataset / "catalogue").glob("*.jpg"))
    products = [path.stem for path in pictures]
    features = [extract.of_catalogue_picture(read(path)) for path in pictures]
    basis = match.basis(features)
    references = [match.Reference.of(name, each, basis) for name, each in zip(products, features, strict=True)]
    photos = {"val": sorted((dataset / "val").glob("*/*.jpg")), "train": sorted((dataset / "train").glob("*/*.jpg"))[::every]}
    val, train = (look_at(photos[split], references, basis) for split in ("val", "train"))
    on_train = fit(together(train))
    if write:
        PARAMETERS_FILE.write_text(json.dumps({**json.loads(PARAMETERS_FILE.read_text()), **on_train.as_json()}, indent=2) + "\n")
        console.print(f"written to {PARAMETERS_FILE.name}: {on_train.as_json()}")
    shipped = Weights(np.array([*(PARAMETERS.weights.get(each.name, 0.0) for each in fields(Evidence)), PARAMETERS.intercept]))
    peer = Peer([read(path) for path in pictures])
    few = photos["train"][:: max(1, PEERS_EVERY // every)]
    peer_val, _ = peers_answers(photos["val"], peer, products)
    peer_train, peer_ms = peers_answers(few, peer, products)
    across = answered(train, None)
    rows = [
        ("val", "peer", peer_val),
        ("val", "weights of train", answered(val, on_train)),
        ("val", "weights as shipped", answered(val, shipped)),
        ("train", "peer", peer_train),
        ("train", "weights of other products", across),
        ("train", "weights of val", answered(train, fit(together(val)))),
    ]
    report(console, rows)
    console.print(f"train, {by_product(across, train, products)}")
    report_times(console, val, peer_ms)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--fit"]
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    main(Path(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 1, "--fit" in sys.argv)
