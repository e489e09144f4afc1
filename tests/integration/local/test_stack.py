"""The embedded stack, for real: everything starts, answers, is killed and comes back, and nothing is left behind."""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy
import psutil
import psycopg
import pytest
import tritonclient.grpc.aio as triton
import zxingcpp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from PIL import Image
from tritonclient.utils import InferenceServerException

from infra.local.control import shut_down, start_daemon, wait_until_up
from infra.local.java import java_problem, java_version
from infra.local.ports import choose_ports, is_free
from infra.local.stack import LocalStack, StackRunning
from infra.local.state import StackState, read_state, running_environment, write_state
from infra.local.triton import SHARED_MEMORY, SHARED_MEMORY_NAME, remove_shared_memory
from streams.core.supervisor import ProcessState
from tests.support import waiting

CHECKOUT = Path(__file__).resolve().parents[3]
TOPIC = "test.topic"

needs_java = pytest.mark.skipif(java_problem() is not None or shutil.which("mvn") is None, reason="needs Java and Maven")
pytestmark = pytest.mark.timeout(600)  # the first start on a machine downloads


@pytest.fixture(scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with LocalStack(tmp_path_factory.mktemp("stack"), configured={}) as stack:
        yield stack


def jpeg(text: str = "4006381333931", size: tuple[int, int] = (640, 480)) -> bytes:
    """A photograph of nothing but an EAN-13, in the middle."""
    code = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.EAN13).to_image(scale=3)
    picture = Image.new("L", size, 200)
    bars = Image.fromarray(numpy.array(code))
    picture.paste(bars, ((size[0] - bars.width) // 2, (size[1] - bars.height) // 2))
    return encoded(picture)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


async def read_codes(client: triton.InferenceServerClient, frame: bytes, deadline_seconds: float = 30) -> list[dict[str, Any]]:
    image = triton.InferInput("IMAGE", [1, len(frame)], "UINT8")
    image.set_data_from_numpy(numpy.frombuffer(frame, dtype=numpy.uint8).reshape(1, -1))
    answer = await client.infer("codes", [image], client_timeout=deadline_seconds)
    result: dict[str, Any] = json.loads(answer.as_numpy("RESULT")[0][0])
    codes: list[dict[str, Any]] = result["codes"]
    return codes


@pytest.fixture
async def codes(stack: LocalStack) -> AsyncIterator[Callable[[bytes], Any]]:
    async with triton.InferenceServerClient(stack.environment["TRITON_URL"]) as client:
        yield lambda frame: read_codes(client, frame)


async def create_topic(servers: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def produce(servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, max_request_size=4_000_000) as producer:
        await producer.send_and_wait(topic, value)


async def consume(servers: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=servers,
        group_id=f"reader-{time.monotonic_ns()}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer, asyncio.timeout(60):
        return [bytes((await consumer.getone()).value) for _ in range(count)]


async def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        cursor = await connection.execute(statement)
        return await cursor.fetchall() if cursor.description else []


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.05)


@needs_java
async def test_every_part_runs_and_listens_on_loopback_only(stack: LocalStack) -> None:
    processes = {status.name: status for status in stack.supervisor.processes()}
    assert set(processes) == {"kafka", "postgres", "triton", "zipkin"}
    assert {status.state for status in processes.values()} == {ProcessState.READY}
    assert stack.notes == []
    for name, status in processes.items():
        assert status.pid is not None
        listening = [
            connection.laddr
            for process in family(status.pid)
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening, f"{name} listens nowhere"
        for address in listening:
            assert address.ip.removeprefix("::ffff:") == "127.0.0.1", f"{name} listens on {address}"


@needs_java
async def test_kafka_takes_large_frames_and_survives_a_kill_with_its_data(stack: LocalStack) -> None:
    servers = stack.environment["KAFKA_BOOTSTRAP_SERVERS"]
    frame = bytes(2_000_000)
    await create_topic(servers, TOPIC)
    await produce(servers, TOPIC, b"before")
    await produce(servers, TOPIC, frame)
    await stack.supervisor.kill_process("kafka")
    await stack.supervisor.wait_until_ready("kafka", 120)
    assert stack.environment["KAFKA_BOOTSTRAP_SERVERS"] == servers
    await produce(servers, TOPIC, b"after")
    assert await consume(servers, TOPIC, 3) == [b"before", frame, b"after"]


@needs_java
async def test_kafka_makes_no_topic_by_itself(stack: LocalStack) -> None:
    servers = stack.environment["KAFKA_BOOTSTRAP_SERVERS"]
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        (described,) = await admin.describe_topics(["mistyped.topic"])
        assert described["error_code"] == 3, "UNKNOWN_TOPIC_OR_PARTITION"
    finally:
        await admin.close()


async def test_postgres_asks_for_its_password_has_pgvector_and_survives_a_kill(stack: LocalStack) -> None:
    url = stack.environment["DATABASE_URL"]
    await query(url, "CREATE EXTENSION IF NOT EXISTS vector")
    assert await query(url, "SELECT '[1,2]'::vector <-> '[1,3]'::vector") == [(1.0,)]
    assert await query(url, "SHOW fsync") == [("on",)]
    head, _, tail = url.rpartition("@")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await query(f"{head}x@{tail}", "SELECT 1")
    await query(url, "CREATE TABLE kept (word text)")
    await query(url, "INSERT INTO kept VALUES ('committed')")
    await stack.supervisor.kill_process("postgres")
    await stack.supervisor.wait_until_ready("postgres", 120)
    assert await query(url, "SELECT word FROM kept") == [("committed",)]


@needs_java
@pytest.mark.parametrize("name", ["kafka", "postgres"])
async def test_an_outage_ends_where_it_began(stack: LocalStack, name: str) -> None:
    before = stack.environment
    await stack.supervisor.stop_process(name)
    assert stack.supervisor.status(name).state is ProcessState.STOPPED
    await stack.supervisor.start_process(name)
    assert stack.environment == before
    assert stack.supervisor.status(name).state is ProcessState.READY


async def test_codes_reads_an_ean_13_and_says_where_it_is(codes: Callable[[bytes], Any]) -> None:
    (code,) = await codes(jpeg("4006381333931"))
    assert (code["text"], code["format"], code["symbology_identifier"], code["valid"]) == ("4006381333931", "EAN13", "]E0", True)
    across = [corner[0] for corner in code["corners"]]
    down = [corner[1] for corner in code["corners"]]
    assert len(code["corners"]) == 4
    assert 100 < min(across) < 320 < max(across) < 540
    assert 100 < min(down) <= 240 <= max(down) < 380
    assert await codes(encoded(Image.new("L", (640, 480), 128))) == []


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "IMAGE is empty"),
        (b"GIF89a and so on", "IMAGE is not a JPEG"),
        (jpeg()[:3000], "IMAGE is truncated"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "segment without a length"),
        (encoded(Image.new("L", (6000, 5000))), "20,000,000 are the limit"),
    ],
    ids=["empty", "another format", "truncated", "damaged", "decompression bomb"],
)
async def test_an_unreadable_frame_is_refused_and_the_next_is_read(
    codes: Callable[[bytes], Any], frame: bytes, reason: str
) -> None:
    with pytest.raises(InferenceServerException, match=reason):
        await codes(frame)
    assert [code["text"] for code in await codes(jpeg())] == ["4006381333931"]


async def test_codes_reads_what_is_rare_too(codes: Callable[[bytes], Any]) -> None:
    matrix = zxingcpp.create_barcode("payee 7", zxingcpp.BarcodeFormat.DataMatrix).to_image(scale=6)
    picture = Image.new("L", (640, 480), 200)
    picture.paste(Image.fromarray(numpy.array(matrix)), (200, 150))
    assert [(code["text"], code["format"]) for code in await codes(encoded(picture))] == [("payee 7", "DataMatrix")]
    light_on_dark = picture.point(lambda grey: 255 - grey)
    assert [code["text"] for code in await codes(encoded(light_on_dark))] == ["payee 7"]


async def test_frames_whose_callers_have_gone_do_not_hold_up_the_next(stack: LocalStack, codes: Callable[[bytes], Any]) -> None:
    noise = numpy.random.default_rng(7).integers(0, 255, (1080, 1920), dtype=numpy.uint8)
    busy = encoded(Image.fromarray(noise))
    async with triton.InferenceServerClient(stack.environment["TRITON_URL"]) as client:
        started = time.monotonic()
        await read_codes(client, busy)
        one = time.monotonic() - started
        flood = await asyncio.gather(*(read_codes(client, busy, 0.1) for _ in range(100)), return_exceptions=True)
    assert sum(isinstance(answer, InferenceServerException) for answer in flood) > 50
    started = time.monotonic()
    assert [code["text"] for code in await codes(jpeg())] == ["4006381333931"]
    assert time.monotonic() - started < 20 * one, "the others were read although nobody waited for them"


async def test_triton_comes_back_after_it_is_killed_with_all_its_workers(
    stack: LocalStack, codes: Callable[[bytes], Any]
) -> None:
    members = family(stack.supervisor.status("triton").pid or 0)
    assert len(members) > 1, "the model runs in a process of its own"
    await stack.supervisor.kill_process("triton")
    await eventually(lambda: all(gone(member) for member in members))
    await stack.supervisor.wait_until_ready("triton", 120)
    assert [code["text"] for code in await codes(jpeg())] == ["4006381333931"]


@needs_java
async def test_zipkin_keeps_and_shows_traces(stack: LocalStack) -> None:
    endpoint = stack.environment["OTEL_EXPORTER_ZIPKIN_ENDPOINT"]
    assert stack.environment["OTEL_TRACES_EXPORTER"] == "zipkin"
    trace = "463ac35c9f6413ad48485a3953bb6124"
    span = {"traceId": trace, "id": "a2fb4a1d1a96d312", "name": "glance", "timestamp": int(time.time() * 1e6), "duration": 1000}

    def send() -> int:
        request = urllib.request.Request(endpoint, json.dumps([span]).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)

    def kept() -> list[str]:
        address = endpoint.replace("/spans", f"/trace/{trace}")
        # What was taken is kept a moment later, and until then not found.
        with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(address, timeout=20) as answer:
            return [item["name"] for item in json.load(answer)]
        return []

    def page() -> str:
        with urllib.request.urlopen(stack.environment["ZIPKIN_URL"], timeout=20) as answer:
            return str(answer.read().decode())

    assert await asyncio.to_thread(send) == 202
    assert await waiting.eventually(lambda: asyncio.to_thread(kept)) == ["glance"]
    assert "<html" in await asyncio.to_thread(page)


@pytest.mark.skipif(not SHARED_MEMORY.exists(), reason="Linux keeps shared memory there")
def test_shared_memory_of_killed_servers_is_removed_and_no_other() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = SHARED_MEMORY / f"{SHARED_MEMORY_NAME}-{ended.pid}-other-1"
    own = SHARED_MEMORY / f"{SHARED_MEMORY_NAME}-{os.getpid()}-mine-1"
    in_use = SHARED_MEMORY / f"{SHARED_MEMORY_NAME}-{os.getpid()}-other-1"
    for region in (left, own, in_use):
        region.touch()
    try:
        remove_shared_memory(f"{SHARED_MEMORY_NAME}-{os.getpid()}-mine-")
        assert [region.exists() for region in (left, own, in_use)] == [False, False, True]
    finally:
        in_use.unlink()


async def test_one_directory_has_one_stack(stack: LocalStack) -> None:
    with pytest.raises(StackRunning, match="another process already"):
        async with LocalStack(stack.layout.root, components=["postgres"], configured={}):
            pass


async def test_addresses_of_ones_own_win(tmp_path: Path) -> None:
    configured = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092",
        "DATABASE_URL": "postgresql://me:secret@db.example/shop",
        "TRITON_URL": "triton.example:8001",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4318",
    }
    async with LocalStack(tmp_path, configured=configured) as stack:
        assert stack.supervisor.processes() == []
        assert stack.environment == {**configured, "OTEL_TRACES_EXPORTER": "otlp"}
        shown = {address.component: address.address for address in stack.addresses}
        assert shown["postgres"] == "postgresql://me@db.example/shop"


async def test_without_java_kafka_is_in_memory_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    java_version.cache_clear()
    try:
        async with LocalStack(tmp_path / "stack", components=["kafka", "zipkin"], configured={}) as stack:
            environment = stack.environment
            assert [status.name for status in stack.supervisor.processes()] == ["kafka"]
            assert environment["AUGENBLICK_KAFKA_IN_MEMORY"] == "1"
            assert environment["OTEL_TRACES_EXPORTER"] == "none"
            assert any("nothing in its topics survives a restart" in note and "Install Java" in note for note in stack.notes)
            assert any("Zipkin is left out" in note for note in stack.notes)
            servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
            await produce(servers, TOPIC, b"hello")
            assert await consume(servers, TOPIC, 1) == [b"hello"]
            await stack.supervisor.kill_process("kafka")
            async with asyncio.timeout(60):
                failure = await stack.supervisor.wait_for_failure()
            assert failure.name == "kafka", "its loss is reported, not hidden by an empty one"
    finally:
        java_version.cache_clear()


@needs_java
async def test_a_killed_stack_leaves_nothing_and_starts_again_with_its_data(tmp_path: Path) -> None:
    program = f"""
        import asyncio
        from pathlib import Path
        from infra.local.stack import LocalStack

        async def main():
            async with LocalStack(Path({str(tmp_path)!r}), configured={{}}) as stack:
                print(stack.environment["DATABASE_URL"], flush=True)
                print(*(status.pid for status in stack.supervisor.processes()), flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=CHECKOUT) as runner:
        assert runner.stdout is not None
        url = (await asyncio.to_thread(runner.stdout.readline)).decode().strip()
        pids = [int(pid) for pid in (await asyncio.to_thread(runner.stdout.readline)).split()]
        assert len(pids) == 4
        members = [member for pid in pids for member in family(pid)]
        await query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        runner.kill()
    await eventually(lambda: all(gone(member) for member in members))
    async with LocalStack(tmp_path, configured={}) as stack:
        assert stack.environment["DATABASE_URL"] == url, "the ports are kept"
        assert await query(url, "SELECT answer FROM kept") == [(42,)]


def test_a_kept_port_that_is_taken_is_chosen_anew(tmp_path: Path) -> None:
    kept = tmp_path / "ports.json"
    first = choose_ports(["one", "two"], kept)
    assert choose_ports(["one", "two"], kept) == first
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", first["one"]))
        squatter.listen()
        assert not is_free(first["one"])
        second = choose_ports(["one", "two"], kept)
    assert second["one"] != first["one"]
    assert second["two"] == first["two"]
    kept.write_text("not json")
    assert set(choose_ports(["one"], kept)) == {"one"}


async def test_the_daemon_is_started_found_and_ended(tmp_path: Path) -> None:
    pid = start_daemon(tmp_path, ["postgres"], with_platform=False)
    state = await asyncio.to_thread(wait_until_up, tmp_path, pid, lambda _: None)
    assert state.daemon_is_alive
    environment = running_environment(tmp_path)
    assert environment is not None
    assert await query(environment["DATABASE_URL"], "SELECT 1") == [(1,)]
    assert ((tmp_path / "run" / "stack.json").stat().st_mode & 0o777) == 0o600, "it holds the password"
    members = family(pid)
    assert await asyncio.to_thread(shut_down, tmp_path) == [f"stopped everything (pid {pid})"]
    assert all(gone(member) for member in members)
    assert running_environment(tmp_path) is None
    assert await asyncio.to_thread(shut_down, tmp_path) == []


async def test_down_never_ends_a_stranger_with_a_recycled_process_id(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        created_at = psutil.Process(stranger.pid).create_time()
        write_state(tmp_path / "run", StackState(pid=stranger.pid, created_at=created_at - 1000, phase="ready"))
        assert shut_down(tmp_path) == ["removed the state file of a stack that is not running any more"]
        assert stranger.poll() is None
        assert read_state(tmp_path / "run") is None
        stranger.send_signal(signal.SIGKILL)
