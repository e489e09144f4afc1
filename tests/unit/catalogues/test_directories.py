"""Snapshots' directories: whole or not at all, and readable by the matcher."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from infra.triton.vision.features import Features
from infra.triton.vision.snapshots import SnapshotRefused, open_snapshot
from schemas.ids import MerchantId
from streams.catalogues.directories import SnapshotWriter, is_there, remove_unused
from streams.catalogues.store import Entry, Models

MERCHANT = MerchantId("mer_01m825jf8weefs977g79aj1a64")
MODELS = Models("sift-1")


def features(points: int) -> bytes:
    random = np.random.default_rng(points)
    return Features(
        size=(64, 48),
        points=random.random((points, 4), dtype=np.float32),
        descriptors=random.integers(0, 255, (points, 128), dtype=np.uint8),
        colour=random.integers(0, 255, (8, 6, 3), dtype=np.uint8),
        embedding=np.zeros(0, np.float32),
    ).to_bytes()


def write(root: Path, *entries: Entry, number: int = 1, models: Models = MODELS) -> str:
    with SnapshotWriter(root, MERCHANT, number, models) as writer:
        for entry in entries:
            writer.add(entry)
        return writer.finish().name


def test_the_matcher_reads_what_is_written(tmp_path: Path) -> None:
    entries = [Entry("milk", "a" * 64, features(5)), Entry("milk", "b" * 64, features(9)), Entry("牛乳", "c" * 64, features(7))]
    name = write(tmp_path, *entries)
    digest = hashlib.sha256((tmp_path / name / "features.bin").read_bytes()).hexdigest()
    assert name == f"{MERCHANT}-1-{digest[:12]}"
    snapshot = open_snapshot(tmp_path, name, matcher="sift-1")
    assert [(entry.product_id, entry.picture) for entry in snapshot.entries] == [(e.product_id, e.picture) for e in entries]
    assert [snapshot.features(index).to_bytes() for index in range(3)] == [entry.features for entry in entries]
    assert (snapshot.sha256, snapshot.embedder) == (digest, None)


def test_another_models_snapshot_is_refused(tmp_path: Path) -> None:
    name = write(tmp_path, Entry("milk", "a" * 64, features(5)), models=Models("sift-1", "vit-1"))
    for matcher, embedder in (("sift-2", "vit-1"), ("sift-1", None), ("sift-1", "vit-2")):
        with pytest.raises(SnapshotRefused):
            open_snapshot(tmp_path, name, matcher=matcher, embedder=embedder)
    assert len(open_snapshot(tmp_path, name, matcher="sift-1", embedder="vit-1")) == 1


def test_writing_again_writes_the_same(tmp_path: Path) -> None:
    entry = Entry("milk", "a" * 64, features(5))
    name = write(tmp_path, entry)
    before = (tmp_path / name).stat().st_ino
    assert write(tmp_path, entry) == name
    assert (tmp_path / name).stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_not_finished_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), SnapshotWriter(tmp_path, MERCHANT, 1, MODELS) as writer:
        writer.add(Entry("milk", "a" * 64, b"x"))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_offsets_lie_well(tmp_path: Path) -> None:
    name = write(tmp_path, *(Entry(str(length), "a" * 64, bytes(length)) for length in (1, 15, 16, 17)))
    products = json.loads((tmp_path / name / "manifest.json").read_text())["products"]
    assert [entry["offset"] % 16 for entry in products] == [0, 0, 0, 0]
    assert [entry["length"] for entry in products] == [1, 15, 16, 17]


def test_only_what_nobody_uses_is_removed(tmp_path: Path) -> None:
    used, unused = (write(tmp_path, Entry("milk", "a" * 64, features(number)), number=number) for number in (1, 2))
    stranger = f"{MerchantId.new()}-1-0123456789ab"
    left = f".unfinished-{MERCHANT}-3-abc"
    for name in (stranger, left):
        (tmp_path / name).mkdir()
    assert remove_unused(tmp_path, MERCHANT, {used}) == sorted([unused, left])
    assert is_there(tmp_path, used)
    assert not is_there(tmp_path, unused)
    assert (tmp_path / stranger).is_dir()
    assert remove_unused(tmp_path / "nowhere", MERCHANT, set()) == []
