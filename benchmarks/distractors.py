"""Catalogue pictures of products that do not exist, for catalogues larger than the real one: `draw(number, material)`.

Each is drawn on white in the form of the dataset's own catalogue pictures (198 × 198 pixels, drawn at twice that) and depends on
its number only. Of 100, in this order of the number modulo 100:

- 70 are *drawn*: a box with panels, bands, dots, stripes, rays, hills or confetti, a brand of 2 to 4 syllables in one of 26
  fonts, words that packaging has in common ("ORGANIC", "1 L", a nutrition table, a barcode), logos of simple shapes.
- 25 *borrow*: drawn, and 1 to 3 patches of `train` photos of real products lie on them (25 to 45 % of the photo's side each,
  turned by up to 10°, recoloured): the logos, letters and pictures that a frame of the real product shows, too.
- 5 are *siblings*: the catalogue picture of a real product, of which 40 to 70 % is drawn over and the rest recoloured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]
SIDE = 198
_DRAWN_SIDE = 2 * SIDE
_SYLLABLES = [first + second for first in "bdfghklmnprstvwxz" for second in "aeiou"]
_COMMON = [
    *(
        "ORGANIC",
        "1 L",
        "500 g",
        "0,5 l",
        "FRESH",
        "Original",
        "Vanilla",
        "NEW",
        "Light",
        "3 % FAT",
        "Ingredients",
        "Best before",
    ),
    *("No added sugar", "Classic", "Family", "Bio", "Natural", "100 %", "Premium", "Strawberry", "Since 1921", "MILK", "Juice"),
    *("Coffee", "Tea", "Whole grain", "Pasta", "Rice", "Soap", "Shampoo", "Vegan", "Gluten free"),
]


@dataclass(frozen=True)
class Material:
    """BGR pictures of real products: what is borrowed from."""

    photos: Sequence[Picture]
    catalogue: Sequence[Picture]


@cache
def _fonts() -> list[str]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return sorted(str(file) for file in folder.glob("*.ttf") if file.name.startswith(("DejaVu", "STIXGeneral", "cm")))


@cache
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(name, size)


def draw(number: int, material: Material) -> Picture:
    """BGR, `SIDE` × `SIDE`."""
    random = np.random.default_rng([20261122, number])
    kind = number % 100
    if kind >= 95:
        picture = _sibling(random, material)
    else:
        picture = _package(random)
        if kind >= 70:
            for _ in range(random.integers(1, 4)):
                _borrow(random, picture, material.photos)
    return cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in random.integers(0, 256, 3))
    return red, green, blue


def _package(random: np.random.Generator) -> Picture:
    image = Image.new("RGB", (_DRAWN_SIDE, _DRAWN_SIDE), "white")
    pen = ImageDraw.Draw(image)
    width = int(_DRAWN_SIDE * random.uniform(0.4, 0.8))
    left, top = (_DRAWN_SIDE - width) // 2, int(_DRAWN_SIDE * random.uniform(0.0, 0.15))
    right, bottom = left + width, _DRAWN_SIDE - 4
    pen.rounded_rectangle((left, top, right, bottom), radius=int(random.integers(0, 30)), fill=_colour(random))
    _pattern(random, pen, (left, top, right, bottom))
    for _ in range(random.integers(0, 3)):
        edge = int(random.uniform(top, bottom))
        pen.rectangle((left, edge, right, min(bottom, edge + int(random.integers(15, 90)))), fill=_colour(random))
    for _ in range(random.integers(1, 4)):
        _logo(random, pen, (left, top, right, bottom))
    brand = "".join(random.choice(_SYLLABLES, random.integers(2, 5)))
    _words(random, pen, brand.upper() if random.random() < 0.5 else brand.title(), int(random.integers(36, 80)), left, right, top)
    for _ in range(random.integers(3, 8)):
        word = str(random.choice(_COMMON)) if random.random() < 0.6 else "".join(random.choice(_SYLLABLES, 3)).title()
        _words(random, pen, word, int(random.integers(14, 40)), left, right, int(random.uniform(top, bottom - 40)))
    if random.random() < 0.6:
        _table(random, pen, left, right, bottom)
    if random.random() < 0.3:
        _barcode(random, pen, left, bottom)
    return np.asarray(image)[:, :, ::-1].copy()


def _pattern(random: np.random.Generator, pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    kind, colour, step = random.integers(0, 5), _colour(random), int(random.integers(14, 40))
    if kind == 0:
        for y in range(top, bottom, step):
            for x in range(left, right, step):
                pen.ellipse((x, y, x + step // 2, y + step // 2), fill=colour)
    elif kind == 1:
        for x in range(left, right, step):
            pen.rectangle((x, top, x + step // 3, bottom), fill=colour)
    elif kind == 2:
        x, y = int(random.uniform(left, right)), int(random.uniform(top, bottom))
        radius = max(8, min(x - left, right - x, y - top, bottom - y))
        for angle in range(0, 360, step):
            pen.pieslice((x - radius, y - radius, x + radius, y + radius), angle, angle + step // 2, colour)
    elif kind == 3:
        for _ in range(4):
            heights = random.uniform(top, bottom, 6)
            points = [(left + index * (right - left) / 5, float(height)) for index, height in enumerate(heights)]
            pen.polygon([(left, bottom), *points, (right, bottom)], fill=_colour(random))
    else:
        for _ in range(random.integers(8, 40)):
            x, y, size = random.uniform(left, right - 30), random.uniform(top, bottom - 30), random.uniform(5, 30)
            pen.polygon([(x + float(a), y + float(b)) for a, b in random.uniform(0, size, (5, 2))], fill=_colour(random))


def _logo(random: np.random.Generator, pen: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    size = int(random.uniform(30, 90))
    x, y = int(random.uniform(left, max(left + 1, right - size))), int(random.uniform(top, bottom - size))
    pen.ellipse((x, y, x + size, y + int(size * random.uniform(0.5, 1))), fill=_colour(random), outline=_colour(random), width=4)
    points = [(x + size * float(a), y + size * float(b)) for a, b in random.uniform(0.15, 0.85, (random.integers(3, 7), 2))]
    pen.polygon(points, fill=_colour(random))


def _words(random: np.random.Generator, pen: ImageDraw.ImageDraw, words: str, size: int, left: int, right: int, y: int) -> None:
    fonts = _fonts()
    font = _font(fonts[int(random.integers(len(fonts)))], size)
    room = right - left - int(pen.textlength(words, font=font))
    pen.text((left + (random.uniform(0, room) if room > 0 else 2), y), words, font=font, fill=_colour(random))


def _table(random: np.random.Generator, pen: ImageDraw.ImageDraw, left: int, right: int, bottom: int) -> None:
    y = bottom - int(random.integers(60, 160))
    pen.rectangle((left + 6, y, left + 6 + (right - left) // 2, y + 56), fill="white", outline="black")
    for row, name in enumerate(("Energy", "Fat", "Sugar", "Protein")):
        pen.text(
            (left + 10, y + 2 + 13 * row), f"{name} {random.uniform(0, 90):.1f} g", font=_font(_fonts()[0], 11), fill="black"
        )


def _barcode(random: np.random.Generator, pen: ImageDraw.ImageDraw, left: int, bottom: int) -> None:
    x = left + 8
    pen.rectangle((x, bottom - 50, x + 90, bottom - 6), fill="white")
    for offset in np.flatnonzero(random.random(80) < 0.5):
        pen.line((x + 5 + int(offset), bottom - 46, x + 5 + int(offset), bottom - 12), fill="black")


def _recoloured(random: np.random.Generator, picture: Picture) -> Picture:
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV).astype(np.int16)
    hsv[:, :, 0] = (hsv[:, :, 0] + random.integers(0, 180)) % 180
    hsv[:, :, 1:] = np.clip(hsv[:, :, 1:] * random.uniform(0.75, 1.25, 2), 0, 255)
    return cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2BGR).astype(np.uint8)


def _borrow(random: np.random.Generator, picture: Picture, photos: Sequence[Picture]) -> None:
    photo = photos[int(random.integers(len(photos)))]
    side = int(min(photo.shape[:2]) * random.uniform(0.25, 0.45))
    x, y = int(random.integers(0, photo.shape[1] - side)), int(random.integers(0, photo.shape[0] - side))
    target = int(random.uniform(0.25, 0.4) * _DRAWN_SIDE)
    turn = cv2.getRotationMatrix2D((x + side / 2, y + side / 2), random.uniform(-10, 10), target / side)
    turn[:, 2] += target / 2 - np.array([x + side / 2, y + side / 2])
    patch = _recoloured(random, cv2.warpAffine(photo, turn, (target, target), borderMode=cv2.BORDER_REFLECT).astype(np.uint8))
    left, top = int(random.uniform(0.1, 0.9) * (_DRAWN_SIDE - target)), int(random.uniform(0.05, 0.95) * (_DRAWN_SIDE - target))
    picture[top : top + target, left : left + target] = patch


def _sibling(random: np.random.Generator, material: Material) -> Picture:
    real = material.catalogue[int(random.integers(len(material.catalogue)))]
    picture = _recoloured(random, cv2.resize(real, (_DRAWN_SIDE, _DRAWN_SIDE)).astype(np.uint8))
    inside = np.argwhere(real.min(axis=2) < 245) * (_DRAWN_SIDE / real.shape[0])
    (top, left), (bottom, right) = inside.min(axis=0).astype(int), inside.max(axis=0).astype(int)
    over = _package(random)
    height = int((bottom - top) * random.uniform(0.4, 0.7))
    start = top if random.random() < 0.5 else bottom - height
    picture[start : start + height, left:right] = over[start : start + height, left:right]
    return picture
