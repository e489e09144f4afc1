"""Pixels → `Features`: the same code for catalogue pictures and for frames."""

import cv2
import numpy as np
from numpy.typing import NDArray

from .features import DESCRIPTOR_LENGTH, Features
from .parameters import PARAMETERS

Picture = NDArray[np.uint8]
FEWEST_POINTS = 12
"""A catalogue picture with fewer can never be told from chance."""

_NO_EMBEDDING = np.zeros(0, np.float32)
_GROUND_TOLERANCE = 12  # of 255, each channel: the noise of a JPEG on even ground
_SHARE_OF_BORDER = 0.8
_SHARE_OF_LINE = 0.01


class UselessPicture(ValueError):
    """A catalogue picture by which nothing can be recognised. The message goes to whoever imports it."""


def of_frame(picture: Picture) -> Features:
    """`picture` is BGR. `colour` is the whole frame as it was looked at: as large as `size` says."""
    smaller = _with_long_side(picture, min(max(picture.shape[:2]), PARAMETERS.frame_side))
    return _extracted(smaller, PARAMETERS.frame_points, cv2.cvtColor(smaller, cv2.COLOR_BGR2LAB))


def of_catalogue_picture(picture: Picture) -> Features:
    """`picture` is BGR. Even ground around the product is cut off: positions and `size` are those of what is left. Raises
    UselessPicture."""
    x, y, width, height = content(picture)
    product = _with_long_side(picture[y : y + height, x : x + width], PARAMETERS.catalogue_side)
    small = _with_long_side(product, PARAMETERS.colour_side)
    features = _extracted(product, PARAMETERS.catalogue_points, cv2.cvtColor(small, cv2.COLOR_BGR2LAB))
    if len(features.points) < FEWEST_POINTS:
        raise UselessPicture(f"the picture has {len(features.points)} points to recognise it by; {FEWEST_POINTS} are the least")
    return features


def content(picture: Picture) -> tuple[int, int, int, int]:
    """x, y, width and height of what lies on even ground; all of the picture where there is no such ground, or next to nothing
    on it."""
    height, width = picture.shape[:2]
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]]).astype(np.int16)
    ground = np.median(border, axis=0)
    if np.mean(np.abs(border - ground).max(axis=1) < _GROUND_TOLERANCE) < _SHARE_OF_BORDER:
        return 0, 0, width, height
    stands_out = np.abs(picture.astype(np.int16) - ground).max(axis=2) >= _GROUND_TOLERANCE
    rows = np.flatnonzero(stands_out.mean(axis=1) > _SHARE_OF_LINE)
    columns = np.flatnonzero(stands_out.mean(axis=0) > _SHARE_OF_LINE)
    if len(rows) < height * 0.2 or len(columns) < width * 0.1:
        return 0, 0, width, height
    return int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)


def _with_long_side(picture: Picture, side: int) -> Picture:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale == 1:
        return picture
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    return np.asarray(resized, np.uint8)


def _extracted(picture: Picture, points: int, lab: NDArray[np.generic]) -> Features:
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    # Made anew for each picture: one that is kept cannot be used by two threads, and making it costs microseconds.
    sift = cv2.SIFT.create(points, contrastThreshold=PARAMETERS.contrast)
    found, raw = sift.detectAndCompute(grey, None)
    # OpenCV returns a few more than asked for where several are as strong.
    found = found[:points]
    descriptors = np.zeros((0, DESCRIPTOR_LENGTH), np.uint8) if raw is None else _root(np.asarray(raw[:points], np.float32))
    return Features(
        size=(picture.shape[1], picture.shape[0]),
        points=np.array([(*point.pt, point.size, point.angle) for point in found], np.float32).reshape(-1, 4),
        descriptors=descriptors,
        colour=np.asarray(lab, np.uint8),
        embedding=_NO_EMBEDDING,
    )


def _root(descriptors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """RootSIFT (Arandjelović and Zisserman, 2012)."""
    normed = descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return np.asarray(np.clip(np.rint(np.sqrt(normed) * 512), 0, 255), np.uint8)
