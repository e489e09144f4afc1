"""tritonserver with the repository's models, from a virtual environment of its own (made by `infra.local.triton_environment`)."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import psutil

from infra.local.checks import http_answers
from infra.local.component import Address, ComponentUnavailable
from infra.local.layout import INFRA, Layout, home
from infra.local.ports import LOOPBACK
from streams.core.supervisor import ProcessSpec

MODEL_REPOSITORY = INFRA / "triton" / "model_repository"
MODELS = ("codes",)
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (Linux has its shared memory there; only our own prefix is touched)
SHARED_MEMORY_NAME = "augenblick"
# Larger than the largest frame, so that the memory a model shares with the server need not grow while a wearer waits.
SHARED_MEMORY_BYTES = 8 * 1024 * 1024


def environment_directory() -> Path:
    return home() / ".venv-triton"


class Triton:
    name = "triton"
    ports: tuple[str, ...] = ("triton-http", "triton-grpc", "triton-metrics")

    async def prepare(self, layout: Layout, ports: dict[str, int]) -> None:
        self._installation = environment_directory()
        try:
            description = json.loads((self._installation / "server.json").read_text())
        except (OSError, ValueError):
            raise ComponentUnavailable(
                f"tritonserver is not installed in {self._installation}. Run `make setup`, or set TRITON_URL to one of yours "
                "(gRPC host:port)"
            ) from None
        self._server = Path(description["server"])
        self._library_path = description["library_path"]
        self._log_file = layout.log_file(self.name)
        self._ports = ports
        stack = hashlib.sha256(str(layout.root.resolve()).encode()).hexdigest()[:12]
        self._shared_memory_prefix = f"{SHARED_MEMORY_NAME}-{os.getpid()}-{stack}-"

    def spec(self) -> ProcessSpec:
        options = {
            "model-repository": MODEL_REPOSITORY,
            "backend-directory": self._server / "backends",
            "model-control-mode": "explicit",
            "http-address": LOOPBACK,
            "http-port": self._ports["triton-http"],
            "grpc-address": LOOPBACK,
            "grpc-port": self._ports["triton-grpc"],
            "metrics-address": LOOPBACK,
            "metrics-port": self._ports["triton-metrics"],
            "http-thread-count": 2,
            "exit-timeout-secs": 5,
            "pinned-memory-pool-byte-size": 0,
        }
        python_backend = {
            "shm-region-prefix-name": self._shared_memory_prefix,
            "shm-default-byte-size": SHARED_MEMORY_BYTES,
        }
        health = f"http://{LOOPBACK}:{self._ports['triton-http']}/v2/models"

        async def ready() -> None:
            for model in MODELS:
                await http_answers(f"{health}/{model}/ready")

        return ProcessSpec(
            name=self.name,
            argv=[
                str(self._server / "bin" / "tritonserver"),
                *(f"--{name}={value}" for name, value in options.items()),
                *(f"--load-model={model}" for model in MODELS),
                *(f"--backend-config=python,{name}={value}" for name, value in python_backend.items()),
            ],
            log_file=self._log_file,
            environment={
                # The models run in the environment's interpreter: found through the PATH, with that interpreter's own library.
                "PATH": f"{self._installation / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "LD_LIBRARY_PATH": self._library_path,
                "VIRTUAL_ENV": str(self._installation),
                "PYTHONPATH": "",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            ready=ready,
            before_start=lambda: remove_shared_memory(self._shared_memory_prefix),
            ready_timeout_seconds=60,
            stop_timeout_seconds=15,
            remedy="Run `augenblick doctor`; if tritonserver's environment is damaged, delete .venv-triton and run `make setup`.",
        )

    def environment(self) -> dict[str, str]:
        return {
            "TRITON_URL": f"{LOOPBACK}:{self._ports['triton-grpc']}",
            "TRITON_METRICS_URL": f"http://{LOOPBACK}:{self._ports['triton-metrics']}/metrics",
        }

    def addresses(self) -> list[Address]:
        return [
            Address(self.name, "tritonserver, gRPC", self.environment()["TRITON_URL"]),
            Address(self.name, "tritonserver, HTTP", f"http://{LOOPBACK}:{self._ports['triton-http']}"),
            Address(self.name, "tritonserver, metrics", self.environment()["TRITON_METRICS_URL"]),
        ]


def remove_shared_memory(own_prefix: str) -> None:
    """A server that was killed leaves its shared memory behind, and nobody else will ever remove it. This removes what an earlier
    server of this stack left, and what servers left whose supervisor (named by its process id) is gone."""
    for region in SHARED_MEMORY.glob(f"{SHARED_MEMORY_NAME}-*"):
        supervisor = region.name.split("-")[1]
        if region.name.startswith(own_prefix) or (supervisor.isdecimal() and not psutil.pid_exists(int(supervisor))):
            with contextlib.suppress(OSError):
                region.unlink()
