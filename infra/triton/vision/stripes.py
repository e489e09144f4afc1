"""Where a frame shows parallel stripes, as a barcode does, and what they look like laid straight.

A barcode is the one thing on a package whose edges all run the same way. That is seen at once at any angle, blurred, small and
dark, long before its bars can be told apart; and once it is known how the bars run, everything along a bar can be averaged, which
takes away noise and leaves the bars.
"""

import math
from dataclasses import dataclass

import cv2
import numpy
from numpy.typing import NDArray

from .frames import Picture

Numbers = NDArray[numpy.float32]

_CELL = 8  # pixels; orientation is measured in cells of this size
_MAXIMUM_PIXELS = 1_300_000  # a larger frame is looked at smaller: its codes are, too
_COHERENT = 0.6  # of the gradient's energy, what runs one way; noise has 0, a clean barcode 1
_ABOVE_NOISE = 4.0
_LEAST_ENERGY = 60.0
_SAME_WAY = math.cos(2 * math.radians(22))
_SHORTEST, _LOWEST = 56.0, 12.0  # pixels; nothing smaller holds a readable code
PATCH_LENGTH = 560  # pixels from the first bar to the last, whatever it is in the frame
_BESIDE = 0.14  # of the length, left and right: the quiet zones
BANDS = 5


@dataclass(frozen=True)
class Stripes:
    """In pixels of the frame. `across` is the unit vector from bar to bar, `length` what the bars cover that way, `height` along
    a bar. `lean` and `fan`: a bar at distance t from the middle leans by lean + fan·t (tangent) from the upright on `across`:
    perspective fans bars out."""

    middle: tuple[float, float]
    across: tuple[float, float]
    length: float
    height: float
    lean: float
    fan: float

    def at(self, x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
        """Where in the frame the point is that lies x pixels across and y along the bars from the middle."""
        u, v = self.across
        x = x + y * (self.lean + self.fan * x)
        return self.middle[0] + u * x - v * y, self.middle[1] + v * x + u * y

    def corners(self, first: float = -0.5, last: float = 0.5) -> list[list[float]]:
        """Clockwise; from `first` to `last` of the length, counted from the middle."""
        x = numpy.array([first, last, last, first], numpy.float32) * self.length
        y = numpy.array([-0.5, -0.5, 0.5, 0.5], numpy.float32) * self.height
        return [[float(a), float(b)] for a, b in zip(*self.at(x, y), strict=True)]


def find(grey: Picture, most: int) -> list[Stripes]:
    """At most so many, the most striking first."""
    scale = math.sqrt(min(1.0, _MAXIMUM_PIXELS / grey.size))
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    energy, one_way, other_way = _orientation(grey)
    strength = numpy.hypot(one_way, other_way)
    noise = float(numpy.percentile(energy, 25))
    striped = (strength > _COHERENT * energy) & (energy > max(_LEAST_ENERGY, _ABOVE_NOISE * noise))
    found: list[Stripes] = []
    for _ in range(4 * most):
        if len(found) == most or not striped.any():
            break
        seed = numpy.unravel_index(int(numpy.argmax(numpy.where(striped, strength, 0))), striped.shape)
        alike = one_way * one_way[seed] + other_way * other_way[seed] > _SAME_WAY * strength * strength[seed]
        _, parts = cv2.connectedComponents((striped & alike).astype(numpy.uint8), connectivity=8)
        part = parts == parts[seed]
        striped &= ~part
        if stripes := _fit(part, one_way, other_way, strength, scale):
            found.append(stripes)
    return found


def straighten(grey: Picture, stripes: Stripes, first: float = -0.5, last: float = 0.5) -> Numbers:
    """float32 [rows, columns]: the stripes with upright bars, PATCH_LENGTH columns for their length and some for the quiet zones;
    rows at the frame's own scale, from `first` to `last` of the height."""
    columns = round(PATCH_LENGTH * (1 + 2 * _BESIDE))
    rows = max(2, round(stripes.height * (last - first)))
    x = (numpy.arange(columns, dtype=numpy.float32) - (columns - 1) / 2) * numpy.float32(stripes.length / PATCH_LENGTH)
    y = numpy.linspace(first * stripes.height, last * stripes.height, rows, dtype=numpy.float32)
    at_x, at_y = stripes.at(x[None, :], y[:, None])
    patch = cv2.remap(
        grey,
        at_x.astype(numpy.float32),
        at_y.astype(numpy.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return patch.astype(numpy.float32)


def _orientation(grey: Picture) -> tuple[Numbers, Numbers, Numbers]:
    """Of each cell: the gradient's energy, and its direction as a vector at the doubled angle, as long as the energy it has."""
    right, down = cv2.spatialGradient(cv2.GaussianBlur(grey, (3, 3), 0))
    right, down = right.astype(numpy.float32), down.astype(numpy.float32)
    cells = (max(1, grey.shape[1] // _CELL), max(1, grey.shape[0] // _CELL))

    def by_cell(values: Numbers) -> Numbers:
        small = cv2.resize(values, cells, interpolation=cv2.INTER_AREA)
        return cv2.blur(small, (3, 3))  # type: ignore[return-value]

    across, along = right * right, down * down
    return by_cell(across + along), by_cell(across - along), by_cell(2 * right * down)


def _fit(part: NDArray[numpy.bool_], one_way: Numbers, other_way: Numbers, strength: Numbers, scale: float) -> Stripes | None:
    rows, columns = numpy.nonzero(part)
    if len(rows) < 8:
        return None
    weights = strength[part]
    angle = 0.5 * math.atan2(float(other_way[part].sum()), float(one_way[part].sum()))
    u, v = math.cos(angle), math.sin(angle)
    x, y = (columns + 0.5) * _CELL, (rows + 0.5) * _CELL
    across, along = u * x + v * y, u * y - v * x
    # Half a cell of what a cell's neighbours brought in does not belong.
    left, right = numpy.percentile(across, [1, 99])
    top, bottom = numpy.percentile(along, [5, 95])
    length, height = float(right - left) + _CELL, float(bottom - top)
    if length < _SHORTEST * scale or height < _LOWEST * scale:
        return None
    middle, level = (left + right) / 2, (top + bottom) / 2
    # How much each cell's bars lean away from the mean, fitted by a line across: perspective.
    doubled = numpy.arctan2(other_way[part], one_way[part]) - 2 * angle
    leaning = -numpy.tan((doubled + math.pi) % (2 * math.pi) / 2 - math.pi / 2)
    fan, lean = _line(across - middle, leaning, weights)
    return Stripes(
        middle=((u * middle - v * level) / scale, (v * middle + u * level) / scale),
        across=(u, v),
        length=length / scale,
        height=height / scale,
        lean=lean,
        fan=fan * scale,
    )


def _line(x: NDArray[numpy.float64], y: NDArray[numpy.float64], weights: Numbers) -> tuple[float, float]:
    """Slope and value at 0 of the weighted line through the points."""
    total = float(weights.sum())
    mean_x, mean_y = float((weights * x).sum()) / total, float((weights * y).sum()) / total
    spread = float((weights * (x - mean_x) ** 2).sum())
    slope = float((weights * (x - mean_x) * (y - mean_y)).sum()) / spread if spread > 0 else 0.0
    return slope, mean_y - slope * mean_x
