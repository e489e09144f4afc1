"""How Triton serves, with the real server: a model that fails leaves the others, late frames are shed and counted, models are
controlled by whoever has the key, and nothing of a frame is written anywhere."""

import asyncio
import contextlib
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from infra.local.layout import Layout
from infra.local.ports import choose_ports
from infra.local.triton import SHARED_MEMORY, SHARED_MEMORY_NAME, Triton
from infra.triton import profiles
from infra.triton.server import CONTROL_HEADER, GRPC_CONTROL_HEADER, models
from streams.core.supervisor import Supervisor
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

MARKER = b"a-wearers-kitchen-table"
TRACE = "463ac35c9f6413ad48485a3953bb6124"

CONFIGURATION = """
name: "{name}"
backend: "python"
max_batch_size: 1
input [
  {{ name: "IMAGE", data_type: TYPE_UINT8, dims: [ -1 ] }},
  {{ name: "OPTIONS", data_type: TYPE_STRING, dims: [ 1 ], optional: true }}
]
output [ {{ name: "RESULT", data_type: TYPE_STRING, dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU, count: 1 }} ]
"""

SLOW = """
import time
from pathlib import Path
from vision.serving import Answer, FrameModel

class TritonPythonModel(FrameModel):
    options = {"sleep_ms": int, "begun": str, "fail": bool, "time_left_ms": (int, float)}
    answered = 0

    def answer(self, jpeg, options, deadline):
        self.answered += 1
        if "begun" in options:
            Path(options["begun"]).touch()
        time.sleep(options.get("sleep_ms", 0) / 1000)
        if options.get("fail"):
            raise RuntimeError(jpeg.tobytes().decode())
        return Answer(self.answered)
"""

BROKEN = """
class TritonPythonModel:
    def initialize(self, args):
        raise RuntimeError("its weights are missing")
"""


@dataclass
class Served:
    server: Triton
    supervisor: Supervisor
    client: triton.InferenceServerClient
    layout: Layout
    notes: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.server.control_key_file.read_text().strip()

    async def ask(self, deadline_s: float = 10, frame: bytes = MARKER, trace: str = "", **options: Any) -> int:
        image = triton.InferInput("IMAGE", [1, len(frame)], "UINT8")
        image.set_data_from_numpy(numpy.frombuffer(frame, dtype=numpy.uint8)[None])
        given = triton.InferInput("OPTIONS", [1, 1], "BYTES")
        given.set_data_from_numpy(numpy.array([[json.dumps(options).encode()]], dtype=numpy.object_))
        headers = {"traceparent": trace} if trace else None
        answer = await self.client.infer("slow", [image, given], client_timeout=deadline_s, headers=headers)
        return int(json.loads(answer.as_numpy("RESULT")[0, 0]))

    async def keep_busy(self, begun: Path, ms: int) -> "asyncio.Task[int]":
        """Asks what takes so long, and returns when the model is at it; `begun` is a file that is not there yet."""
        asked = asyncio.create_task(self.ask(sleep_ms=ms, begun=str(begun)))

        async def has_begun() -> bool:
            return begun.exists()

        await eventually(has_begun)
        return asked

    def http(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        address = next(entry.address for entry in self.server.addresses() if entry.address.startswith("http"))
        with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", body, headers), timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        with urllib.request.urlopen(self.server.environment()["TRITON_METRICS_URL"], timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith(name + "{")]
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted))


@contextlib.asynccontextmanager
async def served(root: Path, repository: Path, configured: dict[str, str] | None = None) -> AsyncIterator[Served]:
    notes: list[str] = []
    server = Triton(configured=configured or {}, repository=repository, note=notes.append)
    layout = Layout(root)
    await server.prepare(layout, choose_ports(server.ports, layout.run / "ports.json"))
    supervisor = Supervisor()
    try:
        await supervisor.start([server.spec()])
        client = triton.InferenceServerClient(server.environment()["TRITON_URL"])
        yield Served(server, supervisor, client, layout, notes)
        await client.close()
    finally:
        await supervisor.stop()


def model_process(running: Served, model: str) -> psutil.Process:
    """The newest: one that was unloaded may still be ending."""
    server = psutil.Process(running.supervisor.status("triton").pid)
    found = [each for each in server.children(recursive=True) if f"/{model}/1/model.py" in " ".join(each.cmdline())]
    return max(found, key=psutil.Process.create_time)


def add(repository: Path, name: str, code: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1" / "model.py").write_text(code)
    (repository / name / "config.pbtxt").write_text(CONFIGURATION.format(name=name))


@pytest.fixture(scope="module")
async def two(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A model that serves and one that cannot be loaded."""
    root = tmp_path_factory.mktemp("serving")
    add(root / "models", "slow", SLOW)
    add(root / "models", "broken", BROKEN)
    async with served(root / "stack", root / "models") as running:
        yield running


async def test_the_cpu_profile_is_served_as_it_is_rendered(tmp_path: Path) -> None:
    profiles.render("cpu", tmp_path / "models")
    async with served(tmp_path / "stack", tmp_path / "models") as running:
        assert {model.name: model.serves for model in await running.server.models()} == dict.fromkeys(models(), True)
        assert running.notes == []


async def test_a_model_that_cannot_be_loaded_leaves_the_others_and_is_named(two: Served) -> None:
    assert await two.ask() > 0
    [note] = two.notes
    assert "without the model broken" in note
    assert "its weights are missing" in note
    found = {model.name: model for model in await two.server.models()}
    assert found["slow"].serves
    assert not found["broken"].serves


async def test_frames_whose_callers_have_gone_are_counted_and_cost_no_work(two: Served, tmp_path: Path) -> None:
    before = await two.ask()
    shed = two.metric("augenblick_frames_shed_total", model="slow", reason="cancelled")
    busy = await two.keep_busy(tmp_path / "begun", 2000)
    asked = [asyncio.create_task(two.ask()) for _ in range(5)]

    async def all_wait() -> bool:
        return two.metric("nv_inference_pending_request_count", model="slow") == 5

    await eventually(all_wait, what="the arrival of all")
    for each in asked:
        each.cancel()
    assert all(isinstance(error, asyncio.CancelledError) for error in await asyncio.gather(*asked, return_exceptions=True))
    assert await busy == before + 1
    assert await two.ask() == before + 2, "none of the late ones was looked at"
    assert two.metric("augenblick_frames_shed_total", model="slow", reason="cancelled") == shed + 5


async def test_a_frame_that_says_it_is_too_late_is_counted_and_costs_no_work(two: Served) -> None:
    before = await two.ask()
    shed = two.metric("augenblick_frames_shed_total", model="slow", reason="late")
    with pytest.raises(InferenceServerException):
        await two.ask(time_left_ms=0)
    assert await two.ask() == before + 1
    assert two.metric("augenblick_frames_shed_total", model="slow", reason="late") == shed + 1


async def test_the_time_a_frame_waited_for_its_turn_counts(two: Served, tmp_path: Path) -> None:
    before = await two.ask()
    shed = two.metric("augenblick_frames_shed_total", model="slow", reason="late")
    busy = await two.keep_busy(tmp_path / "begun", 4000)
    with pytest.raises(InferenceServerException, match="no time is left"):
        await two.ask(time_left_ms=1000, sent_at_ms=time.time() * 1000)
    assert await busy == before + 1
    assert await two.ask(time_left_ms=1000, sent_at_ms=time.time() * 1000) == before + 2, "one that need not wait is looked at"
    assert two.metric("augenblick_frames_shed_total", model="slow", reason="late") == shed + 1


async def test_models_are_unloaded_and_loaded_again_by_whoever_has_the_key(two: Served) -> None:
    with pytest.raises(InferenceServerException, match="restricted"):
        await two.client.unload_model("slow")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        two.http("/v2/repository/models/slow/unload", b"{}")
    assert await two.ask() > 0

    await two.client.unload_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    with pytest.raises(InferenceServerException):
        await two.ask()
    await two.client.load_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    assert await two.ask() == 1, "a new process of the model"
    assert two.server.control_key_file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", ["/v2/systemsharedmemory/status", "/v2/trace/setting", "/v2/logging", "/v2/models/slow/infer"])
async def test_what_could_show_or_replace_memory_or_write_tensors_needs_the_key(two: Served, path: str) -> None:
    body = b'{"inputs": []}' if path.endswith("infer") else None
    with pytest.raises(urllib.error.HTTPError, match="403"):
        two.http(path, body)
    if body is None:
        assert two.http(path, **{CONTROL_HEADER: two.key}) is not None


async def test_nothing_of_a_frame_is_traced_or_logged_even_when_a_model_fails_on_it(two: Served) -> None:
    assert two.http("/v2/trace/setting", **{CONTROL_HEADER: two.key})["trace_level"] == ["OFF"]
    with pytest.raises(InferenceServerException) as failure:
        await two.ask(fail=True)
    assert MARKER.decode() not in str(failure.value)
    written = [path for path in two.layout.root.rglob("*") if path.is_file()]
    assert two.layout.log_file("triton") in written
    assert not [path for path in written if MARKER in path.read_bytes()]


def named_memory() -> list[Path]:
    """Memory shared with models that could be opened by name, of all servers that this process has started."""
    return list(SHARED_MEMORY.glob(f"{SHARED_MEMORY_NAME}-{os.getpid()}-*"))


@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="Linux keeps shared memory there")
async def test_nobody_else_can_open_the_memory_that_passes_frames_to_models(two: Served) -> None:
    assert await two.ask(frame=MARKER * 500_000) > 0, "more than it began with: it has grown"
    mapped = Path(f"/proc/{model_process(two, 'slow').pid}/maps").read_text().splitlines()
    ours = [line for line in mapped if f"{SHARED_MEMORY}/{SHARED_MEMORY_NAME}-{os.getpid()}-" in line]
    assert ours and all(line.endswith(" (deleted)") for line in ours), "it has no name any more"
    assert not named_memory()
    await two.client.unload_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    await two.client.load_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    assert await two.ask() == 1
    assert not named_memory(), "nor has that of a model which was loaded again"


async def test_a_crash_would_leave_no_core_dump(two: Served) -> None:
    server = psutil.Process(two.supervisor.status("triton").pid)
    for process in (server, *server.children(recursive=True)):
        assert {*process.rlimit(psutil.RLIMIT_CORE)} <= {0, 1}, "it would hold frames"


async def test_a_server_that_dies_is_back_with_its_models(two: Served) -> None:
    await two.supervisor.kill_process("triton")
    await two.supervisor.wait_until_ready("triton", 60)
    assert await two.ask() == 1
    assert len(two.notes) == 1, "what was said is not said again"


async def test_a_model_at_work_ends_with_a_server_that_is_killed(two: Served, tmp_path: Path) -> None:
    model = model_process(two, "slow")
    asked = await two.keep_busy(tmp_path / "begun", ms=600_000)
    await two.supervisor.kill_process("triton")
    await asyncio.to_thread(psutil.wait_procs, [model], timeout=60)
    assert not model.is_running()
    with pytest.raises(InferenceServerException):
        await asked
    await two.supervisor.wait_until_ready("triton", 60)


async def test_a_model_whose_process_dies_is_back_within_seconds(two: Served) -> None:
    """tritonserver would leave it dead, and say that it is ready."""
    server = psutil.Process(two.supervisor.status("triton").pid)
    model_process(two, "slow").kill()
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(InferenceServerException):
                assert await two.ask(deadline_s=2) == 1
                break
            await asyncio.sleep(0.2)
    assert psutil.Process(two.supervisor.status("triton").pid) != server


async def test_who_is_unloaded_takes_nobody_along(two: Served) -> None:
    server = two.supervisor.status("triton").pid
    await two.client.unload_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    await asyncio.sleep(1)
    await two.client.load_model("slow", headers={GRPC_CONTROL_HEADER: two.key})
    assert await two.ask() == 1
    assert two.supervisor.status("triton").pid == server


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP/HTTP endpoint and the bodies that were posted to it."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path.encode() + b" " + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


async def test_spans_go_to_the_collector_within_the_callers_trace(tmp_path: Path, collector: tuple[str, list[bytes]]) -> None:
    endpoint, received = collector
    add(tmp_path / "models", "slow", SLOW)
    async with served(tmp_path / "stack", tmp_path / "models", {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as running:
        await running.ask(trace=f"00-{TRACE}-a2fb4a1d1a96d312-01")
        async with asyncio.timeout(20):
            while not received:
                await asyncio.sleep(0.1)
    sent = b"".join(received)
    assert sent.startswith(b"/v1/traces ")
    assert bytes.fromhex(TRACE) in sent or TRACE.encode() in sent.lower()
    assert MARKER not in sent
