"""Both profiles come from one source, and what must not be served is refused when they are made."""

import math
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from infra.triton import profiles
from infra.triton.server import EMBEDDER, MODEL_REPOSITORY, TRITON

MODELS = sorted(path.parent.name for path in MODEL_REPOSITORY.glob("*/config.pbtxt"))
GOOD = """
name: "looks"
backend: "python"
max_batch_size: 1
input [ { name: "IMAGE", data_type: TYPE_UINT8, dims: [ -1 ] } ]
output [ { name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU, count: 1 } ]
parameters [
  { key: "kept", value: { string_value: "1" } },
  { key: "changed", value: { string_value: "1" } }
]
model_warmup [ { name: "a frame", batch_size: 1, inputs { key: "IMAGE", value: { data_type: TYPE_UINT8, dims: [ 8 ] } } } ]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "models" / "looks" / "1").mkdir(parents=True)
    (tmp_path / "models" / "looks" / "1" / "model.py").write_text("")
    (tmp_path / "models" / "looks" / "config.pbtxt").write_text(GOOD)
    return tmp_path / "models"


def overrides(tmp_path: Path, text: str, name: str = "looks") -> Path:
    directory = tmp_path / "overrides"
    directory.mkdir()
    (directory / f"{name}.pbtxt").write_text(text)
    return directory


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_every_model_of_ours_is_fit_in_every_profile(profile: str) -> None:
    assert list(profiles.configurations(profile)) == MODELS


def test_the_cpu_profile_needs_no_gpu_and_the_gpu_profile_uses_it() -> None:
    kinds = {
        profile: {name: found.instance_group[0].kind for name, found in profiles.configurations(profile).items()}
        for profile in profiles.PROFILES
    }
    assert set(kinds["cpu"].values()) == {ModelInstanceGroup.KIND_CPU}
    on_gpu = {name for name, kind in kinds["gpu"].items() if kind == ModelInstanceGroup.KIND_GPU}
    assert on_gpu == {"ocr", "match", EMBEDDER} & set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_profiles_change_how_a_model_runs_and_not_what_it_takes_and_answers(name: str) -> None:
    cpu, gpu = (profiles.configurations(profile)[name] for profile in profiles.PROFILES)
    assert list(cpu.input) == list(gpu.input)
    assert list(cpu.output) == list(gpu.output)


@pytest.mark.parametrize("name", [name for name in MODELS if name != EMBEDDER])
def test_models_share_their_conventions(name: str) -> None:
    configuration = profiles.configurations("cpu")[name]
    assert configuration.max_batch_size == 1
    inputs = {tensor.name: tensor for tensor in configuration.input}
    assert list(inputs["IMAGE"].dims) == [-1]
    assert set(inputs) <= {"IMAGE", "OPTIONS"}
    if "OPTIONS" in inputs:
        assert inputs["OPTIONS"].optional
    assert "RESULT" in {tensor.name for tensor in configuration.output}


@pytest.mark.parametrize("name", MODELS)
def test_a_warm_up_picture_is_as_long_as_it_is_said_to_be(name: str) -> None:
    for sample in profiles.configurations("cpu")[name].model_warmup:
        for tensor in sample.inputs.values():
            if tensor.input_data_file and tensor.data_type == 2:  # TYPE_UINT8
                assert (MODEL_REPOSITORY / name / "warmup" / tensor.input_data_file).stat().st_size == math.prod(tensor.dims)


def test_a_plan_takes_the_place_of_the_model_that_runs_python(tmp_path: Path) -> None:
    (tmp_path / "embedder.pbtxt").write_text((TRITON / "embedders" / "tensorrt.pbtxt").read_text())
    plan = profiles.configurations("gpu", tmp_path)[EMBEDDER]
    assert plan.backend == "tensorrt" and plan.max_batch_size == 64
    assert [list(tensor.dims) for tensor in (*plan.input, *plan.output)] == [[224, 224, 3], [768]]
    assert [tensor.name for tensor in (*plan.input, *plan.output)] == ["IMAGE", "EMBEDDING"]
    [warmup] = plan.model_warmup
    assert warmup.batch_size == 64 and list(warmup.inputs["IMAGE"].dims) == [224, 224, 3]


def test_overrides_are_for_models_that_there_are() -> None:
    designed = {"codes", "ocr", "match", "features", EMBEDDER}
    assert {path.stem for path in profiles.OVERRIDES.glob("*/*.pbtxt")} <= designed
    assert set(MODELS) <= designed


def test_an_override_takes_the_place_of_whole_fields_and_of_single_parameters(repository: Path, tmp_path: Path) -> None:
    further = overrides(
        tmp_path,
        'instance_group [ { kind: KIND_GPU, count: 2 } ] parameters [ { key: "changed", value: { string_value: "2" } } ]',
    )
    found = profiles.configurations("cpu", further, repository=repository)["looks"]
    assert [(group.kind, group.count) for group in found.instance_group] == [(ModelInstanceGroup.KIND_GPU, 2)]
    assert {key: value.string_value for key, value in found.parameters.items()} == {"kept": "1", "changed": "2"}
    assert [tensor.name for tensor in found.input] == ["IMAGE"]


def test_what_is_rendered_is_whole_and_reads_as_it_was_made(repository: Path, tmp_path: Path) -> None:
    further = overrides(tmp_path, "instance_group [ { kind: KIND_CPU, count: 3 } ]")
    assert profiles.render("cpu", tmp_path / "out", further, repository=repository) == ["looks"]
    written = text_format.Parse((tmp_path / "out" / "looks" / "config.pbtxt").read_text(), ModelConfig())
    assert written == profiles.configurations("cpu", further, repository=repository)["looks"]
    assert (tmp_path / "out" / "looks" / "1" / "model.py").exists()
    with pytest.raises(profiles.Unfit, match="not empty"):
        profiles.render("cpu", tmp_path / "out", repository=repository)


@pytest.mark.parametrize("text", ["instance_groups [ ]", "instance_group [ { kind: KIND_TPU } ]", "max_batch_size: many", "{"])
def test_what_is_misspelt_is_refused(repository: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(profiles.Unfit, match=r"looks\.pbtxt"):
        profiles.configurations("cpu", overrides(tmp_path, text), repository=repository)


def test_an_override_for_no_model_is_refused(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(profiles.Unfit, match="no model look,"):
        profiles.configurations("cpu", overrides(tmp_path, "max_batch_size: 1", "look"), repository=repository)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name: "looks"', 'name: "sees"', "its name is sees"),
        ("instance_group [ { kind: KIND_CPU, count: 1 } ]", "", "no instance_group"),
        ("kind: KIND_CPU, count: 1", "count: 1", "neither KIND_CPU nor KIND_GPU"),
        ("kind: KIND_CPU, count: 1", "kind: KIND_CPU", "no count"),
        ("model_warmup", "#", "no model_warmup"),
        ('output [ { name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] } ]', "", "outputs are not stated"),
        ("max_batch_size: 1", "max_batch_size: 1 response_cache { enable: true }", "response_cache"),
        ("max_batch_size: 1", "dynamic_batching { default_queue_policy { max_queue_size: 8 } }", "queue policy"),
        ("max_batch_size: 1", "dynamic_batching { priority_levels: 2 default_priority_level: 1 }", "queue policy"),
        (
            "max_batch_size: 1",
            "dynamic_batching { priority_queue_policy { key: 1 value { default_timeout_microseconds: 9 } } }",
            "queue policy",
        ),
    ],
)
def test_what_must_not_be_served_is_refused(repository: Path, old: str, new: str, why: str) -> None:
    assert old in GOOD
    (repository / "looks" / "config.pbtxt").write_text(GOOD.replace(old, new))
    with pytest.raises(profiles.Unfit, match=why):
        profiles.configurations("cpu", repository=repository)


def test_batching_without_a_policy_is_fit(repository: Path) -> None:
    batching = "max_batch_size: 64 dynamic_batching { max_queue_delay_microseconds: 2000 }"
    (repository / "looks" / "config.pbtxt").write_text(GOOD.replace("max_batch_size: 1", batching))
    assert profiles.configurations("cpu", repository=repository)["looks"].dynamic_batching.max_queue_delay_microseconds == 2000
