"""Catalogues of made-up features: pictures of random points, and frames that show one of them, turned, smaller and noisy."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infra.triton.vision.features import Features
from infra.triton.vision.snapshots import Snapshot, open_snapshot

MATCHER = "test-1"


def picture(random: np.random.Generator, points: int = 60, dimension: int = 0) -> Features:
    embedding = random.standard_normal(dimension).astype(np.float32)
    return Features(
        size=(400, 300),
        points=random.uniform((0, 0, 2, 0), (400, 300, 40, 360), (points, 4)).astype(np.float32),
        descriptors=descriptors(random, points),
        colour=np.zeros((4, 4, 3), np.uint8),
        embedding=embedding / np.float32(max(float(np.linalg.norm(embedding)), 1e-9)),
    )


def descriptors(random: np.random.Generator, count: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    raw = np.sqrt(random.gamma(0.4, size=(count, 128)))
    return np.clip(np.rint(raw / np.linalg.norm(raw, axis=1, keepdims=True) * 512), 0, 255).astype(np.uint8)


def frame_of(shown: Features, random: np.random.Generator, *, seen: float = 0.5, others: int = 100) -> Features:
    """`seen` of the picture's points, 0.6 times as large, turned by 20° and moved, and `others` of something else."""
    some = random.permutation(len(shown.points))[: int(seen * len(shown.points))]
    angle = np.deg2rad(20)
    turn = 0.6 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = shown.points[some].copy()
    points[:, :2] = points[:, :2] @ turn + (150, 40)
    points[:, 2] *= 0.6
    points[:, 3] = (points[:, 3] + 20) % 360
    noisy = np.clip(shown.descriptors[some] + random.normal(0, 6, (len(some), 128)), 0, 255).astype(np.uint8)
    clutter = picture(random, others)
    embedding = shown.embedding + random.normal(0, 0.02, shown.embedding.size).astype(np.float32)
    return Features(
        size=(640, 480),
        points=np.concatenate([points, clutter.points]),
        descriptors=np.concatenate([noisy, clutter.descriptors]),
        colour=clutter.colour,
        embedding=(embedding / max(float(np.linalg.norm(embedding)), 1e-9)).astype(np.float32),
    )


def published(directory: Path, name: str, pictures: Sequence[Features], embedder: str | None = None) -> Snapshot:
    place = directory / name
    place.mkdir(parents=True)
    blobs = [each.to_bytes() for each in pictures]
    offset, products = 0, []
    for number, blob in enumerate(blobs):
        products.append({"product_id": f"p{number}", "picture": "0" * 64, "offset": offset, "length": len(blob)})
        offset += len(blob)
    (place / "features.bin").write_bytes(b"".join(blobs))
    sha256 = hashlib.sha256(b"".join(blobs)).hexdigest()
    manifest = {"format": 1, "matcher": MATCHER, "embedder": embedder, "sha256": sha256, "products": products}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return open_snapshot(directory, name, matcher=MATCHER, embedder=embedder)
