"""tritonserver with the repository's models, from a virtual environment of its own (made by `infra.local.triton_environment`)."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from infra.local.component import Address, ComponentUnavailable
from infra.local.layout import Layout, home
from infra.local.ports import LOOPBACK
from infra.triton import server
from streams.core.supervisor import ProcessSpec

logger = logging.getLogger(__name__)

CATALOGUE_DIRECTORY = "AUGENBLICK_CATALOGUE_DIRECTORY"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (Linux has its shared memory there; only our own prefix is touched)
SHARED_MEMORY_NAME = "augenblick"


def environment_directory() -> Path:
    return home() / ".venv-triton"


@dataclass(frozen=True)
class Model:
    """One of the repository, as the server has it. `reason` says why one that was asked for does not serve; `is_asked_for` is
    False for one that is left out on purpose."""

    name: str
    serves: bool
    reason: str = ""
    is_asked_for: bool = True


class Triton:
    """`configured` is where the user's own settings are looked up; `repository` holds the models; `note` is told, in words, of
    every model that could not be loaded."""

    name = "triton"
    ports: tuple[str, ...] = ("triton-http", "triton-grpc", "triton-metrics")

    def __init__(
        self,
        *,
        configured: Mapping[str, str] | None = None,
        repository: Path = server.MODEL_REPOSITORY,
        note: Callable[[str], None] = logger.warning,
    ) -> None:
        self._configured = os.environ if configured is None else configured
        self._repository = repository
        self._note = note
        self._noted: set[str] = set()

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
        self._models = server.models(self._repository, self._configured)
        # The models run in another directory than the user does.
        self._catalogues = layout.root.absolute() / "catalogues"
        if chosen := self._configured.get(CATALOGUE_DIRECTORY):
            self._catalogues = _absolute(chosen)
        manifest = self._configured.get(server.EMBEDDER_MANIFEST)
        self._embedder_manifest = str(_absolute(manifest)) if manifest else ""
        self._catalogues.mkdir(parents=True, exist_ok=True)
        self.control_key_file = _control_key_file(layout)
        self._control_key = _kept_key(self.control_key_file)

    def spec(self) -> ProcessSpec:
        listening = server.Listening(
            LOOPBACK, self._ports["triton-http"], self._ports["triton-grpc"], self._ports["triton-metrics"]
        )
        options = server.arguments(
            self._repository,
            self._models,
            listening,
            self._control_key,
            backends=self._server / "backends",
            shared_memory_prefix=self._shared_memory_prefix,
            traces_url=server.traces_endpoint(self._configured),
        )
        return ProcessSpec(
            name=self.name,
            argv=[str(self._server / "bin" / "tritonserver"), *options],
            log_file=self._log_file,
            # From here the models import `vision`: this tritonserver passes over PYTHONPATH.
            working_directory=server.TRITON,
            environment={
                **server.environment(),
                # The models run in the environment's interpreter: found through the PATH, with that interpreter's own library.
                "PATH": f"{self._installation / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
                "LD_LIBRARY_PATH": self._library_path,
                "VIRTUAL_ENV": str(self._installation),
                CATALOGUE_DIRECTORY: str(self._catalogues),
                server.EMBEDDER_MANIFEST: self._embedder_manifest,
            },
            ready=self._ready,
            before_start=lambda: remove_shared_memory(self._shared_memory_prefix),
            ready_timeout_seconds=180,
            stop_timeout_seconds=15,
            remedy="Run `augenblick doctor`; if tritonserver's environment is damaged, delete .venv-triton and run `make setup`.",
        )

    async def models(self) -> list[Model]:
        """Those that were to be loaded. Raises while the server does not answer, which it does not before all were tried."""
        index = await asyncio.to_thread(_index, self._ports["triton-http"], self._control_key)
        return [_model(name, index.get(name, {})) for name in self._models]

    async def _ready(self) -> None:
        """Passes when every model was tried and one at least serves: a sighting is decided by those that answer."""
        models = await self.models()
        failed = [model for model in models if not model.serves]
        if models and len(failed) == len(models):
            raise ConnectionError("no model could be loaded. " + " ".join(f"{model.name}: {model.reason}." for model in failed))
        for model in failed:
            text = f"Triton runs without the model {model.name}: {model.reason}. The whole story is in {self._log_file}"
            if text not in self._noted:
                self._noted.add(text)
                self._note(text)

    def environment(self) -> dict[str, str]:
        return {
            "TRITON_URL": f"{LOOPBACK}:{self._ports['triton-grpc']}",
            "TRITON_METRICS_URL": f"http://{LOOPBACK}:{self._ports['triton-metrics']}/metrics",
            CATALOGUE_DIRECTORY: str(self._catalogues),
        }

    def addresses(self) -> list[Address]:
        return [
            Address(self.name, "tritonserver, gRPC", self.environment()["TRITON_URL"]),
            Address(self.name, "tritonserver, HTTP", f"http://{LOOPBACK}:{self._ports['triton-http']}"),
            Address(self.name, "tritonserver, metrics", self.environment()["TRITON_METRICS_URL"]),
        ]


def models_of(layout: Layout) -> list[Model]:
    """Every model in the repository of the server that another process runs for this stack. Raises OSError or ValueError where it
    does not answer."""
    port = json.loads((layout.run / "ports.json").read_text())["triton-http"]
    index = _index(port, _control_key_file(layout).read_text().strip())
    # The server has no state for a model that it was not told to load.
    return [replace(_model(name, index[name]), is_asked_for="state" in index[name]) for name in sorted(index)]


def _index(port: int, control_key: str) -> dict[str, dict[str, str]]:
    """What the server says of each model, by name."""
    url = f"http://{LOOPBACK}:{port}/v2/repository/index"
    request = urllib.request.Request(url, b"{}", {server.CONTROL_HEADER: control_key})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=2) as answer:
        return {entry["name"]: entry for entry in json.load(answer)}


def _control_key_file(layout: Layout) -> Path:
    return layout.data / "triton.control-key"


def _model(name: str, entry: Mapping[str, str]) -> Model:
    # A model's reason may be a whole traceback; its first line is what happened.
    what, _, _ = entry.get("reason", "").strip().partition("\n")
    return Model(name, entry.get("state") == "READY", what or "it was not loaded")


def _absolute(path: str) -> Path:
    return Path(path).absolute()


def _kept_key(path: Path) -> str:
    """The key that controls the models, kept over restarts for whoever may read this file. It is also among the server's
    arguments: it keeps out what reaches the port, not who may look at this machine's processes."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        key = secrets.token_urlsafe(24)
        path.touch(mode=0o600)
        path.write_text(key + "\n")
        return key


def remove_shared_memory(own_prefix: str) -> None:
    """A server that was killed before its models had begun, and had taken the names from it (vision/shared_memory.py), leaves its
    shared memory behind: empty, but nobody else will ever remove it. This removes what an earlier server of this stack left, and
    what servers left whose supervisor (named by its process id) is gone."""
    for region in SHARED_MEMORY.glob(f"{SHARED_MEMORY_NAME}-*"):
        supervisor = region.name.split("-")[1]
        if region.name.startswith(own_prefix) or (supervisor.isdecimal() and not psutil.pid_exists(int(supervisor))):
            with contextlib.suppress(OSError):
                region.unlink()
