"""Pictures that people give, as files or by address: opened within bounds, turned upright, made smaller, written as JPEG. What
else is in such a file (where it was taken, by whom, comments) is left behind."""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

ORIENTATION = 0x0112
"""The EXIF tag."""

_FORMATS = ("JPEG", "PNG", "WEBP")
_HEIC = re.compile(rb"....ftyp(?:hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL)  # what iPhones write, whatever they call the file
_JPEGS = {"JPEG", "MPO"}  # the latter is several, one behind the other
_UPRIGHT = {None, 1}

# ITU-T T.81, annex B. Within a scan, FF 00 is a stuffed byte and FF D0 … FF D7 restart it; any other byte behind FF ends it.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff(?=[^\x00\xff\xd0-\xd7])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
# Lossless, hierarchical, arithmetic: not every decoder takes them.
_UNUSUAL = frozenset({0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)})


class UnusablePicture(Exception):
    """It cannot be had, or is no picture that can be used. The message says why, without its name: “is damaged or truncated”."""


@contextmanager
def opened(data: bytes, *, most_pixels: int) -> Iterator[Image.Image]:
    """Pillow reads a picture's header here, and the rest when it is asked for: within the block, where all that goes wrong with
    it becomes UnusablePicture."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is left behind, and of sizes that are bounded here
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                if picture.width * picture.height > most_pixels:
                    raise Image.DecompressionBombError
                yield picture
    except UnidentifiedImageError:
        known = "HEIC, and no JPEG, PNG or WebP: export it as one of them" if _HEIC.match(data) else "no JPEG, PNG or WebP"
        raise UnusablePicture(f"is {known}") from None
    except Image.DecompressionBombError:
        raise UnusablePicture(f"has more than {most_pixels // 1_000_000} million pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise UnusablePicture("is damaged or truncated") from None


def as_it_is(data: bytes, picture: Image.Image, side: int) -> bytes | None:
    """Of an upright JPEG of at most `side` pixels a side its own bytes: a model is given them as they are, for each time that a
    picture is written again costs points by which it is recognised. Without what telephones append: films, depth maps, further
    pictures. None of what has to be written anew. `picture` is what was `opened`."""
    is_plain = (
        picture.format in _JPEGS
        and picture.mode == "RGB"
        and max(picture.size) <= side
        and picture.getexif().get(ORIENTATION) in _UPRIGHT
    )
    return _first_picture(data) if is_plain else None


def upright(picture: Image.Image, side: int) -> Image.Image:
    """In RGB, with at most `side` pixels a side, without metadata. What shows through a product that was cut out is white, as on
    a page. Of a picture that is `opened`, and not read before: a JPEG is decoded at the smallest scale that suffices."""
    picture.draft("RGB", (side, side))
    turned = ImageOps.exif_transpose(picture)
    turned.thumbnail((side, side), Image.Resampling.LANCZOS)
    if turned.mode.startswith("I"):  # 16 bits of grey: converting alone would make white of nearly all of them
        turned = turned.point(lambda value: value * (1 / 256)).convert("L")
    if turned.has_transparency_data:
        whole = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
    made = turned.convert("RGB")
    made.info.clear()  # or comments would be written again
    return made


def jpeg(picture: Image.Image, quality: int) -> bytes:
    """With colours as fine as light and dark: by them siblings are told apart."""
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality, subsampling=0)
    return written.getvalue()


def _first_picture(data: bytes) -> bytes | None:
    """Up to the marker that ends it: not the first such bytes, for a preview in the metadata has its own. None where that is not
    found, or the form is an unusual one."""
    position = 2
    while marker := _MARKER.match(data, position):
        kind, position = marker[1][0], marker.end()
        if kind == _END:
            return data[:position]
        if kind in _UNUSUAL:
            return None
        if kind not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")
        if kind == _SCAN:
            end = _END_OF_SCAN.search(data, position)
            position = end.start() if end else len(data)
    return None
