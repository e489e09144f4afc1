"""A picture with what was seen in it: outlines of codes and products, the points that agree with the catalogue's picture, the
lines of text that were read, the price's parts, and what was decided. For the user's own pictures, where the user asks for it."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from schemas.recognition import Code, Condition, Measure, Point, PriceTag
from streams.evaluation import drawing
from streams.evaluation.drawing import Colour, Label
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
    labels: list[Label] = []

    def scaled(corners: Sequence[Point]) -> list[Point]:
        return [(x * scale, y * scale) for x, y in corners]

    for place, (match, title) in enumerate(explained.matched[:_OUTLINES]):
        if match.outline:
            text = f"{place + 1}. {title}  {match.score:.3g}, {match.inliers} points"
            labels.append(Label(scaled(match.outline)[0], text, _colour(place), text_size))
    for code in explained.codes:
        if isinstance(code, PayersCode):
            # Whoever has the picture could scan it, and pay with it.
            draw.polygon(_widened(scaled(code.corners)), fill=drawing.INK)
        labels.append(Label(scaled(code.corners)[0], "  ".join((code.format, *said_of(code))), drawing.ORANGE, text_size))
    if explained.price_tag:
        corners = scaled(explained.price_tag.corners)
        labels.append(Label(corners[3], " · ".join(parts_of(explained.price_tag)), drawing.RED, text_size, below=True))
    for line in explained.lines:
        if payee_codes.is_payers_code(re.sub("[^0-9]", "", line.text)):
            draw.polygon(_widened(scaled(line.corners)), fill=drawing.INK)
            continue
        draw.polygon(scaled(line.corners), outline=drawing.BLUE, width=max(1, stroke // 2))
        labels.append(Label(scaled(line.corners)[0], line.text, drawing.BLUE, max(10, text_size * 3 // 4)))
    for place, (match, _) in reversed(list(enumerate(explained.matched[:_OUTLINES]))):
        drawing.points(draw, scaled(match.points), _colour(place), stroke)
        if match.outline:
            drawing.outline(draw, scaled(match.outline), _colour(place), stroke if place == 0 else max(1, stroke // 2))
    for code in explained.codes:
        drawing.outline(draw, scaled(code.corners), drawing.ORANGE, stroke)
    if explained.price_tag:
        drawing.outline(draw, scaled(explained.price_tag.corners), drawing.RED, stroke)
    drawing.labels(draw, labels)
    return _with_sentences(picture, explained.sentences, text_size)


def _colour(place: int) -> Colour:
    return drawing.GREEN if place == 0 else drawing.FAINT


def _widened(corners: Sequence[Point]) -> list[Point]:
    """From the middle, so that nothing of what is to be covered looks out."""
    x, y = (sum(values) / len(corners) for values in zip(*corners, strict=True))
    return [(x + 1.3 * (a - x), y + 1.3 * (b - y)) for a, b in corners]


def said_of(code: Code) -> list[str]:
    """What a code stands for. The text of what is no product's code is not there to be shown."""
    said = [code.gtin, code.publication]
    if code.issue is not None:
        said.append(f"issue {code.issue}")
    if code.printed_price:
        said.append(f"printed price {code.printed_price}")
    if code.in_store:
        value = code.in_store.price or _measure(code.in_store.weight)
        said.append(f"in-store item {code.in_store.item}" + (f", {value}" if value else ""))
    if code.elements:
        said += [_measure(code.elements.weight), str(code.elements.price or "")]
        said.append(f"until {code.elements.expires_on}" if code.elements.expires_on else "")
        said.append(f"batch {code.elements.batch}" if code.elements.batch else "")
    if code.payee:
        # The code's own word for the payee, which anybody can print.
        parts = (f"payee by {code.payee.scheme.value}", code.payee.name or "", str(code.payee.amount or ""))
        said.append(" ".join(part for part in parts if part))
    return [part for part in (*said, code.link) if part]


def parts_of(tag: PriceTag) -> list[str]:
    parts = [str(tag.price)]
    if tag.was:
        parts.append(f"was {tag.was}")
    if tag.unit_price:
        parts.append(f"{tag.unit_price.price} for {_measure(tag.unit_price.per)}")
    if tag.quantity:
        parts.append(_measure(tag.quantity))
    return parts + [_condition(condition) for condition in tag.conditions]


def _measure(measure: Measure | None) -> str:
    return f"{measure.value.normalize():f} {measure.unit}" if measure else ""


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
