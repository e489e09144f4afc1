"""Pictures as a user has them in files, as the JPEG frames that glasses send. In memory only."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from streams.core.pictures import UnusablePicture, as_it_is, jpeg, opened, upright

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
MAX_BYTES = 2 * 1024 * 1024
"""Of a frame, as the gateway takes it. Larger files are made smaller, as glasses would have done it."""

_LONGEST_FILE = 64 * 1024 * 1024
_LONGEST_SIDE = 2048
_SHORTEST_SIDE = 8  # less is no picture to Triton's models
_MAX_PIXELS = 100_000_000
_QUALITY = 88


class UnreadablePicture(Exception):
    """The message says why, without the picture's name."""


def pictures_in(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, whatever their names, and the pictures in the folders named, with all folders in them, sorted. Hidden
    files are left out: macOS lays a `._` file that is no picture beside each that it copies."""
    for path in paths:
        if path.is_dir():
            found = (each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and not each.name.startswith("."))
            yield from sorted(each for each in found if each.is_file())
        else:
            yield path


def frame_of(path: Path) -> bytes:
    """The picture as an upright JPEG that is no larger than a frame may be; a JPEG that is so already, byte for byte, less what
    telephones append to it. Raises UnreadablePicture."""
    try:
        if path.stat().st_size > _LONGEST_FILE:
            raise UnreadablePicture(f"the file is larger than {_LONGEST_FILE // 2**20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadablePicture(error.strerror or "the file cannot be read") from error
    try:
        with opened(data, most_pixels=_MAX_PIXELS) as picture:
            own = as_it_is(data, picture, _LONGEST_SIDE)
            if own and len(own) <= MAX_BYTES:
                picture.load()  # a truncated one is said to be so here, by its file, and not by a model
                made, frame = picture.size, own
            else:
                small = upright(picture, _LONGEST_SIDE)
                made, frame = small.size, jpeg(small, _QUALITY)
    except UnusablePicture as problem:
        raise UnreadablePicture(f"the picture {problem}") from None
    if min(made) < _SHORTEST_SIDE:
        raise UnreadablePicture(f"the picture is too small or too narrow: as a frame it has {made[0]} × {made[1]} pixels")
    return frame
