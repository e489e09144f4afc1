"""Where the lines of a price tag are, and which belong together: amounts with their places, small raised digits joined to the
whole before them, words given to the amount beside them. Plain functions on plain values.

Points are pixels of the frame; boxes are (left, top, right, bottom) in a frame that is turned so that the tag's lines lie.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from schemas.money import exponent
from schemas.recognition import Point
from streams.sightings.price_texts import Amount, Content, Habits, Part, read_line, sign_of

Box = tuple[float, float, float, float]
Corners = tuple[Point, Point, Point, Point]

_CENTS = re.compile(r"\s*([€£$])?[.,]?\s*(\d\d)\s*(\D{0,3})", re.ASCII)


class Line(Protocol):
    """A line that `ocr` read, as `streams.sightings.triton` has it. `corners`: pixels of the frame, clockwise from the line's own
    top left. `characters`: how certain each character is, where that is known."""

    @property
    def text(self) -> str: ...
    @property
    def confidence(self) -> float: ...
    @property
    def corners(self) -> Corners: ...
    @property
    def characters(self) -> tuple[float, ...]: ...


@dataclass(frozen=True)
class Placed:
    """A line and where it is, with the tag turned so that its lines lie. `box`: left, top, right, bottom, in pixels."""

    content: Content
    box: Box
    height: float
    confidence: float
    at_edge: bool
    corners: Corners
    characters: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """An amount and where it is. `perhaps_goods`: it may be a quantity, or a price of one, whose unit was misread."""

    amount: Amount
    box: Box
    height: float
    confidence: float
    at_edge: bool
    perhaps_goods: bool = False

    @property
    def middle(self) -> Point:
        return _middle(self.box)


@dataclass(frozen=True)
class Turn:
    """Turns points so that the tag's lines lie."""

    cosine: float
    sine: float

    def apply(self, point: Point) -> Point:
        return point[0] * self.cosine + point[1] * self.sine, point[1] * self.cosine - point[0] * self.sine


def turn(lines: Iterable[Corners]) -> Turn:
    """The one that makes the lines with these corners lie; a longer one counts for more."""
    across = down = 0.0
    for (x0, y0), (x1, y1), *_ in lines:
        across, down = across + x1 - x0, down + y1 - y0
    length = math.hypot(across, down)
    return Turn(across / length, down / length) if length else Turn(1, 0)


def height_of(corners: Corners) -> float:
    """A line's height: the mean of its two short sides."""
    return (math.dist(corners[0], corners[3]) + math.dist(corners[1], corners[2])) / 2


def centre(points: Sequence[Point]) -> Point:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def place(line: Line, ways: Habits, turn: Turn, size: tuple[int, int]) -> Placed:
    at_edge = any(x <= 1 or x >= size[0] - 2 or y <= 1 or y >= size[1] - 2 for x, y in line.corners)
    content = read_line(line.text, ways)
    # Folding may have changed how many characters there are: then they are not told apart.
    characters = line.characters if len(line.characters) == len(content.folded) else ()
    return Placed(content, _box(line.corners, turn), height_of(line.corners), line.confidence, at_edge, line.corners, characters)


def _box(corners: Corners, turn: Turn) -> Box:
    """The mean of two corners each: a line in perspective is not as high as its highest and lowest corner. Where other lines turn
    the tag, this one may lie on its head."""
    one, two, three, four = (turn.apply(corner) for corner in corners)
    left, right = sorted(((one[0] + four[0]) / 2, (two[0] + three[0]) / 2))
    top, bottom = sorted(((one[1] + two[1]) / 2, (four[1] + three[1]) / 2))
    return left, top, right, bottom


_BELOW = 0.75  # of a product's height


def belongs(tag: Sequence[Point], outline: Sequence[Point], *, code: bool = False) -> bool:
    """Whether a price tag with these corners is near enough to be that of the product with this outline. Shelves have their tags
    below the goods: it is, if it hangs there, under the product's width, or is on the lower half of the product itself. What is
    above or beside a product is another one's tag: so are most in view when one is held in a hand. Of a `code`'s outline: if the
    tag is no farther away than the code is long, as one that is printed on the same label."""
    (left, top, right, bottom), (begin, upper, end, lower) = _upright(tag), _upright(outline)
    if code:
        return apart((left, top, right, bottom), (begin, upper, end, lower)) <= max(end - begin, lower - upper)
    height = lower - upper
    return begin <= (left + right) / 2 <= end and (upper + lower) / 2 <= (top + bottom) / 2 and top <= lower + _BELOW * height


def _upright(corners: Sequence[Point]) -> Box:
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _middle(box: Box) -> Point:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _from_label(label: Placed, each: Found) -> float:
    """How far it is from a word to an amount. People write the word first: what is left of it, or above, counts as farther."""
    left, above = each.box[2] <= label.box[0] + label.height, each.box[3] <= label.box[1] + 0.5 * label.height
    return apart(label.box, each.box) + (2 * left + above) * label.height


def apart(one: Box, other: Box) -> float:
    """0 where the boxes touch."""
    across = max(0.0, one[0] - other[2], other[0] - one[2])
    down = max(0.0, one[1] - other[3], other[1] - one[3])
    return math.hypot(across, down)


def nearest(box: Box, found: Sequence[Found]) -> Found:
    middle = _middle(box)
    return min(found, key=lambda each: (apart(box, each.box), math.dist(middle, each.middle)))


def _amounts(line: Placed) -> list[Found]:
    left, top, right, bottom = line.box
    length = max(1, len(line.content.folded))
    found = []
    for amount in line.content.amounts:
        start, end = (left + (right - left) * position / length for position in amount.span)
        goods = bool(line.content.goods_if_litres) or line.content.folded[amount.span[1] :].startswith(("/", " per", " pro"))
        found.append(Found(amount, (start, top, end, bottom), line.height, _sure(line, amount), line.at_edge, goods))
    return found


def _sure(line: Placed, amount: Amount) -> float:
    """Of the amount's least certain digit. Between a comma and a point, or two kinds of ¥, even the surest reader wavers."""
    written = zip(line.content.folded, line.characters, strict=False)
    digits = [sure for character, sure in list(written)[slice(*amount.span)] if character.isdigit()]
    return min(digits, default=line.confidence)


def joined(lines: Sequence[Placed], ways: Habits) -> list[Found]:
    """All amounts; where small digits stand raised behind a whole number, they are its cents."""
    found, used = [], set()
    if not ways.currencies or exponent(ways.currencies[0]) > 0:
        for line, small in itertools.permutations(lines, 2):
            cents = _CENTS.fullmatch(small.content.folded)
            if cents is None or len(line.content.amounts) != 1 or id(line) in used or id(small) in used:
                continue
            whole = line.content.amounts[0]
            if (whole.ended and whole.sign is None) or whole.decimals or whole.part is Part.UNIT or not _is_raised(small, line):
                continue
            if line.content.folded[whole.span[1] :].strip(" .,"):
                continue
            value = whole.value + Decimal(cents[2]) / 100
            sign = whole.sign or sign_of(cents[1] or cents[3])
            amount = replace(whole, value=value, sign=sign, decimals=2, ended=True, round=False)
            box = (min(line.box[0], small.box[0]), line.box[1], max(line.box[2], small.box[2]), line.box[3])
            sure = min(_sure(line, whole), small.confidence)
            found.append(Found(amount, box, line.height, sure, line.at_edge or small.at_edge))
            used |= {id(line), id(small)}
    found += [amount for line in lines if id(line) not in used for amount in _amounts(line)]
    signs = [(line, sign) for line in lines if (sign := sign_of(line.content.folded))]
    return [_signed(each, signs) for each in found]


def _signed(each: Found, signs: Sequence[tuple[Placed, str]]) -> Found:
    """With the sign that stands alone directly beside it."""
    if each.amount.sign or each.amount.part is Part.UNIT:
        return each
    for line, sign in signs:
        level = line.box[1] < each.box[3] and line.box[3] > each.box[1]
        if level and apart(line.box, each.box) < 0.6 * each.height and line.height < 1.3 * each.height:
            return replace(each, amount=replace(each.amount, sign=sign))
    return each


def _is_raised(small: Placed, line: Placed) -> bool:
    height = line.height
    if not 0.2 * height <= small.height <= 0.95 * height or apart(small.box, line.box) > height:
        return False
    # Turned as these two are: a tag on another shelf, or the packets above it, may lie otherwise.
    own = turn([line.corners, small.corners])
    (left, top, _, bottom), (_, whole_top, end, whole_bottom) = _box(small.corners, own), _box(line.corners, own)
    beside = -0.35 * height <= left - end <= 0.6 * height
    return beside and bottom < whole_bottom - 0.15 * height and top > whole_top - 0.35 * height


def labelled(found: list[Found], lines: Sequence[Placed]) -> list[Found]:
    """Lines of words alone give their part to the nearest amount that has none."""
    for line in lines:
        if line.content.label is None:
            continue
        # Below a small number, €/kg makes a unit price of that one.
        of_unit = line.content.label is Part.OPEN
        free = [each for each in found if each.amount.part is Part.PLAIN and (of_unit or not is_minor(each, found))]
        if not free:
            break
        beside = min(free, key=lambda each: (_from_label(line, each), math.dist(each.middle, _middle(line.box))))
        if _from_label(line, beside) <= 2.5 * max(line.height, beside.height):
            amount = replace(beside.amount, part=line.content.label, pieces=line.content.pieces)
            found[found.index(beside)] = replace(beside, amount=amount)
    return found


def is_beside_larger(each: Found, other: Found) -> bool:
    """Whether the other is clearly larger, and directly above, below or beside it: on the same tag."""
    return other.height > 1.25 * each.height and apart(each.box, other.box) < 1.5 * other.height


def is_wider_than_its_digits(each: Found) -> bool:
    """Whether there is room for small raised cents behind them: those of a few pixels are found, and not read. A line's box is
    about 1.8 times as high as its digits, and as much wider than them as it is higher."""
    width, (start, end) = each.box[2] - each.box[0], each.amount.span
    return 1.8 * width / each.height - 0.8 > 1.1 * (end - start)


def is_minor(each: Found, found: Sequence[Found]) -> bool:
    """A small number without a sign beside a large one: a size, a date, an article number, a misread litre."""
    tallest = max(other.height for other in found)
    return each.height < 0.55 * tallest and (each.amount.sign is None or not each.amount.ended)
