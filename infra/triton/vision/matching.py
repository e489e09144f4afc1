"""What the models `match` and `features` answer: pictures in, plain values out. A snapshot is opened when it is first named."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import extract, match
from .embedder import Embedder, EmbedderRefused
from .features import Features
from .index import FirstStage, FirstStages
from .options import NUMBER, Deadline, OptionsRefused
from .parameters import PARAMETERS
from .quality import quality
from .snapshots import LatestUsed, SnapshotRefused, open_snapshot

Picture = NDArray[np.uint8]

DIRECTORY_VARIABLE = "AUGENBLICK_CATALOGUE_DIRECTORY"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "snapshots": list,
    "candidates": int,
    "time_left_ms": NUMBER,
    "explain": bool,
}
MOST_SNAPSHOTS = 256
MOST_CANDIDATES = 50
_USUAL_CANDIDATES = 5


class Matcher:
    """One for each instance of the model. `device` is where a large catalogue's first stage computes, as PyTorch names it.
    `embedder` chooses in large catalogues, and those have to be made with it."""

    def __init__(self, directory: Path | None, *, keep: int, embedder: Embedder | None = None, device: str = "cpu") -> None:
        self._directory = directory
        self._embedder = embedder
        self._catalogues: LatestUsed[match.Catalogue] = LatestUsed(keep)
        self._first_stages = FirstStages(keep, device)

    def answer(self, picture: Picture, options: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """`picture` is BGR. Raises OptionsRefused, and SnapshotRefused where none of the snapshots named can be used; what was
        the matter with some of several is in the answer, under `refused`."""
        names, most = _asked(options)
        frame = extract.of_frame(picture)
        found: list[tuple[str, match.Found]] = []
        refused: dict[str, str] = {}
        embedded: Features | None = None
        for number, name in enumerate(names):
            if number and deadline.left_ms() <= 0:
                refused[name] = "no time was left"
                continue
            try:
                catalogue = self._catalogue(name)
                chosen: Sequence[int] | None = None
                if not catalogue.exhaustive:
                    stage = self._first_stage(catalogue, deadline)
                    if self._embedder and embedded is None:
                        embedded = replace(frame, embedding=self._embedder.embed(picture))
                    chosen = stage.shortlist(embedded or frame, match.SHORTLIST)
                found += [(name, one) for one in match.search(frame, catalogue, chosen, deadline)]
            except (SnapshotRefused, EmbedderRefused) as refusal:
                refused[name] = str(refusal)
        if names and len(refused) == len(names):
            raise SnapshotRefused("; ".join(refused.values()))
        found.sort(key=lambda one: -one[1].score)
        height, width = picture.shape[:2]
        scale = np.array([width, height]) / frame.size
        answer: dict[str, Any] = {
            "matcher": PARAMETERS.scorer,
            "width": width,
            "height": height,
            "quality": {name: round(value, 4) for name, value in asdict(quality(frame.colour)).items()},
            "candidates": [_candidate(name, one, scale, bool(options.get("explain"))) for name, one in found[:most]],
        }
        return {**answer, "refused": refused} if refused else answer

    def _catalogue(self, name: str) -> match.Catalogue:
        def opened() -> match.Catalogue:
            if self._directory is None:
                raise SnapshotRefused(f"no snapshot can be opened: {DIRECTORY_VARIABLE} is not set")
            embedder = self._embedder.id if self._embedder else None
            return match.Catalogue(open_snapshot(self._directory, name, matcher=PARAMETERS.matcher, embedder=embedder))

        return self._catalogues.get(name, opened)

    def _first_stage(self, catalogue: match.Catalogue, deadline: Deadline) -> FirstStage:
        left_s = deadline.left_ms() / 1000
        stage = self._first_stages.get(catalogue.snapshot, None if left_s == float("inf") else left_s)
        if stage is None:
            raise SnapshotRefused(f"snapshot {catalogue.snapshot.name} is being prepared")
        return stage


def catalogue_features(picture: Picture, embedder: Embedder | None) -> tuple[Features, dict[str, Any]]:
    """`picture` is BGR. What a snapshot keeps of it, and what the importer is told. Raises UselessPicture, EmbedderRefused."""
    features = extract.of_catalogue_picture(picture)
    if embedder:
        features = replace(features, embedding=embedder.embed(picture))
    return features, {
        "matcher": PARAMETERS.matcher,
        "embedder": embedder.id if embedder else None,
        "points": len(features.points),
        "width": picture.shape[1],
        "height": picture.shape[0],
    }


def _asked(options: Mapping[str, Any]) -> tuple[list[str], int]:
    names = options.get("snapshots", [])
    if len(names) > MOST_SNAPSHOTS or not all(isinstance(name, str) for name in names):
        raise OptionsRefused(f"OPTIONS: snapshots is a list of at most {MOST_SNAPSHOTS} names")
    most = options.get("candidates", _USUAL_CANDIDATES)
    if not 1 <= most <= MOST_CANDIDATES:
        raise OptionsRefused(f"OPTIONS: candidates is a number from 1 to {MOST_CANDIDATES}")
    return list(dict.fromkeys(names)), most


def _candidate(snapshot: str, found: match.Found, scale: NDArray[np.float64], explain: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "snapshot": snapshot,
        "product_id": found.reference.product_id,
        "score": round(found.score, 4),
        "inliers": len(found.points),
        "colour": round(1 - found.evidence.hue_off, 4) if found.outline is not None else None,
        "outline": (found.outline * scale).round(1).tolist() if found.outline is not None else None,
    }
    if explain:
        candidate["points"] = (found.points * scale).round(1).tolist()
    return candidate
