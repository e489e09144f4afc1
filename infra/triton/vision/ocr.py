"""Lines of text in a picture: PP-OCRv6 (small), detection and recognition, from RapidOCR's wheel; Latin and Chinese.

RapidOCR's own pipeline is not used, its models and its box finder are: here a line is read without padding it to 320 columns, the
largest lines are read first and as many as there is time for, and what a caller must know of each character is kept. Text that
stands on its head is not looked for: glasses see upright.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy
from numpy.typing import NDArray

from .options import Deadline

Picture = NDArray[numpy.uint8]
Corners = NDArray[numpy.float32]
Mark = tuple[int, int, int, int]

_FOR_FINDING = 0.6  # of the time that is left
_LINE_HEIGHT = 48  # of the recogniser's input, in pixels
_COLUMNS_STEP = 16
_FOR_MARKS = 96  # the height of a line, in pixels, in which single digits are looked at
_COLUMNS = (48, 1280)
_DETECTOR = "PP-OCRv6_det_small.onnx"
_RECOGNISER = "PP-OCRv6_rec_small.onnx"
_DIGITS = re.compile(r"\d(?:[.,:]?\d)*")
_WORDS = re.compile(r"\S+")
_SIGNS = "€$£¥￥"
_CENTS = re.compile(r"\d\d\D?")
_WHOLE = re.compile(r"\d{1,4}[.,]?")
_RUN_TOGETHER = re.compile(r"[€$£¥￥]?\s?\d{3,6}")


@dataclass(frozen=True, eq=False)
class Line:
    """`characters`: how certain each character is, 0 to 1. `corners`: float32 [4,2], pixels of the picture, clockwise from the
    top left. Small digits that stand raised behind large ones are a line of their own."""

    text: str
    characters: tuple[float, ...]
    corners: Corners

    @property
    def confidence(self) -> float:
        """Of its least certain digit (or sign between digits); where it has no digit, of its least certain character."""
        # How sure it is of a space says nothing about what is written; of the words around a price, little.
        spans = [match.span() for match in _DIGITS.finditer(self.text)] or [match.span() for match in _WORDS.finditer(self.text)]
        return min((value for start, end in spans for value in self.characters[start:end]), default=0.0)


@dataclass(frozen=True)
class Limits:
    """`side`: the detector sees a picture of at most so many pixels along its longer side, `side_when_late` at the very least.
    `largest`: a larger picture is made so large first. `lines`: read at most, the largest first."""

    side: int = 736
    side_when_late: int = 352
    largest: int = 1920
    lines: int = 48
    least_confidence: float = 0.3


Provider = str | tuple[str, dict[str, str]]


def providers(gpu: str | None = None) -> list[Provider]:
    """What onnxruntime is to compute with: the GPU of this number, if it was built for one, and the CPU."""
    import onnxruntime  # type: ignore[import-not-found]

    cuda = "CUDAExecutionProvider"
    with_gpu = gpu is not None and cuda in onnxruntime.get_available_providers()
    return [*([(cuda, {"device_id": str(gpu)})] if with_gpu else []), "CPUExecutionProvider"]


class Reader:
    """Holds the models' sessions. One thread each: instances run side by side."""

    def __init__(self, limits: Limits | None = None, using: Sequence[Provider] = ("CPUExecutionProvider",)) -> None:
        import onnxruntime
        import rapidocr  # type: ignore[import-not-found]
        from rapidocr.ch_ppocr_det.utils import DBPostProcess  # type: ignore[import-not-found]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        models = Path(rapidocr.__file__).parent / "models"
        self._limits = limits or Limits()
        self._detector = onnxruntime.InferenceSession(str(models / _DETECTOR), options, providers=list(using))
        self._recogniser = onnxruntime.InferenceSession(str(models / _RECOGNISER), options, providers=list(using))
        characters = self._recogniser.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._ms_per_pixel = 0.0
        self._characters = ["", *characters, " "]  # 0 is the blank between characters
        self._boxes: Any = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)

    def read(self, picture: Picture, deadline: Deadline | None = None) -> list[Line]:
        """Of a picture BGR [height, width, 3], the lines that were read in time, from top to bottom. The largest text is read
        first; where time is short, it is looked for in a smaller picture."""
        deadline = deadline or Deadline()
        scale = min(1.0, self._limits.largest / max(picture.shape[:2]))
        if scale < 1:
            size = [max(1, round(edge * scale)) for edge in picture.shape[1::-1]]
            picture = numpy.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=numpy.uint8)
        boxes = sorted(self.find(picture, self._side(picture, deadline.left_ms())), key=_height, reverse=True)
        lines: list[Line] = []
        alone: list[Line] = []
        for corners in boxes[: self._limits.lines]:
            if deadline.passed():
                break
            read = self._lines(picture, corners)
            lines += read
            alone += [line for line in read if len(read) == 1 and _CENTS.fullmatch(line.text)]
        for cents in alone:
            if not deadline.passed():
                lines = self._with_whole(picture, cents, lines)
        least = self._limits.least_confidence
        lines = [replace(line, corners=line.corners / scale) for line in lines if line.confidence >= least]
        return sorted(lines, key=lambda line: (float(line.corners[:, 1].mean()), float(line.corners[:, 0].mean())))

    def _side(self, picture: Picture, left_ms: float) -> int:
        """The largest side that leaves most of the time for reading, by what finding has cost so far."""
        height, width = picture.shape[:2]
        for side in range(self._limits.side, self._limits.side_when_late, -64):
            scale = min(1.0, side / max(height, width))
            if self._ms_per_pixel * height * width * scale * scale < left_ms * _FOR_FINDING:
                return side
        return self._limits.side_when_late

    def _lines(self, picture: Picture, corners: Corners) -> list[Line]:
        """One line; two where the last digits are raised."""
        straight = cut(picture, corners)
        text, characters = self.recognise(straight)
        raised = raised_digits(straight, text)
        if raised is None:
            return [Line(text, characters, corners)] if text else []
        begin, bottom = raised
        whole, cents = part(corners, (0, 0, begin, 1)), part(corners, (begin, 0, 1, bottom))
        return [Line(text[:-2], characters[:-2], whole), Line(text[-2:], characters[-2:], cents)]

    def _with_whole(self, picture: Picture, cents: Line, lines: list[Line]) -> list[Line]:
        """The lines, with the large digits that stand before small raised ones, if such stand there. The detector often passes
        over a single large digit, or takes half of the small ones to it."""
        corners = large_digits_before(picture, cents.corners)
        if corners is None:
            return lines
        text, characters = self.recognise(cut(picture, corners))
        if not _WHOLE.fullmatch(text):
            return lines
        same = [line for line in lines if line is not cents and _covers(line.corners, corners)]
        signed = [(line.text[0], line.characters[:1]) for line in same if line.text[0] in _SIGNS]
        sign, sure = signed[0] if signed else ("", ())
        return [*(line for line in lines if line not in same), Line(sign + text, sure + characters, corners)]

    def find(self, picture: Picture, side: int) -> list[Corners]:
        """Where there are lines of text."""
        height, width = picture.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = [max(32, round(edge * scale / 32) * 32) for edge in (width, height)]
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        tensor = (small.astype(numpy.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        begun = perf_counter()
        chances = self._detector.run(None, {"x": numpy.ascontiguousarray(tensor)})[0]
        cost = (perf_counter() - begun) * 1000 / (size[0] * size[1])
        self._ms_per_pixel = cost if not self._ms_per_pixel else 0.8 * self._ms_per_pixel + 0.2 * cost
        corners, _ = self._boxes(chances, (height, width))
        return [numpy.asarray(each, dtype=numpy.float32) for each in corners]

    def recognise(self, line: Picture) -> tuple[str, tuple[float, ...]]:
        """The text of one line, and how certain each of its characters is."""
        columns = math.ceil(_LINE_HEIGHT * line.shape[1] / line.shape[0])
        columns = min(max(columns, _COLUMNS[0]), _COLUMNS[1])
        padded = math.ceil(columns / _COLUMNS_STEP) * _COLUMNS_STEP
        tensor = numpy.zeros((1, 3, _LINE_HEIGHT, padded), numpy.float32)
        scaled = cv2.resize(line, (columns, _LINE_HEIGHT))
        tensor[0, :, :, :columns] = (scaled.astype(numpy.float32) / 127.5 - 1).transpose(2, 0, 1)
        steps = self._recogniser.run(None, {"x": tensor})[0][0]
        return self._decode(steps)

    def _decode(self, steps: NDArray[numpy.float32]) -> tuple[str, tuple[float, ...]]:
        best = steps.argmax(axis=1)
        changes = numpy.flatnonzero(numpy.diff(best, prepend=0) != 0)
        kept = [step for step in changes if best[step] != 0]
        text = [(self._characters[best[step]], float(steps[step, best[step]])) for step in kept]
        while text and text[0][0].isspace():
            text.pop(0)
        while text and text[-1][0].isspace():
            text.pop()
        return "".join(character for character, _ in text), tuple(sure for _, sure in text)


def raised_digits(line: Picture, text: str) -> tuple[float, float] | None:
    """Of a straightened line, where its last two digits begin and where they end below, as parts of its width and height, if they
    are printed smaller and higher than the digits before them: so many shops print cents, and read as one number they would be a
    hundred times the price. None, too, where other digits than those that were read seem to be there, or a part of one."""
    if not _RUN_TOGETHER.fullmatch(text):
        return None
    line = _enlarged(line)
    height, width = line.shape[:2]
    marks = [mark for mark in _marks(line) if mark[3] > 0.2 * height and not _in_right_corner(mark, height, width)]
    before = sum(character.isdigit() for character in text) - 2
    # In a small picture digits touch each other, the smaller ones first.
    for apart in (2, 1):
        larger, cents = marks[:-apart], marks[-apart:]
        tallest = max((h for _, _, _, h in larger), default=0)
        tall = [mark for mark in larger if mark[3] > 0.7 * tallest]
        whole = tall[-before:]
        if not whole or len(tall) > before + (not text[0].isdigit()):
            continue
        last = cents[-1]
        _, top, _, size = whole[-1]
        wide = sum(w for _, _, w, _ in whole) / (before * size)
        if apart == 1 and not 0.9 < last[2] / last[3] < 2.6:
            continue
        if len(whole) < before and not any(w > 0.8 * size for _, _, w, _ in whole):
            continue
        if (apart == 1 or len(whole) < before) and not 0.35 < wide < (1.25 if before > 1 else 1.0):
            continue
        # The first of the two may touch a sign that stands below it, and be as high as the whole. But where the last one is two
        # that touch each other, it is a digit of the whole that was not read.
        if apart == 2 and last[2] > 0.9 * last[3] and abs(cents[0][3] - size) < 0.12 * size:
            continue
        cut_off = whole[0][0] <= 1 or any(_is_part_of_digit(mark, whole[0]) for mark in larger if mark not in whole)
        if cut_off and text[0].isdigit():
            continue
        if last[3] < 0.75 * size and last[1] + last[3] < top + 0.8 * size and last[1] < top + 0.3 * size:
            end_of_whole = max(x + w for x, _, w, _ in whole)
            return (end_of_whole + cents[0][0]) / 2 / width, min(1.0, (last[1] + last[3] + 0.3 * top) / height)
    return None


def _in_right_corner(mark: Mark, height: int, width: int) -> bool:
    """As the tag's edge is, or what hangs beside it."""
    x, y, w, h = mark
    return x + w >= width - 1 and (y < 0.1 * height or y + h > 0.9 * height)


def _is_part_of_digit(mark: Mark, first: Mark) -> bool:
    """Whether it stands before the first digit like what is seen of another one that a hand covers."""
    x, y, w, h = mark
    return 0 <= first[0] - (x + w) + 2 < 0.5 * first[3] and y < first[1] + 0.4 * first[3] and h > 0.25 * first[3]


def _enlarged(line: Picture) -> Picture:
    """So large that small digits come apart."""
    scale = _FOR_MARKS / line.shape[0]
    if scale <= 1:
        return line
    return numpy.asarray(cv2.resize(line, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC), dtype=numpy.uint8)


def large_digits_before(picture: Picture, cents: Corners) -> Corners | None:
    """Where large digits stand that begin as high as these small ones, directly before them."""
    height = _height(cents) / 2
    along, down = _unit(cents[1] - cents[0]) * height, _unit(cents[3] - cents[0]) * height
    start, end = cents[0] - 4 * along, cents[0] + 0.1 * along
    looked_at = numpy.stack([start - 0.3 * down, end - 0.3 * down, end + 2.7 * down, start + 2.7 * down]).astype(numpy.float32)
    straight = cut(picture, looked_at, lie=False)
    scale = straight.shape[0] / 3.0  # the small digits' box, in pixels of the straightened part
    tall = [
        (x, y, w, h)
        for x, y, w, h in _marks(straight)
        if 0.8 * scale < h < 2.1 * scale and 0.1 * scale < y < 0.9 * scale and w < 1.8 * scale
    ]
    digits: list[tuple[int, int, int, int]] = []
    right = straight.shape[1]
    for x, y, w, h in reversed(tall):
        gap = right - (x + w)
        if gap > (0.9 * scale if not digits else 0.35 * h) or (digits and abs(y + h - digits[0][1] - digits[0][3]) > 0.15 * h):
            break
        digits.insert(0, (x, y, w, h))
        right = x
    if not digits or digits[0][0] <= 1:
        return None
    top, bottom = min(y for _, y, _, _ in digits), max(y + h for _, y, _, h in digits)
    margin = 0.2 * (bottom - top)
    left, right = digits[0][0] - margin, digits[-1][0] + digits[-1][2] + min(margin, 0.1 * scale)
    rows, columns = straight.shape[:2]
    return part(looked_at, (left / columns, (top - margin) / rows, right / columns, (bottom + margin) / rows))


def _marks(line: Picture) -> list[Mark]:
    """Connected ink, dark or light, from left to right: left, top, width, height. Specks and the tag's border are left out."""
    grey = cv2.GaussianBlur(cv2.cvtColor(line, cv2.COLOR_BGR2GRAY), (3, 3), 0)
    _, ink = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    if ink.mean() > 127:
        ink = cv2.bitwise_not(ink)
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    height, width = grey.shape
    return sorted((x, y, w, h) for x, y, w, h, area in stats[1:].tolist() if area > 0.003 * height * height and w < 0.9 * width)


def _unit(vector: NDArray[numpy.float32]) -> NDArray[numpy.float32]:
    return numpy.asarray(vector / max(float(numpy.linalg.norm(vector)), 1e-6), dtype=numpy.float32)


def part(corners: Corners, box: tuple[float, float, float, float]) -> Corners:
    """A part of what lies between the corners: left, top, right, bottom, in parts of its width and height."""
    left, top, right, bottom = box

    def at(x: float, y: float) -> NDArray[numpy.float32]:
        upper, lower = corners[0] + x * (corners[1] - corners[0]), corners[3] + x * (corners[2] - corners[3])
        return numpy.asarray(upper + y * (lower - upper), dtype=numpy.float32)

    return numpy.stack([at(left, top), at(right, top), at(right, bottom), at(left, bottom)]).astype(numpy.float32)


def cut(picture: Picture, corners: Corners, *, lie: bool = True) -> Picture:
    """What is between the corners, straightened; with `lie`, what is much taller than wide is turned by a quarter."""
    width, height = (
        max(1, int(max(float(numpy.linalg.norm(one - other)) for one, other in pairs)))
        for pairs in (
            ((corners[0], corners[1]), (corners[3], corners[2])),
            ((corners[0], corners[3]), (corners[1], corners[2])),
        )
    )
    straight = numpy.array([(0, 0), (width, 0), (width, height), (0, height)], numpy.float32)
    matrix = cv2.getPerspectiveTransform(corners, straight)
    line = cv2.warpPerspective(picture, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    if lie and height >= 1.5 * width:
        line = numpy.rot90(line)
    return numpy.ascontiguousarray(line, dtype=numpy.uint8)


def _covers(box: Corners, other: Corners) -> bool:
    """Whether the two are the same line: they share a third of the smaller one."""
    shared, _ = cv2.intersectConvexConvex(box, other)
    return bool(shared > 0.33 * min(cv2.contourArea(box), cv2.contourArea(other)))


def _height(corners: Corners) -> float:
    """Twice a line's height."""
    return float(numpy.linalg.norm(corners[0] - corners[3]) + numpy.linalg.norm(corners[1] - corners[2]))
