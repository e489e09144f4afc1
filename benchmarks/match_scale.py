"""`match` and a large catalogue, one core: `python -m benchmarks.match_scale DATASET DIRECTORY [PRODUCTS [EXHAUSTIVE]]`.

The catalogue has the dataset's 31 real products, one picture each, and generated ones up to PRODUCTS (10,000); large_catalogue
makes it once, in DIRECTORY. Frames are all `val` photos and every eighth of `train`.

Prints what the first stage costs to build, load and keep, how often the product shown is among the first k, and the time of
extraction, first stage and verification, held against the bar (p50 of 400 ms for all of it). What the shortlist loses is bounded
from above: the same matcher is given the shortlist together with the product shown. A product that wins against all wins against
these, so no exhaustive search answers more frames rightly. With EXHAUSTIVE, so many frames (half a minute of a core each) are
compared with every picture as well.

Times are the process's own, so that whoever else uses the machine is not measured; nothing is drawn meanwhile, which would be.
Set OMP_NUM_THREADS=1. Run it where the models run (.venv-triton, NumPy 1) for the figures that hold there; the catalogue is made
in .venv.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.large_catalogue import make, read
from infra.triton.vision import extract, match
from infra.triton.vision.features import Features
from infra.triton.vision.index import FirstStage, Words
from infra.triton.vision.options import Deadline
from infra.triton.vision.parameters import PARAMETERS
from infra.triton.vision.snapshots import Snapshot, open_snapshot
from infra.triton.vision.words import VisualWords

_BAR_MS = 400


@dataclass(frozen=True)
class Shown:
    """A frame of `product`. `took_ms` is its extraction's time."""

    split: str
    product: str
    features: Features
    took_ms: float


def frames(dataset: Path) -> list[Shown]:
    paths = [*sorted((dataset / "val").glob("*/*.jpg")), *sorted((dataset / "train").glob("*/*.jpg"))[::8]]
    shown = []
    for path in paths:
        picture = read(path)
        started = process_time()
        features = extract.of_frame(picture)
        shown.append(Shown(path.parts[-3], path.parts[-2], features, (process_time() - started) * 1000))
    return shown


def answer(frame: Features, catalogue: match.Catalogue, chosen: Sequence[int] | None) -> str:
    found = match.search(frame, catalogue, chosen, Deadline())
    return found[0].reference.product_id if found else ""


def report_first_stage(snapshot: Snapshot, console: Console) -> FirstStage:
    started = process_time()
    words = VisualWords.of(snapshot)
    built_s = process_time() - started
    stage = FirstStage.build(snapshot)
    started = process_time()
    stage = FirstStage.build(snapshot)
    loaded_s = process_time() - started
    assert isinstance(stage, Words)
    console.print(
        f"first stage of {len(snapshot):,} pictures, {len(words.pictures):,} descriptors (NumPy {np.__version__}): built in "
        f"{built_s:.1f} s, loaded in {loaded_s:.2f} s, {words.bytes / 1e6:.0f} MB; "
        f"the features themselves {len(snapshot.blobs) / 1e6:.0f} MB"
    )
    return stage


def main(dataset: Path, directory: Path, products: int, exhaustive: int) -> None:
    cv2.setNumThreads(1)
    console = Console()
    snapshot = open_snapshot(directory, make(dataset, directory, products), matcher=PARAMETERS.matcher)
    position = {entry.product_id: index for index, entry in enumerate(snapshot.entries)}
    stage = report_first_stage(snapshot, console)
    catalogue = match.Catalogue(snapshot)
    shown = frames(dataset)
    ranks, first_ms, verify_ms, ours, helped = [], [], [], [], []
    for frame in shown:
        started = process_time()
        shortlist = stage.shortlist(frame.features, match.SHORTLIST)
        listed = process_time()
        ours.append(answer(frame.features, catalogue, shortlist) == frame.product)
        verify_ms.append((process_time() - listed) * 1000)
        first_ms.append((listed - started) * 1000)
        truth = position[frame.product]
        everything = stage.shortlist(frame.features, len(snapshot))
        ranks.append(everything.index(truth) if truth in everything else len(snapshot))
        # Where the product was in the shortlist, to add it changes nothing.
        helped.append(ours[-1] if truth in shortlist else answer(frame.features, catalogue, [*shortlist, truth]) == frame.product)
    _print_ranks(console, shown, np.array(ranks))
    _print_answers(console, shown, np.array(ours), np.array(helped))
    _print_times(console, shown, first_ms, verify_ms)
    if exhaustive:
        chosen = np.linspace(0, len(shown) - 1, exhaustive).astype(int)
        whole = [answer(shown[n].features, catalogue, None) == shown[n].product for n in chosen]
        reached = np.mean([ours[n] for n in chosen])
        console.print(f"{exhaustive} frames: R@1 {reached:.3f} with the first stage, {np.mean(whole):.3f} exhaustively")


def _print_ranks(console: Console, shown: Sequence[Shown], ranks: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> None:
    within = (1, 5, 10, 20, match.SHORTLIST, 100)
    table = Table("frames", "n", *(f"in first {k}" for k in within), title="the first stage alone")
    for split in ("val", "train"):
        own = ranks[[frame.split == split for frame in shown]]
        table.add_row(split, str(len(own)), *(f"{np.mean(own < k):.3f}" for k in within))
    console.print(table)


def _print_answers(
    console: Console,
    shown: Sequence[Shown],
    ours: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
    helped: "np.ndarray[tuple[int], np.dtype[np.bool_]]",
) -> None:
    table = Table(
        "frames", "R@1", "R@1, product added", "lost at most", title=f"answers, {match.SHORTLIST} of the first stage verified"
    )
    for split in ("val", "train", ""):
        own = [not split or frame.split == split for frame in shown]
        reached, possible = float(np.mean(ours[own])), float(np.mean(helped[own]))
        table.add_row(split or "all", f"{reached:.3f}", f"{possible:.3f}", f"{100 * (possible - reached):.1f} points")
    console.print(table)


def _print_times(console: Console, shown: Sequence[Shown], first_ms: Sequence[float], verify_ms: Sequence[float]) -> None:
    extract_ms = [frame.took_ms for frame in shown]
    table = Table("", "p50 ms", "p95 ms", "÷ bar", title="one core")
    whole = np.sum([extract_ms, first_ms, verify_ms], axis=0)
    for name, figures in (("extraction", extract_ms), ("first stage", first_ms), ("verification", verify_ms), ("all", whole)):
        median, late = np.percentile(figures, [50, 95])
        table.add_row(name, f"{median:.0f}", f"{late:.0f}", f"{median / _BAR_MS:.2f}" if name == "all" else "")
    console.print(table)


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        raise SystemExit(__doc__)
    counts = [int(number) for number in sys.argv[3:]]
    main(Path(sys.argv[1]), Path(sys.argv[2]), counts[0] if counts else 10_000, counts[1] if len(counts) > 1 else 0)
