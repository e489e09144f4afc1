"""JPEGs that mean harm, or came to harm: none may be decoded."""

import io
import struct

import numpy
from PIL import Image

_PIXELS = numpy.random.default_rng(3).integers(0, 256, (60, 80, 3), dtype=numpy.uint8)


def jpeg(size: tuple[int, int] = (640, 480), mode: str = "RGB", **options: object) -> bytes:
    """An honest one."""
    written = io.BytesIO()
    Image.fromarray(_PIXELS).resize(size).convert(mode).save(written, "JPEG", **options)
    return written.getvalue()


def stating(picture: bytes, *, size: tuple[int, int] | None = None, bits: int = 8, marker: int | None = None) -> bytes:
    """The same bytes with another width and height, bits a sample, or kind of compression in its header."""
    at = next(picture.index(bytes([0xFF, kind])) for kind in (0xC0, 0xC2) if bytes([0xFF, kind]) in picture)
    kind, length, _, height, width = struct.unpack_from(">xBHBHH", picture, at)
    stated = size or (width, height)
    header = struct.pack(">BBHBHH", 0xFF, marker or kind, length, bits, stated[1], stated[0])
    return picture[:at] + header + picture[at + len(header) :]


def many_scans(picture: bytes, count: int) -> bytes:
    """A progressive picture whose last scan is there so many times more."""
    begins, ends = picture.rindex(b"\xff\xda"), picture.rindex(b"\xff\xd9")
    return picture[:ends] + picture[begins:ends] * count + picture[ends:]


def hostile() -> dict[str, bytes]:
    """By what is wrong with them."""
    honest, progressive = jpeg(), jpeg(progressive=True)
    png = io.BytesIO()
    Image.fromarray(_PIXELS).save(png, "PNG")
    frame = honest.index(b"\xff\xc0")
    return {
        "empty": b"",
        "one byte": b"\xff",
        "a start and nothing else": b"\xff\xd8\xff",
        "a start and an end": b"\xff\xd8\xff\xd9",
        "text": b"GET / HTTP/1.1\r\n\r\n" * 50,
        "a PNG": png.getvalue(),
        "a bomb by its stated size": stating(honest, size=(65_500, 65_500)),
        "a progressive bomb": stating(progressive, size=(65_500, 65_500)),
        "a little above the limit": stating(honest, size=(5_000, 4_001)),
        "one pixel wide": stating(honest, size=(1, 65_500)),
        "one pixel high": stating(honest, size=(65_500, 1)),
        "no height": stating(honest, size=(640, 0)),
        "cut in the middle": honest[: len(honest) // 2],
        "cut in the header": honest[:200],
        "its end cut off": honest[:-2],
        "a thousand scans": many_scans(progressive, 1_000),
        "a hundred thousand segments": honest[:2] + b"\xff\xfe\x00\x02" * 100_000 + honest[2:],
        "ink for a printer": jpeg(mode="CMYK"),
        "twelve bits": stating(honest, bits=12, marker=0xC1),
        "sixteen bits": stating(honest, bits=16, marker=0xC3),
        "arithmetic coding": stating(honest, marker=0xC9),
        "two sizes": honest[:frame] + honest[frame : frame + 19] + honest[frame:],
        "something else behind it": honest + b"\x00" * 100_000,
        "another picture behind it": honest + honest,
        "seventeen megabytes": honest[:2] + (b"\xff\xfe\xff\xff" + b"x" * 65_533) * 260 + honest[2:],
    }
