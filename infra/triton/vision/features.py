"""What is known of one picture: local features, a small picture of its colours, and an embedding where there is an embedder.

Catalogue pictures are kept in this form, as bytes that are read where they lie (see `to_bytes`): a snapshot of 10^5 products is
mapped into memory, and nothing of it is copied before it is looked at.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

DESCRIPTOR_LENGTH = 128
ALIGNMENT = 16
"""Bytes. Every block is padded to it, so that blocks laid one after the other stay readable without copies."""

# Magic, version, reserved, width, height, points, colour width, colour height, dimension, CRC-32 of what follows the header.
_HEADER = struct.Struct("<4sHHIIIHHII")
_MAGIC = b"AUGF"
_VERSION = 1
_LARGEST = 1 << 16
"""No count in a header is larger: a damaged one is refused before its size is multiplied."""
_CENTRE = 0.3  # standard deviation, share of width and height


@dataclass(frozen=True, eq=False)
class Features:
    """One picture.

    `size` is width and height in pixels of the picture as it was looked at; all positions are in these pixels. `points` is
    float32 [N, 4]: x, y, diameter, and angle in degrees. `descriptors` is uint8 [N, 128]: the square root of each SIFT descriptor
    divided by its sum, times 512 and clipped, so that a dot product divided by 512² is a cosine. `colour` is uint8 [h, w, 3]:
    the whole picture, small, in OpenCV's Lab. `embedding` is float32 [D] of unit length, or has no elements.
    """

    size: tuple[int, int]
    points: NDArray[np.float32]
    descriptors: NDArray[np.uint8]
    colour: NDArray[np.uint8]
    embedding: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.points)
        expected: list[tuple[str, NDArray[Any], type, tuple[int, ...]]] = [
            ("points", self.points, np.float32, (count, 4)),
            ("descriptors", self.descriptors, np.uint8, (count, DESCRIPTOR_LENGTH)),
            ("colour", self.colour, np.uint8, (*self.colour.shape[:2], 3)),
            ("embedding", self.embedding, np.float32, (self.embedding.size,)),
        ]
        for name, array, kind, shape in expected:
            if array.dtype != kind or array.shape != shape:
                raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, not {np.dtype(kind)} {list(shape)}")
        if not (min(self.size) > 0 and max(self.size) < _LARGEST and max(self.points.size, *self.colour.shape) < 4 * _LARGEST):
            raise ValueError("the picture is empty or too large")

    def to_bytes(self) -> bytes:
        """A header of 32 bytes, then points, descriptors, embedding, colour; little-endian, padded to `ALIGNMENT`."""
        body = b"".join(
            (
                self.points.astype("<f4").tobytes(),
                self.descriptors.tobytes(),
                self.embedding.astype("<f4").tobytes(),
                self.colour.tobytes(),
            )
        )
        body += bytes(-len(body) % ALIGNMENT)
        height, width = self.colour.shape[:2]
        header = _HEADER.pack(
            _MAGIC, _VERSION, 0, *self.size, len(self.points), width, height, self.embedding.size, zlib.crc32(body)
        )
        return header + body

    @classmethod
    def from_bytes(cls, buffer: bytes | bytearray | memoryview) -> Self:
        """Arrays that look into `buffer`, read-only where it is. Raises ValueError for anything that `to_bytes` did not write."""
        view = memoryview(buffer).cast("B")
        if len(view) < _HEADER.size:
            raise ValueError("features are truncated")
        magic, version, reserved, width, height, count, colour_width, colour_height, dimension, checksum = _HEADER.unpack_from(
            view
        )
        if magic != _MAGIC or version != _VERSION or reserved:
            raise ValueError("these bytes are no features of a known version")
        if not (0 < width < _LARGEST and 0 < height < _LARGEST and count < _LARGEST and dimension < _LARGEST):
            raise ValueError("features have impossible sizes")
        lengths = (count * 16, count * DESCRIPTOR_LENGTH, dimension * 4, colour_width * colour_height * 3)
        body = sum(lengths)
        if len(view) != _HEADER.size + body + -body % ALIGNMENT:
            raise ValueError("features are truncated, or something follows them")
        if zlib.crc32(view[_HEADER.size :]) != checksum:
            raise ValueError("features are damaged")
        starts = [_HEADER.size + sum(lengths[:position]) for position in range(len(lengths))]
        points = np.frombuffer(view, "<f4", count * 4, starts[0]).reshape(count, 4)
        embedding = np.frombuffer(view, "<f4", dimension, starts[2])
        if not (np.isfinite(points).all() and np.isfinite(embedding).all()):
            raise ValueError("features have numbers that are none")
        return cls(
            size=(width, height),
            points=points,
            descriptors=np.frombuffer(view, np.uint8, lengths[1], starts[1]).reshape(count, DESCRIPTOR_LENGTH),
            colour=np.frombuffer(view, np.uint8, lengths[3], starts[3]).reshape(colour_height, colour_width, 3),
            embedding=embedding,
        )


def centrality(frame: Features) -> NDArray[np.float32]:
    """[N]: 1 in the middle of the frame, less towards its border: the wearer looks at the product."""
    off = frame.points[:, :2] / np.array(frame.size, np.float32) - 0.5
    return np.asarray(np.exp(-((off / _CENTRE) ** 2).sum(axis=1) / 2), np.float32)
