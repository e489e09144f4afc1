"""A JPEG becomes pixels, if its form allows that this costs no more than a picture of its stated size does.

Everything is checked on the encoded bytes first, marker by marker (ITU-T T.81, annex B): what is refused has cost no memory, and
microseconds. A picture's content is never part of a message.
"""

import re
from dataclasses import dataclass

import cv2
import numpy
from numpy.typing import NDArray

Picture = NDArray[numpy.uint8]

MAXIMUM_PIXELS = 20_000_000
MAXIMUM_BYTES = 16 * 1024 * 1024
SMALLEST_SIDE = 8  # pixels; one block of a JPEG, and nothing anybody could recognise
MAXIMUM_SCANS = 64  # a progressive picture has about ten; each costs a pass over all its pixels
MAXIMUM_SEGMENTS = 1_000
PADDING = 64  # bytes; some cameras' encoders pad after the end marker

_START_OF_IMAGE, _END_OF_IMAGE, _START_OF_SCAN = 0xD8, 0xD9, 0xDA
# Baseline, extended and progressive Huffman. The others are lossless, hierarchical or arithmetic: no camera writes them.
_FRAMES = {0xC0, 0xC1, 0xC2}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_ANY_MARKER = re.compile(rb"\xff+[^\xff]", re.DOTALL)
# Within a scan, FF 00 is a stuffed byte and FF D0 … FF D7 restart it; any other byte behind FF ends it.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


class UnreadableFrame(ValueError):
    """The bytes are no JPEG that may be decoded. The message goes to the caller."""


@dataclass(frozen=True)
class Stated:
    """What a JPEG says of itself, in pixels as encoded (EXIF orientation not applied)."""

    width: int
    height: int


def check(jpeg: bytes, *, maximum_pixels: int = MAXIMUM_PIXELS, trailing: bool = False) -> Stated:
    """The stated size of a whole JPEG. Raises UnreadableFrame. With `trailing`, anything may follow the picture: phones append
    depth maps and films to theirs."""
    if not jpeg:
        raise UnreadableFrame("IMAGE is empty")
    if len(jpeg) > MAXIMUM_BYTES:
        raise UnreadableFrame(f"IMAGE has {len(jpeg):,} bytes; {MAXIMUM_BYTES:,} are the limit")
    if not jpeg.startswith(b"\xff\xd8\xff"):
        raise UnreadableFrame("IMAGE is not a JPEG")
    stated, scans, position = None, 0, 2
    for _ in range(MAXIMUM_SEGMENTS):
        marker, position = _marker(jpeg, position)
        if marker in _WITHOUT_LENGTH:
            continue
        if marker == _END_OF_IMAGE:
            break
        segment = _segment(jpeg, position)
        position += 2 + len(segment)
        if marker in _FRAMES:
            if stated:
                raise UnreadableFrame("IMAGE states its size twice")
            stated = _stated(segment, maximum_pixels)
        elif marker in _OTHER_FRAMES:
            raise UnreadableFrame("IMAGE is a lossless, hierarchical or arithmetic JPEG")
        elif marker == _START_OF_IMAGE:
            raise UnreadableFrame("IMAGE begins twice")
        elif marker == _START_OF_SCAN:
            scans += 1
            if not stated:
                raise UnreadableFrame("IMAGE has pixels before it states a size")
            if scans > MAXIMUM_SCANS:
                raise UnreadableFrame(f"IMAGE has more than {MAXIMUM_SCANS} scans")
            end = _END_OF_SCAN.search(jpeg, position)
            if end is None:
                raise UnreadableFrame("IMAGE is truncated")
            position = end.start()
    else:
        raise UnreadableFrame(f"IMAGE has more than {MAXIMUM_SEGMENTS} segments")
    if not stated or not scans:
        raise UnreadableFrame("IMAGE holds no picture")
    if not trailing and len(jpeg) - position > PADDING:
        raise UnreadableFrame("IMAGE goes on after its end marker")
    return stated


def decode(jpeg: bytes | Picture, *, maximum_pixels: int = MAXIMUM_PIXELS, grey: bool = False, orient: bool = False) -> Picture:
    """uint8, C-contiguous: [height, width] with `grey`, else [height, width, 3] in BGR. Raises UnreadableFrame.

    `orient` is for a catalogue's pictures: their EXIF orientation is applied, and what follows the picture is passed over.
    Glasses' cameras send upright frames, and a corner in the answer has to be where it is in the frame as it was sent.
    """
    encoded = jpeg if isinstance(jpeg, bytes) else jpeg.tobytes()
    stated = check(encoded, maximum_pixels=maximum_pixels, trailing=orient)
    flags = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    if not orient:
        flags |= cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(numpy.frombuffer(encoded, dtype=numpy.uint8), flags)
    except cv2.error:
        raise UnreadableFrame("IMAGE cannot be decoded") from None
    if pixels is None or sorted(pixels.shape[:2]) != sorted((stated.height, stated.width)):
        raise UnreadableFrame("IMAGE is damaged")
    return numpy.asarray(pixels, dtype=numpy.uint8)


def _marker(jpeg: bytes, position: int) -> tuple[int, int]:
    """The marker's second byte, and where what belongs to it begins. Any number of FF may fill the space before it."""
    if position >= len(jpeg):
        raise UnreadableFrame("IMAGE is truncated")
    if jpeg[position] != 0xFF:
        raise UnreadableFrame("IMAGE has something that is no JPEG between its segments")
    match = _ANY_MARKER.match(jpeg, position)
    if match is None:
        raise UnreadableFrame("IMAGE is truncated")
    return jpeg[match.end() - 1], match.end()


def _segment(jpeg: bytes, position: int) -> bytes:
    """What a segment holds, without the two bytes of its length."""
    length = int.from_bytes(jpeg[position : position + 2], "big")
    if length < 2:
        raise UnreadableFrame("IMAGE has a segment without a length")
    if position + length > len(jpeg):
        raise UnreadableFrame("IMAGE is truncated")
    return jpeg[position + 2 : position + length]


def _stated(segment: bytes, maximum_pixels: int) -> Stated:
    if len(segment) < 6:
        raise UnreadableFrame("IMAGE states no size")
    precision, components = segment[0], segment[5]
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    if precision != 8:
        raise UnreadableFrame(f"IMAGE has {precision} bits a sample, not 8")
    if components not in (1, 3):
        raise UnreadableFrame(f"IMAGE has {components} components, neither grey nor colour")
    if min(width, height) < SMALLEST_SIDE:
        raise UnreadableFrame(f"IMAGE has {width}×{height} pixels; {SMALLEST_SIDE} each way are the least")
    if width * height > maximum_pixels:
        raise UnreadableFrame(f"IMAGE has {width}×{height} pixels; {maximum_pixels:,} are the limit")
    return Stated(width, height)
