"""A snapshot of the dataset's real products and as many generated ones as wanted, made once and kept.

    python -m benchmarks.large_catalogue DATASET DIRECTORY [PRODUCTS]

The real products come first, one picture each (DATASET/catalogue); the rest are `benchmarks.distractors`. What is borrowed for
them is from every tenth photo of `train`. 10^4 products take about ten minutes of one core, and 700 MB. It may be interrupted.
"""

import hashlib
import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from infra.triton.vision import extract
from infra.triton.vision.parameters import PARAMETERS

_PART = 250
Picture = NDArray[np.uint8]


def read(path: Path) -> Picture:
    """BGR."""
    picture = cv2.imread(str(path))
    if picture is None:
        raise SystemExit(f"{path} is no picture")
    return np.asarray(picture, np.uint8)


def make(dataset: Path, directory: Path, products: int) -> str:
    """The snapshot's name in `directory`."""
    name = f"large-{PARAMETERS.matcher}-{products}"
    place = directory / name
    if (place / "manifest.json").exists():
        return name
    # What draws is not installed where the models run.
    from benchmarks.distractors import Material, draw

    real = sorted((dataset / "catalogue").glob("*.jpg"))
    material = Material(
        photos=[read(path) for path in sorted((dataset / "train").glob("*/*.jpg"))[::10]],
        catalogue=[read(path) for path in real],
    )
    place.mkdir(parents=True, exist_ok=True)
    parts = [range(start, min(start + _PART, products - len(real))) for start in range(0, products - len(real), _PART)]
    generated = [
        _part(place / f"part-{part.start}", part, lambda number: draw(number, material))
        for part in track(parts, "generated products")
    ]
    entries = [(path.stem, extract.of_catalogue_picture(read(path)).to_bytes()) for path in real]
    entries += [(f"generated-{number}", blob) for part in generated for number, blob in part]
    _write(place, entries)
    for part in parts:
        (place / f"part-{part.start}").unlink()
    return name


def _part(path: Path, numbers: range, drawn: Callable[[int], Picture]) -> list[tuple[int, bytes]]:
    """Numbers and features; kept in `path` until all parts are there."""
    if not path.exists():
        blobs = list(_extracted(numbers, drawn))
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            pickle.dump(blobs, file)
        partial.replace(path)
    with path.open("rb") as file:
        stored: list[tuple[int, bytes]] = pickle.load(file)
    return stored


def _extracted(numbers: range, drawn: Callable[[int], Picture]) -> Iterator[tuple[int, bytes]]:
    for number in numbers:
        # One that has too little on it to be recognised by is drawn again.
        for attempt in range(10):
            try:
                yield number, extract.of_catalogue_picture(drawn(number + attempt * 1_000_000)).to_bytes()
                break
            except extract.UselessPicture:
                continue


def _write(place: Path, entries: list[tuple[str, bytes]]) -> None:
    offset, products, digest = 0, [], hashlib.sha256()
    with (place / "features.bin").open("wb") as file:
        for product_id, blob in entries:
            file.write(blob)
            digest.update(blob)
            products.append({"product_id": product_id, "picture": "0" * 64, "offset": offset, "length": len(blob)})
            offset += len(blob)
    manifest = {"format": 1, "matcher": PARAMETERS.matcher, "embedder": None, "sha256": digest.hexdigest(), "products": products}
    (place / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    cv2.setNumThreads(1)
    print(make(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 10_000))
