"""Draws frames that show one code, or none: what benchmarks and tests of reading codes look at.

A frame is what a camera in glasses gives: 640×480, a label on a cluttered shelf, turned by any angle, tilted, out of focus or
moved, in poor light, with the sensor's grain and the JPEG's blocks. A seed gives the same frame every time. Frames are drawn in
two halves: `easy`, as somebody holds a thing who wants it read, and `hard`, as it happens to be in view.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy
import zxingcpp
from numpy.typing import NDArray

WIDTH, HEIGHT = 640, 480
SYMBOLOGIES = ("EAN13", "EAN8", "UPCA", "UPCE", "QRCode")

Picture = NDArray[Any]
_FINER = 2  # drawn so many times finer, each way, than the sensor sees it
_PIXELS = 8  # a module of a symbol, before it is seen by a camera
_MARGIN = 6  # pixels between a label and the frame's edge, at least


@dataclass(frozen=True)
class Hardness:
    """Ranges that a frame's properties are drawn from. Modules (a code's thinnest bar) in pixels at the label's middle; blur as
    Gauss' sigma and motion as a length, both in modules; noise as sigma in grey levels; contrast as the share of 255 between
    paper and ink; tilt in degrees away from the camera."""

    module: tuple[float, float]
    blur: tuple[float, float]
    motion: float
    noise: tuple[float, float]
    contrast: tuple[float, float]
    tilt: tuple[float, float]
    glare: float
    quality: tuple[int, int]


EASY = Hardness(
    module=(2.0, 3.6), blur=(0.1, 0.4), motion=0, noise=(1, 5), contrast=(0.5, 0.85), tilt=(0, 15), glare=0, quality=(80, 95)
)
HARD = Hardness(
    module=(1.4, 2.8), blur=(0.1, 0.7), motion=0.8, noise=(2, 10), contrast=(0.2, 0.7), tilt=(0, 40), glare=0.2, quality=(65, 90)
)


@dataclass(frozen=True)
class CodeFrame:
    """`text` as zxing-cpp tells it (UPC codes with 13 digits), None where the frame shows no code; `corners` of the symbol
    without its quiet zone, [[x, y] × 4] in pixels, clockwise from its own top left."""

    jpeg: bytes
    symbology: str | None
    text: str | None
    corners: NDArray[numpy.float64] | None


def draw(seed: int, symbology: str | None, hardness: Hardness) -> CodeFrame:
    """The frame of this seed. Without a symbology it shows things that look like codes, and no code."""
    chance = numpy.random.default_rng([seed, 0 if symbology is None else 1 + SYMBOLOGIES.index(symbology), hardness is HARD])
    picture = _shelf(chance)
    text, corners, module = None, None, 2.0
    if symbology is None:
        _look_alikes(picture, chance)
    else:
        text = _text(symbology, chance)
        symbol = _symbol(symbology, text)
        module = _between(chance, hardness.module)
        corners, module = _place(picture, symbol, symbology != "QRCode", module, hardness, chance)
    picture = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(numpy.float32)
    picture = _light(_blur(picture, module, hardness, chance), hardness, chance)
    picture += chance.normal(0, 1, picture.shape).astype(numpy.float32) * _between(chance, hardness.noise)
    quality = int(chance.integers(hardness.quality[0], hardness.quality[1] + 1))
    encoded = cv2.imencode(".jpg", numpy.clip(picture, 0, 255).astype(numpy.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return CodeFrame(encoded.tobytes(), symbology, text, corners)


def _between(chance: numpy.random.Generator, bounds: tuple[float, float]) -> float:
    return float(chance.uniform(*bounds))


def _digits(chance: numpy.random.Generator, count: int) -> str:
    return "".join(str(digit) for digit in chance.integers(0, 10, count))


def check_digit(digits: str) -> str:
    """GS1's, for any length: weights 3 and 1 from the right."""
    return str(-sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits))) % 10)


def _text(symbology: str, chance: numpy.random.Generator) -> str:
    if symbology == "EAN8":
        digits = _digits(chance, 7)
    elif symbology == "UPCA":
        digits = f"00{1 + chance.integers(9)}{_digits(chance, 9)}"
    elif symbology == "UPCE":
        digits = f"00{_digits(chance, 4)}{1 + chance.integers(9)}0000{chance.integers(5, 10)}"
    elif symbology == "QRCode":
        product = f"0952{_digits(chance, 9)}"
        return f"https://example.com/01/{product}{check_digit(product)}?10={_digits(chance, int(chance.integers(1, 24)))}"
    else:
        digits = str(1 + chance.integers(9)) + _digits(chance, 11)
    return digits + check_digit(digits)


def _symbol(symbology: str, text: str) -> Picture:
    """The symbol in ink 0 and paper 255, _PIXELS a module, without a quiet zone."""
    printed = text
    if symbology == "UPCA":
        printed = text[1:]
    elif symbology == "UPCE":
        printed = f"0{text[2:7]}{text[11:]}"
    barcode = zxingcpp.create_barcode(printed, getattr(zxingcpp.BarcodeFormat, symbology))
    return numpy.asarray(barcode.to_image(scale=_PIXELS, add_quiet_zones=False))


def _shelf(chance: numpy.random.Generator) -> Picture:
    """Packages beside each other, with words and pictures on them; grey, finer than the frame."""
    size = (HEIGHT * _FINER, WIDTH * _FINER)
    picture = numpy.full(size, chance.integers(60, 200), numpy.uint8)
    for _ in range(int(chance.integers(8, 22))):
        x, y = int(chance.integers(-100, size[1])), int(chance.integers(-100, size[0]))
        w, h = (int(side) for side in chance.integers(60, 500, 2))
        tone = int(chance.integers(20, 240))
        if chance.random() < 0.6:
            cv2.rectangle(picture, (x, y), (x + w, y + h), tone, -1)
        else:
            cv2.ellipse(picture, (x, y), (w // 2, h // 2), float(chance.integers(180)), 0, 360, tone, -1)
    for _ in range(int(chance.integers(6, 18))):
        at = (int(chance.integers(0, size[1])), int(chance.integers(0, size[0])))
        words = "".join(chr(97 + letter) for letter in chance.integers(0, 26, int(chance.integers(3, 14))))
        cv2.putText(
            picture, words, at, int(chance.integers(0, 8)), _between(chance, (0.5, 3.0)), int(chance.integers(0, 255)),
            int(chance.integers(1, 5)), cv2.LINE_AA,
        )  # fmt: skip
    return picture


def _look_alikes(picture: Picture, chance: numpy.random.Generator) -> None:
    """Stripes, grids, rulers and chequers: what a reader of codes may fall for."""
    for _ in range(int(chance.integers(2, 5))):
        high, wide = (int(side) for side in chance.integers(80, 400, 2))
        kind = chance.integers(4)
        step = int(chance.integers(3, 14))
        if kind == 0:  # stripes of random widths: a code of no symbology
            row = numpy.repeat(chance.integers(0, 2, wide // step + 1) * 255, step)[:wide]
            patch = numpy.tile(row, (high, 1))
        elif kind == 1:  # even stripes: a ruler, a grille, a shirt
            patch = numpy.tile((numpy.arange(wide) // step % 2) * 255, (high, 1))
        elif kind == 2:  # a matrix of random cells: a code of no symbology
            cells = chance.integers(0, 2, (high // step + 1, wide // step + 1)) * 255
            patch = numpy.kron(cells, numpy.ones((step, step), int))[:high, :wide]
        else:  # chequers
            patch = ((numpy.arange(high)[:, None] // step + numpy.arange(wide) // step) % 2) * 255
        border = 12
        label = numpy.pad(patch.astype(numpy.uint8), border, constant_values=255)
        around = float(chance.integers(0, 360))
        at = (float(chance.integers(0, picture.shape[1])), float(chance.integers(0, picture.shape[0])))
        turn = cv2.getRotationMatrix2D((label.shape[1] / 2, label.shape[0] / 2), around, 1.0)
        turn[:, 2] += numpy.array(at) - (label.shape[1] / 2, label.shape[0] / 2)
        seen = cv2.warpAffine(label, turn, picture.shape[::-1], flags=cv2.INTER_AREA)
        where = cv2.warpAffine(numpy.full_like(label, 255), turn, picture.shape[::-1])
        tone = 30 + seen.astype(numpy.float32) * _between(chance, (0.3, 0.85))
        picture[:] = numpy.where(where > 127, tone, picture).astype(numpy.uint8)


def _place(
    picture: Picture, symbol: Picture, linear: bool, module: float, hardness: Hardness, chance: numpy.random.Generator
) -> tuple[NDArray[numpy.float64], float]:
    """Puts the symbol on its label into the picture. Returns its corners and its module, both in pixels of the frame."""
    quiet = (11.0 if linear else 4.0) + _between(chance, (0, 6))
    modules = symbol.shape[1] / _PIXELS
    high = symbol.shape[0] / _PIXELS * (_between(chance, (0.6, 1.1)) if linear else 1.0)
    turn, away = _between(chance, (0, 2 * math.pi)), _between(chance, (0, 2 * math.pi))
    tilt = math.radians(_between(chance, hardness.tilt))
    shift = chance.uniform(-1, 1, 2)
    symbol_at = numpy.array([[-modules, -high], [modules, -high], [modules, high], [-modules, high]]) / 2
    label_at = symbol_at + numpy.sign(symbol_at) * [quiet, quiet if not linear else quiet / 2]
    while True:  # smaller until the label fits
        corners = _seen(label_at * module, turn, tilt, away)
        room = numpy.array([WIDTH, HEIGHT]) - 2 * _MARGIN - (corners.max(0) - corners.min(0))
        if (room >= 0).all():
            break
        module *= 0.93
    middle = numpy.array([WIDTH, HEIGHT]) / 2 - (corners.max(0) + corners.min(0)) / 2 + shift * room / 2
    label_corners, corners = corners + middle, _seen(symbol_at * module, turn, tilt, away) + middle
    paper = _between(chance, (max(90, 255 * hardness.contrast[0] + 30), 250))
    ink = max(8.0, paper - 255 * _between(chance, hardness.contrast))
    for outline, image in ((label_corners, numpy.full((8, 8), 255, numpy.uint8)), (corners, symbol)):
        edges = numpy.array([[0, 0], [image.shape[1], 0], [image.shape[1], image.shape[0]], [0, image.shape[0]]], numpy.float32)
        # The middle of a pixel is half a pixel from its edge, before and after.
        target = (outline * _FINER - 0.5).astype(numpy.float32)
        matrix = cv2.getPerspectiveTransform(edges - 0.5, target)
        smooth = cv2.GaussianBlur(image, (0, 0), 0.5 * _PIXELS / module / _FINER) if image is symbol else image
        seen = cv2.warpPerspective(smooth, matrix, picture.shape[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        where = numpy.zeros(picture.shape, numpy.uint8)
        cv2.fillConvexPoly(where, numpy.round(target * 16).astype(numpy.int32), 255, cv2.LINE_AA, 4)
        share = where.astype(numpy.float32) / 255
        tone = ink + (paper - ink) * seen.astype(numpy.float32) / 255
        picture[:] = (picture * (1 - share) + tone * share).astype(numpy.uint8)
    return corners, module


def _seen(points: Picture, turn: float, tilt: float, away: float) -> NDArray[numpy.float64]:
    """Points of a plane around its middle, turned and tilted, as a camera of 70° sees them; the middle stays at 0."""
    spin = numpy.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    flat = points @ spin.T
    axis = numpy.array([math.cos(away), math.sin(away)])
    across = numpy.array([-axis[1], axis[0]])
    distance = WIDTH / 2 / math.tan(math.radians(35))
    along, beside = flat @ axis, flat @ across
    depth = 1 + along * math.sin(tilt) / distance
    seen = numpy.outer(along * math.cos(tilt) / depth, axis) + numpy.outer(beside / depth, across)
    return numpy.asarray(seen, dtype=numpy.float64)


def _blur(picture: Picture, module: float, hardness: Hardness, chance: numpy.random.Generator) -> Picture:
    blurred = cv2.GaussianBlur(picture, (0, 0), max(0.2, _between(chance, hardness.blur) * module))
    length = _between(chance, (0, hardness.motion)) * module
    if chance.random() < 0.5 and length > 0.5:
        angle, size = _between(chance, (0, math.pi)), 2 * math.ceil(length / 2) + 3
        kernel = numpy.zeros((size * 8, size * 8), numpy.float32)
        middle = (size * 8 - 1) / 2
        ends = [tuple(int(middle + sign * length * 4 * part) for part in (math.cos(angle), math.sin(angle))) for sign in (-1, 1)]
        cv2.line(kernel, ends[0], ends[1], 1.0, 8)
        seen = cv2.resize(kernel, (size, size), interpolation=cv2.INTER_AREA)
        blurred = cv2.filter2D(blurred, -1, seen / seen.sum(), borderType=cv2.BORDER_REPLICATE)
    return blurred


def _light(picture: Picture, hardness: Hardness, chance: numpy.random.Generator) -> Picture:
    """Uneven light, and with it now and then a lamp's reflection."""
    y, x = numpy.mgrid[0:HEIGHT, 0:WIDTH].astype(numpy.float32)
    direction = _between(chance, (0, 2 * math.pi))
    slope = _between(chance, (0, 0.35))
    along = ((x - WIDTH / 2) * math.cos(direction) + (y - HEIGHT / 2) * math.sin(direction)) / WIDTH
    lit = picture * (1 - slope * (0.5 + along))
    if chance.random() < hardness.glare:
        at, size = chance.uniform((80, 60), (WIDTH - 80, HEIGHT - 60)), chance.uniform(20, 60, 2)
        spot = numpy.exp(-(((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2))
        lit = lit + spot * _between(chance, (80, 255))
    return numpy.asarray(lit, dtype=numpy.float32)
