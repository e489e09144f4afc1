"""Frames live in Kafka for minutes, and nowhere else: not in the database, logs, spans, dead letters, crash dumps or files.

Frames that say and show what nobody has written before go every way that a frame can go: recognised by their pictures, asked
about, unclear, refused by the gateway, refused by the models, late, buried as dead letters, and in the hands of a model that
dies; all three models look at them. Then everything that the stack wrote is searched for what they say, for their bytes, and for
the pixels that the models decoded. What must be found in the same ways, so that the search is known to find anything: the frames
in Kafka's log, and frames that this test leaves in a file, a table, a span and a crash dump.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from sqlalchemy import text

from connectors.shops.catalogue.importer import parse_catalogue
from infra.local.layout import home
from infra.local.stack import LocalStack
from infra.local.triton import CATALOGUE_DIRECTORY, SHARED_MEMORY, SHARED_MEMORY_NAME
from infra.sandbox.glasses import Glasses
from infra.triton import server
from schemas.events import JPEG, Event, from_kafka, to_kafka
from schemas.ids import EventId, JourneyId, MerchantId
from schemas.recognition import Intent, Unclear
from schemas.topics import GLASSES_SIGHTINGS, RECOGNITION_RESULTS, TOPICS
from streams.catalogues import store
from streams.catalogues.pictures import outbound_client
from streams.catalogues.service import Catalogues
from streams.sightings.catalogues import Snapshot, read_current
from streams.sightings.picture_models import TritonPictureModels
from streams.sightings.recogniser import NoCatalogues, Recogniser
from streams.sightings.service import Frame
from streams.sightings.triton import Models
from tests.support.frames import gtin13
from tests.support.marked_frames import marked, new_payers_code, new_word
from tests.support.packages import front, photo
from tests.support.remains import Searched, files_below, records, rows_as_text, spans, whole
from tests.support.rows import PairedGlasses
from tests.support.servers import local_stack
from tests.support.waiting import eventually
from tests.support.world import RunningPlatform

ALL_MODELS = ("codes", "match", "ocr")
CODED = gtin13(91_357)
"""The GTIN of the first of the catalogue's packages. The second and the third look alike."""
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")

COMMENT, WORD = f"NO-FRAME-MAY-STAY-{uuid4().hex}", new_word()
RECOGNISED = marked(COMMENT, word=WORD, product=photo(0, 3))
ASKED_ABOUT = marked(COMMENT, word=WORD, product=photo(1, 4))
WITH_A_CODE = marked(COMMENT, word=WORD, product=photo(0, 5), gtin=CODED)
WITH_A_SECRET_CODE = marked(COMMENT, word=WORD, payers_code=new_payers_code())
FRAMES = (RECOGNISED, ASKED_ABOUT, WITH_A_CODE, WITH_A_SECRET_CODE)
TWICE = RECOGNISED.jpeg + RECOGNISED.jpeg
"""Passes the gateway, which looks at its form; the models refuse to decode it."""


@pytest.fixture
async def merchant(platform: RunningPlatform, triton: LocalStack, tmp_path: Path) -> AsyncIterator[MerchantId]:
    """Whose packages are recognised by their pictures, as long as this test runs."""
    lines = ["product_id,gtin,title,language,price,currency,picture"]
    alike = front(1)
    alike.paste("white", (300, 480, 350, 530))
    for number, picture in enumerate((front(0), front(1), alike)):
        picture.save(tmp_path / f"{number}.png")
        lines.append(f"p{number},{CODED if number == 0 else ''},Package {number},en,2.50,EUR,{number}.png")
    rows = parse_catalogue("\n".join(lines).encode())
    merchant = (await platform.rows.merchant("Packages' shop")).merchant_id
    models = TritonPictureModels(triton.environment["TRITON_URL"])
    try:
        async with outbound_client(allow_private=True) as client:
            directory = Path(triton.environment[CATALOGUE_DIRECTORY])
            catalogues = Catalogues(platform.database, directory=directory, models=models, client=client)
            imported = await catalogues.import_list(merchant, rows, datetime.now(UTC), beside=tmp_path)
        assert imported.unrecognised == 0 and not imported.problems
        yield merchant
    finally:
        await models.close()
        async with platform.database.transaction() as connection:
            await store.withdraw(connection, [merchant])


# The ways of a frame.


async def look(worn: Glasses, frame: bytes, intent: str = "price") -> dict[str, Any]:
    """With glasses whose clock is ahead, so that there is time for all models even on a machine that is busy."""
    ahead = datetime.now(UTC) + timedelta(seconds=4)
    return await worn.look(frame, intent, timeout_s=15, capturedat=ahead.isoformat())


async def bury(platform: RunningPlatform, frame: bytes) -> None:
    """A record with a frame that the stage cannot handle, which becomes a dead letter."""
    before = await platform.rows.count("dead_letters", consumer="sightings")
    headers = [("ce_specversion", b"1.0"), ("ce_type", b"no.such"), ("content-type", b"image/jpeg")]
    await produce(platform, b"nobody", headers, frame)

    async def buried() -> bool:
        return await platform.rows.count("dead_letters", consumer="sightings", value=None) > before

    await eventually(buried, what="the dead letter, without its value")


async def send_too_late(platform: RunningPlatform, glasses: PairedGlasses, frame: bytes) -> None:
    """A frame whose deadline passes on its way."""
    now = datetime.now(UTC)
    event = Event(
        id=EventId.new(),
        source="/glasses",
        type="sighting.captured",
        time=now,
        datacontenttype=JPEG,
        data=frame,
        journeyid=JourneyId.new(),
        deviceid=glasses.device_id,
        capturedat=now - timedelta(seconds=2),
        deadline=now - timedelta(milliseconds=500),
        intent=Intent.PRICE,
        framedigest=sha256(frame).hexdigest(),
    )
    headers, value = to_kafka(event)
    await produce(platform, glasses.device_id.encode(), headers, value)

    async def passed_over() -> bool:
        query = text(
            "SELECT count(*) FROM journey_hops WHERE journey_id = :journey AND attributes ->> 'augenblick.outcome' = 'late'"
        )
        async with platform.database.transaction() as connection:
            return bool((await connection.execute(query, {"journey": event.journeyid})).scalar_one())

    await eventually(passed_over, what="the late frame's being passed over")


async def produce(platform: RunningPlatform, key: bytes, headers: Collection[tuple[str, bytes]], value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=platform.environment["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
        await producer.send_and_wait(GLASSES_SIGHTINGS.name, value, key=key, headers=list(headers))


class OneView(NoCatalogues):
    """The catalogues as they are now, without a database."""

    def __init__(self, current: Mapping[MerchantId, Snapshot]) -> None:
        self.current = current


async def look_with_models_that_die(root: Path, catalogues: str, current: Mapping[MerchantId, Snapshot]) -> set[Path]:
    """As memory errors in decoders would end them, in a Triton of their own. Returns in which folders they ran."""
    async with local_stack(root, "triton", configured={CATALOGUE_DIRECTORY: catalogues}) as stack:
        models = Models(stack.environment["TRITON_URL"])
        recogniser, what = Recogniser(models, OneView(current)), Frame("s", "0" * 64, Intent.PRICE)
        try:
            look = await recogniser.look(RECOGNISED.jpeg, what, 10)
            assert {name.partition(":")[0] for name in look.seen.models} == set(ALL_MODELS)
            dying = [each for each in family(stack, "triton") if is_a_model(each)]
            folders = {Path(process.cwd()) for process in dying}
            for process in dying:
                process.send_signal(signal.SIGSTOP)
            looking = [asyncio.create_task(recogniser.look(RECOGNISED.jpeg, what, 3.0)) for _ in range(4)]
            await asyncio.sleep(0.3)  # by now the frames are in the models' memory
            for process, deadly in zip(dying, cycle((signal.SIGSEGV, signal.SIGABRT)), strict=False):
                process.send_signal(deadly)
                process.send_signal(signal.SIGCONT)
            looks = await asyncio.gather(*looking)
        finally:
            await models.close()
    assert all(isinstance(look.result, Unclear) for look in looks), "they were on their way when it died"
    return folders


@contextmanager
def dumps_allowed() -> Iterator[None]:
    """For what is started meanwhile, unless it forbids itself."""
    before, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (before, hard))


def family(stack: LocalStack, name: str) -> list[psutil.Process]:
    pid = stack.supervisor.status(name).pid
    assert pid is not None
    return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]


def processes(stack: LocalStack) -> list[psutil.Process]:
    return [process for status in stack.supervisor.processes() if status.pid for process in family(stack, status.name)]


def is_a_model(process: psutil.Process) -> bool:
    return any(f"/{model}/1/model.py" in " ".join(process.cmdline()) for model in ALL_MODELS)


# Proving that the search finds what is there.


async def leave_and_find_controls(platform: RunningPlatform, folder: Path) -> None:
    """Another frame is left in a file, a table and a span, and found in each; the table and the file are gone afterwards."""
    control = marked(f"A-FRAME-TO-BE-FOUND-{uuid4().hex}", word=new_word(), payers_code=new_payers_code())
    everything = Searched(control.secrets)
    path = folder / "control"
    for content in (control.jpeg, b"[%s]" % control.jpeg.hex().encode(), b64encode(b"?" + control.jpeg), *control.pixels):
        path.write_bytes(bytes(20_000_000) + content)
        assert everything.found_in_file(path), "in a file"
    path.unlink()
    async with platform.database.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE controls (frame bytea)"))
        # So much of the same is compressed, and found in no file.
        await connection.execute(text("INSERT INTO controls VALUES (:frame)"), {"frame": bytes(100_000) + control.jpeg})
        assert everything.found_in(await rows_as_text(connection)), "in a table"
        await connection.rollback()
    span = {"traceId": uuid4().hex, "id": uuid4().hex[:16], "name": "control", "timestamp": int(time.time() * 1e6), "duration": 1}
    async with httpx.AsyncClient(trust_env=False) as client:
        tagged = [{**span, "tags": {"why": control.comment}}]
        (await client.post(platform.environment["OTEL_EXPORTER_ZIPKIN_ENDPOINT"], json=tagged)).raise_for_status()

    async def kept() -> list[bytes]:
        return everything.found_in(await spans(platform.zipkin))

    await eventually(kept, what="finding the span")


def find_a_dump(folder: Path) -> None:
    """That of a process which decodes a frame, may leave a dump, and dies."""
    control = marked(f"A-FRAME-TO-BE-FOUND-{uuid4().hex}", word=new_word())
    crash = "import os, sys; from infra.triton.vision.frames import decode; kept = decode(sys.stdin.buffer.read()); os.abort()"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    with dumps_allowed():
        ended = subprocess.run([sys.executable, "-c", crash], input=control.jpeg, cwd=folder, env=environment, check=False)
    assert ended.returncode == -signal.SIGABRT
    [dump] = dumps([folder], 0)
    assert Searched(control.pixels).found_in_file(dump)
    dump.unlink()


def dumps(folders: Collection[Path], since: float) -> list[Path]:
    """Those that Linux would have written for processes that ran there."""
    named = Path(CORE_PATTERN.read_text().strip().partition("%")[0])
    found = [path for folder in {(each / named).parent for each in folders} for path in folder.glob(f"{named.name}*")]
    return [path for path in found if path.is_file() and path.stat().st_mtime >= since]


def dumps_are_files_beside_the_process() -> bool:
    """Not handed to a program, nor to one folder for all; and allowed."""
    return not CORE_PATTERN.read_text().startswith(("|", "/")) and resource.getrlimit(resource.RLIMIT_CORE)[1] != 0


def is_kafkas_own(path: Path) -> bool:
    return path.parent.name.startswith(f"{GLASSES_SIGHTINGS.name}-")


@pytest.mark.timeout(600)
async def test_no_frame_is_anywhere_but_in_kafka(
    platform: RunningPlatform, triton: LocalStack, merchant: MerchantId, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root, began = tmp_path_factory.getbasetemp(), time.time() - 1
    glasses = await platform.rows.glasses(locale="en-GB", region="DE")
    async with platform.worn(glasses) as worn:
        await asyncio.sleep(1)  # by now the workers know the catalogue
        # Recognised, asked about, unclear, and not to be decoded.
        answers = [await look(worn, frame) for frame in (RECOGNISED.jpeg, ASKED_ABOUT.jpeg, WITH_A_SECRET_CODE.jpeg, TWICE)]
        assert [answer["type"] for answer in answers] == ["offers.found", "choice.offered", "look.again", "look.again"]
        assert [answer["data"]["reason"] for answer in answers[2:]] == ["payers_code", "unreadable_frame"]
        for intent in ("identify", "price", "read", "pay"):
            answers += [await look(worn, frame.jpeg, intent) for frame in (WITH_A_CODE, WITH_A_SECRET_CODE)]
        # Refused at the door.
        await worn.send_frame(RECOGNISED.jpeg[:-300])
        answers.append(await worn.expect(lambda message: message["type"] == "gateway.problem"))
        assert answers[-1]["problem"]["code"] == "frame-truncated"
    await send_too_late(platform, glasses, RECOGNISED.jpeg)
    await bury(platform, RECOGNISED.jpeg)
    async with platform.database.transaction() as connection:
        current = await read_current(connection)
    with dumps_allowed():
        folders = await look_with_models_that_die(root / "crash", triton.environment[CATALOGUE_DIRECTORY], current)
    await asyncio.sleep(2)  # spans and hops are written a second after they ended

    searched = Searched([secret for frame in FRAMES for secret in frame.secrets])
    await leave_and_find_controls(platform, root)
    assert not searched.found_in(str(answers).encode()), "what the wearer is told"

    await search_kafka(platform, searched, glasses)
    await search_database_traces_and_figures(platform, searched, glasses, triton.environment["TRITON_METRICS_URL"])
    if dumps_are_files_beside_the_process():
        find_a_dump(root / "dump")
    assert server.TRITON in folders and not dumps([*folders, Path.cwd()], began)
    for process in [*processes(triton), *processes(platform.stack)]:
        with suppress(psutil.NoSuchProcess):
            assert {*process.rlimit(psutil.RLIMIT_CORE)} <= {0, 1}, f"{process.name()} would leave a dump"
    search_files(searched, root, began)


async def search_kafka(platform: RunningPlatform, searched: Searched, glasses: PairedGlasses) -> None:
    """Every topic but that of the frames, which forgets them."""
    kafka = platform.environment["KAFKA_BOOTSTRAP_SERVERS"]
    looked_at: dict[str, set[str]] = {}
    async for record in records(kafka, [topic for topic in TOPICS if topic is not GLASSES_SIGHTINGS]):
        assert not searched.found_in(whole(record)), record.topic
        if record.topic == RECOGNITION_RESULTS.name and record.key == glasses.device_id.encode():
            event = from_kafka(record.headers, record.value)
            told = json.loads(event.data).get("models", ())
            looked_at.setdefault(event.type, set()).update(name.partition(":")[0] for name in told)
    assert looked_at["sighting.recognised"] == looked_at["sighting.undecided"] == set(ALL_MODELS)
    found = [searched.found_in(whole(record)) async for record in records(kafka, [GLASSES_SIGHTINGS])]
    assert any(found), "the search finds what is there"
    assert timedelta(0) < await retention(kafka) <= timedelta(minutes=10)


async def retention(kafka: str) -> timedelta:
    """Of the frames."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        [answer] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, GLASSES_SIGHTINGS.name)])
    finally:
        await admin.close()
    [resource] = answer.resources
    settings = {name: value for name, value, *_ in resource[4]}
    assert settings["cleanup.policy"] == "delete"
    return timedelta(milliseconds=int(settings["retention.ms"]))


async def search_database_traces_and_figures(
    platform: RunningPlatform, searched: Searched, glasses: PairedGlasses, metrics: str
) -> None:
    async with platform.database.transaction() as connection:
        database = await rows_as_text(connection)
    assert str(glasses.device_id).encode() in database
    assert not searched.found_in(database)
    traces = await spans(platform.zipkin)
    assert all(f"infer {model}".encode() in traces for model in ALL_MODELS)
    assert not searched.found_in(traces)
    async with httpx.AsyncClient(trust_env=False) as client:
        figures = (await client.get(metrics)).content
    assert b"augenblick_frames_shed_total" in figures and not searched.found_in(figures)


def search_files(searched: Searched, root: Path, began: float) -> None:
    """The stack's own, with its logs and the database's log of changes; what it downloaded or left among the models; temporary
    files; shared memory."""
    assert not list(SHARED_MEMORY.glob(f"{SHARED_MEMORY_NAME}-{os.getpid()}-*")), "it has a name, and anybody may open it"
    kept, elsewhere = [], []
    for path in set(files_below(root, home() / "var", server.TRITON, Path(tempfile.gettempdir()), SHARED_MEMORY, since=began)):
        with suppress(FileNotFoundError):
            if found := searched.found_in_file(path):
                (kept if is_kafkas_own(path) else elsewhere).append((str(path), found[:3]))
    assert kept, "Kafka's own log has the frames: the search finds what is there"
    assert not elsewhere
