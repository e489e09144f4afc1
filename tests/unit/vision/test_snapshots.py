"""A snapshot is opened if it is whole and was made by this matcher, and refused with the reason if not."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import pytest

from infra.triton.vision.snapshots import LatestUsed, SnapshotRefused, features_bytes, open_snapshot
from tests.support.groceries import publish
from tests.unit.vision.test_features import made

MATCHER = "sift-1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    blobs = [("milk", made(4).to_bytes()), ("juice", made(6).to_bytes()), ("milk", made(8).to_bytes())]
    publish(tmp_path, "m-1-abc", blobs, matcher=MATCHER)
    return tmp_path


def reason(directory: Path, name: str = "m-1-abc", matcher: str = MATCHER, embedder: str | None = None) -> str:
    with pytest.raises(SnapshotRefused) as refused:
        open_snapshot(directory, name, matcher=matcher, embedder=embedder)
    assert str(directory) not in str(refused.value)
    return str(refused.value)


def test_its_features_are_read_where_they_lie(directory: Path) -> None:
    snapshot = open_snapshot(directory, "m-1-abc", matcher=MATCHER)
    assert [entry.product_id for entry in snapshot.entries] == ["milk", "juice", "milk"]
    np.testing.assert_array_equal(snapshot.features(1).points, made(6).points)
    features = snapshot.features(2)
    shutil.rmtree(directory / "m-1-abc")
    np.testing.assert_array_equal(features.descriptors, made(8).descriptors, "a removed file stays readable to who has it open")


def test_an_empty_one_is_one(tmp_path: Path) -> None:
    publish(tmp_path, "empty", [], matcher=MATCHER)
    assert len(open_snapshot(tmp_path, "empty", matcher=MATCHER)) == 0


@pytest.mark.parametrize("name", ["", "..", "../m-1-abc", "m/1", "m-1-abc\n", "m" * 101, "."])
def test_names_that_lead_elsewhere_are_refused(directory: Path, name: str) -> None:
    assert "name" in reason(directory, name)


def test_another_matchers_or_embedders_are_never_mixed(directory: Path) -> None:
    assert "'sift-1', this is 'sift-2'" in reason(directory, matcher="sift-2")
    assert "embedder None, this is 'vit'" in reason(directory, embedder="vit")


def test_missing_and_damaged_ones_are_told_apart(directory: Path) -> None:
    assert "is not there" in reason(directory, "m-2-abc")
    place = directory / "m-1-abc"
    manifest = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(manifest[:-1])
    assert "no JSON" in reason(directory)
    (place / "manifest.json").write_text("[]")
    assert "not of the form" in reason(directory)
    (place / "manifest.json").write_text(manifest)
    features = bytearray((place / "features.bin").read_bytes())
    features[50] ^= 1
    (place / "features.bin").write_bytes(features)
    assert "damaged" in reason(directory)


@pytest.mark.parametrize("change", [{"offset": -16}, {"offset": 10_000}, {"length": 10_000}, {"length": 0}])
def test_a_manifest_that_points_outside_is_refused(directory: Path, change: dict[str, int]) -> None:
    path = directory / "m-1-abc" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["products"][1] |= change
    path.write_text(json.dumps(manifest))
    assert "outside" in reason(directory)


@pytest.mark.parametrize("change", [{"offset": "0"}, {"length": True}, {"product_id": 7}, {"picture": None}])
def test_a_manifest_of_other_types_is_refused(directory: Path, change: dict[str, object]) -> None:
    path = directory / "m-1-abc" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["products"][1] |= change
    path.write_text(json.dumps(manifest))
    assert "not of the form" in reason(directory)


def test_an_entry_that_is_no_features_is_told_when_it_is_read(tmp_path: Path) -> None:
    publish(tmp_path, "odd", [("milk", b"x" * 64)], matcher=MATCHER)
    with pytest.raises(SnapshotRefused, match="snapshot odd, entry 0"):
        open_snapshot(tmp_path, "odd", matcher=MATCHER).features(0)


def test_the_latest_used_are_kept() -> None:
    made_of: list[str] = []
    latest: LatestUsed[str] = LatestUsed(2)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert latest.get(name, lambda name=name: made_of.append(name) or name.upper()) == name.upper()  # type: ignore[func-returns-value,misc]
    assert made_of == ["a", "b", "c", "b"]


def test_what_could_not_be_made_is_tried_again() -> None:
    latest: LatestUsed[str] = LatestUsed(2)

    def refused() -> str:
        raise SnapshotRefused("no")

    with pytest.raises(SnapshotRefused):
        latest.get("a", refused)
    assert latest.get("a", lambda: "there now") == "there now"


def test_what_is_kept_is_had_without_making_it() -> None:
    latest: LatestUsed[str] = LatestUsed(2)
    for name in ("a", "b"):
        latest.get(name, name.upper)
    assert latest.kept("a") == "A"
    latest.get("c", lambda: "C")
    assert latest.kept("a") == "A", "it was used"
    assert latest.kept("b") is None


def test_how_much_there_is_to_read_is_told_of_snapshots_alone(directory: Path) -> None:
    assert features_bytes(directory, "m-1-abc") == (directory / "m-1-abc" / "features.bin").stat().st_size > 0
    assert features_bytes(directory, "gone") == features_bytes(directory / "m-1-abc", "../m-1-abc") == 0


def test_several_threads_make_it_once() -> None:
    latest: LatestUsed[int] = LatestUsed(2)
    together, lock, times = Barrier(8), Lock(), []

    def make() -> int:
        with lock:
            times.append(1)
        return len(times)

    def ask(_: int) -> int:
        together.wait()
        return latest.get("a", make)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(8))) == {1}
    assert len(times) == 1


def test_a_catalogue_whose_pictures_are_all_compared_needs_no_embedder(directory: Path) -> None:
    snapshot = open_snapshot(directory, "m-1-abc", matcher=MATCHER, embedder="vit-1", any_embedder_up_to=3)
    assert len(snapshot) == 3 and snapshot.embedder is None
    with pytest.raises(SnapshotRefused, match="embedder"):
        open_snapshot(directory, "m-1-abc", matcher=MATCHER, embedder="vit-1", any_embedder_up_to=2)
