"""Every descriptor of a frame against every descriptor of a catalogue: one batched matrix product, for machines that have a GPU.

The same lines run on numpy and on torch: `library` is the one or the other, and only what both call by the same name is used.
torch is imported by whoever passes it (see `on_device`). In half precision the descriptors themselves are exact: they are whole
numbers up to 255, divided by 512.

A catalogue of P pictures takes P × M × 128 × 2 bytes there (10^5 pictures of 400 points: 10 GB), a frame of N points briefly
N × (P + what one product writes, see `MOST_PRODUCTS`) × 2 bytes more.
"""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .features import DESCRIPTOR_LENGTH, Features, centrality
from .index import ExactEmbeddings, FirstStage, embeddings_of
from .snapshots import Snapshot, SnapshotRefused

POINTS_PER_FRAME = 512
"""The ones nearest to the middle. What this costs is memory written and read: N × P × M numbers."""

UNIT = 512
"""Descriptors are uint8; divided by this they have length 1."""

_LIKENESS = 0.86
"""A cosine. Points that have nothing in common reach it hardly ever, the same point of the same print mostly."""
MOST_PRODUCTS = {"cpu": 1 << 24, "cuda": 1 << 30}
"""Dot products that are computed at once, by kind of device."""


class DenseMatcher(FirstStage):
    """`references` is [P, M, 128] of `library`: the catalogue's descriptors, filled up with zeros, which are like nothing."""

    def __init__(self, references: Any, *, library: Any, device: str) -> None:
        self._library = library
        self._device = device
        self._references = references

    @classmethod
    def of(cls, pictures: Iterable[NDArray[np.uint8]], *, library: Any = np, device: str = "cpu") -> Self:
        """`pictures` are descriptors, uint8 [N, 128] each."""
        pictures = list(pictures)
        most = max((len(descriptors) for descriptors in pictures), default=0)
        shape = (len(pictures), max(most, 1), DESCRIPTOR_LENGTH)
        if library is np:
            references = np.zeros(shape, np.float32)
            for index, descriptors in enumerate(pictures):
                references[index, : len(descriptors)] = descriptors.astype(np.float32) / UNIT
            return cls(references, library=library, device=device)
        on_device = library.zeros(shape, dtype=library.float16, device=device)
        for index, descriptors in enumerate(pictures):
            on_device[index, : len(descriptors)] = library.tensor(descriptors, device=device).to(library.float16) / UNIT
        return cls(on_device, library=library, device=device)

    @classmethod
    def of_snapshot(cls, snapshot: Snapshot, *, library: Any = np, device: str = "cpu") -> Self:
        pictures = (snapshot.features(index).descriptors for index in range(len(snapshot)))
        return cls.of(pictures, library=library, device=device)

    def shortlist(self, features: Features, k: int) -> list[int]:
        weight = centrality(features)
        nearest = np.argsort(-weight, kind="stable")[:POINTS_PER_FRAME]
        scores = self.scores(features.descriptors[nearest], weight[nearest])
        best = np.argsort(-scores, kind="stable")[:k]
        return [int(index) for index in best if scores[index] > 0]

    def scores(self, descriptors: NDArray[np.uint8], weight: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """[P]. For each picture the sum, over the frame's points that are like one of the picture's, of how like they are,
        counted the more the fewer pictures have such a point, and by the point's `weight` [N]."""
        if not len(descriptors) or not len(self._references):
            return np.zeros(len(self._references), np.float32)
        scores = self._scores(self._frame(descriptors), np.ones(len(descriptors), np.float32) if weight is None else weight)
        return np.asarray(scores if self._library is np else scores.cpu().numpy(), np.float32)

    def likeness(self, frame: Any) -> Any:
        """[N, P]: the cosine of each of the frame's points (`frame` [N, 128], of unit length) with each picture's likest."""
        library = self._library
        count, most = self._references.shape[:2]
        together = max(1, MOST_PRODUCTS.get(self._device.partition(":")[0], 1 << 24) // (len(frame) * most))
        parts = []
        for start in range(0, count, together):
            part = self._references[start : start + together]
            products = frame @ part.reshape(-1, DESCRIPTOR_LENGTH).T
            parts.append(library.amax(products.reshape(len(frame), len(part), most), axis=2))
        return library.concatenate(parts, axis=1)

    def _frame(self, descriptors: NDArray[np.uint8]) -> Any:
        if self._library is np:
            return descriptors.astype(np.float32) / UNIT
        return self._library.tensor(descriptors, device=self._device).to(self._references.dtype) / UNIT

    def _scores(self, frame: Any, weight: NDArray[np.float32]) -> Any:
        library = self._library
        likeness = self.likeness(frame)
        like = likeness > _LIKENESS
        shared_by = library.clip(library.sum(like, axis=1), 1, None)
        rarity = library.log((len(self._references) + 1) / shared_by) ** 2
        beyond = library.where(like, likeness - _LIKENESS, library.zeros_like(likeness))
        if library is np:
            return (rarity * weight) @ beyond
        weights = library.tensor(weight, device=self._device)
        return (rarity.to(library.float32) * weights) @ beyond.to(library.float32)


def on_device(snapshot: Snapshot, device: str) -> FirstStage:
    """With torch, on a GPU (`cuda:0`): what `match` takes where its instances are KIND_GPU. Embeddings decide where there are
    some, all descriptors where there are none. Raises SnapshotRefused as `FirstStage.build` does, and where there is no room."""
    import torch  # type: ignore[import-not-found]

    try:
        if snapshot.embedder is None:
            return DenseMatcher.of_snapshot(snapshot, library=torch, device=device)
        return ExactEmbeddings(torch.from_numpy(embeddings_of(snapshot)).to(device, torch.float16), library=torch)
    except torch.cuda.OutOfMemoryError:
        raise SnapshotRefused(f"snapshot {snapshot.name}: {device} has no room for it") from None
