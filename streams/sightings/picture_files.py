"""Pictures as a user has them in files, as the JPEG frames that glasses send. In memory only."""

import io
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_BYTES = 2 * 1024 * 1024
"""Of a frame, as the gateway takes it. Larger files are made smaller, as glasses would have done it."""

_LONGEST_FILE = 64 * 1024 * 1024
_LONGEST_SIDE = 2048
_MAX_PIXELS = 100_000_000
_QUALITY = 92
_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112
_UPRIGHT = {None, 1}


class UnreadablePicture(Exception):
    """The message says why, without the picture's name."""


def pictures_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, whatever their suffix, and the pictures in the folders named, with all folders in them, sorted."""
    for path in paths:
        if path.is_dir():
            yield from sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
        else:
            yield path


def frame_of(path: Path) -> bytes:
    """The picture as an upright JPEG that is no larger than a frame may be; a JPEG that is so already, byte for byte. Raises
    UnreadablePicture."""
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise UnreadablePicture(f"the file is larger than {_LONGEST_FILE // 2**20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(error.strerror or "the file cannot be read") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of pictures that are limited below
            with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
                return _frame(picture, data)
    except UnidentifiedImageError:
        raise UnreadablePicture("this is no JPEG, PNG or WebP") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise UnreadablePicture("the picture is damaged or truncated") from None


def _frame(picture: Image.Image, data: bytes) -> bytes:
    width, height = picture.size
    if width * height > _MAX_PIXELS:
        raise UnreadablePicture(f"the picture has more than {_MAX_PIXELS // 10**6} million pixels")
    is_small = len(data) <= MAX_BYTES and max(width, height) <= _LONGEST_SIDE
    if is_small and picture.format == "JPEG" and picture.getexif().get(_ORIENTATION) in _UPRIGHT:
        picture.load()  # a truncated one is said to be so here, by its file, and not by a model
        return data
    picture.draft("RGB", (_LONGEST_SIDE, _LONGEST_SIDE))
    upright = ImageOps.exif_transpose(picture)
    upright.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    written = io.BytesIO()
    _on_white(upright).save(written, "JPEG", quality=_QUALITY)
    return written.getvalue()


def _on_white(picture: Image.Image) -> Image.Image:
    """Without transparency: what shows through a product's cut-out picture is white, as on a page."""
    if picture.has_transparency_data:
        whole = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return picture.convert("RGB")
