"""What an evaluation shows, as pictures: the precision–coverage curve, and contact sheets of the errors."""

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from PIL import Image, ImageDraw

from streams.evaluation import drawing
from streams.evaluation.measures import Outcome, precision_coverage
from streams.evaluation.picture_files import UnreadablePicture, frame_of

_SIDE = 180  # pixels of one picture on a contact sheet
_GAP = 10
_LINE = 16
_TEXT = 12
_ACROSS, _DOWN = 3, 10
_LINES = 3  # of a caption
_CASE = (3 * _SIDE + 4 * _GAP, _SIDE + _LINES * _LINE + 2 * _GAP)


@dataclass(frozen=True)
class Panel:
    """One picture on a contact sheet. `thumbnail` is an encoded picture, or None where there is none to show."""

    caption: str
    thumbnail: bytes | None = None


@dataclass(frozen=True)
class Case:
    """One error: the photo beside the product that it was taken for, and beside the right one. None for “none of them”."""

    photo: Path
    caption: str
    taken_for: Panel | None
    right: Panel | None


def contact_sheets(cases: Iterable[Case], directory: Path) -> list[Path]:
    """Writes errors.jpg, errors-2.jpg, … with thirty cases each, and returns them. One sheet at a time is in memory, and of the
    photos one. Sheets of an earlier evaluation are removed."""
    for old in directory.glob("errors*.jpg"):
        old.unlink()
    written = []
    for number, page in enumerate(_pages(cases, _ACROSS * _DOWN), 1):
        path = directory / ("errors.jpg" if number == 1 else f"errors-{number}.jpg")
        _sheet(page).save(path, "JPEG", quality=88)
        written.append(path)
    return written


def precision_coverage_plot(outcomes: Sequence[Outcome], path: Path, *, title: str, act: float | None = None) -> None:
    """A PNG. `act` marks the confidence from which on an answer is acted on."""
    # The canvas is named outright: pyplot would look for a screen, and keep every figure it ever made.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve = precision_coverage(outcomes)
    figure = Figure(figsize=(7, 4.5), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if curve:
        # To cover so much it takes the next point of the curve, not the one before.
        coverage = [0.0, *(point.coverage for point in curve)]
        precision = [curve[0].precision, *(point.precision for point in curve)]
        axes.step(coverage, precision, where="pre", color="#1464e6", label="precision")
        thinned = curve[:: max(1, len(curve) // 60)]
        axes.plot(
            [point.coverage for point in thinned],
            [point.at_least for point in thinned],
            color="#1464e6",
            linewidth=0.8,
            linestyle=":",
            label="at least, with 95 % certainty",
        )
        acted = [point for point in curve if act is not None and point.confidence >= act]
        if acted:
            axes.plot(acted[-1].coverage, acted[-1].precision, "o", color="#e16e00", label=f"acted on from {act:.2f}")
        lowest = min(point.at_least for point in thinned[len(thinned) // 10 :])
        axes.set_ylim(max(0.0, min(0.9, lowest) - 0.05), 1.01)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_xlim(0, 1)
    axes.set_xlabel("coverage: share of the pictures, the surest first")
    axes.set_ylabel("precision")
    axes.grid(alpha=0.3)
    # A dollar sign is a price here, not a formula.
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(path, format="png")


def _sheet(page: Sequence[Case]) -> Image.Image:
    down = -(-len(page) // _ACROSS)
    sheet = Image.new("RGB", (min(len(page), _ACROSS) * _CASE[0], down * _CASE[1]), drawing.PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, case in enumerate(page):
        left, top = place % _ACROSS * _CASE[0], place // _ACROSS * _CASE[1]
        columns = [
            (_photo(case.photo), case.caption, drawing.INK),
            (_thumbnail(case.taken_for), f"taken for: {case.taken_for.caption if case.taken_for else 'none'}", drawing.RED),
            (_thumbnail(case.right), f"right: {case.right.caption if case.right else 'none of them'}", drawing.GREEN),
        ]
        for column, (picture, caption, colour) in enumerate(columns):
            x, y = left + _GAP + column * (_SIDE + _GAP), top + _GAP
            sheet.paste(picture, (x, y))
            draw.rectangle((x, y, x + _SIDE - 1, y + _SIDE - 1), outline=colour, width=2)
            for line, text in enumerate(_lines(caption)):
                draw.text((x, y + _SIDE + 2 + line * _LINE), text, fill=colour, font=drawing.font(_TEXT))
        draw.line((left, top + _CASE[1] - 1, left + _CASE[0], top + _CASE[1] - 1), fill=(225, 225, 228))
    return sheet


def _lines(caption: str) -> list[str]:
    """What does not fit into the last is cut off there."""
    lines: list[str] = []
    while len(lines) < _LINES - 1:
        fits = drawing.clipped(caption, _TEXT, _SIDE)
        if not fits.endswith("…"):
            break
        first = fits[:-1]
        if " " in first.strip():
            first = first[: first.rindex(" ")] or first
        lines.append(first)
        caption = caption[len(first) :].strip()
    return [*lines, drawing.clipped(caption, _TEXT, _SIDE)]


def _photo(path: Path) -> Image.Image:
    try:
        return _opened(frame_of(path))
    except UnreadablePicture:
        return _nothing()


def _thumbnail(panel: Panel | None) -> Image.Image:
    if panel is None or panel.thumbnail is None:
        return _nothing()
    return _opened(panel.thumbnail)


def _opened(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (_SIDE * 2, _SIDE * 2))
        return drawing.fitted(picture, _SIDE)


def _nothing() -> Image.Image:
    return Image.new("RGB", (_SIDE, _SIDE), (240, 240, 242))


def _pages(cases: Iterable[Case], length: int) -> Iterator[list[Case]]:
    waiting = iter(cases)
    while page := list(islice(waiting, length)):
        yield page
