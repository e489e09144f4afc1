"""Catalogue pictures: from files beside the list or through the outbound client; as the matcher takes them, and small ones.

Whatever a merchant names is a stranger's: its size is bounded before it is read and before it is decoded, its metadata is left
behind, and a path never leads out of the list's own directory.
"""

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin

from PIL import Image

from connectors.http import Answer, Deadlines, HttpClient
from connectors.shops.catalogue.fields import is_address
from schemas.errors import OutcomeUnknown, Rejected, Retryable
from streams.core.pictures import ORIENTATION, UnusablePicture, as_it_is, jpeg, opened, upright

MAX_BYTES = 10_000_000
MAX_PIXELS = 50_000_000

_TYPES = frozenset({"image/jpeg", "image/jpg", "image/png", "image/webp"})
_SIDE = 1024
_THUMBNAIL_SIDE = 256
_SMALLEST_SIDE = 32
_REDIRECTS = 3
_PASSING = {408, 425, 429}  # too slow, too early, too many; and all from 500
_LYING = {5, 6, 7, 8}  # values that exchange width and height
_DEADLINES = Deadlines(connect=5, read=10, total=30)


class OutOfReach(UnusablePicture):
    """It cannot be had now, for a reason that may pass: its server is away, too slow, overloaded, or broken."""


@dataclass(frozen=True)
class Prepared:
    """`jpeg` has at most 1024 pixels a side, `thumbnail` (a JPEG, too) at most 256; both upright. `jpeg` is for the model
    `features` only, and is the merchant's own file where that will do; the thumbnail has no metadata. `width` and `height` are
    the whole picture's, upright."""

    jpeg: bytes
    thumbnail: bytes
    width: int
    height: int


def outbound_client(*, allow_private: bool) -> HttpClient:
    return HttpClient(allow_private=allow_private, deadlines=_DEADLINES, max_response_bytes=MAX_BYTES, max_connections=16)


def digest(data: bytes) -> str:
    """By which a picture is known: of the file as it was given."""
    return hashlib.sha256(data).hexdigest()


async def obtain(picture: str, beside: Path, client: HttpClient) -> bytes:
    """The file as it is. Raises UnusablePicture, OutOfReach where trying later may help."""
    if is_address(picture):
        return await _fetch(picture, client)
    return await asyncio.to_thread(_read, picture, beside)


def _read(picture: str, beside: Path) -> bytes:
    root = beside.resolve()
    try:
        path = (root / picture).resolve()
        if not path.is_relative_to(root):
            raise UnusablePicture("leads out of the list's directory")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError):
        raise UnusablePicture("is no file that can be read, beside the list") from None
    if len(data) > MAX_BYTES:
        raise UnusablePicture(f"has more than {MAX_BYTES // 1_000_000} MB")
    return data


async def _fetch(address: str, client: HttpClient) -> bytes:
    """Redirects are followed a few times; each address is checked as the first one is."""
    try:
        for _ in range(_REDIRECTS + 1):
            answer = await client.request("GET", address, headers={"Accept": ", ".join(sorted(_TYPES))}, repeatable=True)
            if answer.status not in {301, 302, 303, 307, 308} or "location" not in answer.headers:
                return _content(answer)
            address = urljoin(address, answer.headers["location"])
    except Rejected as error:
        raise UnusablePicture(f"is at an address that is refused: {error.problem.detail}") from None
    except (Retryable, OutcomeUnknown) as error:
        raise OutOfReach(f"could not be fetched now: {error}") from None
    except ValueError:
        raise UnusablePicture("leads to what is no address") from None
    raise UnusablePicture(f"is redirected more than {_REDIRECTS} times")


def _content(answer: Answer) -> bytes:
    if answer.status >= 500 or answer.status in _PASSING:
        raise OutOfReach(f"could not be fetched now: status {answer.status}.")
    if answer.status != 200:
        raise UnusablePicture(f"could not be fetched: status {answer.status}")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES:
        raise UnusablePicture("is served as another type than image/jpeg, image/png or image/webp")
    if answer.truncated:
        raise UnusablePicture(f"has more than {MAX_BYTES // 1_000_000} MB")
    return answer.body


def prepare(data: bytes) -> Prepared:
    """Raises UnusablePicture."""
    with opened(data, most_pixels=MAX_PIXELS) as given:
        width, height = given.size
        if min(width, height) < _SMALLEST_SIDE:
            raise UnusablePicture(f"has less than {_SMALLEST_SIDE} pixels on a side")
        if given.getexif().get(ORIENTATION) in _LYING:
            width, height = height, width
        own = as_it_is(data, given, _SIDE)
        picture = upright(given, _SIDE)
    small = picture.copy()
    small.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return Prepared(own or jpeg(picture, 95), jpeg(small, 82), width, height)
