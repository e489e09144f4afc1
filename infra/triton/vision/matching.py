"""What the models `match` and `features` answer: pictures in, plain values out. A snapshot is opened when it is first named."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import monotonic
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
from .snapshots import Beside, LatestUsed, SnapshotRefused, features_bytes, open_snapshot

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
"""Of each snapshot: how far a product is ahead is counted within its own."""
OPENED_AT_ONCE = 32 << 20
"""Bytes of a snapshot, some 250 pictures. A larger one is read and checked beside the frames: up to here it takes less than a
tenth of a second, for 10^4 pictures seconds."""
EMBEDDER_LEFT_ALONE_S = 5.0
"""After it refused a frame, or could not be asked."""
_NO_TIME = "no time was left"

Log = Callable[[str, BaseException], None]
"""What it happened to, and the error: whoever logs it tells where it happened, and not what it said."""


class Matcher:
    """One for each instance of the model. `keep` snapshots stay open, and `keep_large` of them with their first stages, which are
    computed on `device`, as PyTorch names it. `embedder` chooses in large catalogues, and those have to be made with it.
    `indexes` as for `FirstStage.build`."""

    def __init__(
        self,
        directory: Path | None,
        *,
        keep: int,
        keep_large: int = 4,
        embedder: Embedder | None = None,
        device: str = "cpu",
        indexes: Path | None = None,
        log: Log | None = None,
    ) -> None:
        self._directory = directory
        self._embedder = embedder
        self._embedder_refused, self._embedder_refused_until = "", -math.inf
        self._catalogues: LatestUsed[match.Catalogue] = LatestUsed(keep)
        self._large: Beside[match.Catalogue] = Beside(keep_large, "snapshots")
        self._first_stages = FirstStages(keep_large, device, indexes)
        self._log = log
        self._logged: set[tuple[str, str]] = set()

    def answer(self, picture: Picture, options: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """`picture` is BGR. Raises OptionsRefused, and SnapshotRefused where none of the snapshots named can be used; what was
        the matter with some of several is in the answer, under `refused`.

        With a deadline nobody waits for what is prepared beside; without one, for all of it."""
        names, most = _asked(options)
        frame = extract.of_frame(picture)
        refused: dict[str, str] = {}
        catalogues = self._opened(names, deadline, refused)
        embedded = _Embedded(frame, partial(self._embedding, picture, deadline))
        found: list[tuple[str, match.Found]] = []
        for number, (name, catalogue) in enumerate(catalogues.items()):
            if number and deadline.passed():
                refused[name] = _NO_TIME
                continue
            with self._telling(name, refused):
                chosen = None
                if not catalogue.exhaustive:
                    stage = self._first_stage(catalogue, deadline)
                    chosen = stage.shortlist(embedded.features() if self._embedder else frame, match.SHORTLIST)
                found += [(name, one) for one in match.search(frame, catalogue, chosen, deadline)[:most]]
        if names and len(refused) == len(names):
            raise SnapshotRefused("; ".join(refused[name] for name in names))
        found.sort(key=lambda one: -one[1].score)
        height, width = picture.shape[:2]
        scale = np.array([width, height]) / frame.size
        answer: dict[str, Any] = {
            "matcher": PARAMETERS.scorer,
            "width": width,
            "height": height,
            "quality": {name: round(value, 4) for name, value in asdict(quality(frame.colour)).items()},
            "candidates": [_candidate(name, one, scale, bool(options.get("explain"))) for name, one in found],
        }
        return {**answer, "refused": refused} if refused else answer

    def _opened(self, names: list[str], deadline: Deadline, refused: dict[str, str]) -> dict[str, match.Catalogue]:
        """Small ones first: they need nothing that may not be ready. Large ones begin to be prepared."""
        catalogues: dict[str, match.Catalogue] = {}
        for name in names:
            with self._telling(name, refused):
                catalogue = self._catalogues.kept(name)
                if catalogue is None and catalogues and deadline.passed():
                    raise SnapshotRefused(_NO_TIME)
                catalogues[name] = catalogue or self._catalogue(name, deadline)
        large = {name: catalogue for name, catalogue in catalogues.items() if not catalogue.exhaustive}
        for name, catalogue in large.items() if not _patient(deadline) else ():
            with self._telling(name, refused):
                self._first_stages.get(catalogue.snapshot)
        return {name: each for name, each in sorted(catalogues.items(), key=lambda item: item[0] in large) if name not in refused}

    def _catalogue(self, name: str, deadline: Deadline) -> match.Catalogue:
        def opened() -> match.Catalogue:
            if self._directory is None:
                raise SnapshotRefused(f"no snapshot can be opened: {DIRECTORY_VARIABLE} is not set")
            embedder = self._embedder.id if self._embedder else None
            return match.Catalogue(
                open_snapshot(
                    self._directory,
                    name,
                    matcher=PARAMETERS.matcher,
                    embedder=embedder,
                    any_embedder_up_to=match.EXHAUSTIVE_UP_TO,
                )
            )

        if _patient(deadline) or self._directory is None or features_bytes(self._directory, name) <= OPENED_AT_ONCE:
            return self._catalogues.get(name, opened)
        catalogue = self._large.get(name, lambda: self._catalogues.get(name, opened))
        if catalogue is None:
            raise SnapshotRefused(f"snapshot {name} is being prepared")
        return catalogue

    def _first_stage(self, catalogue: match.Catalogue, deadline: Deadline) -> FirstStage:
        stage = self._first_stages.get(catalogue.snapshot, None if _patient(deadline) else 0.0)
        if stage is None:
            raise SnapshotRefused(f"snapshot {catalogue.snapshot.name} is being prepared")
        return stage

    def _embedding(self, picture: Picture, deadline: Deadline) -> NDArray[np.float32]:
        """Raises EmbedderRefused; for some seconds after it did so, without asking."""
        assert self._embedder is not None
        if not _patient(deadline) and monotonic() < self._embedder_refused_until:
            raise EmbedderRefused(self._embedder_refused)
        if deadline.passed():
            raise EmbedderRefused(_NO_TIME)
        try:
            embedding = self._embedder.embed(picture)
        except Exception as error:
            if isinstance(error, EmbedderRefused):
                self._embedder_refused = str(error)
            else:
                self._tell(f"embedder {self._embedder.id}", error)
                self._embedder_refused = f"embedder {self._embedder.id} failed: {type(error).__name__}"
            self._embedder_refused_until = monotonic() + EMBEDDER_LEFT_ALONE_S
            raise EmbedderRefused(self._embedder_refused) from None
        if deadline.passed():
            raise EmbedderRefused(_NO_TIME)
        return embedding

    @contextmanager
    def _telling(self, name: str, refused: dict[str, str]) -> Iterator[None]:
        """What goes wrong with one snapshot costs the frame that one alone."""
        try:
            yield
        except (SnapshotRefused, EmbedderRefused) as refusal:
            refused[name] = str(refusal)
        except Exception as error:
            self._tell(f"snapshot {name}", error)
            refused[name] = f"snapshot {name} cannot be used: {type(error).__name__}"

    def _tell(self, what: str, error: Exception) -> None:
        """Once: what goes wrong with a snapshot does so with every frame."""
        key = (what, type(error).__name__)
        if self._log and key not in self._logged:
            self._logged.add(key)
            self._log(what, error)


class _Embedded:
    """A frame's features with its embedding. That is asked for when it is first needed, and once, whatever comes of it."""

    def __init__(self, frame: Features, embedding: Callable[[], NDArray[np.float32]]) -> None:
        self._frame = frame
        self._embedding = embedding
        self._features: Features | None = None
        self._refusal: str | None = None

    def features(self) -> Features:
        """Raises EmbedderRefused."""
        if self._refusal is not None:
            raise EmbedderRefused(self._refusal)
        if self._features is None:
            try:
                self._features = replace(self._frame, embedding=self._embedding())
            except EmbedderRefused as refusal:
                self._refusal = str(refusal)
                raise
        return self._features


def _patient(deadline: Deadline) -> bool:
    return math.isinf(deadline.left_ms())


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
