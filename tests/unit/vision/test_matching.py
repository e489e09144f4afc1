"""How `match` chooses in large catalogues: by the embedder where there is one, prepared beside whoever serves, on any device."""

import sys
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.triton.vision import dense, embedder, extract, match, matching
from infra.triton.vision.features import Features
from infra.triton.vision.index import FirstStage
from infra.triton.vision.options import Deadline
from infra.triton.vision.parameters import PARAMETERS
from infra.triton.vision.snapshots import Snapshot, SnapshotRefused
from tests.support import own_embedder
from tests.support.groceries import catalogue_picture, photograph, pixels, publish

SHOWN, PHOTOGRAPH = "Oatly-Oat-Milk", "Oatly-Oat-Milk_003"
OTHERS = match.EXHAUSTIVE_UP_TO


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return pixels(photograph(PHOTOGRAPH))


@pytest.fixture(scope="module")
def of_shown() -> Features:
    return extract.of_catalogue_picture(pixels(catalogue_picture(SHOWN)))


@pytest.fixture(scope="module")
def of_other() -> Features:
    return extract.of_catalogue_picture(pixels(catalogue_picture("Arla-Natural-Yoghurt")))


@pytest.fixture
def plan(tmp_path: Path) -> embedder.Embedder:
    """One that Triton runs: here a function stands in for it."""
    return embedder.served(own_embedder.bring(tmp_path, kind="tensorrt"), own_embedder.run)


def catalogue(directory: Path, name: str, shown: Features, other: Features, *, by: embedder.Embedder | None = None) -> str:
    """Larger than is compared picture by picture; `shown` is in the middle."""
    others = [(f"other-{number}", other.to_bytes()) for number in range(OTHERS)]
    blobs = [*others[:90], (SHOWN, shown.to_bytes()), *others[90:]]
    publish(directory, name, blobs, matcher=PARAMETERS.matcher, embedder=by and by.id)
    return name


def products(matcher: matching.Matcher, photo: NDArray[np.uint8], *names: str) -> list[str]:
    answer = matcher.answer(photo, {"snapshots": list(names), "candidates": 50}, Deadline())
    return [one["product_id"] for one in answer["candidates"]]


def test_the_embedding_decides_what_is_compared(
    tmp_path: Path, photo: NDArray[np.uint8], of_shown: Features, of_other: Features, plan: embedder.Embedder
) -> None:
    frame = plan.embed(photo)
    near = catalogue(tmp_path, "near", replace(of_shown, embedding=frame), replace(of_other, embedding=-frame), by=plan)
    far = catalogue(tmp_path, "far", replace(of_shown, embedding=-frame), replace(of_other, embedding=frame), by=plan)
    matcher = matching.Matcher(tmp_path, keep=4, embedder=plan)
    assert products(matcher, photo, near)[0] == SHOWN
    passed_over = products(matcher, photo, far)
    assert passed_over and SHOWN not in passed_over
    plain = catalogue(tmp_path, "plain", of_shown, of_other)
    assert products(matching.Matcher(tmp_path, keep=4), photo, plain)[0] == SHOWN, "local features alone find it"


def test_a_frame_is_embedded_once_and_only_where_that_chooses(
    tmp_path: Path, photo: NDArray[np.uint8], of_shown: Features, of_other: Features
) -> None:
    asked: list[int] = []

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(batch))
        return own_embedder.run(batch)

    ours = embedder.served(own_embedder.bring(tmp_path), run)
    near = [replace(each, embedding=ours.embed(photo)) for each in (of_shown, of_other)]
    catalogue(tmp_path, "first", near[0], near[1], by=ours)
    catalogue(tmp_path, "second", near[0], near[1], by=ours)
    publish(tmp_path, "small", [(SHOWN, near[0].to_bytes())], matcher=PARAMETERS.matcher, embedder=ours.id)
    matcher = matching.Matcher(tmp_path, keep=4, embedder=ours)
    asked.clear()
    assert products(matcher, photo, "small") == [SHOWN]
    assert asked == []
    products(matcher, photo, "first", "small", "second")
    assert asked == [1]


def test_an_embedder_that_is_not_the_promised_one_costs_the_large_catalogues(
    tmp_path: Path, photo: NDArray[np.uint8], of_shown: Features, of_other: Features
) -> None:
    def other_colours(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return own_embedder.run(batch[:, :, :, ::-1])

    wrong = embedder.served(own_embedder.bring(tmp_path, kind="tensorrt"), other_colours)
    some = own_embedder.run(np.zeros((1, 4, 4, 3), np.uint8))[0]
    large = catalogue(tmp_path, "large", replace(of_shown, embedding=some), replace(of_other, embedding=some), by=wrong)
    publish(
        tmp_path, "small", [(SHOWN, replace(of_shown, embedding=some).to_bytes())], matcher=PARAMETERS.matcher, embedder=wrong.id
    )
    matcher = matching.Matcher(tmp_path, keep=4, embedder=wrong)
    answer = matcher.answer(photo, {"snapshots": [large, "small"]}, Deadline())
    assert [one["product_id"] for one in answer["candidates"]] == [SHOWN]
    assert "golden vector differs" in answer["refused"][large]
    with pytest.raises(SnapshotRefused, match="golden vector differs"):
        matcher.answer(photo, {"snapshots": [large]}, Deadline())
    with pytest.raises(embedder.EmbedderRefused, match="golden vector differs"):
        matching.catalogue_features(pixels(catalogue_picture(SHOWN)), wrong)


def test_where_instances_have_a_gpu_it_is_prepared_beside_them(
    tmp_path: Path,
    photo: NDArray[np.uint8],
    of_shown: Features,
    of_other: Features,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class First(FirstStage):
        def shortlist(self, features: Features, k: int) -> list[int]:
            return [90]

    go_on, prepared = Event(), []

    def on_device(snapshot: Snapshot, device: str) -> FirstStage:
        assert go_on.wait(10)
        prepared.append((snapshot.name, device))
        return First()

    monkeypatch.setattr(dense, "on_device", on_device)
    catalogue(tmp_path, "large", of_shown, of_other)
    matcher = matching.Matcher(tmp_path, keep=4, device="cuda:1")
    with pytest.raises(SnapshotRefused, match="is being prepared"):
        matcher.answer(photo, {"snapshots": ["large"]}, Deadline(1))
    go_on.set()
    assert products(matcher, photo, "large") == [SHOWN]
    assert products(matcher, photo, "large") == [SHOWN]
    assert prepared == [("large", "cuda:1")]


def test_weights_have_a_name_of_their_own() -> None:
    assert PARAMETERS.scorer.startswith(f"{PARAMETERS.matcher}+")
    assert replace(PARAMETERS, intercept=PARAMETERS.intercept + 0.001).scorer != PARAMETERS.scorer
    heavier = {**PARAMETERS.weights, "votes": PARAMETERS.weights["votes"] + 0.001}
    assert replace(PARAMETERS, weights=heavier).scorer != PARAMETERS.scorer
    turned = dict(reversed(PARAMETERS.weights.items()))
    assert replace(PARAMETERS, weights=turned).scorer == PARAMETERS.scorer
    assert replace(PARAMETERS, matcher="sift-2").scorer == PARAMETERS.scorer.replace(PARAMETERS.matcher, "sift-2")


class Session:
    """onnxruntime's, as far as it is asked; `usable` are the providers that the machine has."""

    made: ClassVar[list[Any]] = []
    usable: tuple[str, ...] = ()

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        Session.made.append(providers)
        named = [one if isinstance(one, str) else one[0] for one in providers]
        self._used = [name for name in named if name in (*Session.usable, "CPUExecutionProvider")]

    def get_providers(self) -> list[str]:
        return self._used

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="IMAGE", type="tensor(uint8)")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="EMBEDDING", type="tensor(float)")]

    def run(self, outputs: list[str], inputs: dict[str, NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
        return [own_embedder.run(inputs["IMAGE"])]


def test_onnx_computes_where_its_instance_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(SessionOptions=SimpleNamespace, InferenceSession=Session)
    monkeypatch.setitem(sys.modules, "onnxruntime", library)
    monkeypatch.setattr(Session, "made", [])
    manifest = own_embedder.bring(tmp_path)
    with pytest.raises(embedder.EmbedderRefused, match="cannot use cuda:1"):
        embedder.load(manifest, device="cuda:1")
    monkeypatch.setattr(Session, "usable", ("CUDAExecutionProvider",))
    embedder.load(manifest, device="cuda:1")
    embedder.load(manifest)
    on_gpu, on_cpu = Session.made[1:]
    assert on_gpu == [("CUDAExecutionProvider", {"device_id": "1"}), "CPUExecutionProvider"]
    assert on_cpu == ["CPUExecutionProvider"], "an instance on a core leaves the GPU alone"


def test_torchscript_computes_where_its_instance_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[str] = []

    class Tensor:
        """PyTorch's, as far as it is asked."""

        def __init__(self, values: NDArray[Any]) -> None:
            self.values = values

        def to(self, device: str) -> "Tensor":
            places.append(device)
            return self

        def cpu(self) -> "Tensor":
            return self

        def numpy(self) -> NDArray[Any]:
            return self.values

    class Module:
        def eval(self) -> "Module":
            return self

        def __call__(self, images: Tensor) -> Tensor:
            return Tensor(own_embedder.run(images.values))

    def load(path: str, map_location: str) -> Module:
        places.append(map_location)
        return Module()

    class InferenceMode:
        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    library = SimpleNamespace(jit=SimpleNamespace(load=load), from_numpy=Tensor, inference_mode=InferenceMode)
    monkeypatch.setitem(sys.modules, "torch", library)
    manifest = own_embedder.bring(tmp_path, kind="torchscript")
    embedder.load(manifest, device="cuda:2")
    assert places == ["cuda:2", "cuda:2"], "the weights and the picture"
    places.clear()
    embedder.load(manifest)
    assert places == ["cpu", "cpu"]
