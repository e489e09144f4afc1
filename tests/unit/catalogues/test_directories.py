"""Snapshots' directories: whole or not at all, and readable by the matcher."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from infra.triton.vision.features import Features
from infra.triton.vision.snapshots import SnapshotRefused, open_snapshot
from schemas.ids import MerchantId
from streams.catalogues.directories import SnapshotWriter, Written, damage, listed, remove_unused
from streams.catalogues.store import Entry, Models, Place

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
    return written(root, *entries, number=number, models=models).name


def written(root: Path, *entries: Entry, number: int = 1, models: Models = MODELS) -> Written:
    with SnapshotWriter(root, MERCHANT, number, models) as writer:
        for entry in entries:
            writer.add(entry)
        return writer.finish()


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


def test_what_is_there_is_not_written_to_again(tmp_path: Path) -> None:
    """Somebody may have it open."""
    entry = Entry("milk", "a" * 64, features(5))
    first = write(tmp_path, entry)
    place = tmp_path / first / "features.bin"
    place.write_bytes(b"damaged")
    second = write(tmp_path, entry)
    assert second != first and place.read_bytes() == b"damaged"
    assert open_snapshot(tmp_path, second, matcher="sift-1").features(0).to_bytes() == entry.features
    assert {path.name for path in tmp_path.iterdir()} == {first, second}


def test_what_is_damaged_shows(tmp_path: Path) -> None:
    entries = [Entry("milk", "a" * 64, features(5)), Entry("bread", "b" * 64, features(9))]
    places = [Place(entry.product_id, entry.picture, len(entry.features)) for entry in entries]
    made = written(tmp_path, *entries)
    manifest, blobs = (tmp_path / made.name / name for name in ("manifest.json", "features.bin"))

    def found(known: list[Place] = places, models: Models = MODELS, pictures: int = 2, read_up_to: int | None = None) -> str:
        return damage(tmp_path, made.name, models, made.sha256, pictures, known, read_up_to=read_up_to) or "whole"

    assert found() == found([Place("cheese", "c" * 64, 100), *places]) == "whole", "of others features may come later"
    assert listed(tmp_path, made.name, MODELS, made.sha256) == {*places}
    assert "another manifest" in found(pictures=3)
    assert "another manifest" in found(places[:1]) and "another manifest" in found(models=Models("sift-1", "vit-1"))
    for path, change, said in (
        (manifest, lambda was: was.replace(b"bread", b"broad"), "another manifest"),
        (manifest, lambda was: was[:-9], "no JSON"),
        (manifest, lambda was: b"\xff" + was, "no JSON"),
        (blobs, lambda was: was[:-9], f"{blobs.stat().st_size - 9} bytes of features instead of {blobs.stat().st_size}"),
        (blobs, lambda was: was[:50] + bytes(byte ^ 1 for byte in was[50:100]) + was[100:], "another SHA-256"),
    ):
        was = path.read_bytes()
        path.write_bytes(change(was))
        assert said in found()
        assert (found(read_up_to=10) == "whole") == (said == "another SHA-256"), "that one is not seen without reading"
        path.write_bytes(was)
        assert found() == "whole"
    for path in (blobs, manifest):
        path.unlink()
        assert "not there" in found()
    assert "not there" in damage(tmp_path, "elsewhere", MODELS, made.sha256, 2, places)  # type: ignore[operator]
    assert listed(tmp_path, made.name, MODELS, made.sha256) is None


def test_what_has_no_pictures_is_whole(tmp_path: Path) -> None:
    made = written(tmp_path)
    assert damage(tmp_path, made.name, MODELS, made.sha256, 0, []) is None


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
    assert (tmp_path / used).is_dir()
    assert not (tmp_path / unused).exists()
    assert (tmp_path / stranger).is_dir()
    assert remove_unused(tmp_path / "nowhere", MERCHANT, set()) == []
