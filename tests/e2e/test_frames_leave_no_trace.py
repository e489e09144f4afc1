"""Frames live in Kafka for minutes, and nowhere else: not in the database, logs, spans, dead letters, crash dumps or files.

A marker is planted in a frame's comment and, as text that OCR reads, in its pixels; then everything that the stack wrote is
searched for it, for the frame's own bytes, and for both in the spellings that logs and databases use. What must be found in the
same way, so that the search is known to find anything: the frame in Kafka's log, and the sightings' ids in the database.
"""

import asyncio
import base64
import io
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx
import psutil
import pytest
import zxingcpp
from aiokafka import AIOKafkaProducer
from PIL import Image, ImageDraw, ImageFont
from sqlalchemy import text

from schemas.recognition import Intent, Recognition, Unclear
from schemas.topics import GLASSES_SIGHTINGS
from streams.sightings.recogniser import Recogniser
from streams.sightings.service import Frame
from streams.sightings.triton import Models
from tests.support.frames import barcode_jpeg, gtin13
from tests.support.servers import local_stack
from tests.support.waiting import eventually
from tests.support.world import RunningPlatform

IN_PIXELS = "ZEBRAQUARTZ"
COMMENT = f"NO-FRAME-MAY-STAY-{uuid4().hex}"
SECRET_CODE = "281234567890129753"
"""A consumer's payment code, which is part of what the frame shows."""


def marked(gtin: str | None, *, comment: str = COMMENT) -> bytes:
    """A frame with the marker as text, a price, a consumer's payment code, perhaps a product's code, and the marker as
    comment."""
    picture = Image.open(io.BytesIO(barcode_jpeg(gtin))).convert("RGB") if gtin else Image.new("RGB", (640, 480), "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((20, 300, 460, 470), fill="white")
    draw.text((40, 310), IN_PIXELS, fill="black", font=ImageFont.load_default(48))
    draw.text((40, 390), "3,99 €", fill="black", font=ImageFont.load_default(64))
    if gtin is None:
        code = zxingcpp.create_barcode(SECRET_CODE, zxingcpp.BarcodeFormat.QRCode)
        picture.paste(Image.fromarray(code.to_image(scale=5)), (480, 40))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90, comment=comment.encode())
    assert comment.encode() in written.getvalue()
    return written.getvalue()


FRAME = marked(gtin13(91_357))


def spellings(secret: bytes) -> list[bytes]:
    """As it is, in hexadecimal, and in base64 at each of its three offsets."""
    encoded = [base64.b64encode(b"\0" * offset + secret)[4 * bool(offset) :].rstrip(b"=")[:-2] for offset in range(3)]
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), *encoded]


def secrets_of(*frames: bytes) -> list[bytes]:
    """The comment, the text, the code, and bytes from the middle of each frame's pixels."""
    pieces = [frame[len(frame) // 2 : len(frame) // 2 + 24] for frame in frames]
    secrets = [COMMENT.encode(), IN_PIXELS.encode(), SECRET_CODE.encode(), *pieces]
    return [each for secret in secrets for each in spellings(secret)]


def found_in(content: bytes, secrets: list[bytes]) -> list[bytes]:
    return [secret for secret in secrets if secret in content]


def files_below(*roots: Path) -> Iterator[Path]:
    for root in roots:
        for path in root.rglob("*"):
            with suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    yield path


def is_kafkas_own(path: Path) -> bool:
    return path.parent.name.startswith(f"{GLASSES_SIGHTINGS.name}-")


async def rows_as_text(platform: RunningPlatform) -> str:
    """Every row of every table, as PostgreSQL writes it: bytes in hexadecimal."""
    written = []
    async with platform.database.transaction() as connection:
        tables = await connection.execute(
            text("SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables"
                 " WHERE table_type = 'BASE TABLE' AND table_schema = 'public'")
        )  # fmt: skip
        for table in tables.scalars().all():
            rows = await connection.execute(text(f"SELECT t::text FROM {table} AS t"))
            written.append("\n".join(rows.scalars()))
    return "\n".join(written)


async def spans(platform: RunningPlatform) -> str:
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        everything = {"lookback": 3_600_000, "limit": 10_000, "endTs": int(datetime.now(UTC).timestamp() * 1000) + 60_000}
        return (await client.get(platform.zipkin + "api/v2/traces", params=everything)).text


def models_processes(server_root: Path) -> list[psutil.Process]:
    """Those that run the models of the Triton whose stack has this root."""
    log = str(server_root)
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "tritonserver" in process.name() and any(log in file.path for file in process.open_files()):
                found += [child for child in process.children(recursive=True) if "/codes/" in " ".join(child.cmdline())]
    return found


async def look_with_a_model_that_dies(root: Path) -> None:
    """As a memory error in a decoder would end it: in a Triton of its own, for this one has to be restarted then."""
    root.mkdir()
    async with local_stack(root, "triton") as stack:
        models = Models(stack.environment["TRITON_URL"])
        try:
            recogniser, what = Recogniser(models), Frame("s", "0" * 64, Intent.IDENTIFY)
            assert isinstance((await recogniser.look(FRAME, what, 5.0)).result, Recognition)
            processes = models_processes(root)
            assert processes
            for process in processes:
                process.send_signal(signal.SIGSTOP)
            looking = [asyncio.create_task(recogniser.look(FRAME, what, 3.0)) for _ in range(4)]
            await asyncio.sleep(0.3)  # by now the frames are in the model's memory
            for process in processes:
                process.send_signal(signal.SIGSEGV)
                process.send_signal(signal.SIGCONT)
            looks = await asyncio.gather(*looking)
        finally:
            await models.close()
    assert all(isinstance(look.result, Unclear) for look in looks), "they were on their way when it died"


async def bury(platform: RunningPlatform, frame: bytes) -> None:
    """A record with a frame that the stage cannot handle, which becomes a dead letter."""
    headers = [("ce_specversion", b"1.0"), ("ce_type", b"no.such"), ("content-type", b"image/jpeg")]
    async with AIOKafkaProducer(bootstrap_servers=platform.environment["KAFKA_BOOTSTRAP_SERVERS"]) as producer:
        await producer.send_and_wait(GLASSES_SIGHTINGS.name, frame, key=COMMENT[:8].encode(), headers=headers)


async def another_dead_letter(platform: RunningPlatform, before: int) -> bool:
    return await count_dead_letters(platform) > before


async def count_dead_letters(platform: RunningPlatform) -> int:
    async with platform.database.transaction() as connection:
        query = text("SELECT count(*) FROM dead_letters WHERE consumer = 'sightings'")
        return int((await connection.execute(query)).scalar_one())


@pytest.mark.timeout(600)
async def test_no_frame_is_anywhere_but_in_kafka(platform: RunningPlatform, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.getbasetemp()
    without_code, cut_off = marked(None), FRAME[:-300]
    before = await count_dead_letters(platform)
    glasses = await platform.rows.glasses(locale="en-GB", region="DE")
    async with platform.worn(glasses) as worn:
        # Looked at, for every purpose; with a product, and with somebody's payment code and a price tag only.
        for frame in (FRAME, without_code):
            for intent in ("identify", "price", "read", "pay"):
                answer = await worn.look(frame, intent, timeout_s=15)
                assert answer["type"] in {"offers.found", "look.again", "gateway.dropped"}, answer
                told = str(answer)
                assert SECRET_CODE not in told and IN_PIXELS not in told and COMMENT not in told
        # Refused at the door.
        await worn.send_frame(cut_off)
        refused = await worn.expect(lambda message: message["type"] == "gateway.problem")
        assert refused["problem"]["code"] == "frame-truncated"
        # Let in, and past its deadline when its turn comes.
        late = (datetime.now(UTC) - timedelta(milliseconds=1460)).isoformat()
        sighting = await worn.send_frame(FRAME, "price", capturedat=late)
        with suppress(TimeoutError):
            await worn.accepted(sighting, 5)
        await asyncio.sleep(1)
        # What no handler can make anything of.
        await bury(platform, FRAME)
        await eventually(partial(another_dead_letter, platform, before), what="the dead letter")
    await look_with_a_model_that_dies(root / "crash")
    await asyncio.sleep(2)  # spans and hops are written a second after they ended

    secrets = secrets_of(FRAME, without_code)
    database = (await rows_as_text(platform)).encode()
    assert found_in(database, [str(glasses.device_id).encode()]), "the search would find it"
    assert not found_in(database, secrets)
    assert not found_in((await spans(platform)).encode(), secrets)

    dumps = [path for path in Path.cwd().glob("core*") if path.is_file()]
    kept: list[tuple[str, list[bytes]]] = []
    elsewhere: list[tuple[str, list[bytes]]] = []
    for path in [*files_below(root), *dumps]:
        if found := found_in(path.read_bytes(), secrets):
            (kept if is_kafkas_own(path) else elsewhere).append((str(path), found[:3]))
    assert kept, "Kafka's own log has the frames: the search finds what is there"
    assert not elsewhere
