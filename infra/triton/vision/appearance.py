"""Does the frame look like the catalogue picture where it is said to lie? In patterns and in colours, block by block."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .geometry import Floats, moved

Floats32 = NDArray[np.float32]

_BLOCKS = 8  # along the longer side
_REACH = 4  # a block is looked for so many parts of itself further, each way
_LEAST_PRODUCT = 0.7  # of a block that is compared; the rest may be ground
_LEAST_PATTERN = 3.0  # standard deviations, of 255; what is more even has no pattern that could be found again
_LEAST_COLOURS = 4.0
_COLOURS_OF_GREY = 0.3  # what the right product's have on average: a grey one cannot show any
_PATTERNS_OF_OTHERS = 0.25
_DOUBT = 2  # blocks of another product, counted in: that two blocks look right says little
_FURTHEST_CHROMA = 40.0
_GROUND_BRIGHTNESS = 240  # of Lab's 255
_GROUND_CHROMA = 6

_SIDE_FOR_COLOURS = 96
_CENTRE = (0.2, 0.25)  # standard deviations, shares of width and height


@dataclass(frozen=True)
class Likeness:
    """`patterns` is the mean over the blocks of how their brightness correlates, each where it fits best within a few pixels,
    from 0 to 1; `colours` is how their colours do there, -1 to 1, over the blocks that have several; both are drawn towards what
    another product has, where few blocks are seen. `hue_off` is the mean of the blocks' distances in colour, of 1;
    `worst_hue_off` the upper decile, less what the light does to all of them.
    """

    patterns: float = 0.0
    colours: float = 0.0
    hue_off: float = 1.0
    worst_hue_off: float = 1.0


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a small catalogue picture. `brightness` [h, w] and `contrast` [h, w, 2], the colours less their mean, are None
    where there is no pattern, and one colour only."""

    left: int
    top: int
    width: int
    height: int
    brightness: Floats32 | None
    colour: NDArray[np.float64]
    contrast: Floats32 | None
    contrast_length: float


@dataclass(frozen=True, eq=False)
class Look:
    """How a catalogue picture looks, made ready to be compared. `width` and `height` are those of its small picture. `colours` is
    [1024], see `colours_of_product`."""

    width: int
    height: int
    blocks: tuple[Block, ...]
    colours: Floats32

    @property
    def has_colours(self) -> bool:
        """In any block more than one."""
        return any(block.contrast is not None for block in self.blocks)

    @classmethod
    def of(cls, colour: NDArray[np.uint8]) -> "Look":
        """`colour` is the small Lab picture, as in `Features`."""
        mask = product_mask(colour)
        height, width = colour.shape[:2]
        return cls(width, height, tuple(_blocks(colour, mask, _step(width, height))), colours_of_product(colour, mask))


def _step(width: int, height: int) -> int:
    return max(4, max(width, height) // _BLOCKS)


def _blocks(colour: NDArray[np.uint8], mask: NDArray[np.bool_], step: int) -> Iterator[Block]:
    """Those that have enough of the product. What is known of all of them is summed up together."""
    height, width = mask.shape
    tops, lefts = range(0, height - step // 2, step), range(0, width - step // 2, step)
    if not tops or not lefts:
        return
    whole = (slice(0, tops[-1] + step), slice(0, lefts[-1] + step))
    lab = colour[whole].astype(np.int32)
    planes = np.dstack([lab, lab**2, mask[whole]])
    sums = np.add.reduceat(np.add.reduceat(planes, tops, axis=0), lefts, axis=1)
    counts = np.outer(*(np.minimum(step, end - np.array(starts)) for starts, end in ((tops, height), (lefts, width))))
    means = sums / counts[..., None]
    # A sum of squares, from each block's mean: whole numbers, so that nothing is lost in the difference.
    spread = np.sqrt(counts[..., None] * sums[..., 3:6] - sums[..., :3] ** 2) / counts[..., None]
    contrast_length = np.sqrt(counts * (spread[..., 1:] ** 2).sum(axis=2))
    floats = lab.astype(np.float32)
    for row, column in np.argwhere(means[..., 6] >= _LEAST_PRODUCT):
        top, left = tops[row], lefts[column]
        block = floats[top : top + step, left : left + step]
        mean = means[row, column, 1:3]
        length = float(contrast_length[row, column])
        has_pattern = spread[row, column, 0] > _LEAST_PATTERN
        has_colours = length > _LEAST_COLOURS * math.sqrt(2 * counts[row, column])
        yield Block(
            left,
            top,
            width=block.shape[1],
            height=block.shape[0],
            brightness=np.ascontiguousarray(block[..., 0]) if has_pattern else None,
            colour=mean,
            contrast=np.ascontiguousarray(block[..., 1:] - mean, np.float32) if has_colours else None,
            contrast_length=length,
        )


def product_mask(colour: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[h, w]: false for light, colourless ground that reaches the small Lab picture's border."""
    chroma = np.maximum(*(np.abs(colour[..., axis].astype(np.int16) - 128) for axis in (1, 2)))
    ground = ((colour[..., 0] > _GROUND_BRIGHTNESS) & (chroma < _GROUND_CHROMA)).astype(np.uint8)
    _, labels = cv2.connectedComponents(cv2.copyMakeBorder(ground, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1))
    mask = np.asarray(labels[1:-1, 1:-1] != labels[0, 0])
    return mask if mask.mean() > 0.2 else np.ones_like(mask)


def likeness(frame: Floats32, known: Look, homography: Floats, side: int) -> Likeness:
    """`frame` is a Lab picture; `homography` takes the catalogue picture of `side` pixels into it."""
    enlarge = side / max(known.width, known.height)
    back = homography @ np.diag([enlarge, enlarge, 1.0])
    blocks = _inside(known.blocks, back, frame.shape[1], frame.shape[0])
    if not blocks:
        return Likeness()
    size = (known.width, known.height)
    seen = np.asarray(cv2.warpPerspective(frame, back, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32)
    brightness, chroma = np.ascontiguousarray(seen[..., 0]), np.ascontiguousarray(seen[..., 1:])
    reach = _step(*size) // _REACH
    patterns, colours, off = [], [], np.empty((len(blocks), 2))
    for number, block in enumerate(blocks):
        left, top = block.left, block.top
        if block.brightness is not None:
            first_row, first_column = max(0, top - reach), max(0, left - reach)
            around = brightness[first_row : top + block.height + reach, first_column : left + block.width + reach]
            _, best, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(around, block.brightness, cv2.TM_CCOEFF_NORMED))
            patterns.append(max(0.0, best))
            left, top = first_column + x, first_row + y
        there = chroma[top : top + block.height, left : left + block.width]
        mean, deviation = cv2.meanStdDev(there)
        off[number] = mean[:, 0] - block.colour
        if block.contrast is not None:
            # Even ground has no colours to compare: what is left of them is the rounding's.
            length = max(_LEAST_COLOURS, math.sqrt(block.width * block.height * float((deviation**2).sum())))
            alike = float((block.contrast * (there - mean[:, 0].astype(np.float32))).sum()) / (block.contrast_length * length)
            colours.append(min(1.0, max(-1.0, alike)))
    light = np.median(off, axis=0)
    return Likeness(
        patterns=(math.fsum(patterns) + _DOUBT * _PATTERNS_OF_OTHERS) / (len(patterns) + _DOUBT),
        colours=math.fsum(colours) / (len(colours) + _DOUBT) if known.has_colours else _COLOURS_OF_GREY,
        hue_off=float(np.minimum(np.hypot(*off.T), _FURTHEST_CHROMA).mean()) / _FURTHEST_CHROMA,
        worst_hue_off=min(1.0, float(np.quantile(np.hypot(*(off - light).T), 0.9)) / _FURTHEST_CHROMA),
    )


def _inside(blocks: Sequence[Block], homography: Floats, width: int, height: int) -> list[Block]:
    """Those that lie within a frame of this size, by their corners drawn in a little."""
    if not blocks:
        return []
    places = np.array([(block.left, block.top, block.width, block.height) for block in blocks], np.float64)
    within = np.ones(len(blocks), np.bool_)
    for across, down in ((0.15, 0.15), (0.85, 0.15), (0.85, 0.85), (0.15, 0.85)):
        x, y = moved(homography, places[:, :2] + places[:, 2:] * (across, down)).T
        within &= (x >= 0) & (y >= 0) & (x < width) & (y < height)
    return [block for block, is_within in zip(blocks, within, strict=True) if is_within]


def colours_of_product(colour: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[1024], to be multiplied with another one: 1 where both have the same colours in the same shares (Bhattacharyya)."""
    return _histogram(colour, mask.astype(np.float64))


def colours_of_centre(colour: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The same of what the frame has in its middle."""
    height, width = colour.shape[:2]
    scale = _SIDE_FOR_COLOURS / max(height, width)
    small = cv2.resize(colour, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[: small.shape[0], : small.shape[1]]
    off_x, off_y = x / small.shape[1] - 0.5, y / small.shape[0] - 0.5
    return _histogram(np.asarray(small, np.uint8), np.exp(-((off_x / _CENTRE[0]) ** 2 + (off_y / _CENTRE[1]) ** 2) / 2))


def _histogram(colour: NDArray[np.uint8], weights: Floats) -> NDArray[np.float32]:
    brightness = colour[..., 0] // 64
    green_red, blue_yellow = (np.clip((colour[..., axis].astype(np.int16) - 128 + 64) // 8, 0, 15) for axis in (1, 2))
    bins = (brightness.astype(np.int64) * 16 + green_red) * 16 + blue_yellow
    counts = np.bincount(bins.ravel(), weights.ravel(), 1024).reshape(4, 16, 16)
    smooth = np.stack([cv2.GaussianBlur(layer.astype(np.float32), (0, 0), 0.7) for layer in counts]).ravel()
    return np.asarray(np.sqrt(smooth / max(float(smooth.sum()), 1e-9)), np.float32)
