"""A picture with what was seen in it: outlines of codes and products, the points that agree with the catalogue's picture, the
lines of text that were read, the price's parts, and what was decided. For the user's own pictures, where the user asks for it."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from schemas.recognition import Code, Condition, Point, PriceTag
from streams.evaluation import drawing
from streams.sightings import payee_codes
from streams.sightings.payee_codes import PayersCode
from streams.sightings.triton import Line, Matched

_SMALLEST, _LARGEST = 900, 1600  # pixels of the longer side: smaller pictures are enlarged, so that labels do not cover them
_OUTLINES = 3  # of products: more would hide the picture
_LINE_HEIGHT = 1.5


@dataclass(frozen=True)
class Explained:
    """All positions in pixels of `frame`, an encoded picture. `matched` are best first; `sentences` are written below it."""

    frame: bytes
    codes: Sequence[Code] = ()
    lines: Sequence[Line] = ()
    matched: Sequence[tuple[Matched, str]] = ()
    price_tag: PriceTag | None = None
    sentences: Sequence[str] = ()


def annotated(explained: Explained) -> Image.Image:
    with Image.open(io.BytesIO(explained.frame)) as opened:
        opened.draft("RGB", (_LARGEST, _LARGEST))
        factor = min(max(1.0, _SMALLEST / max(opened.size)), _LARGEST / max(opened.size))
        # A JPEG may have been decoded smaller already; positions are those of the whole.
        whole = _size(explained.frame)
        scale = opened.width * factor / whole[0]
        picture = opened.convert("RGB").resize((max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))))
    text_size = max(12, round(max(picture.size) / 60))
    stroke = max(2, round(max(picture.size) / 400))
    draw = ImageDraw.Draw(picture)

    def scaled(corners: Sequence[Point]) -> list[Point]:
        return [(x * scale, y * scale) for x, y in corners]

    for code in explained.codes:
        if isinstance(code, PayersCode):
            # Whoever has the picture could scan it, and pay with it.
            draw.polygon(_widened(scaled(code.corners)), fill=drawing.INK)
    for line in explained.lines:
        if payee_codes.is_payers_code(re.sub("[^0-9]", "", line.text)):
            draw.polygon(_widened(scaled(line.corners)), fill=drawing.INK)
            continue
        draw.polygon(scaled(line.corners), outline=drawing.BLUE, width=max(1, stroke // 2))
        drawing.label(draw, scaled(line.corners)[0], line.text, drawing.BLUE, max(10, text_size * 3 // 4))
    for place, (match, title) in reversed(list(enumerate(explained.matched[:_OUTLINES]))):
        colour = drawing.GREEN if place == 0 else drawing.FAINT
        drawing.points(draw, scaled(match.points), colour, stroke)
        if match.outline:
            drawing.outline(draw, scaled(match.outline), colour, stroke if place == 0 else max(1, stroke // 2))
            text = f"{place + 1}. {title}  {match.score:.3g}, {match.inliers} points"
            drawing.label(draw, scaled(match.outline)[0], text, colour, text_size)
    for code in explained.codes:
        drawing.outline(draw, scaled(code.corners), drawing.ORANGE, stroke)
        drawing.label(draw, scaled(code.corners)[0], said_of(code), drawing.ORANGE, text_size)
    if explained.price_tag:
        corners = scaled(explained.price_tag.corners)
        drawing.outline(draw, corners, drawing.RED, stroke)
        drawing.label(draw, corners[3], " · ".join(parts_of(explained.price_tag)), drawing.RED, text_size)
    return _with_sentences(picture, explained.sentences, text_size)


def _widened(corners: Sequence[Point]) -> list[Point]:
    """From the middle, so that nothing of what is to be covered looks out."""
    x, y = (sum(values) / len(corners) for values in zip(*corners, strict=True))
    return [(x + 1.3 * (a - x), y + 1.3 * (b - y)) for a, b in corners]


def said_of(code: Code) -> str:
    """What a code stands for. The text of what is no product's code is not there to be shown."""
    said = [code.format]
    if code.gtin:
        said.append(code.gtin)
    if code.publication:
        said.append(code.publication)
    if code.in_store:
        said.append(f"in store: item {code.in_store.item}")
        said += [str(each) for each in (code.in_store.price,) if each]
    if code.elements and code.elements.expires_on:
        said.append(f"until {code.elements.expires_on}")
    if code.elements and code.elements.batch:
        said.append(f"batch {code.elements.batch}")
    if code.payee:
        said.append(f"payee ({code.payee.scheme.value})")
    if code.link:
        said.append(code.link)
    return "  ".join(said)


def parts_of(tag: PriceTag) -> list[str]:
    parts = [str(tag.price)]
    if tag.was:
        parts.append(f"was {tag.was}")
    if tag.unit_price:
        parts.append(f"{tag.unit_price.price} for {tag.unit_price.per.value.normalize():f} {tag.unit_price.per.unit}")
    if tag.quantity:
        parts.append(f"{tag.quantity.value.normalize():f} {tag.quantity.unit}")
    return parts + [_condition(condition) for condition in tag.conditions]


def _condition(condition: Condition) -> str:
    if condition.kind == "multi_buy":
        return f"{condition.pieces or '?'} for {condition.total or '?'}"
    if condition.kind == "percent_off":
        return f"-{condition.percent or '?'} %"
    return f"with {condition.kind}"


def _with_sentences(picture: Image.Image, sentences: Sequence[str], size: int) -> Image.Image:
    if not sentences:
        return picture
    height = round(size * _LINE_HEIGHT)
    page = Image.new("RGB", (picture.width, picture.height + height * len(sentences) + height // 2), drawing.PAPER)
    page.paste(picture, (0, 0))
    draw = ImageDraw.Draw(page)
    for number, sentence in enumerate(sentences):
        at = (height // 2, picture.height + height // 4 + number * height)
        draw.text(at, drawing.clipped(sentence, size, picture.width - height), fill=drawing.INK, font=drawing.font(size))
    return page


def _size(frame: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(frame)) as opened:
        return opened.size
