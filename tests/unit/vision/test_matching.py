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

from infra.triton import profiles
from infra.triton.vision import dense, embedder, extract, match, matching
from infra.triton.vision.features import Features
from infra.triton.vision.index import FirstStage
from infra.triton.vision.options import Deadline
from infra.triton.vision.parameters import PARAMETERS
from infra.triton.vision.snapshots import Snapshot, SnapshotRefused, open_snapshot
from streams.sightings import places
from tests.support import own_embedder
from tests.support.groceries import catalogue_picture, photograph, pixels, publish

Picture = NDArray[np.uint8]

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


@pytest.mark.parametrize("opened_at_once", [0, 1 << 30])
def test_while_a_large_catalogue_is_prepared_small_ones_are_searched(
    tmp_path: Path, photo: Picture, of_shown: Features, of_other: Features, monkeypatch: pytest.MonkeyPatch, opened_at_once: int
) -> None:
    go_on, build, opened = Event(), FirstStage.build, open_snapshot

    def slow(*arguments: Any) -> FirstStage:
        assert go_on.wait(20)
        return build(*arguments)

    def slowly_opened(directory: Path, name: str, **models: Any) -> Snapshot:
        assert name != "large" or opened_at_once or go_on.wait(20)
        return opened(directory, name, **models)

    monkeypatch.setattr(FirstStage, "build", slow)
    monkeypatch.setattr(matching, "open_snapshot", slowly_opened)
    catalogue(tmp_path, "large", of_shown, of_other)
    for name in ("small-1", "small-2"):
        publish(tmp_path, name, [(SHOWN, of_shown.to_bytes())], matcher=PARAMETERS.matcher)
    small = (tmp_path / "small-1" / "features.bin").stat().st_size
    monkeypatch.setattr(matching, "OPENED_AT_ONCE", max(opened_at_once, small))
    matcher, named = matching.Matcher(tmp_path, keep=4), ["large", "small-1", "small-2"]
    # Whoever waited would do so for much longer than this test may take.
    for _ in range(2):
        answer = matcher.answer(photo, {"snapshots": named}, Deadline(3_600_000))
        assert {one["snapshot"] for one in answer["candidates"]} == {"small-1", "small-2"}
        assert answer["refused"] == {"large": "snapshot large is being prepared"}
    go_on.set()
    answer = matcher.answer(photo, {"snapshots": named, "candidates": 50}, Deadline())
    assert "refused" not in answer and {one["snapshot"] for one in answer["candidates"]} == set(named)
    answer = matcher.answer(photo, {"snapshots": named, "candidates": 50}, Deadline(3_600_000))
    assert "refused" not in answer, "what a caller without a deadline has waited for is there for frames"


def test_what_goes_wrong_with_one_catalogue_costs_that_one(
    tmp_path: Path, photo: Picture, of_shown: Features, of_other: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(FirstStage):
        def shortlist(self, features: Features, k: int) -> list[int]:
            raise ValueError("the frame's embedding has 3 numbers, the catalogue's 4")

    def build(snapshot: Snapshot, device: str, indexes: Path | None) -> FirstStage:
        if snapshot.name == "unbuilt":
            raise ModuleNotFoundError("No module named 'torch'")
        return Broken()

    monkeypatch.setattr(FirstStage, "build", build)
    for name in ("broken", "unbuilt"):
        catalogue(tmp_path, name, of_shown, of_other)
    publish(tmp_path, "small", [(SHOWN, of_shown.to_bytes())], matcher=PARAMETERS.matcher)
    logged: list[tuple[str, str]] = []
    matcher = matching.Matcher(tmp_path, keep=4, log=lambda what, error: logged.append((what, type(error).__name__)))
    for _ in range(3):
        answer = matcher.answer(photo, {"snapshots": ["broken", "unbuilt", "small"]}, Deadline())
        assert [one["product_id"] for one in answer["candidates"]] == [SHOWN]
        assert answer["refused"] == {
            "broken": "snapshot broken cannot be used: ValueError",
            "unbuilt": "snapshot unbuilt cannot be used: ModuleNotFoundError",
        }
    assert logged == [("snapshot broken", "ValueError"), ("snapshot unbuilt", "ModuleNotFoundError")]
    with pytest.raises(SnapshotRefused, match="snapshot broken cannot be used: ValueError"):
        matcher.answer(photo, {"snapshots": ["broken"]}, Deadline())


@pytest.mark.parametrize("fault", [embedder.EmbedderRefused("not ready"), RuntimeError("CUDA")])
def test_an_embedder_that_refused_is_left_alone_for_a_while(
    tmp_path: Path, photo: Picture, of_shown: Features, of_other: Features, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    faults: list[Exception] = []
    asked: list[int] = []

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(batch))
        if faults:
            raise faults[0]
        return own_embedder.run(batch)

    ours = embedder.served(own_embedder.bring(tmp_path), run)
    frame = ours.embed(photo)
    near = replace(of_shown, embedding=frame), replace(of_other, embedding=-frame)
    names = [catalogue(tmp_path, f"large-{number}", *near, by=ours) for number in range(3)]
    publish(tmp_path, "small", [(SHOWN, near[0].to_bytes())], matcher=PARAMETERS.matcher, embedder=ours.id)
    matcher = matching.Matcher(tmp_path, keep=4, embedder=ours)
    products(matcher, photo, *names)  # prepared
    faults.append(fault)
    asked.clear()
    for _ in range(3):
        answer = matcher.answer(photo, {"snapshots": [*names, "small"]}, Deadline(3_600_000))
        assert [one["product_id"] for one in answer["candidates"]] == [SHOWN]
        assert list(answer["refused"]) == names
        assert len(set(answer["refused"].values())) == 1
    assert asked == [1], "neither for each catalogue nor for each frame"
    faults.clear()
    assert products(matcher, photo, *names)[0] == SHOWN, "who has the time asks"
    faults.append(fault)
    monkeypatch.setattr(matching, "EMBEDDER_LEFT_ALONE_S", 0.0)
    products(matcher, photo, *names, "small")
    faults.clear()
    answer = matcher.answer(photo, {"snapshots": names}, Deadline(3_600_000))
    assert "refused" not in answer


def test_no_frame_is_embedded_without_time(tmp_path: Path, photo: Picture, of_shown: Features, of_other: Features) -> None:
    class Passing(Deadline):
        """Passes when it was asked so often."""

        def __init__(self, times: int) -> None:
            super().__init__(3_600_000)
            self.times = times

        def passed(self) -> bool:
            self.times -= 1
            return self.times < 0

    asked: list[int] = []

    def run(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        asked.append(len(batch))
        return own_embedder.run(batch)

    ours = embedder.served(own_embedder.bring(tmp_path), run)
    frame = ours.embed(photo)
    near = replace(of_shown, embedding=frame), replace(of_other, embedding=-frame)
    name = catalogue(tmp_path, "large", *near, by=ours)
    matcher = matching.Matcher(tmp_path, keep=4, embedder=ours)
    products(matcher, photo, name)
    for times, asks in ((0, []), (1, [1])):
        asked.clear()
        with pytest.raises(SnapshotRefused, match="no time was left"):
            matcher.answer(photo, {"snapshots": [name]}, Passing(times))
        assert asked == asks


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_snapshots_of_two_regions_and_an_import_stay_open(profile: str) -> None:
    parameters = profiles.configurations(profile)["match"].parameters
    assert int(parameters["snapshots_kept"].string_value) > 2 * places.AT_MOST
    assert int(parameters["first_stages_kept"].string_value) >= places.AT_MOST


def test_the_stage_counts_a_catalogue_as_large_from_where_a_first_stage_chooses() -> None:
    assert places.LARGE == match.EXHAUSTIVE_UP_TO


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
