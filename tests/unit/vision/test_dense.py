"""The matrix product finds what a slow loop finds, on numpy and on torch."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from infra.triton.vision import dense
from infra.triton.vision.dense import UNIT, DenseMatcher
from infra.triton.vision.index import ExactEmbeddings, FirstStage
from infra.triton.vision.snapshots import SnapshotRefused
from tests.unit.vision.catalogues import frame_of, picture, published


def libraries() -> list[Any]:
    try:
        import torch  # type: ignore[import-not-found]
    except ImportError:
        return [np]
    return [np, torch]


@pytest.fixture(params=libraries(), ids=lambda library: library.__name__)
def library(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(12)


def one_by_one(
    frame: np.ndarray[Any, Any], weight: np.ndarray[Any, Any], pictures: list[np.ndarray[Any, Any]]
) -> np.ndarray[Any, Any]:
    """The same score, in the words of its definition."""
    likest = np.zeros((len(frame), len(pictures)))
    for point, descriptor in enumerate(frame.astype(np.float64)):
        for number, references in enumerate(pictures):
            if len(references):
                likest[point, number] = (
                    max(float(descriptor @ reference) for reference in references.astype(np.float64)) / UNIT**2
                )
    scores = np.zeros(len(pictures))
    for row, counts in zip(likest, weight, strict=True):
        pictures_alike = int((row > dense._LIKENESS).sum())
        for number, likeness in enumerate(row):
            if likeness > dense._LIKENESS:
                scores[number] += counts * (likeness - dense._LIKENESS) * np.log((len(pictures) + 1) / pictures_alike) ** 2
    return scores


@pytest.mark.parametrize("products_at_once", [1, 5_000, 1 << 24])
def test_scores_are_those_of_a_loop(
    library: Any, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch, products_at_once: int
) -> None:
    monkeypatch.setitem(dense.MOST_PRODUCTS, "cpu", products_at_once)
    pictures = [picture(random, count) for count in (7, 0, 12, 12, 3)]
    frame = frame_of(pictures[2], random, others=9)
    matcher = DenseMatcher.of([each.descriptors for each in pictures], library=library)
    weight = random.uniform(0, 1, len(frame.descriptors)).astype(np.float32)
    expected = one_by_one(frame.descriptors, weight, [each.descriptors for each in pictures])
    assert expected[2] > 0
    tolerance = 1e-4 if library is np else 2e-2
    np.testing.assert_allclose(matcher.scores(frame.descriptors, weight), expected, rtol=tolerance, atol=tolerance)


def test_what_a_frame_shows_comes_first(tmp_path: Path, library: Any, random: np.random.Generator) -> None:
    pictures = [picture(random, 30) for _ in range(60)]
    matcher = DenseMatcher.of_snapshot(published(tmp_path, "some", pictures), library=library)
    for number in (0, 31, 59):
        assert matcher.shortlist(frame_of(pictures[number], random, others=20), 3)[0] == number


def test_embeddings_are_compared_with_many_frames_at_once(library: Any, random: np.random.Generator) -> None:
    many = random.standard_normal((500, 24)).astype(np.float32)
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    stage = ExactEmbeddings(many if library is np else library.from_numpy(many), library=library)
    likeness = many[:3] @ many.T
    expected = [[int(index) for index in row[:7]] for row in np.argsort(-likeness, axis=1)]
    assert stage.shortlists(many[:3], 7) == expected
    shown = dataclasses.replace(picture(random, 3), embedding=many[2])
    assert stage.shortlist(shown, 7) == expected[2]
    assert sorted(stage.shortlist(shown, 501)) == list(range(500))


def test_on_a_gpu_embeddings_decide_where_there_are_some(
    tmp_path: Path, random: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which one it is, and where it is made. NumPy stands in for torch, which may not be installed."""

    class Array(np.ndarray[Any, Any]):
        def to(self, device: str, kind: Any) -> "Array":
            places.append(device)
            return self.astype(kind).view(Array)

    class NoRoom(RuntimeError):
        pass

    def zeros(shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        places.append(device)
        if len(places) > 2:
            raise NoRoom
        return np.zeros(shape, dtype)

    def from_numpy(values: np.ndarray[Any, Any]) -> Array:
        return values.view(Array)

    places: list[str] = []
    cuda = SimpleNamespace(OutOfMemoryError=NoRoom)
    stand_in = SimpleNamespace(float16=np.float16, cuda=cuda, zeros=zeros, from_numpy=from_numpy)
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    embedded = published(tmp_path, "embedded", [picture(random, 3, dimension=8) for _ in range(4)], embedder="e-1")
    plain = published(tmp_path, "plain", [])
    assert isinstance(FirstStage.build(embedded, "cuda:1"), ExactEmbeddings)
    assert isinstance(FirstStage.build(plain, "cuda:1"), DenseMatcher)
    assert places == ["cuda:1", "cuda:1"]
    with pytest.raises(SnapshotRefused, match="cuda:1 has no room"):
        FirstStage.build(plain, "cuda:1")


def test_nothing_is_like_nothing(library: Any, random: np.random.Generator) -> None:
    empty = np.zeros((0, 128), np.uint8)
    assert DenseMatcher.of([], library=library).scores(picture(random).descriptors).shape == (0,)
    assert DenseMatcher.of([empty, empty], library=library).scores(picture(random).descriptors).tolist() == [0, 0]
    assert DenseMatcher.of([picture(random).descriptors], library=library).scores(empty).tolist() == [0]
