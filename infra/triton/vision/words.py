"""Which of many catalogue pictures have what a frame shows: visual words and an inverted index, without training beforehand.

Every descriptor of the catalogue falls into a cell of an inverted multi-index (each half goes to the nearest of K centres:
K² cells; Babenko and Lempitsky, 2012) and keeps there 128 signs of its turned difference from the cell's centre (Hamming
embedding; Jégou et al., 2008). A frame's descriptor looks into its nearest cells and votes for the pictures whose signatures are
near, the more so the fewer pictures those are. The pictures with the most votes are then asked whether their votes agree on where
in the frame the picture's centre lies, how large and how turned (Hough). The centres come from the catalogue itself: nothing is
shipped, and a catalogue of soap is not described in words for milk.

At 10^4 pictures of 500 points: 5 million descriptors, 24 bytes each.
"""

from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .features import DESCRIPTOR_LENGTH, Features, centrality
from .snapshots import Snapshot

VERSION = "words-2"
"""Names everything that decides what an index holds: an index file of another version is built anew."""

POINTS_PER_PICTURE = 500
"""The largest ones of each picture: a product in a frame is smaller than in its catalogue picture, and its large points stay."""

_HALF = DESCRIPTOR_LENGTH // 2
_DESCRIPTORS_PER_CELL = 16
_MOST_CENTRES = 512
_ROUNDS = 8
_BATCH = 1 << 16
_ROWS = 1 << 10  # signatures made at once

# How a frame's descriptor looks around.
_POINTS_PER_FRAME = 450
"""The ones nearest to the middle. More cells for each of them find more than more of them do, at the same cost."""
_NEAREST_CENTRES = 8
_CELLS = 32
_FURTHEST = 48  # of 128 signs, and less than 64; descriptors that have nothing in common differ in 64 ± 6
_FURTHEST_OF_HALF = 26  # of the first 64: what differs more is put aside before the second half is looked at
_SPREAD = 36.0
_MOST_COMPARISONS = 1_200_000
"""For one frame. The fullest cells are left out where there would be more: they hold what every package has."""
_TOGETHER = 1 << 15
"""Comparisons. As many as a processor's own memory holds with all that is written for them."""

# How votes come together.
_ASKED = 300
_TURNS = 12  # bins of 30°
_PLACE = 0.5  # bins of half the picture's size
_VOTES_WITHOUT_PLACE = 0.6


@dataclass(frozen=True, eq=False)
class VisualWords:
    """`centres` is float32 [2, K, 64]; `turn` float32 [128, 128]; `starts` int64 [K² + 1], where each cell's descriptors begin.
    Of each descriptor: `signatures` uint64 [2, N], `pictures` int32 [N], `places` uint8 [N, 4] (x, y in 256ths of the picture,
    the diameter's log2 in 32nds, the angle in 256ths of a turn). `sizes` is float32 [P, 2], in pixels."""

    centres: NDArray[np.float32]
    turn: NDArray[np.float32]
    starts: NDArray[np.int64]
    signatures: NDArray[np.uint64]
    pictures: NDArray[np.int32]
    places: NDArray[np.uint8]
    sizes: NDArray[np.float32]

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Reads all of the snapshot twice. On one core about 3 s for each million descriptors."""
        random = np.random.default_rng(20261122)
        counts = [min(POINTS_PER_PICTURE, len(snapshot.features(index).points)) for index in range(len(snapshot))]
        total = sum(counts)
        centre_count = _centre_count(total)
        turn = np.linalg.qr(random.standard_normal((DESCRIPTOR_LENGTH, DESCRIPTOR_LENGTH)))[0].astype(np.float32)
        centres = _trained_centres(snapshot, centre_count, random)
        turned = _turned(centres, turn)
        cells = np.empty(total, np.int32)
        signatures = np.empty((2, total), np.uint64)
        places = np.empty((total, 4), np.uint8)
        sizes = np.empty((len(snapshot), 2), np.float32)
        start = 0
        for index, count in enumerate(counts):
            picture = snapshot.features(index)
            sizes[index] = picture.size
            chosen = _largest(picture)
            descriptors = picture.descriptors[chosen].astype(np.float32)
            first, second = (_nearest(descriptors[:, half], centres[number]) for number, half in enumerate(_HALVES))
            cells[start : start + count] = first * centre_count + second
            signatures[:, start : start + count] = _packed(descriptors @ turn > turned[0][first] + turned[1][second])
            places[start : start + count] = _places(picture.points[chosen], picture.size)
            start += count
        order = np.argsort(cells, kind="stable")
        starts = np.zeros(centre_count**2 + 1, np.int64)
        np.cumsum(np.bincount(cells, minlength=centre_count**2), out=starts[1:])
        pictures = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        return cls(centres, turn, starts, signatures.take(order, axis=1), pictures[order], places[order], sizes)

    def save(self, path: Path, made_for: str) -> None:
        with path.open("wb") as file:
            arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
            np.savez(file, version=np.array(VERSION), made_for=np.array(made_for), **arrays)

    @classmethod
    def load(cls, path: Path, made_for: str) -> Self:
        """Raises OSError where there is none, ValueError where it is damaged or is not `made_for` this."""
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if str(stored["version"]) != VERSION or str(stored["made_for"]) != made_for:
                    raise ValueError("this index was made for something else")
                words = cls(**{field.name: stored[field.name] for field in fields(cls)})
        except (KeyError, EOFError) as error:
            raise ValueError(f"this is no index: {error}") from None
        except Exception as error:
            if isinstance(error, OSError | ValueError):
                raise
            raise ValueError(f"this index is damaged: {type(error).__name__}") from None
        words._check()
        return words

    def _check(self) -> None:
        centre_count, total = self.centres.shape[1], len(self.pictures)
        if (
            self.centres.shape != (2, centre_count, _HALF)
            or self.starts.shape != (centre_count**2 + 1,)
            or self.signatures.shape != (2, total)
            or self.places.shape != (total, 4)
            or self.starts[-1] != total
            or (total and int(self.pictures.max()) >= len(self.sizes))
        ):
            raise ValueError("this index's parts do not belong together")

    @cached_property
    def _turned(self) -> NDArray[np.float32]:
        return _turned(self.centres, self.turn)

    @property
    def bytes(self) -> int:
        return sum(int(getattr(self, field.name).nbytes) for field in fields(self))

    def shortlist(self, features: Features, k: int) -> list[int]:
        """At most `k` pictures, likeliest first. One that shares nothing with the frame is not among them."""
        scores = self.scores(features)
        best = np.argsort(-scores, kind="stable")[:k]
        return [int(index) for index in best if scores[index] > 0]

    def scores(self, features: Features) -> NDArray[np.float64]:
        """One number for each picture, 0 where nothing speaks for it."""
        if not len(self.pictures) or not len(features.points):
            return np.zeros(len(self.sizes))
        central = centrality(features)
        looked_at = np.argsort(-central, kind="stable")[:_POINTS_PER_FRAME]
        point, descriptor, weight = self._votes(features.descriptors[looked_at])
        point = looked_at[point]
        weight *= central[point]
        picture = self.pictures[descriptor]
        votes = np.bincount(picture, weights=weight, minlength=len(self.sizes))
        asked = np.argsort(-votes, kind="stable")[:_ASKED]
        number = np.full(len(self.sizes), -1)
        number[asked] = np.arange(len(asked))
        votes_here = np.flatnonzero(number[picture] >= 0)
        points = features.points[point[votes_here]]
        agreement = self._agreement(number[picture[votes_here]], points, descriptor[votes_here], weight[votes_here], len(asked))
        scores = np.asarray(votes * _VOTES_WITHOUT_PLACE, np.float64)
        scores[asked] += agreement
        return scores

    def _votes(self, raw: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """For each vote: the frame's point, the catalogue's descriptor, and its weight. A point votes once for a picture."""
        cells, signatures, points = self._cells(raw.astype(np.float32))
        begins = self.starts[cells]
        lengths = self.starts[cells + 1] - begins
        fullest_last = np.argsort(lengths, kind="stable")
        kept = fullest_last[np.cumsum(lengths[fullest_last]) <= _MOST_COMPARISONS]
        kept = kept[np.argsort(cells[kept], kind="stable")]  # what is read is read in the order in which it lies
        begins, lengths, signatures, points = begins[kept], lengths[kept], signatures[:, kept], points[kept]
        near = [self._near(begins[part], lengths[part], signatures[:, part], points[part]) for part in _parts(lengths)]
        point, descriptor, differing = (np.concatenate(each) for each in zip(*near, strict=True))
        point, descriptor, differing = self._once(point, descriptor, differing)
        shared_by = np.bincount(point, minlength=len(raw))
        rarity = np.log((len(self.sizes) + 1) / np.maximum(shared_by, 1)) ** 2
        weight = np.exp(-((differing / _SPREAD) ** 2)) * rarity[point]
        return point, descriptor, np.asarray(weight, np.float32)

    def _near(
        self, begins: NDArray[np.int64], lengths: NDArray[np.int64], signatures: NDArray[np.uint64], points: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """Of the descriptors in these cells those whose signatures are near the cell's of `signatures` [2, cells]: the frame's
        point, the catalogue's descriptor, and how many signs differ."""
        cell = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        descriptor = np.arange(len(cell))
        descriptor -= np.repeat(np.cumsum(lengths) - lengths - begins, lengths)
        differing = _ones(self.signatures[0].take(descriptor) ^ np.repeat(signatures[0], lengths))
        near = np.flatnonzero(differing <= _FURTHEST_OF_HALF)
        cell, descriptor, differing = cell.take(near), descriptor.take(near), differing.take(near)
        differing += _ones(self.signatures[1].take(descriptor) ^ signatures[1].take(cell))
        near = np.flatnonzero(differing <= _FURTHEST)
        return points.take(cell.take(near)), descriptor.take(near), differing.take(near)

    def _once(
        self, point: NDArray[np.int64], descriptor: NDArray[np.int64], differing: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8]]:
        """The nearest of the descriptors of one picture for one point."""
        # Numbers are sorted several times as fast as indexes of numbers: point, picture, distance and index are one number.
        bits = len(point).bit_length()
        keys = ((point * len(self.sizes) + self.pictures[descriptor]) << _FURTHEST.bit_length()) + differing
        keys = (keys << bits) + np.arange(len(keys))
        keys.sort()
        first = np.flatnonzero(np.diff(keys >> (bits + _FURTHEST.bit_length()), prepend=-1))
        nearest = keys[first] & ((1 << bits) - 1)
        return point[nearest], descriptor[nearest], differing[nearest]

    def _cells(self, descriptors: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
        """The nearest cells of each descriptor: the cell, its signature there ([2, cells]), its index."""
        centre_count, count = self.centres.shape[1], len(descriptors)
        around = min(_NEAREST_CENTRES, centre_count)
        distances, nearest, differences = [], [], []
        for number, half in enumerate(_HALVES):
            centres, own = self.centres[number], descriptors[:, half]
            distance = (centres**2).sum(axis=1) - 2 * own @ centres.T
            chosen = np.argpartition(distance, around - 1, axis=1)[:, :around]
            nearest.append(chosen)
            distances.append(np.take_along_axis(distance, chosen, axis=1))
            # Turned by halves: a cell's difference is the sum of its two halves', of which there are fewer than cells.
            turned = (own @ self.turn[half])[:, None] - self._turned[number][chosen]
            differences.append(turned.reshape(-1, DESCRIPTOR_LENGTH))
        sums = (distances[0][:, :, None] + distances[1][:, None, :]).reshape(count, -1)
        cells = min(_CELLS, sums.shape[1])
        best = np.argpartition(sums, cells - 1, axis=1)[:, :cells].reshape(-1)
        point = np.repeat(np.arange(count), cells)
        first, second = point * around + best // around, point * around + best % around
        signatures = np.empty((2, len(point)), np.uint64)
        for start in range(0, len(point), _ROWS):
            rows = slice(start, start + _ROWS)
            signatures[:, rows] = _packed(differences[0][first[rows]] > -differences[1][second[rows]])
        return nearest[0].reshape(-1)[first] * centre_count + nearest[1].reshape(-1)[second], signatures, point

    def _agreement(
        self,
        number: NDArray[np.int64],
        points: NDArray[np.float32],
        descriptor: NDArray[np.int64],
        weight: NDArray[np.float32],
        count: int,
    ) -> NDArray[np.float64]:
        """The most weight that agrees on the picture's centre, size and turn in the frame, for each of `count` pictures."""
        places = self.places[descriptor].astype(np.float32)
        size = self.sizes[self.pictures[descriptor]]
        scale = points[:, 2] / np.exp2(places[:, 2] / 32)
        turn = np.deg2rad(points[:, 3] - places[:, 3] * (360 / 256))
        to_centre = (0.5 - (places[:, :2] + 0.5) / 256) * size * scale[:, None]
        cosine, sine = np.cos(turn), np.sin(turn)
        x = points[:, 0] + cosine * to_centre[:, 0] - sine * to_centre[:, 1]
        y = points[:, 1] + sine * to_centre[:, 0] + cosine * to_centre[:, 1]
        octave, turns = np.log2(scale), turn / (2 * np.pi) % 1 * _TURNS
        shape = (count, 16, _TURNS, 64, 64)
        best = np.zeros(count)
        for shift in (0.0, 0.5):  # twice, so that no agreement is cut apart by a bin's edge
            octaves = np.floor(octave + shift)
            step = _PLACE * size.max(axis=1) * np.exp2(octaves - shift + 0.5)
            bins = np.stack(
                [octaves + 8, np.floor(turns + shift) % _TURNS, np.floor(x / step + shift) + 32, np.floor(y / step + shift) + 32]
            ).astype(np.int64)
            inside = ((bins >= 0) & (bins < np.array(shape[1:])[:, None])).all(axis=0)
            if not inside.any():
                continue
            key = np.ravel_multi_index((number[inside], *bins[:, inside]), shape)
            used, member = np.unique(key, return_inverse=True)
            sums = np.bincount(member, weights=weight[inside])
            np.maximum.at(best, used // int(np.prod(shape[1:])), sums)
        return best


_HALVES = (slice(0, _HALF), slice(_HALF, DESCRIPTOR_LENGTH))
_EVERY_2ND, _TWO_OF_4, _FOUR_OF_8, _EVERY_8TH = (
    np.uint64(number) for number in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F, 0x0101010101010101)
)
_1, _2, _4, _56 = (np.uint64(number) for number in (1, 2, 4, 56))


def _ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """How many bits are set in each. NumPy counts them itself from 2.0 on."""
    if hasattr(np, "bitwise_count"):
        return np.asarray(np.bitwise_count(words), np.uint8)
    counts = words - ((words >> _1) & _EVERY_2ND)
    counts = (counts & _TWO_OF_4) + ((counts >> _2) & _TWO_OF_4)
    counts = (counts + (counts >> _4)) & _FOUR_OF_8
    counts *= _EVERY_8TH
    return np.asarray(counts >> _56, np.uint8)


def _parts(lengths: NDArray[np.int64]) -> list[slice]:
    """Of cells of these lengths: cut so that about `_TOGETHER` descriptors are in each."""
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(ends, np.arange(_TOGETHER, lengths.sum(), _TOGETHER))
    return [slice(*bounds) for bounds in pairwise([0, *map(int, cuts), len(lengths)])]


def _centre_count(descriptors: int) -> int:
    """A power of two, such that a cell holds `_DESCRIPTORS_PER_CELL` on average."""
    cells = max(descriptors / _DESCRIPTORS_PER_CELL, 1)
    return int(np.clip(2 ** round(np.log2(cells) / 2), 2, _MOST_CENTRES))


def _largest(picture: Features) -> NDArray[np.int64]:
    if len(picture.points) <= POINTS_PER_PICTURE:
        return np.arange(len(picture.points))
    return np.asarray(np.argsort(-picture.points[:, 2], kind="stable")[:POINTS_PER_PICTURE])


def _trained_centres(snapshot: Snapshot, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    each = -(-max(4_000, 200 * count) // max(len(snapshot), 1))
    samples = []
    for index in range(len(snapshot)):
        descriptors = snapshot.features(index).descriptors
        samples.append(descriptors[random.permutation(len(descriptors))[:each]])
    sample = np.concatenate(samples or [np.zeros((0, DESCRIPTOR_LENGTH), np.uint8)]).astype(np.float32)
    return np.stack([_k_means(np.ascontiguousarray(sample[:, half]), count, random) for half in _HALVES])


def _k_means(vectors: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.float32]:
    if len(vectors) < count:
        padding = np.zeros((count - len(vectors), vectors.shape[1]), np.float32)
        return np.concatenate([vectors, padding])
    centres = vectors[random.choice(len(vectors), count, replace=False)]
    for _ in range(_ROUNDS):
        nearest = _nearest(vectors, centres)
        members = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, weights=column, minlength=count) for column in vectors.T], axis=1)
        empty = members == 0
        centres = (sums / np.maximum(members, 1)[:, None]).astype(np.float32)
        centres[empty] = vectors[random.choice(len(vectors), int(empty.sum()))]
    return centres


def _nearest(vectors: NDArray[np.float32], centres: NDArray[np.float32]) -> NDArray[np.int64]:
    half_lengths = (centres**2).sum(axis=1) / 2
    nearest = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), _BATCH):
        batch = vectors[start : start + _BATCH]
        nearest[start : start + len(batch)] = np.argmax(batch @ centres.T - half_lengths, axis=1)
    return nearest


def _turned(centres: NDArray[np.float32], turn: NDArray[np.float32]) -> NDArray[np.float32]:
    """[2, K, 128]: of each half's centres, what they add to a whole one, turned."""
    return np.stack([centres[number] @ turn[half] for number, half in enumerate(_HALVES)])


def _packed(signs: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """[N, 128] → [2, N]."""
    return np.packbits(signs, axis=1, bitorder="little").view("<u8").T.astype(np.uint64, copy=False)


def _places(points: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    places = np.empty((len(points), 4), np.float32)
    places[:, :2] = points[:, :2] * 256 / np.array(size, np.float32)
    places[:, 2] = np.rint(32 * np.log2(np.maximum(points[:, 2], 1)))
    places[:, 3] = np.rint(points[:, 3] * (256 / 360)) % 256
    return np.clip(places, 0, 255).astype(np.uint8)
