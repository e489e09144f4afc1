"""Catalogue pictures: what is taken, and what becomes of it."""

import asyncio
import io
import struct
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import stamina
from PIL import Image, ImageDraw

from connectors.http import HttpClient
from streams.catalogues import pictures
from streams.catalogues.pictures import obtain, prepare
from streams.core.pictures import UnusablePicture


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    written = io.BytesIO()
    picture.save(written, kind, **options)
    return written.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def half_red(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """The upper half is red, the lower one white."""
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).rectangle((0, 0, width, height // 2), fill="red")
    return picture.convert("I" if mode.startswith("I") else mode).convert(mode)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK", "1")),
        *(("PNG", mode) for mode in ("RGB", "L", "P", "RGBA", "LA", "1", "I;16")),
        *(("WEBP", mode) for mode in ("RGB", "L", "P", "RGBA")),
    ],
)
def test_every_form_becomes_a_jpeg(kind: str, mode: str) -> None:
    prepared = prepare(encoded(half_red(300, 200, mode), kind))
    picture = opened(prepared.jpeg)
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (300, 200))
    assert (prepared.width, prepared.height) == (300, 200)


def test_large_ones_are_made_smaller() -> None:
    prepared = prepare(encoded(half_red(3000, 1500)))
    assert opened(prepared.jpeg).size == (1024, 512)
    assert opened(prepared.thumbnail).size == (256, 128)
    assert len(prepared.thumbnail) < 20_000
    assert (prepared.width, prepared.height) == (3000, 1500)


def test_orientation_is_applied_and_metadata_left_behind() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    exif[0x010E] = "SECRET description"
    lying = half_red(200, 300).rotate(90, expand=True)
    data = encoded(lying, exif=exif.tobytes(), comment=b"SECRET comment")
    assert b"SECRET" in data
    prepared = prepare(data)
    picture = opened(prepared.jpeg)
    assert picture.size == (prepared.width, prepared.height) == (200, 300)
    top, bottom = picture.getpixel((100, 20)), picture.getpixel((100, 280))
    assert top[1] < 60
    assert bottom[1] > 200
    assert b"SECRET" not in prepared.jpeg + prepared.thumbnail
    assert not picture.getexif()


def test_what_a_telephone_puts_behind_a_picture_is_left_behind() -> None:
    data = encoded(half_red(300, 200))
    assert prepare(data + b"\0\0\0\x18ftypmp42" * 900).jpeg == data


def test_what_shows_through_is_white() -> None:
    cut_out = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    assert opened(prepare(encoded(cut_out, "PNG")).jpeg).getpixel((5, 5)) == (255, 255, 255)


def png_of(width: int, height: int) -> bytes:
    """Its header; no more."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JPEG"),
        (b"<svg/>", "no JPEG"),
        (encoded(half_red(100, 100), "GIF"), "no JPEG"),
        (encoded(half_red(100, 100), "TIFF"), "no JPEG"),
        (encoded(half_red(400, 400))[:-1500], "truncated"),
        (encoded(half_red(20, 100)), "less than 32"),
        (png_of(30_000, 30_000), "more than 50 million"),
        (png_of(2_000_000_000, 2_000_000_000), "more than 50 million"),
        (png_of(1000, 1000), "truncated"),
    ],
)
def test_what_is_no_picture(data: bytes, reason: str) -> None:
    with pytest.raises(UnusablePicture, match=reason):
        prepare(data)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    async with pictures.outbound_client(allow_private=True) as client:
        yield client


async def test_files_beside_the_list(tmp_path: Path, client: HttpClient) -> None:
    (tmp_path / "list" / "pictures").mkdir(parents=True)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "list" / "pictures" / "milk.jpg").write_bytes(b"milk")
    (tmp_path / "list" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (tmp_path / "list" / "inside.jpg").symlink_to(tmp_path / "list" / "pictures" / "milk.jpg")
    (tmp_path / "list" / "large.jpg").write_bytes(bytes(pictures.MAX_BYTES + 1))
    beside = tmp_path / "list"
    assert await obtain("pictures/milk.jpg", beside, client) == b"milk"
    assert await obtain("inside.jpg", beside, client) == b"milk"
    for picture, reason in {
        "../secret.jpg": "leads out",
        str(tmp_path / "secret.jpg"): "leads out",
        "link.jpg": "leads out",
        "pictures": "no file",
        "nothing.jpg": "no file",
        "large.jpg": "10 MB",
    }.items():
        with pytest.raises(UnusablePicture, match=reason) as raised:
            await obtain(picture, beside, client)
        assert "secret" not in str(raised.value)


@asynccontextmanager
async def server(answers: Mapping[str, bytes]) -> AsyncIterator[str]:
    """Its address. What it is not told to answer is not found."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].decode()
        writer.write(answers.get(with_path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with running:
        yield f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"


def answer(body: bytes, kind: str = "image/jpeg") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def redirect(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.fixture
def without_pauses() -> Iterator[None]:
    """What is tried three times is, at once."""
    with stamina.set_testing(True, attempts=3):
        yield


@pytest.mark.usefixtures("without_pauses")
async def test_addresses(client: HttpClient) -> None:
    answers = {
        "/milk.jpg": answer(b"milk"),
        "/page": answer(b"<html>", "text/html"),
        "/large.jpg": answer(bytes(pictures.MAX_BYTES + 1)),
        "/moved.jpg": redirect("/milk.jpg"),
        "/round.jpg": redirect("/round.jpg"),
        "/away.jpg": redirect("gopher://a.example/"),
        "/odd.jpg": redirect("http://[/"),
    }
    async with server(answers) as address:
        for path in ("/milk.jpg", "/moved.jpg"):
            assert await obtain(address + path, Path(), client) == b"milk"
        for path, reason in {
            "/nothing.jpg": "status 404",
            "/page": "another type",
            "/large.jpg": "10 MB",
            "/round.jpg": "more than 3 times",
            "/away.jpg": "refused",
            "/odd.jpg": "no address|refused",
        }.items():
            with pytest.raises(UnusablePicture, match=reason):
                await obtain(address + path, Path(), client)
        # Only development may look at this machine.
        async with pictures.outbound_client(allow_private=False) as guarded:
            for local in (address, address.replace("http:", "https:")):
                with pytest.raises(UnusablePicture, match="refused"):
                    await obtain(f"{local}/milk.jpg", Path(), guarded)
    with pytest.raises(UnusablePicture, match="could not be fetched"):
        await obtain(f"{address}/milk.jpg", Path(), client)


@pytest.mark.parametrize(
    ("status", "passes"), [(408, True), (429, True), (500, True), (503, True), (403, False), (404, False), (410, False)]
)
async def test_what_may_be_had_later(client: HttpClient, status: int, passes: bool) -> None:
    said = f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode()
    async with server({"/milk.jpg": said, "/moved.jpg": redirect("/milk.jpg")}) as address:
        for path in ("/milk.jpg", "/moved.jpg"):
            with pytest.raises(UnusablePicture, match=f"status {status}") as raised:
                await obtain(address + path, Path(), client)
            assert isinstance(raised.value, pictures.OutOfReach) == passes


async def test_what_may_be_had_when_its_server_is_well(client: HttpClient) -> None:
    async with server({"/half.jpg": answer(b"milk")[:-2]}) as address:
        with pytest.raises(pictures.OutOfReach, match="fetched now: No complete answer"):
            await obtain(f"{address}/half.jpg", Path(), client)
    with pytest.raises(pictures.OutOfReach, match="fetched now: No connection"):
        await obtain(f"{address}/milk.jpg", Path(), client)
