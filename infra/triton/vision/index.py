"""The first stage of a large catalogue: which few of its pictures are worth comparing with a frame in full.

    FirstStage.build(snapshot).shortlist(features, 50)  →  indexes of the snapshot's entries, likeliest first

Where the snapshot has embeddings, they decide; else visual words (`words`), or on a GPU all descriptors (`dense`).
"""

import secrets
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .features import Features
from .snapshots import Beside, Snapshot, SnapshotRefused
from .words import VisualWords

EXACT_UP_TO = 100_000
"""Embeddings. Up to here every one is compared (5 ms of one core with 512 numbers each), above they are in a usearch index."""

INDEX_FILE = "first-stage.npz"
"""Beside the snapshot's features, made by whoever opens the snapshot first; it may be removed at any time, and is made again."""

INDEXES_VARIABLE = "AUGENBLICK_INDEX_DIRECTORY"
"""Names where index files are kept instead, by their snapshots' names, where snapshots may only be read."""
INDEXES_AT_MOST = 3 << 30
"""Bytes of them. The ones that have not been used for longest make room."""


class FirstStage(ABC):
    """Safe to use from several threads."""

    @abstractmethod
    def shortlist(self, features: Features, k: int) -> list[int]:
        """At most `k` indexes of entries, likeliest first."""

    @staticmethod
    def build(snapshot: Snapshot, device: str = "cpu", indexes: Path | None = None) -> "FirstStage":
        """Takes from milliseconds (embeddings, or an index file that fits) to half a minute for 10^4 products. `device` is where
        it computes, as PyTorch names it; `indexes` a directory for index files that cannot be beside their snapshots. Raises
        SnapshotRefused where the snapshot's features are not what its manifest says."""
        if device != "cpu":
            from .dense import on_device  # needs torch

            return on_device(snapshot, device)
        if snapshot.embedder is None:
            return Words.of(snapshot, indexes)
        embeddings = embeddings_of(snapshot)
        return ExactEmbeddings(embeddings) if len(embeddings) <= EXACT_UP_TO else NearestEmbeddings(embeddings)


class Words(FirstStage):
    """Local features only."""

    def __init__(self, words: VisualWords) -> None:
        self.words = words

    @classmethod
    def of(cls, snapshot: Snapshot, indexes: Path | None = None) -> "Words":
        beside = snapshot.directory / INDEX_FILE
        elsewhere = indexes / f"{snapshot.name}.npz" if indexes else None
        for path in filter(None, (beside, elsewhere)):
            # Neither a missing nor a damaged nor an older index is an error: all of it is in the snapshot.
            with suppress(OSError, ValueError):
                words = VisualWords.load(path, snapshot.sha256)
                if path == elsewhere:
                    path.touch()  # used last
                return cls(words)
        words = VisualWords.of(snapshot)
        try:
            _write_whole(beside, words, snapshot.sha256)
        except OSError:  # mounted read-only, say
            if elsewhere and words.bytes <= INDEXES_AT_MOST:
                with suppress(OSError):
                    _make_room(elsewhere.parent, words.bytes)
                    _write_whole(elsewhere, words, snapshot.sha256)
        return cls(words)

    def shortlist(self, features: Features, k: int) -> list[int]:
        return self.words.shortlist(features, k)


class ExactEmbeddings(FirstStage):
    """Compares with every one. `embeddings` is [P, D] of unit length: float32 of NumPy, or on a GPU (see `dense.on_device`)."""

    def __init__(self, embeddings: Any, *, library: Any = np) -> None:
        self._library = library
        self._embeddings = embeddings

    def shortlist(self, features: Features, k: int) -> list[int]:
        return self.shortlists(_fitting(features, self._embeddings.shape[1])[None], k)[0]

    def shortlists(self, embeddings: NDArray[np.float32], k: int) -> list[list[int]]:
        """Of several frames, float32 [N, D], with one matrix product."""
        k = min(k, len(self._embeddings))
        if self._library is np:
            likeness = embeddings @ self._embeddings.T
            best = np.argpartition(-likeness, k - 1)[:, :k] if 0 < k < likeness.shape[1] else np.argsort(-likeness)
            order = np.argsort(-np.take_along_axis(likeness, best, axis=1), kind="stable")
            return [[int(index) for index in row] for row in np.take_along_axis(best, order, axis=1)]
        frames = self._library.from_numpy(embeddings).to(self._embeddings.device, self._embeddings.dtype)
        nearest: list[list[int]] = self._library.topk(frames @ self._embeddings.T, k, dim=1).indices.tolist()
        return nearest


class NearestEmbeddings(FirstStage):
    """Approximate, for more embeddings than can be compared one by one."""

    def __init__(self, embeddings: NDArray[np.float32]) -> None:
        from usearch.index import Index  # type: ignore[import-not-found]  # only where a catalogue is that large

        self._dimension = embeddings.shape[1]
        self._index = Index(ndim=self._dimension, metric="ip", dtype="f16")
        self._index.add(np.arange(len(embeddings), dtype=np.uint64), embeddings)

    def shortlist(self, features: Features, k: int) -> list[int]:
        return [int(key) for key in self._index.search(_fitting(features, self._dimension), k).keys]


class FirstStages:
    """Builds first stages beside whoever serves, one at a time, and keeps the `keep` used last. `device` and `indexes` as for
    `FirstStage.build`."""

    def __init__(self, keep: int = 4, device: str = "cpu", indexes: Path | None = None) -> None:
        self._device = device
        self._indexes = indexes
        self._stages: Beside[FirstStage] = Beside(keep, "first-stage")

    def get(self, snapshot: Snapshot, wait_s: float | None = 0.0) -> FirstStage | None:
        """None while it is being built after `wait_s` (None: however long it takes). Raises as `Beside.get` does."""
        return self._stages.get(snapshot.name, lambda: FirstStage.build(snapshot, self._device, self._indexes), wait_s)

    def close(self) -> None:
        self._stages.close()


def embeddings_of(snapshot: Snapshot) -> NDArray[np.float32]:
    """float32 [P, D], copied out of the snapshot. All have to be of one length and of unit length."""
    if not len(snapshot):
        return np.zeros((0, 1), np.float32)
    dimension = snapshot.features(0).embedding.size
    embeddings = np.empty((len(snapshot), dimension), np.float32)
    for index in range(len(snapshot)):
        embedding = snapshot.features(index).embedding
        if embedding.size != dimension or not dimension:
            raise SnapshotRefused(f"snapshot {snapshot.name}, entry {index}: {embedding.size} numbers, not {dimension or 'some'}")
        embeddings[index] = embedding
    if not np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3):
        raise SnapshotRefused(f"snapshot {snapshot.name}: an embedding is not of unit length")
    return embeddings


def _fitting(features: Features, dimension: int) -> NDArray[np.float32]:
    if features.embedding.size != dimension:
        raise ValueError(f"the frame's embedding has {features.embedding.size} numbers, the catalogue's {dimension}")
    return features.embedding


def _write_whole(path: Path, words: VisualWords, made_for: str) -> None:
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        words.save(partial, made_for)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _make_room(directory: Path, needed: int) -> None:
    """Of what is kept there, and of what was not written to its end."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [(status.st_mtime, status.st_size, path) for path in directory.glob("*.npz*") if (status := path.stat())]
    room = INDEXES_AT_MOST - needed
    for _, size, path in sorted(files, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)
