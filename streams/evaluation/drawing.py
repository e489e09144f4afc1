"""Lines, outlines and captions on pictures, for the pictures that commands write."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from schemas.recognition import Point

GREEN, BLUE, ORANGE, RED = (0, 150, 60), (20, 100, 230), (225, 110, 0), (215, 25, 35)
INK, FAINT, PAPER = (25, 25, 30), (120, 120, 128), (255, 255, 255)
Colour = tuple[int, int, int]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which Matplotlib brings along: Latin, Greek, Cyrillic, currency signs, and no Chinese."""
    return ImageFont.truetype(_font_file(), size)


def can_write(text: str) -> bool:
    """Whether the font has all of its letters."""
    return all(ord(letter) in _letters() for letter in text)


def _font_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _letters() -> frozenset[int]:
    """Their code points."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(_font_file()).get_charmap())


def outline(draw: ImageDraw.ImageDraw, corners: Sequence[Point], colour: Colour, width: int) -> None:
    """Closed, with its first corner marked: that is the thing's own top left."""
    draw.line([*corners, corners[0], corners[1]], fill=colour, width=width, joint="curve")
    (x, y), radius = corners[0], width * 2
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def points(draw: ImageDraw.ImageDraw, places: Iterable[Point], colour: Colour, radius: float) -> None:
    for x, y in places:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=max(1, round(radius / 2)))


class Label(NamedTuple):
    """White on `colour`, above the point or `below` it."""

    at: Point
    text: str
    colour: Colour
    size: int
    below: bool = False


def labels(draw: ImageDraw.ImageDraw, wanted: Iterable[Label]) -> None:
    """Moved into the picture where one would stick out, and down where it would lie on those before it."""
    across, down = draw.im.size
    taken: list[tuple[float, float, float, float]] = []
    for label in wanted:
        text = clipped(label.text, label.size, across)
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font(label.size))
        width, height = right - left + 6, bottom - top + 6
        x = min(max(label.at[0], 0), max(0, across - width))
        wished = y = min(max(label.at[1] - height * (not label.below), 0), max(0, down - height))
        for x1, y1, x2, y2 in sorted(taken, key=lambda box: box[1]):
            if x < x2 and x1 < x + width and y < y2 and y1 < y + height:
                y = y2
        if y + height > down:  # there is no room below
            y = wished
        taken.append((x, y, x + width, y + height))
        draw.rectangle((x, y, x + width - 1, y + height - 1), fill=label.colour)
        draw.text((x + 3 - left, y + 3 - top), text, fill=PAPER, font=font(label.size))


def clipped(text: str, size: int, width: float) -> str:
    """As much of the line as fits into `width` pixels, with … where something was left out. Without control characters; for a
    letter that the font lacks stands its code point, as in Python."""
    text = "".join(_written(letter) for letter in text)
    if font(size).getlength(text) <= width:
        return text
    shortest, longest = 0, len(text)
    while shortest < longest:
        middle = (shortest + longest + 1) // 2
        if font(size).getlength(text[:middle] + "…") <= width:
            shortest = middle
        else:
            longest = middle - 1
    return text[:shortest] + "…"


def _written(letter: str) -> str:
    if not letter.isprintable():
        return " "
    return letter if can_write(letter) else letter.encode("unicode_escape").decode()


def fitted(picture: Image.Image, side: int) -> Image.Image:
    """In the middle of a white square of `side` pixels, whole."""
    picture = picture.convert("RGB")
    scale = side / max(picture.size)
    picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
