"""Packages that nobody sells, and photos of them: the same ones for the same numbers."""

import io
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from streams.evaluation.drawing import font

_FRONT = (360, 540)
_PHOTO = (640, 480)


def front(number: int) -> Image.Image:
    """What a catalogue shows of product `number`: colours, shapes and words of its own."""
    chance = random.Random(f"package {number}")
    base = tuple(chance.randrange(60, 200) for _ in range(3))
    picture = Image.new("RGB", _FRONT, base)
    draw = ImageDraw.Draw(picture)
    for _ in range(70):
        x, y, size = chance.randrange(_FRONT[0]), chance.randrange(_FRONT[1]), chance.randrange(12, 90)
        colour = tuple(chance.randrange(256) for _ in range(3))
        shape = chance.choice((draw.ellipse, draw.rectangle))
        shape((x, y, x + size, y + chance.randrange(12, 90)), fill=colour, outline="black")
    for _ in range(14):
        word = "".join(chance.choices("ABDEGKMNORSTUWZ", k=chance.randrange(4, 9)))
        at = (chance.randrange(-20, 240), chance.randrange(_FRONT[1] - 40))
        draw.text(at, word, fill=chance.choice(("white", "black", "yellow")), font=font(chance.randrange(20, 52)))
    return picture


def photo(number: int, take: int) -> bytes:
    """A JPEG of 640×480: package `number` held a little differently at each `take`, before a blurred shelf."""
    chance = random.Random(f"photo {number} {take}")
    # Pillow's own noise would depend on how much of it the process has made before.
    grains = np.random.default_rng((number, take)).normal(128, 70, (_PHOTO[1] // 8, _PHOTO[0] // 8))
    noise = Image.fromarray(grains.clip(0, 255).astype(np.uint8))
    shelf = noise.resize(_PHOTO).filter(ImageFilter.GaussianBlur(9)).convert("RGB")
    height = chance.uniform(330, 440)
    width = height * _FRONT[0] / _FRONT[1]
    left, top = chance.uniform(30, _PHOTO[0] - width - 30), chance.uniform(15, _PHOTO[1] - height - 15)

    def near(x: float, y: float) -> tuple[float, float]:
        return x + chance.uniform(-14, 14), y + chance.uniform(-14, 14)

    corners = [near(left, top), near(left + width, top), near(left + width, top + height), near(left, top + height)]
    package = (
        front(number).convert("RGBA").transform(_PHOTO, Image.Transform.PERSPECTIVE, _back(corners), Image.Resampling.BICUBIC)
    )
    shelf.paste(package, (0, 0), package)
    light = chance.uniform(0.8, 1.15)
    shelf = shelf.filter(ImageFilter.GaussianBlur(chance.uniform(0, 0.9))).point(
        [min(255, round(v * light)) for v in range(256)] * 3
    )
    written = io.BytesIO()
    shelf.save(written, "JPEG", quality=85)
    return written.getvalue()


def empty_shelf(take: int) -> bytes:
    """A photo in which nothing of any catalogue is."""
    return photo(10_000 + take, take)


def _back(corners: list[tuple[float, float]]) -> tuple[float, ...]:
    """The perspective that takes the photo's pixels back to the front's, as Pillow wants it."""
    whole = [(0, 0), (_FRONT[0], 0), _FRONT, (0, _FRONT[1])]
    rows, right = [], []
    for (x, y), (u, v) in zip(corners, whole, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    return tuple(float(value) for value in np.linalg.solve(np.array(rows), np.array(right)))
