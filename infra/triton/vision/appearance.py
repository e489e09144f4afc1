"""Does the frame look like the catalogue picture where it is said to lie? In patterns and in colours, block by block."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .geometry import Floats

Floats32 = NDArray[np.float32]

_BLOCKS = 8  # along the longer side
_REACH = 4  # a block is looked for so many parts of itself further, each way
_FEWEST_PIXELS = 200
_LEAST_PATTERN = 3.0  # standard deviations, of 255; what is more even has no pattern that could be found again
_LEAST_COLOURS = 4.0
_USUAL_COLOURS = 0.3
_FURTHEST_CHROMA = 40.0
_GROUND_BRIGHTNESS = 240  # of Lab's 255
_GROUND_CHROMA = 6

_SIDE_FOR_COLOURS = 96
_CENTRE = (0.2, 0.25)  # standard deviations, shares of width and height


@dataclass(frozen=True)
class Likeness:
    """`patterns` is the mean over all blocks of how their brightness correlates, each where it fits best within a few pixels,
    from 0 to 1; `colours` is how their colours do there, -1 to 1, over the blocks that have several. `hue_off` is the mean of
    the blocks' distances in colour, of 1; `worst_hue_off` the upper decile, less what the light does to all of them.
    """

    patterns: float = 0.0
    colours: float = 0.0
    hue_off: float = 1.0
    worst_hue_off: float = 1.0


def product_mask(colour: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """[h, w]: false for light, colourless ground that reaches the small Lab picture's border."""
    chroma = np.abs(colour[..., 1:].astype(np.int16) - 128).max(axis=2)
    ground = ((colour[..., 0] > _GROUND_BRIGHTNESS) & (chroma < _GROUND_CHROMA)).astype(np.uint8)
    _, labels = cv2.connectedComponents(cv2.copyMakeBorder(ground, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1))
    mask = np.asarray(labels[1:-1, 1:-1] != labels[0, 0])
    return mask if mask.mean() > 0.2 else np.ones_like(mask)


def likeness(
    frame: NDArray[np.float32], catalogue: NDArray[np.float32], mask: NDArray[np.bool_], homography: Floats, side: int
) -> Likeness:
    """`frame` and `catalogue` are Lab pictures; `homography` takes the catalogue picture of `side` pixels into the frame."""
    height, width = catalogue.shape[:2]
    enlarge = side / max(height, width)
    back = homography @ np.diag([enlarge, enlarge, 1.0])
    seen: Floats32 = np.asarray(
        cv2.warpPerspective(frame, back, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP), np.float32
    )
    inside = cv2.warpPerspective(
        np.ones(frame.shape[:2], np.uint8), back, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    valid = mask & (inside > 0)
    if valid.sum() < _FEWEST_PIXELS:
        return Likeness()
    light = np.median((seen - catalogue)[valid], axis=0)[1:]
    block = max(height, width) // _BLOCKS
    reach = block // _REACH
    patterns, colours, hues, hues_in_this_light = [], [], [], []
    for top in range(0, height - block // 2, block):
        for left in range(0, width - block // 2, block):
            place = (slice(top, top + block), slice(left, left + block))
            if valid[place].mean() < 0.7:
                continue
            known = catalogue[place]
            around = seen[max(0, top - reach) : top + block + reach, max(0, left - reach) : left + block + reach]
            there = seen[place]
            if known[..., 0].std() > _LEAST_PATTERN:
                fits = cv2.matchTemplate(_brightness(around), _brightness(known), cv2.TM_CCOEFF_NORMED)
                _, best, _, (x, y) = cv2.minMaxLoc(fits)
                patterns.append(max(0.0, best))
                there = around[y : y + known.shape[0], x : x + known.shape[1]]
            off = there[..., 1:].mean(axis=(0, 1)) - known[..., 1:].mean(axis=(0, 1))
            hues.append(float(np.hypot(*off)))
            hues_in_this_light.append(float(np.hypot(*(off - light))))
            contrast = known[..., 1:] - known[..., 1:].mean(axis=(0, 1))
            if contrast.std() > _LEAST_COLOURS:
                colours.append(_correlation(contrast, there[..., 1:] - there[..., 1:].mean(axis=(0, 1))))
    return Likeness(
        patterns=float(np.mean(patterns)) if patterns else 0.0,
        colours=float(np.mean(colours)) if colours else _USUAL_COLOURS,
        hue_off=float(np.minimum(hues, _FURTHEST_CHROMA).mean() / _FURTHEST_CHROMA) if hues else 1.0,
        worst_hue_off=min(1.0, float(np.quantile(hues_in_this_light, 0.9)) / _FURTHEST_CHROMA) if hues else 1.0,
    )


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


def _brightness(lab: Floats32) -> Floats32:
    return np.ascontiguousarray(lab[..., 0])


def _correlation(one: Floats32, other: Floats32) -> float:
    """Of what has a mean of 0."""
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-6))
