"""The options tritonserver is started with, wherever it runs."""

import resource
from pathlib import Path

import pytest

from infra.triton import server

KEY = "a-key-of-somebody"


def options(**further: object) -> list[str]:
    listening = server.Listening("127.0.0.1")
    return server.arguments(Path("/models"), ["codes", "ocr"], listening, KEY, **further)  # type: ignore[arg-type]


def value(given: list[str], name: str) -> list[str]:
    return [option.split("=", 1)[1] for option in given if option.startswith(f"--{name}=")]


def test_models_are_those_of_the_repository_and_the_embedder_where_one_was_brought(tmp_path: Path) -> None:
    for name in ("match", "codes", "embedder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").touch()
    (tmp_path / "unfinished").mkdir()
    assert server.models(tmp_path, {}) == ("codes", "match")
    assert server.models(tmp_path, {server.EMBEDDER_MANIFEST: ""}) == ("codes", "match")
    assert server.models(tmp_path, {server.EMBEDDER_MANIFEST: "manifest.toml"}) == ("codes", "embedder", "match")


def test_models_are_controlled_and_shared_memory_and_traces_set_with_the_key_only() -> None:
    given = options()
    assert value(given, "model-control-mode") == ["explicit"]
    assert value(given, "load-model") == ["codes", "ocr"]
    [grpc] = value(given, "grpc-restricted-protocol")
    [http] = value(given, "http-restricted-api")
    for restricted in (grpc, http):
        names, _, key = restricted.partition(":")
        assert {"model-repository", "shared-memory", "trace", "logging"} <= set(names.split(","))
        assert key == f"{server.CONTROL_HEADER}={KEY}"
    assert "inference" in http
    assert "inference" not in grpc


def test_no_tensor_is_ever_written_down() -> None:
    assert value(options(), "trace-config") == ["level=OFF"]
    assert value(options(), "log-verbose") == ["0"]
    traced = value(options(traces_url="http://collector:4318/v1/traces"), "trace-config")
    assert "mode=opentelemetry" in traced
    assert not [setting for setting in traced if "TENSORS" in setting]


@pytest.mark.parametrize(
    ("configured", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}, "http://collector:4318/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/spans"},
            "http://b/spans",
        ),
    ],
)
def test_traces_go_where_opentelemetrys_own_variables_say(configured: dict[str, str], endpoint: str | None) -> None:
    assert server.traces_endpoint(configured) == endpoint


def test_in_the_container_it_becomes_tritonserver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models" / "codes").mkdir(parents=True)
    (tmp_path / "models" / "codes" / "config.pbtxt").touch()
    (tmp_path / "key").write_text(KEY + "\n")
    (tmp_path / "tritonserver").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "/opt/augenblick/packages")
    monkeypatch.setenv("AUGENBLICK_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setenv("AUGENBLICK_TRITON_CONTROL_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.chdir(tmp_path)
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda *arguments: became.append(arguments))
    limits: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr("resource.setrlimit", lambda *arguments: limits.append(arguments))
    server.main()
    [(program, argv, environment)] = became
    assert program == argv[0] == str(tmp_path / "tritonserver")
    assert value(argv, "load-model") == ["codes"]
    assert value(argv, "grpc-restricted-protocol")[0].endswith(f"={KEY}")
    assert environment["PYTHONPATH"] == f"/opt/augenblick/packages:{server.TRITON}"
    assert Path.cwd() == server.TRITON, "from where the models find vision"
    [(limited, (soft, hard))] = limits
    assert limited == resource.RLIMIT_CORE and soft == hard in {0, 1}, "a crash leaves no dump"


@pytest.mark.parametrize("missing", ["models", "key"])
def test_in_the_container_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    (tmp_path / "models" / "codes").mkdir(parents=True)
    if missing != "models":
        (tmp_path / "models" / "codes" / "config.pbtxt").touch()
    (tmp_path / "key").touch()
    (tmp_path / "tritonserver").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("AUGENBLICK_MODEL_REPOSITORY", str(tmp_path / "models"))
    monkeypatch.setenv("AUGENBLICK_TRITON_CONTROL_KEY_FILE", str(tmp_path / "key"))
    with pytest.raises(SystemExit, match=missing if missing == "models" else "empty"):
        server.main()
