"""How tritonserver is started: the same options in the embedded stack and in the container, so that what was tried in one holds
in the other. Only the standard library is used, because the container has nothing else of the platform.

    python3 -m infra.triton.server      becomes tritonserver, as the environment says (see `main`)
"""

import os
import resource
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TRITON = Path(__file__).resolve().parent
MODEL_REPOSITORY = TRITON / "model_repository"

EMBEDDER, EMBEDDER_MANIFEST = "embedder", "AUGENBLICK_EMBEDDER_MANIFEST"

CONTROL_HEADER = "augenblick-control"
GRPC_CONTROL_HEADER = f"triton-grpc-protocol-{CONTROL_HEADER}"
"""What a caller sends the control key in: Triton wants gRPC's header with a prefix of its own."""

# For whoever runs the server, not for whoever may ask it to recognise something: replacing models, memory of other processes, and
# what could write tensors down.
RESTRICTED = "model-repository,shared-memory,trace,logging"
# Frames come by gRPC only; HTTP is for questions about health, models and figures.
RESTRICTED_HTTP = f"{RESTRICTED},inference"

# A frame has at most 16 MiB (vision/frames.py) and hardly ever more than one. Memory that a model shares with the server begins
# large enough for the usual frame, so that it need not grow while a wearer waits, and grows in steps that fit the largest.
SHARED_MEMORY_BYTES = 8 * 1024 * 1024
SHARED_MEMORY_GROWTH_BYTES = 16 * 1024 * 1024

GPU_DEVICE = Path("/dev/nvidiactl")
GPU_PINNED_MEMORY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Listening:
    """Where the server is reached. Triton's own default is every address."""

    address: str
    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


def models(repository: Path = MODEL_REPOSITORY, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The models to load, by name: those of the repository, the embedder only where one was brought along."""
    found = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    return tuple(name for name in found if name != EMBEDDER or environment.get(EMBEDDER_MANIFEST))


def environment() -> dict[str, str]:
    """What every process of the models gets."""
    return {
        # For `vision`, beside the working directory, which has to be this folder too: see `main`.
        "PYTHONPATH": str(TRITON),
        "PYTHONDONTWRITEBYTECODE": "1",
        # One instance of a model is one core; more cores are used by more instances. Libraries that start a thread for each core
        # they see would only make the instances wait for each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        # glibc keeps what threads have freed, in up to eight heaps a core: with pictures in them, gigabytes.
        "MALLOC_ARENA_MAX": "2",
    }


def arguments(
    repository: Path,
    names: Sequence[str],
    listening: Listening,
    control_key: str,
    *,
    backends: Path | None = None,
    shared_memory_prefix: str | None = None,
    traces_url: str | None = None,
    pinned_memory_bytes: int = 0,
) -> list[str]:
    """tritonserver's arguments. `traces_url` is an OTLP/HTTP endpoint (…/v1/traces); without it no traces are made. Pinned memory
    is for tensors on their way to a GPU."""
    options: list[tuple[str, object]] = [
        ("model-repository", repository),
        ("model-control-mode", "explicit"),
        *(("load-model", name) for name in names),
        ("model-load-thread-count", max(4, len(names))),
        # A model that cannot be loaded leaves the others serving, and a sighting is decided by those that answer.
        ("exit-on-error", "false"),
        ("strict-readiness", "false"),
        ("exit-timeout-secs", 5),
        ("http-address", listening.address),
        ("http-port", listening.http),
        ("http-thread-count", 2),
        ("grpc-address", listening.address),
        ("grpc-port", listening.grpc),
        ("metrics-address", listening.address),
        ("metrics-port", listening.metrics),
        ("http-restricted-api", f"{RESTRICTED_HTTP}:{CONTROL_HEADER}={control_key}"),
        ("grpc-restricted-protocol", f"{RESTRICTED}:{CONTROL_HEADER}={control_key}"),
        # Verbose logs name requests, and a trace of level TENSORS writes frames down.
        ("log-verbose", 0),
        ("log-format", "ISO8601"),
        *_tracing(traces_url),
        ("pinned-memory-pool-byte-size", pinned_memory_bytes),
        ("backend-config", f"python,shm-default-byte-size={SHARED_MEMORY_BYTES}"),
        ("backend-config", f"python,shm-growth-byte-size={SHARED_MEMORY_GROWTH_BYTES}"),
        # Importing OpenCV and ONNX Runtime takes seconds where other processes want the same cores.
        ("backend-config", "python,stub-timeout-seconds=120"),
    ]
    if shared_memory_prefix:
        options.append(("backend-config", f"python,shm-region-prefix-name={shared_memory_prefix}"))
    if backends:
        options.append(("backend-directory", backends))
    # The configurations are complete. To ask each model for the rest would start each of them twice.
    return ["--disable-auto-complete-config", *(f"--{name}={value}" for name, value in options)]


def _tracing(url: str | None) -> list[tuple[str, object]]:
    settings = ["level=OFF"]
    if url:
        settings = ["level=TIMESTAMPS", "rate=1", "mode=opentelemetry", f"opentelemetry,url={url}"]
        settings.append("opentelemetry,resource=service.name=triton")
    return [("trace-config", setting) for setting in settings]


def main() -> None:
    """Becomes tritonserver. From the environment:

    AUGENBLICK_MODEL_REPOSITORY (a rendered profile), AUGENBLICK_TRITON_ADDRESS (default 0.0.0.0: the container's),
    AUGENBLICK_TRITON_CONTROL_KEY_FILE (without it a key nobody knows is made, and models stay as they were loaded),
    OTEL_EXPORTER_OTLP_ENDPOINT (traces go there), AUGENBLICK_EMBEDDER_MANIFEST.
    """
    repository = Path(os.environ.get("AUGENBLICK_MODEL_REPOSITORY", MODEL_REPOSITORY))
    names = models(repository)
    if not names:
        sys.exit(f"There is no model in {repository}; set AUGENBLICK_MODEL_REPOSITORY to a rendered profile.")
    program = shutil.which("tritonserver")
    if program is None:
        sys.exit("tritonserver is not on the PATH; this runs inside its container.")
    key_file = os.environ.get("AUGENBLICK_TRITON_CONTROL_KEY_FILE")
    key = Path(key_file).read_text().strip() if key_file else secrets.token_urlsafe(24)
    if not key:
        sys.exit(f"{key_file} is empty: anybody could control the models.")
    listening = Listening(os.environ.get("AUGENBLICK_TRITON_ADDRESS", "0.0.0.0"))  # noqa: S104  (the container's own network)
    pinned = GPU_PINNED_MEMORY_BYTES if GPU_DEVICE.exists() else 0
    options = arguments(repository, names, listening, key, traces_url=traces_endpoint(os.environ), pinned_memory_bytes=pinned)
    # Here the models' packages are on the path already, in front of the image's own.
    path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), str(TRITON)) if part)
    # What would be left of a crash has frames in it. At 1 it is not handed to a program of the host's either (core_pattern); 0
    # would not prevent that (Linux, fs/coredump.c).
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    # tritonserver 2.51 runs models in an interpreter that passes over PYTHONPATH, but looks into the working directory.
    os.chdir(TRITON)
    os.execve(program, [program, *options], {**os.environ, **environment(), "PYTHONPATH": path})


def traces_endpoint(configured: Mapping[str, str]) -> str | None:
    """Where Triton sends its spans, as OpenTelemetry's own variables say it. Triton speaks OTLP over HTTP only."""
    if exact := configured.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        return exact
    base = configured.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    return f"{base.rstrip('/')}/v1/traces" if base else None


if __name__ == "__main__":
    main()
