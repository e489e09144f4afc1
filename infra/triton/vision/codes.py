"""Reads the codes that a frame shows: quickly first, and harder only while no product was found and time is left.

zxing-cpp decodes; this decides what it is given, and what of its answers is believed. The first pass is its plain one over the
whole frame. The next ones look where the frame shows stripes (`stripes.py`), lay them straight and take away noise and blur, or
make small matrix codes larger. Where something was found, only what costs a millisecond looks for symbols of another kind.

No text may be told that is not in the picture, and a linear code's check digit alone lets one misreading in ten through. So a
reading of straightened stripes is drawn again from its text and held against the stripes; short codes, which whole-frame scanning
finds in parts of longer ones, are only believed when this confirms them. Where no product was read, it is told where codes are
that could not be: whoever holds them can do something about it.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter
from typing import Any

import cv2
import numpy
import zxingcpp
from numpy.typing import NDArray
from zxingcpp import BarcodeFormat

from . import stripes
from .frames import Picture
from .options import Deadline
from .stripes import Numbers, Stripes

Formats = tuple[BarcodeFormat, ...]

RETAIL = (BarcodeFormat.EAN13, BarcodeFormat.EAN8, BarcodeFormat.UPCA, BarcodeFormat.UPCE)
LINEAR = (
    BarcodeFormat.ITF14,
    BarcodeFormat.Code128,
    BarcodeFormat.DataBarOmni,
    BarcodeFormat.DataBarLtd,
    BarcodeFormat.DataBarExp,
)
SQUARE = (BarcodeFormat.QRCode,)
MATRIX = (BarcodeFormat.QRCode, BarcodeFormat.MicroQRCode, BarcodeFormat.RMQRCode, BarcodeFormat.DataMatrix)
STACKED = (BarcodeFormat.DataBarStk, BarcodeFormat.DataBarExpStk)
FIRST = RETAIL + SQUARE + (BarcodeFormat.Code128,)
DATA_MATRIX = (BarcodeFormat.DataMatrix,)
ALL = RETAIL + LINEAR + MATRIX + STACKED

_RETAIL = frozenset({"EAN13", "EAN8", "UPCA", "UPCE"})
# Digits of a retail code as zxing-cpp tells it: UPC codes as the EAN-13 that they stand for.
_DIGITS = {"EAN13": 13, "EAN8": 8, "UPCA": 13, "UPCE": 13}
_ADD_ONS = (2, 5)  # digits
_CASES = frozenset({"ITF14", "ITF"})
# AIM identifiers of symbols that hold GS1 element strings: GS1-128, DataBar, Data Matrix, QR.
_ELEMENTS = frozenset({"]C1", "]e0", "]d2", "]Q3"})

FURTHER_MS = 120.0
"""A frame without any code is the most frequent one, and what is spent on it is taken from the other models."""

# Above so many pixels, the first pass looks at a smaller picture. What costs most is full of QR codes' eyes, up to 1.3 s for
# these pixels and a quarter of that for half of them: with less time than so many milliseconds, it looks at fewer.
_LARGE, _LARGE_MS, _SMALL = 2_500_000, 600.0, 640 * 480
_ENLARGED = 5_000_000  # pixels that a frame may have after it was enlarged
_WORTH_A_THIRD = 500  # pixels of the longer side
_REGIONS = 3

# What takes blur away, one after the other: sigma and amount of the unsharp mask, and the window in which bars and spaces are
# told apart (0: one threshold for all), in pixels of the straightened stripes. Measured: benchmarks/codes.py.
_FILTERS = ((4.0, 2.0, 91), (5.0, 3.0, 0), (3.0, 2.0, 61), (4.0, 3.0, 0), (6.0, 2.0, 121))
# How like the stripes a code drawn from its text must be, where it is least like them. In 840 frames with blurred codes, what was
# misread reached 0.83; of what was read rightly, 1 in 100 stays below 0.87.
_LIKE = {"EAN13": 0.87, "UPCA": 0.87, "EAN8": 0.89, "UPCE": 0.89}
_SURELY_LIKE = 0.93  # enough without a second reading
_COVERED = 0.6  # of the stripes, by a code that is not drawn again
_SHORTEST = {"Code128": 4}  # characters; what is shorter is as likely chance
_WEAK = {"EAN8", "UPCE", "ITF14", "ITF", "DataBarLtd"}
_SHORT_CODE_128 = 8  # characters; one of these, too, is read twice
# A retail code that so little of its bars tells, as a share of its length, is read twice. In 3,388 frames with two codes, 22 told
# a third text: nearly all of them from a few rows of bars of which more told the right one.
_THIN = 0.02
_BESIDE_IT, _ABOVE_IT = 0.1, 0.5  # of the length, between two readings' middles, which may be of the same bars
# What makes stripes a code, read or not: so many changes between dark and light, and so alike above and below. In 90 photographs
# of packages and shelves one place is like that, and so are three in four codes that are too blurred to be read.
_FEWEST_CHANGES = 14
_ALIKE_ALONG = 0.85
# What repeats itself is a blind, a grille or striped cloth. In 200 such pictures, how like stripes are to themselves a period
# further stays below 0.75 in 1 of 100; codes that could not be read reach 0.65.
_REPEATS = 0.7
_PERIODS = numpy.arange(8, 280)  # pixels of straightened stripes
# Bars of one width or nearly, and sharp (1: black and white alone; a sine has 0.9): a code's bars have one to four modules, and
# are as even as that only when blur makes them so.
_EVEN, _SHARP = 0.37, 0.875
_LEVELLED = 61  # pixels of straightened stripes, about ten modules: slower changes are shadows
_INK = (41, 25)  # pixels around, and how much darker than their mean ink is, of 255
UNKNOWN_STRIPES = "Linear"
"""The format of a code that was seen and not read, where it could be any of bars."""


@dataclass(frozen=True)
class Read:
    """`corners` in pixels of the frame, clockwise from the code's own top left. Not `valid`: a code is there, its text is not
    known, and `format` may be UNKNOWN_STRIPES. `add_on`: the two or five digits beside a periodical's or a book's EAN."""

    text: str
    format: str
    symbology_identifier: str
    corners: list[list[float]]
    valid: bool = True
    add_on: str | None = None

    def as_json(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "text": self.text,
            "format": self.format,
            "symbology_identifier": self.symbology_identifier,
            "corners": [[round(x, 1), round(y, 1)] for x, y in self.corners],
            "valid": self.valid,
        }
        return told if self.add_on is None else {**told, "add_on": self.add_on}


@dataclass
class _Frame:
    """A frame under way. Where it shows stripes is found once, when somebody first wants to know."""

    grey: Picture
    every: bool = False
    time_ms: float = math.inf
    found: list[Read] = field(default_factory=list)
    doubtful: list[Read] = field(default_factory=list)
    _striped: list[Stripes] | None = None
    _straight: dict[Stripes, Numbers] = field(default_factory=dict)
    _retail: dict[Stripes, Read | None] = field(default_factory=dict)
    _other: dict[Stripes, Read | None] = field(default_factory=dict)

    @property
    def is_searched(self) -> bool:
        """Whether it is known already where there are stripes."""
        return self._striped is not None

    def striped(self) -> list[Stripes]:
        if self._striped is None:
            self._striped = stripes.find(self.grey, _REGIONS)
        return self._striped

    def unread(self) -> list[Stripes]:
        """Those that no code was read from."""
        read = [each.corners for each in self.found]
        return [region for region in self.striped() if not any(_same_place(region.corners(), corners) for corners in read)]

    def retail(self, region: Stripes) -> Read | None:
        if region not in self._retail:
            self._retail[region] = _straight_retail(self.straightened(region), region)
        return self._retail[region]

    def other(self, region: Stripes) -> Read | None:
        if region not in self._other:
            self._other[region] = _straight_other(self.straightened(region), region)
        return self._other[region]

    def smaller(self) -> tuple[Picture, float]:
        """What passes over a whole frame of any size look at, and how much larger than the frame it is."""
        most = max(_SMALL, _LARGE * math.sqrt(min(1.0, self.time_ms / _LARGE_MS)))
        if self.grey.size <= most:
            return self.grey, 1.0
        scale = math.sqrt(most / self.grey.size)
        return _resized(self.grey, scale, cv2.INTER_AREA), scale

    def straightened(self, region: Stripes) -> Numbers:
        if region not in self._straight:
            self._straight[region] = stripes.straighten(self.grey, region)
        return self._straight[region]


def read(grey: Picture, deadline: Deadline, further_ms: float = FURTHER_MS, *, every: bool = False) -> list[Read]:
    """The codes of `grey`, uint8 [height, width]; where none is a product's, those that were seen only as well, as not valid.

    One pass is always made, and with it the check of what it found. With `every`, what is told beside a product's plain code is
    looked for as well: it takes half as long again."""
    began = perf_counter()
    frame = _Frame(grey, every, deadline.left_ms())
    first = _first(frame)
    once = (perf_counter() - began) * 1000
    _add(frame, first)
    time = deadline.at_most(further_ms)
    for cost, is_worth_it, look in _FURTHER:
        if is_worth_it(frame) and time.left_ms() >= cost * once:
            _add(frame, look(frame))
    return frame.found if _has_product(frame) else [*frame.found, *_seen_only(frame)]


def _add(frame: _Frame, reads: list[Read]) -> None:
    sure, doubtful = _confirmed(frame, reads)
    frame.found += sure
    frame.doubtful += doubtful


def _has_product(frame: _Frame) -> bool:
    return any(read.format in _RETAIL | _CASES or read.symbology_identifier in _ELEMENTS for read in frame.found)


def _same_place(one: list[list[float]], other: list[list[float]]) -> bool:
    """Whether one's middle lies within the other."""
    return _lies_within(one, other) or _lies_within(other, one)


def _lies_within(inner: list[list[float]], outer: list[list[float]]) -> bool:
    x, y = numpy.mean(inner, axis=0)
    return cv2.pointPolygonTest(numpy.asarray(outer, numpy.float32), (float(x), float(y)), False) >= 0


# --- the passes ---


def _first(frame: _Frame) -> list[Read]:
    """What blurs a large code is gone in a picture of a third of the size; which nobody needs who has read one."""
    grey, scale = frame.smaller()
    if (reads := _whole(grey, scale, FIRST, downscale=False)) or max(grey.shape) < _WORTH_A_THIRD:
        return reads
    return _whole(_resized(grey, 1 / 3, cv2.INTER_AREA), scale / 3, FIRST, downscale=False)


def _stripes(frame: _Frame) -> list[Read]:
    return [read for region in frame.unread() if (read := frame.retail(region))]


def _other_stripes(frame: _Frame) -> list[Read]:
    """Beside a code that was read, only where another one is seen."""
    regions = [region for region in frame.unread() if not frame.found or _is_code(frame, region)]
    return [read for region in regions if (read := frame.other(region))]


def _matrices(frame: _Frame) -> list[Read]:
    """Beside a product's code there is often such a one, with batch and expiry. What is little darker than its surroundings is
    taken for paper: zxing-cpp's own threshold makes edges of it, and follows them."""
    grey, scale = frame.smaller()
    ink = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, cv2.THRESH_BINARY, *_INK)
    return _whole(ink.astype(numpy.uint8), scale, DATA_MATRIX, downscale=False, binarizer=zxingcpp.Binarizer.BoolCast)


def _larger_squares(frame: _Frame) -> list[Read]:
    return _enlarged(frame.grey, SQUARE, 2)


def _everything(frame: _Frame) -> list[Read]:
    if frame.grey.size > _LARGE:
        return []
    return _whole(frame.grey, 1, ALL, invert=True)


def _larger_matrices(frame: _Frame) -> list[Read]:
    return _enlarged(frame.grey, MATRIX, 2)


def _sharpened_squares(frame: _Frame) -> list[Read]:
    grey = frame.grey
    if grey.size * 4 > _ENLARGED:
        return []
    soft = cv2.GaussianBlur(_resized(grey, 2, cv2.INTER_CUBIC), (0, 0), 1.2)
    sharp = cv2.addWeighted(soft, 3.0, cv2.GaussianBlur(soft, (0, 0), 3.0), -2.0, 0)
    return _whole(sharp.astype(numpy.uint8), 2, SQUARE)


def _nothing_found(frame: _Frame) -> bool:
    return not frame.found


def _no_more_than_a_label_found(frame: _Frame) -> bool:
    """Code 128 may be anything: a parcel's number, a shelf's."""
    return all(read.format == "Code128" for read in frame.found)


def _no_retail_found(frame: _Frame) -> bool:
    """Another code beside it must not hide the product's own, which may be harder to read."""
    return not any(read.format in _RETAIL for read in frame.found)


def _other_stripes_left(frame: _Frame) -> bool:
    """Beside a code they are worth it where it is known already where stripes are."""
    return not frame.found or frame.is_searched


def _a_matrix_is_wanted(frame: _Frame) -> bool:
    """Who has a product's plain code, and only wants to know which one it is, needs no other."""
    return frame.every or _no_retail_found(frame)


# What a pass costs, counted in first passes, when it is worth it, and the pass; cheap and promising ones first.
_FURTHER: tuple[tuple[float, Callable[[_Frame], bool], Callable[[_Frame], list[Read]]], ...] = (
    (1.0, _a_matrix_is_wanted, _matrices),
    (2.0, _no_retail_found, _stripes),
    (3.0, _no_more_than_a_label_found, _larger_squares),
    (5.0, _nothing_found, _everything),
    (2.0, _other_stripes_left, _other_stripes),
    (6.0, _nothing_found, _sharpened_squares),
    (8.0, _nothing_found, _larger_matrices),
)


def _enlarged(grey: Picture, formats: Formats, times: int) -> list[Read]:
    if grey.size * times * times > _ENLARGED:
        return []
    return _whole(_resized(grey, times, cv2.INTER_CUBIC), times, formats)


def _resized(grey: Picture, scale: float, interpolation: int) -> Picture:
    resized = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=interpolation)
    return numpy.asarray(resized, dtype=numpy.uint8)


# --- zxing-cpp over a picture ---


def _whole(
    grey: Picture,
    scale: float,
    formats: Formats,
    *,
    invert: bool = False,
    downscale: bool = True,
    binarizer: Any = zxingcpp.Binarizer.LocalAverage,
) -> list[Read]:
    """`scale`: how much larger `grey` is than the frame, in whose pixels corners are told. Of what zxing-cpp found and could not
    read, QR codes are told: they have their three eyes. The rest is chance as often as not."""
    found = zxingcpp.read_barcodes(
        grey,
        formats=zxingcpp.BarcodeFormats(formats),
        try_invert=invert,
        try_downscale=downscale,
        text_mode=zxingcpp.TextMode.Plain,
        ean_add_on_symbol=zxingcpp.EanAddOnSymbol.Read,
        binarizer=binarizer,
        return_errors=True,
    )
    reads = [_plain(code, scale) for code in found if code.valid or code.format.name == "QRCode"]
    with_add_on = {read.text for read in reads if read.add_on is not None}
    return [read for read in reads if read.add_on is not None or read.text not in with_add_on]


def _plain(code: Any, scale: float) -> Read:
    where = code.position
    corners = [
        [corner.x / scale, corner.y / scale]
        for corner in (where.top_left, where.top_right, where.bottom_right, where.bottom_left)
    ]
    if not code.valid:
        return Read("", code.format.name, code.symbology_identifier, corners, valid=False)
    text, add_on = _without_add_on(code)
    return Read(text, code.format.name, code.symbology_identifier, corners, add_on=add_on)


def _without_add_on(code: Any) -> tuple[str, str | None]:
    """The code's text, and its add-on if it has one. Of what stands beside a code, say another one, zxing-cpp makes add-ons that
    are none: any number of digits, and often not part of the text, which would lose its last digits with them."""
    text, add_on = code.text, (code.extra or {}).get("EanAddOn", "")
    alone = text[: -len(add_on)] if add_on and text.endswith(add_on) else ""
    if len(add_on) in _ADD_ONS and len(alone) == _DIGITS.get(code.format.name) and _is_checked(alone):
        return alone, add_on
    return text, None


def _is_checked(digits: str) -> bool:
    """Whether the last of these is their check digit."""
    weighted = (int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return digits.isdecimal() and sum(weighted) % 10 == 0


def _linear(image: Picture, formats: Formats, binarizer: Any) -> list[Any]:
    return list(
        zxingcpp.read_barcodes(
            image,
            formats=zxingcpp.BarcodeFormats(formats),
            try_rotate=False,
            try_downscale=False,
            try_invert=False,
            binarizer=binarizer,
            text_mode=zxingcpp.TextMode.Plain,
        )
    )


# --- straightened stripes ---


def _straight_retail(patch: Numbers, region: Stripes) -> Read | None:
    """The EAN or UPC code of upright bars, once it was read and drawn again alike."""
    bands = _bands(patch)
    profiles = (patch.mean(0), bands[1], bands[3])
    seen: Counter[str] = Counter()
    likeness: dict[str, float] = {}
    for code in _filtered(bands, RETAIL):
        text = code.text
        seen[text] += 1
        if text not in likeness:
            likeness[text] = max(_likeness(profile, code) for profile in profiles)
        if likeness[text] < _LIKE.get(code.format.name, 1.0):
            continue
        if likeness[text] >= _SURELY_LIKE or seen[text] >= 2:
            return _placed(code, region, patch.shape[1])
    return None


def _straight_other(patch: Numbers, region: Stripes) -> Read | None:
    """Codes that are not drawn again are read twice, by filters that differ, and cover the stripes."""
    seen: Counter[str] = Counter()
    for code in _filtered(_bands(patch), LINEAR):
        covered = abs(code.position.top_right.x - code.position.top_left.x) / stripes.PATCH_LENGTH
        if covered < _COVERED or len(code.text) < _SHORTEST.get(code.format.name, 0):
            continue
        seen[code.text] += 1
        if seen[code.text] >= 2 and seen[code.text] == seen.total():
            return _placed(code, region, patch.shape[1])
    return None


def _filtered(bands: Numbers, formats: Formats) -> Iterator[Any]:
    for sigma, amount, window in _FILTERS:
        sharp = bands + amount * (bands - cv2.GaussianBlur(bands, (0, 0), sigmaX=sigma, sigmaY=0.01))
        bars = _told_apart(sharp, window) if window else _stretched(sharp)
        yield from _linear(numpy.repeat(bars, 4, axis=0), formats, zxingcpp.Binarizer.FixedThreshold)


def _bands(patch: Numbers) -> Numbers:
    """Means along the bars, float32 [BANDS, columns], each over two of the BANDS + 1 parts of the height: where glare or dirt
    hides some, others are left."""
    rows = patch.shape[0]
    parts = stripes.BANDS + 1
    edges = [rows * part // parts for part in range(parts + 1)]
    means = [patch[edges[k] : max(edges[k + 2], edges[k] + 1)].mean(0) for k in range(stripes.BANDS)]
    return numpy.stack(means).astype(numpy.float32)


def _stretched(bands: Numbers) -> Picture:
    low, high = numpy.percentile(bands, [2, 98])
    clipped = numpy.clip((bands - low) * (255 / max(high - low, 1.0)), 0, 255)
    return numpy.asarray(clipped, dtype=numpy.uint8)


def _told_apart(bands: Numbers, window: int) -> Picture:
    """Bars 0 and spaces 255, by the middle between the darkest and the lightest around."""
    across = cv2.getStructuringElement(cv2.MORPH_RECT, (window, 1))
    light = cv2.blur(cv2.dilate(bands, across), (window, 1))
    dark = cv2.blur(cv2.erode(bands, across), (window, 1))
    return numpy.where(bands > (light + dark) / 2, 255, 0).astype(numpy.uint8)


def _placed(code: Any, region: Stripes, columns: int) -> Read:
    first, last = (
        (end.x - (columns - 1) / 2) / stripes.PATCH_LENGTH for end in (code.position.top_left, code.position.top_right)
    )
    corners = region.corners(first, last)
    if first > last:  # it stands on its head
        corners = [corners[3], corners[2], corners[1], corners[0]]
    return Read(code.text, code.format.name, code.symbology_identifier, corners)


# --- drawing a code again ---

_QUIET = 6  # modules of paper on either side that belong to what is compared
_FINE = 4  # samples a module
_BLURS = (0.3, 0.6, 0.9)  # modules
_SHIFTS = (-0.5, -0.25, 0.0, 0.25, 0.5)  # modules
_BENDS = tuple(float(bend) for bend in numpy.linspace(-0.06, 0.06, 17))  # of the length, in its middle: perspective
_WINDOW, _STEP, _PLAY = 12, 3, 3  # modules; and samples that a window may be out of place


@lru_cache(256)
def _blurred(text: str, format: str) -> Numbers:
    """The code as its text makes it, float32 [blurs, samples]: ink 0 and paper 1, with quiet zones."""
    barcode = zxingcpp.create_barcode(text, getattr(BarcodeFormat, format))
    image = numpy.asarray(barcode.to_image(scale=1, add_quiet_zones=False))
    modules = numpy.pad(image[image.shape[0] // 3].astype(numpy.float32) / 255, _QUIET, constant_values=1)
    samples = numpy.repeat(modules, _FINE)[None]
    return numpy.concatenate([cv2.GaussianBlur(samples, (0, 0), sigmaX=blur * _FINE) for blur in _BLURS])


def _likeness(profile: Numbers, code: Any) -> float:
    """How like a straightened profile the code is that its text makes: the correlation, at most 1, of that window of twelve
    modules where it is least. A misread digit is one bad window; uneven light and perspective are none."""
    left, right = code.position.top_left.x, code.position.top_right.x
    if left == right:
        return 0.0
    drawn = _blurred((code.extra or {}).get("UPCE") or code.text, code.format.name)
    modules = drawn.shape[1] // _FINE
    inside = modules - 2 * _QUIET
    at = (numpy.arange(modules * _FINE, dtype=numpy.float32) + 0.5) / _FINE - _QUIET  # in modules, from the first bar
    share = at / inside
    bends, shifts = (each.reshape(-1, 1) for each in numpy.meshgrid(_BENDS, _SHIFTS, indexing="ij"))
    pixels = left + (at + shifts + 4 * inside * bends * share * (1 - share)) * ((right - left) / inside)
    seen = numpy.interp(pixels, numpy.arange(len(profile)), profile).astype(numpy.float32)
    inner = seen[:, _QUIET * _FINE : -_QUIET * _FINE]
    dark, light = numpy.percentile(inner, [3, 97])
    seen = numpy.clip(seen, dark - 0.2 * (light - dark), light + 0.3 * (light - dark))
    seen = _level(seen - cv2.blur(seen, (2 * 20 * _FINE + 1, 1)))
    best, blur = numpy.unravel_index(int((seen @ _level(drawn).T).argmax()), (len(seen), len(_BLURS)))
    return _least_alike(seen[best], drawn[blur])


def _least_alike(seen: Numbers, drawn: Numbers) -> float:
    window, margin = _WINDOW * _FINE, (_QUIET // 2) * _FINE
    starts = numpy.arange(margin, len(drawn) - margin - window + 1, _STEP * _FINE)
    wanted = _level(numpy.lib.stride_tricks.sliding_window_view(drawn, window)[starts])
    around = _level(numpy.lib.stride_tricks.sliding_window_view(seen, window))
    alike = [(wanted * around[starts + out_of_place]).sum(1) for out_of_place in range(-_PLAY, _PLAY + 1)]
    return float(numpy.max(alike, axis=0).min())


def _level(rows: Numbers) -> Numbers:
    """Each row with mean 0 and length 1."""
    rows = rows - rows.mean(-1, keepdims=True)
    return numpy.asarray(rows / numpy.maximum(numpy.linalg.norm(rows, axis=-1, keepdims=True), 1e-6), dtype=numpy.float32)


# --- what is believed ---


def _confirmed(frame: _Frame, reads: list[Read]) -> tuple[list[Read], list[Read]]:
    """Those whose text is sure, and those that are not, without theirs."""
    sure, doubtful = [], []
    for read in reads:
        if not read.valid:
            doubtful.append(read)
        elif not _is_weak(read) and not _is_thin(read) and not any(_is_overruled(read, other) for other in reads):
            sure.append(read)
        elif again := _read_again(frame, read):
            sure.append(replace(read, corners=again.corners))
        else:
            doubtful.append(replace(read, text="", valid=False, add_on=None))
    return sure, doubtful


def _is_weak(read: Read) -> bool:
    return read.format in _WEAK or (read.format == "Code128" and len(read.text) < _SHORT_CODE_128)


def _is_thin(read: Read) -> bool:
    length, height = _sides(read)
    return read.format in _RETAIL and height < _THIN * length


def _is_overruled(read: Read, other: Read) -> bool:
    """Whether more of the same bars tells another text: a few rows with noise may be read as a different code."""
    if not (other.valid and {read.format, other.format} <= _RETAIL) or other.text == read.text:
        return False
    (length, height), (_, other_height) = _sides(read), _sides(other)
    left, right = numpy.mean(read.corners[::3], axis=0), numpy.mean(read.corners[1:3], axis=0)
    apart = numpy.mean(other.corners, axis=0) - (left + right) / 2
    along = abs(float(apart @ (right - left))) / max(length, 1e-6)
    return bool(height <= other_height and along < _BESIDE_IT * length and numpy.linalg.norm(apart) < _ABOVE_IT * length)


def _sides(read: Read) -> tuple[float, float]:
    """How far it reaches across its bars and along them, in pixels."""
    corners = numpy.asarray(read.corners)
    across = corners[1] + corners[2] - corners[0] - corners[3]
    along = corners[2] + corners[3] - corners[0] - corners[1]
    return float(numpy.linalg.norm(across)) / 2, float(numpy.linalg.norm(along)) / 2


def _read_again(frame: _Frame, read: Read) -> Read | None:
    """What straightened stripes say at the same place, if it is the same."""
    straight = frame.retail if read.format in _LIKE else frame.other
    for region in frame.striped():
        if not _lies_within(read.corners, region.corners()):
            continue
        again = straight(region)
        if again and again.text == read.text:
            return again
    return None


# --- what is seen and not read ---


def _seen_only(frame: _Frame) -> list[Read]:
    """Each place once, the largest first."""
    striped = frame.unread() if frame.is_searched else []
    likely = [region for region in striped if _is_code(frame, region) and not _is_pattern(frame, region)]
    codes = [Read("", UNKNOWN_STRIPES, "", region.corners(), valid=False) for region in likely]
    told: list[Read] = []
    for seen in sorted([*codes, *frame.doubtful], key=lambda one: -_area(one)):
        if not any(_same_place(seen.corners, other.corners) for other in (*frame.found, *told)):
            told.append(seen)
    return told


def _area(read: Read) -> float:
    return float(cv2.contourArea(numpy.asarray(read.corners, numpy.float32)))


def _is_code(frame: _Frame, region: Stripes) -> bool:
    """By the bars' number, and by their being the same all along: letters and leaves are not."""
    level = _levelled(frame, region)
    if len(_changes(level.mean(0))) < _FEWEST_CHANGES:
        return False
    alike = _level(level) @ _level(level).T
    return bool(numpy.median(alike[numpy.triu_indices(stripes.BANDS, 1)]) >= _ALIKE_ALONG)


def _is_pattern(frame: _Frame, region: Stripes) -> bool:
    """Whether the bars repeat themselves, or are sharp and all alike; which a sharp Code 128, too, may be: it is read."""
    profile = _levelled(frame, region).mean(0)
    widths = numpy.diff(_changes(profile))
    is_even = widths.std() < _EVEN * widths.mean() and numpy.abs(profile).mean() > _SHARP * profile.std()
    return bool(is_even or _repetition(profile) >= _REPEATS)


def _levelled(frame: _Frame, region: Stripes) -> Numbers:
    """Its bands from the first bar to the last, without the light's slow changes."""
    patch = frame.straightened(region)
    beside = (patch.shape[1] - stripes.PATCH_LENGTH) // 2
    bands = _bands(patch[:, beside:-beside])
    return numpy.asarray(bands - cv2.blur(bands, (_LEVELLED, 1)), numpy.float32)


def _changes(profile: Numbers) -> NDArray[numpy.intp]:
    """Where it changes between dark and light."""
    clear = numpy.flatnonzero(numpy.abs(profile) > 0.3 * profile.std())
    return numpy.asarray(clear[1:][numpy.diff(numpy.sign(profile[clear])) != 0])


def _repetition(profile: Numbers) -> float:
    """How like the profile is to itself one period further, for the period where it is most so: the correlation, at most 1."""
    energy = numpy.concatenate([[0.0], numpy.cumsum(profile * profile)])
    alone = energy[-1 - _PERIODS] * (energy[-1] - energy[_PERIODS])
    alike = numpy.correlate(profile, profile, "full")[len(profile) - 1 + _PERIODS] / numpy.sqrt(numpy.maximum(alone, 1e-6))
    unlike = numpy.flatnonzero(alike < 0)  # before, it is still the same bar
    return float(alike[unlike[0] :].max()) if len(unlike) else 0.0
