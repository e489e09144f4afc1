"""Does the frame look like the catalogue picture where it is said to lie? In patterns and in colours, block by block."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .geometry import Floats

Floats32 = NDArray[np.float32]

BLOCK = 16
"""Pixels of the small catalogue picture."""
_REACH = 4
_FEWEST_PIXELS = 200
_LEAST_TEXTURE = 3.0
_FURTHEST_CHROMA = 40.0
_GROUND_BRIGHTNESS = 240  # of Lab's 255
_GROUND_CHROMA = 6

_SIDE_FOR_COLOURS = 96
_CENTRE = (0.2, 0.25)  # standard deviations, shares of width and height


@dataclass(frozen=True)
class Likeness:
    """All that are no means are correlations, from -1 to 1.

    `pattern`, `green_red` and `blue_yellow` over the whole picture. `blocks` is the mean of the blocks' brightness patterns, each
    where it fits best within a few pixels; `best_blocks` that of the better three quarters, `worst_blocks` the lower quartile.
    `hue_off` is the mean of the blocks' distances in colour, of 1; `worst_hue_off` the upper decile, less what the light does to
    all of them. `visible` is the share of the product within the frame.
    """

    pattern: float = 0.0
    green_red: float = 0.0
    blue_yellow: float = 0.0
    blocks: float = 0.0
    best_blocks: float = 0.0
    worst_blocks: float = 0.0
    hue_off: float = 1.0
    worst_hue_off: float = 1.0
    visible: float = 0.0


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
    visible = float(valid.sum() / max(1, mask.sum()))
    if valid.sum() < _FEWEST_PIXELS:
        return Likeness(visible=visible)
    light = np.median((seen - catalogue)[valid], axis=0)
    blocks, hues, hues_in_this_light = [], [], []
    for top in range(0, height - BLOCK // 2, BLOCK):
        for left in range(0, width - BLOCK // 2, BLOCK):
            place = (slice(top, top + BLOCK), slice(left, left + BLOCK))
            if valid[place].mean() < 0.7:
                continue
            block = catalogue[place]
            off = seen[place][..., 1:].mean(axis=(0, 1)) - block[..., 1:].mean(axis=(0, 1))
            hues.append(np.hypot(*off))
            hues_in_this_light.append(np.hypot(*(off - light[1:])))
            if block[..., 0].std() > _LEAST_TEXTURE:
                around = seen[max(0, top - _REACH) : top + BLOCK + _REACH, max(0, left - _REACH) : left + BLOCK + _REACH, 0]
                fits = cv2.matchTemplate(around, np.ascontiguousarray(block[..., 0]), cv2.TM_CCOEFF_NORMED)
                blocks.append(max(0.0, float(fits.max())))
    ordered = np.sort(blocks) if blocks else np.zeros(1)
    pattern, green_red, blue_yellow = (_correlation(catalogue[..., axis][valid], seen[..., axis][valid]) for axis in range(3))
    return Likeness(
        pattern=pattern,
        green_red=green_red,
        blue_yellow=blue_yellow,
        blocks=float(ordered.mean()),
        best_blocks=float(ordered[len(ordered) // 4 :].mean()),
        worst_blocks=float(np.quantile(ordered, 0.25)),
        hue_off=float(np.minimum(hues, _FURTHEST_CHROMA).mean() / _FURTHEST_CHROMA) if hues else 1.0,
        worst_hue_off=min(1.0, float(np.quantile(hues_in_this_light, 0.9)) / _FURTHEST_CHROMA) if hues else 1.0,
        visible=visible,
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


def _correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-6))
