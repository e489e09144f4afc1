"""`match` against 31 products, from one catalogue picture each: `python -m benchmarks.match DATASET [EVERY] [--fit]`.

DATASET has `catalogue/<product>.jpg`, `val/<product>/*.jpg` and `train/<product>/*.jpg`. All photographs of `val` are used, and
every EVERY-th of `train` (1). The peer is what one would write in an afternoon: SIFT, ratio test, homography by RANSAC, most
inliers; it takes its time, so that it is given every twelfth photograph of `train`.

Confidences and decisions are the product's own (`streams.evaluation.calibration`, `streams.sightings.service`). Each row says on
what photographs the matcher's weights and the calibration of its scores were fitted; the peer's number of inliers is calibrated
as our score is. `--fit` fits the weights on these photographs of `train` and writes them to infra/triton/vision/matcher.json;
until thresholds were calibrated for those, nothing is acted on.

"Unknown" and "left out" are leave-one-product-out: each photograph is shown to a catalogue without its product, in which most
products have a sibling that differs in a word and a colour. What is acted on and asked about is told twice: where 98 % of what is
left out is not acted on, and as shipped. Times are of one thread; where others use the machine, look at the processor's.
"""

import os

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import json
import sys
from collections.abc import Iterable, Sequence
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

from benchmarks.match_answers import COLUMNS, DECIDED, UNKNOWN, answers_of, decided, decided_row, row, told
from benchmarks.match_weights import Cases, Weights, cross_validated, evidence_of, fit
from infra.triton.vision import extract, match
from infra.triton.vision.match import Evidence
from infra.triton.vision.options import Deadline
from infra.triton.vision.parameters import PARAMETERS
from streams.evaluation.calibration import Answer, halves
from streams.evaluation.measures import Outcome
from streams.sightings import thresholds

PARAMETERS_FILE = Path(match.__file__).parent / "matcher.json"
PEERS_EVERY = 12
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


def answered(seen: Seen, products: Sequence[str], weights: Weights | None, *, scorer: str = "") -> list[Answer]:
    """By the weights; by cross-validation over products where there are none."""
    count = len(seen.files)
    scores = cross_validated(together(seen)) if weights is None else together(seen).scores(weights)
    return answers_of(seen.files, products, seen.known.shown, scores[:count], scores[count:], scorer=scorer)


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


def peers_answers(photos: Sequence[Path], peer: Peer, products: Sequence[str]) -> tuple[list[Answer], list[float]]:
    """And how long each took, in milliseconds."""
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
    return answers_of([str(path) for path in photos], products, shown, scores, left_out), times


Row = tuple[str, str, Sequence[Outcome]]
"""Of which photographs, by what, what was said."""


def report(console: Console, rows: Iterable[Row], title: str) -> None:
    table = Table("photographs", "n", "by", *COLUMNS, title=title)
    for photographs, by, outcomes in rows:
        table.add_row(photographs, str(len(outcomes) // 2), by, *row(outcomes))
    console.print(table)


def report_decisions(console: Console, rows: Iterable[Row], title: str) -> None:
    table = Table("photographs", "by", *DECIDED, title=title)
    for photographs, by, outcomes in rows:
        table.add_row(photographs, by, *decided_row(outcomes))
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
    on_val = fit(together(val))
    across = answered(train, products, None)
    by_product, by_picture = halves(across, "product"), halves(across, "picture")
    rows: list[Row] = [
        ("val", "peer, fitted on train", told([(peer_train, peer_val)])),
        ("val", "fitted on train", told([(answered(train, products, on_train), answered(val, products, on_train))])),
        ("train", "peer, fitted on val", told([(peer_val, peer_train)])),
        ("train", "fitted on val", told([(answered(val, products, on_val), answered(train, products, on_val))])),
        ("train", "fitted on other products", told([by_product, by_product[::-1]])),
        ("train", "and each product on other photographs of it", told([by_picture, by_picture[::-1]], offsets=True)),
    ]
    seen = {"val": val, "train": train}
    limits = thresholds.shipped()
    as_shipped: list[Row] = [
        (split, "as shipped", decided(answered(seen[split], products, shipped, scorer=PARAMETERS.scorer), limits))
        for split in seen
    ]
    report(console, [*rows, *as_shipped], f"{PARAMETERS.matcher}, one catalogue picture for each of {len(products)} products")
    report_decisions(console, rows, f"acted on from where {UNKNOWN:.0%} of what is left out is not")
    title = f"acted on from {limits.act}, asked about from {limits.ask}; all of this was fitted on some of these photographs"
    report_decisions(console, as_shipped, title)
    report_times(console, val, peer_ms)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--fit"]
    if not 1 <= len(arguments) <= 2:
        raise SystemExit(__doc__)
    main(Path(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 1, "--fit" in sys.argv)
