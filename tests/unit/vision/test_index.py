"""The first stage finds what a frame shows among many; what it keeps on disk is its own business and never trusted."""

import subprocess
from functools import partial
from os import utime
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from infra.local.triton import environment_directory
from infra.triton.vision import index, snapshots, words
from infra.triton.vision.features import Features
from infra.triton.vision.index import ExactEmbeddings, FirstStage, FirstStages, Words
from infra.triton.vision.snapshots import Snapshot, SnapshotRefused
from tests.support.servers import missing
from tests.unit.vision.catalogues import frame_of, picture, published

ROOT = Path(__file__).parents[3]


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def pictures(random: np.random.Generator) -> list[Features]:
    return [picture(random) for _ in range(120)]


@pytest.fixture
def snapshot(tmp_path: Path, pictures: list[Features]) -> Snapshot:
    return published(tmp_path, "many", pictures)


def test_what_a_frame_shows_comes_first(snapshot: Snapshot, pictures: list[Features], random: np.random.Generator) -> None:
    stage = FirstStage.build(snapshot)
    shown = range(0, len(pictures), 10)
    found = [stage.shortlist(frame_of(pictures[number], random), 5)[0] for number in shown]
    assert found == list(shown)


def test_votes_that_agree_on_a_place_count_more(tmp_path: Path, random: np.random.Generator) -> None:
    """Two pictures have the same descriptors; in one of them they lie as in the frame."""
    real = picture(random)
    shuffled = Features(real.size, random.permutation(real.points), real.descriptors, real.colour, real.embedding)
    crowd = [picture(random) for _ in range(50)]
    stage = FirstStage.build(published(tmp_path, "twins", [shuffled, *crowd, real]))
    assert isinstance(stage, Words)
    frame = frame_of(real, random)
    assert stage.shortlist(frame, 2) == [51, 0]
    scores = stage.words.scores(frame)
    assert scores[51] > 1.5 * scores[0]


def test_descriptors_that_every_picture_has_count_little(tmp_path: Path, random: np.random.Generator) -> None:
    common = picture(random, 40)

    def with_common(own: Features) -> Features:
        return Features(
            own.size,
            np.concatenate([own.points, common.points]),
            np.concatenate([own.descriptors, common.descriptors]),
            own.colour,
            own.embedding,
        )

    crowd = [with_common(picture(random, 20)) for _ in range(100)]
    stage = FirstStage.build(published(tmp_path, "common", crowd))
    shown = [frame_of(crowd[number], random, seen=0.4) for number in range(10)]
    assert [stage.shortlist(frame, 1) for frame in shown] == [[number] for number in range(10)]


def test_what_shares_nothing_gets_next_to_nothing(
    snapshot: Snapshot, pictures: list[Features], random: np.random.Generator
) -> None:
    stage = FirstStage.build(snapshot)
    assert isinstance(stage, Words)
    shown, *others = np.sort(stage.words.scores(frame_of(pictures[0], random)))[::-1]
    assert shown > 5 * max(others)
    empty = Features(
        (640, 480), np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8), pictures[0].colour, np.zeros(0, "f4")
    )
    assert stage.shortlist(empty, 10) == []


@pytest.mark.parametrize("points", [[], [0], [0, 0, 0], [1], [0, 3, 500]])
def test_small_and_empty_catalogues_have_a_first_stage(tmp_path: Path, random: np.random.Generator, points: list[int]) -> None:
    pictures = [picture(random, count) for count in points]
    stage = FirstStage.build(published(tmp_path, "small", pictures))
    for number, shown in enumerate(pictures):
        found = stage.shortlist(frame_of(shown, random, seen=1.0, others=0), 5)
        assert found[:1] == ([number] if len(shown.points) > 1 else found[:1])


def test_no_frame_costs_more_than_the_limit(
    snapshot: Snapshot, pictures: list[Features], random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = FirstStage.build(snapshot)
    frame = frame_of(pictures[7], random)
    compared = []
    ones = words._ones

    def counted(values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        compared.append(len(values))
        return ones(values)

    monkeypatch.setattr(words, "_ones", counted)
    stage.shortlist(frame, 5)
    unlimited = compared[0]
    compared.clear()
    monkeypatch.setattr(words, "_MOST_COMPARISONS", unlimited // 2)
    assert stage.shortlist(frame, 5)[0] == 7, "the emptiest cells say the most"
    assert 0 < compared[0] <= unlimited // 2


def test_a_frame_is_compared_in_parts_that_change_nothing(
    snapshot: Snapshot, pictures: list[Features], random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = FirstStage.build(snapshot)
    assert isinstance(stage, Words)
    frame = frame_of(pictures[7], random)
    together = stage.words.scores(frame)
    monkeypatch.setattr(words, "_TOGETHER", 3)
    monkeypatch.setattr(words, "_ROWS", 5)
    np.testing.assert_array_equal(stage.words.scores(frame), together)


def test_bits_are_counted_without_numpys_help(random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    numbers = np.concatenate([random.integers(0, 1 << 64, 50, np.uint64), np.array([0, 1, 1 << 63, (1 << 64) - 1], np.uint64)])
    assert words._ones(numbers).tolist() == [int(number).bit_count() for number in numbers]


def test_the_index_is_kept_beside_the_snapshot_and_used_again(
    snapshot: Snapshot, pictures: list[Features], random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = frame_of(pictures[42], random)
    built = FirstStage.build(snapshot)
    monkeypatch.setattr(words.VisualWords, "of", None)  # to build again would fail
    loaded = FirstStage.build(snapshot)
    assert isinstance(built, Words) and isinstance(loaded, Words)
    assert loaded.shortlist(frame, 20) == built.shortlist(frame, 20)
    assert [path.name for path in snapshot.directory.glob("first-stage*")] == [index.INDEX_FILE], "nothing half-written stays"


def test_where_snapshots_may_only_be_read_indexes_are_kept_elsewhere(
    tmp_path: Path, pictures: list[Features], random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexes, frame = tmp_path / "indexes", frame_of(pictures[42], random)
    names = ("first", "second", "third")
    opened = {name: published(tmp_path, name, pictures) for name in names}
    for snapshot in opened.values():
        # A directory cannot be replaced by a file, whoever tries: root may write where others may only read.
        (snapshot.directory / index.INDEX_FILE).mkdir()
    build = partial(FirstStage.build, indexes=indexes)
    built = build(opened["first"])
    assert [path.name for path in indexes.iterdir()] == ["first.npz"], "nothing half-written stays"
    with monkeypatch.context() as patched:
        patched.setattr(words.VisualWords, "of", None)  # to build again would fail
        assert build(opened["first"]).shortlist(frame, 20) == built.shortlist(frame, 20)
    assert isinstance(built, Words)
    monkeypatch.setattr(index, "INDEXES_AT_MOST", 2.5 * (indexes / "first.npz").stat().st_size)
    build(opened["second"])
    utime(indexes / "second.npz", (1, 1))
    build(opened["first"])
    (indexes / "zero.npz.1f").write_bytes(b"a killed process left it")
    utime(indexes / "zero.npz.1f", (0, 0))
    build(opened["third"])
    assert {path.name for path in indexes.iterdir()} == {"first.npz", "third.npz"}, "what was used last stays"
    monkeypatch.setattr(index, "INDEXES_AT_MOST", built.words.bytes - 1)
    build(opened["second"])
    assert not (indexes / "second.npz").exists(), "one that never fits drives no other out"
    assert len(list(indexes.iterdir())) == 2


@pytest.mark.parametrize("damage", ["nothing", "cut", "another snapshot", "another version", "other shapes", "objects"])
def test_a_file_that_does_not_fit_is_made_anew(
    tmp_path: Path,
    snapshot: Snapshot,
    pictures: list[Features],
    random: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    built = FirstStage.build(snapshot)
    path = snapshot.directory / index.INDEX_FILE
    stored = dict(np.load(path))
    if damage == "nothing":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-5000])
    elif damage == "another snapshot":
        np.savez(path, **(stored | {"made_for": np.array("0" * 64)}))
    elif damage == "another version":
        np.savez(path, **(stored | {"version": np.array("words-0")}))
    elif damage == "other shapes":
        np.savez(path, **(stored | {"signatures": stored["signatures"][:-1]}))
    elif damage == "objects":
        np.savez(path, **(stored | {"sizes": np.array([{}], dtype=object)}), allow_pickle=True)
    frame = frame_of(pictures[3], random)
    assert FirstStage.build(snapshot).shortlist(frame, 9) == built.shortlist(frame, 9)
    monkeypatch.setattr(words.VisualWords, "of", None)
    FirstStage.build(snapshot)


def test_embeddings_decide_where_there_are_some(tmp_path: Path, random: np.random.Generator) -> None:
    pictures = [picture(random, 3, dimension=64) for _ in range(200)]
    stage = FirstStage.build(published(tmp_path, "embedded", pictures, embedder="e-1"))
    assert isinstance(stage, ExactEmbeddings)
    for number in (0, 77, 199):
        frame = frame_of(pictures[number], random)
        found = stage.shortlist(frame, 10)
        likeness = [float(shown.embedding @ frame.embedding) for shown in pictures]
        assert found[0] == number
        assert found == sorted(range(200), key=lambda each: -likeness[each])[:10]
    assert len(stage.shortlist(frame, 500)) == 200
    with pytest.raises(ValueError, match="has 0 numbers, the catalogue's 64"):
        stage.shortlist(frame_of(picture(random), random), 10)


@pytest.mark.parametrize("wrong", ["another length", "none", "not of unit length"])
def test_embeddings_that_do_not_fit_together_are_refused(tmp_path: Path, random: np.random.Generator, wrong: str) -> None:
    pictures = [picture(random, 3, dimension=64) for _ in range(5)]
    odd = picture(random, 3, dimension={"another length": 32, "none": 0}.get(wrong, 64))
    if wrong == "not of unit length":
        odd = Features(odd.size, odd.points, odd.descriptors, odd.colour, odd.embedding * np.float32(2))
    with pytest.raises(SnapshotRefused, match="unit length" if "unit" in wrong else "entry 5: "):
        FirstStage.build(published(tmp_path, "odd", [*pictures, odd], embedder="e-1"))


def test_building_goes_on_beside_who_serves(tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    first = published(tmp_path, "first", [picture(random)])
    second = published(tmp_path, "second", [picture(random)])
    go_on, build = Event(), FirstStage.build

    def slow(snapshot: Snapshot, device: str, indexes: Path | None) -> FirstStage:
        assert go_on.wait(10)
        return build(snapshot, device, indexes)

    monkeypatch.setattr(FirstStage, "build", slow)
    stages = FirstStages(keep=1)
    try:
        assert stages.get(first) is None
        assert stages.get(first, wait_s=0.01) is None
        go_on.set()
        built = stages.get(first, wait_s=None)
        assert built is not None and stages.get(first) is built
        stages.get(second, wait_s=None)
        assert stages.get(first, wait_s=None) is not built, "only one is kept"
    finally:
        stages.close()


def test_a_first_stage_that_cannot_be_built_is_tried_again(
    tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = published(tmp_path, "first", [picture(random)])
    build, tried = FirstStage.build, []

    def fails(snapshot: Snapshot, device: str, indexes: Path | None) -> FirstStage:
        tried.append(snapshot.name)
        raise MemoryError("of a frame")

    stages = FirstStages()
    try:
        monkeypatch.setattr(FirstStage, "build", fails)
        with pytest.raises(MemoryError):
            stages.get(snapshot, wait_s=10)
        for _ in range(3):
            with pytest.raises(SnapshotRefused, match=r"^first cannot be used: MemoryError$"):
                stages.get(snapshot, wait_s=10)
        assert tried == ["first"], "not with each frame"
        monkeypatch.setattr(snapshots, "RETRY_AFTER_S", 0.0)
        with pytest.raises(MemoryError):
            stages.get(snapshot, wait_s=10)
        monkeypatch.setattr(snapshots, "RETRY_AFTER_S", 1e9)
        monkeypatch.setattr(FirstStage, "build", build)
        assert stages.get(snapshot, wait_s=None) is not None, "whoever has the time has it tried again"
    finally:
        stages.close()


_IN_THE_MODELS_ENVIRONMENT = """
import sys
from pathlib import Path
import numpy as np
from tests.unit.vision.catalogues import frame_of, picture, published
from infra.triton.vision import index
assert np.__version__ < "2"
random = np.random.default_rng(3)
pictures = [picture(random, 60, dimension=32) for _ in range(300)]
plain = [picture(random, 60) for _ in range(300)]
words = index.FirstStage.build(published(Path(sys.argv[1]), "plain", plain))
assert [words.shortlist(frame_of(plain[n], random), 3)[0] for n in range(0, 300, 30)] == list(range(0, 300, 30))
index.EXACT_UP_TO = 100
nearest = index.FirstStage.build(published(Path(sys.argv[1]), "embedded", pictures, embedder="e-1"))
assert type(nearest).__name__ == "NearestEmbeddings"
assert [nearest.shortlist(frame_of(pictures[n], random), 3)[0] for n in range(0, 300, 30)] == list(range(0, 300, 30))
print("as expected")
"""


def test_it_is_the_same_where_the_models_run(tmp_path: Path) -> None:
    """NumPy 1, which does not count bits, and usearch, which is installed there only."""
    python = environment_directory() / "bin" / "python"
    if not python.exists():
        missing("tritonserver's environment", "run `make setup`")
    ran = subprocess.run(
        [python, "-c", _IN_THE_MODELS_ENVIRONMENT, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert ran.stdout == "as expected\n", ran.stderr
