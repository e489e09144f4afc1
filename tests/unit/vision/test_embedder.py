"""An embedder is used only if it is what its manifest promises. That onnxruntime runs one is shown by
tests/integration/test_embedder_model.py; here the model's place is taken by a function."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from infra.triton.vision import embedder
from infra.triton.vision.embedder import EmbedderRefused
from tests.support import own_embedder

EXAMPLE = Path(embedder.__file__).parents[1] / "embedders" / "example.toml"


def load(manifest: Path, run: embedder.Run = own_embedder.run) -> embedder.Embedder:
    """As models do that ask the model `embedder`; the first picture shows whether it is what it has to be."""
    ours = embedder.served(manifest, run)
    ours.embed(np.zeros((10, 10, 3), np.uint8))
    return ours


def test_a_picture_becomes_a_vector_of_unit_length(tmp_path: Path) -> None:
    ours = load(own_embedder.bring(tmp_path))
    bgr = np.zeros((100, 50, 3), np.uint8)
    bgr[:, :, 2] = 200
    red = np.zeros((1, 4, 4, 3), np.uint8)
    red[:, :, :, 0] = 200
    vector = ours.embed(bgr)
    assert (ours.id, ours.dimension) == ("mean-colour-1", own_embedder.DIMENSION)
    assert vector.dtype == np.float32 and np.linalg.norm(vector) == pytest.approx(1)
    np.testing.assert_allclose(vector, own_embedder.run(red)[0], atol=1e-6, err_msg="the model sees RGB")


def test_many_pictures_are_one_call(tmp_path: Path) -> None:
    calls = []

    def counted(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(batch))
        return own_embedder.run(batch)

    ours = load(own_embedder.bring(tmp_path), counted)
    calls.clear()
    pictures = [np.full((10 + size, 20, 3), 40 * size, np.uint8) for size in range(5)]
    together = ours.embed_rgb(pictures)
    assert calls == [5]
    np.testing.assert_allclose(together, [ours.embed(picture) for picture in pictures], atol=1e-6)
    assert ours.embed_rgb([]).shape == (0, own_embedder.DIMENSION)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"sha256": "0" * 64}, "has SHA-256"),
        ({"licence": None}, "lacks licence"),
        ({"licence": "  "}, "licence is empty"),
        ({"dimension": 9}, "golden vector has 8 numbers, not 9"),
        ({"tolerance": 1.0}, "tolerance is above 0"),
        ({"tolerance": float("nan")}, "is no TOML"),
        ({"kind": "pickle"}, "kind is one of onnx, torchscript, tensorrt"),
        ({"id": "../1"}, "id has 1 to 64"),
        ({"file": "../model.onnx"}, "not the name of a file beside it"),
        ({"file": "other.onnx"}, "other.onnx cannot be read"),
        ({"golden_picture": "model.onnx"}, "golden picture cannot be decoded"),
        ({"golden_vector": "model.onnx"}, "golden vector is no JSON"),
        ({"width": "32"}, "width is not of type int"),
        ({"height": 0}, "width and height 1 to"),
        ({"mean": 0.5}, "unknown keys: mean"),
    ],
)
def test_what_a_manifest_does_not_keep_is_refused(tmp_path: Path, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(EmbedderRefused, match=message):
        load(own_embedder.bring(tmp_path, **stated))


def test_one_changed_byte_of_the_model_is_refused(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    model = bytearray((tmp_path / "model.onnx").read_bytes())
    model[-20] ^= 1
    (tmp_path / "model.onnx").write_bytes(model)
    with pytest.raises(EmbedderRefused, match="has SHA-256"):
        load(manifest)


def test_a_golden_vector_that_differs_is_refused(tmp_path: Path) -> None:
    manifest = own_embedder.bring(tmp_path)
    golden = json.loads((tmp_path / "golden.json").read_text())
    within = [golden[0] + 0.0009, *golden[1:]]
    (tmp_path / "golden.json").write_text(json.dumps(within))
    load(manifest)
    (tmp_path / "golden.json").write_text(json.dumps([golden[0] + 0.002, *golden[1:]]))
    with pytest.raises(EmbedderRefused, match=r"golden vector differs by 0\.002"):
        load(manifest)


def other_colours(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    return own_embedder.run(batch[:, :, :, ::-1])


def not_of_unit_length(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    return own_embedder.run(batch) * np.float32(1.01)


def not_a_number(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    return own_embedder.run(batch) * np.float32(np.nan)


def too_precise(batch: NDArray[np.uint8]) -> NDArray[Any]:
    return own_embedder.run(batch).astype(np.float64)


def too_short(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
    return own_embedder.run(batch)[:, :4]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (other_colours, "golden vector differs"),
        (not_of_unit_length, r"length 1\.0100, not 1"),
        (not_a_number, "length nan, not 1"),
        (too_precise, "float64"),
        (too_short, r"answers float32 \[1, 4\], not float32 \[1, 8\]"),
    ],
)
def test_a_model_that_answers_something_else_is_refused(tmp_path: Path, run: embedder.Run, message: str) -> None:
    with pytest.raises(EmbedderRefused, match=message):
        load(own_embedder.bring(tmp_path), run)


def test_a_model_that_changes_its_answer_later_is_refused_then(tmp_path: Path) -> None:
    answers = [own_embedder.run, own_embedder.run, not_of_unit_length]

    def changing(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return answers.pop(0)(batch)

    ours = load(own_embedder.bring(tmp_path), changing)
    with pytest.raises(EmbedderRefused, match="not 1"):
        ours.embed(np.zeros((10, 10, 3), np.uint8))


def test_what_is_served_is_proven_before_the_first_picture_and_once(tmp_path: Path) -> None:
    """A plan, say: whoever asks for its answers only finds out then which model it is that answers."""
    asked: list[NDArray[np.uint8]] = []
    model = [other_colours]

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(batch)
        return model[0](batch)

    ours = embedder.served(own_embedder.bring(tmp_path, kind="tensorrt"), run)
    assert not asked, "nobody answers while models are being loaded"
    white, black = np.full((10, 10, 3), 255, np.uint8), np.zeros((10, 10, 3), np.uint8)
    for picture in (white, black):
        with pytest.raises(EmbedderRefused, match="golden vector differs"):
            ours.embed(picture)
    assert all(len(np.unique(batch)) > 100 for batch in asked), "no picture of anybody's was shown to it"
    model[0] = own_embedder.run  # the right one took its place
    asked.clear()
    for picture in (white, black):
        ours.embed(picture)
    assert [int(batch.max()) for batch in asked[1:]] == [255, 0]
    assert len(asked) == 3


def test_one_callers_picture_costs_no_other_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        calls.append(len(batch))
        if (batch == 77).all(axis=(1, 2, 3)).any():
            raise RuntimeError("of this picture")
        return own_embedder.run(batch)

    ours = load(own_embedder.bring(tmp_path), run)
    monkeypatch.setattr(embedder, "MAXIMUM_PIXELS", 20 * 30)
    good, two = np.full((1, 20, 30, 3), 90, np.uint8), np.full((2, 10, 30, 3), 200, np.uint8)
    requests = [
        good,
        np.zeros((1, 20, 31, 3), np.uint8),
        two,
        np.zeros((1, 0, 7, 3), np.uint8),
        np.zeros((2, 20, 30, 3), np.uint8),
    ]
    calls.clear()
    first, large, second, empty, many = ours.embed_each(requests)
    assert calls == [3], "all that can be asked, in one call"
    np.testing.assert_allclose(first, ours.embed_rgb(list(good)), atol=1e-6)  # type: ignore[arg-type]
    np.testing.assert_allclose(second, ours.embed_rgb(list(two)), atol=1e-6)  # type: ignore[arg-type]
    assert isinstance(large, embedder.PictureRefused) and str(large) == "IMAGE has 620 pixels; 600 are the limit"
    assert isinstance(many, embedder.PictureRefused) and "1,200 pixels" in str(many)
    assert isinstance(empty, embedder.PictureRefused)
    calls.clear()
    first, fails, second = ours.embed_each([good, np.full((1, 9, 9, 3), 77, np.uint8), two])
    assert calls == [4, 1, 1, 2], "then each by itself"
    assert isinstance(fails, RuntimeError) and len(first) == 1 and len(second) == 2  # type: ignore[arg-type]
    assert ours.embed_each([]) == []


def test_a_picture_too_large_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load(own_embedder.bring(tmp_path))
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (1, 100_000, 100_000, 3), (0, 0, 0, 0))
    monkeypatch.setattr(cv2, "resize", None)
    [refusal] = ours.embed_each([huge])
    assert isinstance(refusal, embedder.PictureRefused)


def test_a_plan_is_not_loaded_here(tmp_path: Path) -> None:
    with pytest.raises(EmbedderRefused, match="Triton's own backend"):
        embedder.load(own_embedder.bring(tmp_path, kind="tensorrt"))


def test_nothing_is_loaded_where_no_manifest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(embedder.MANIFEST_VARIABLE, "")
    assert embedder.configured() is None
    monkeypatch.setenv(embedder.MANIFEST_VARIABLE, "/some/manifest.toml")
    assert embedder.configured() == Path("/some/manifest.toml")


def test_the_example_is_a_manifest() -> None:
    assert embedder.read_manifest(EXAMPLE).kind == "onnx"
