"""Where in the frame a catalogue picture lies, by points of it that were found again there.

Each pair of points has a place, a size and an angle on both sides, so that each by itself says where the whole picture would be:
a similarity. The one that most of the others agree with is kept, and refined to an affine map, then to a homography where enough
pairs support it. Unlike RANSAC it draws no lots: the same frame has the same answer, with as few as three pairs.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FEWEST = 3

# Distances are shares of the catalogue picture's longer side, as large as it lies in the frame.
_LOOSE = 0.08
_TIGHTER = (0.06, 0.05, 0.035)
_HOMOGRAPHY = 0.03
_SAMPLING = 0.015
_FEWEST_FOR_HOMOGRAPHY = 10
_SAME_SIZE = 0.55  # natural logarithm
_SAME_ANGLE = 0.5  # radians
_MOST_SHEARED = 4.0
_RIDGE = 0.02

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Alignment:
    """`homography` takes catalogue pixels to frame pixels, both as they were looked at; `inliers` is bool [N]."""

    homography: Floats
    inliers: NDArray[np.bool_]


def align(
    catalogue: NDArray[np.float32], frame: NDArray[np.float32], weights: NDArray[np.float32], side: int
) -> Alignment | None:
    """`catalogue` and `frame` are [N, 4] as in `Features.points`, pair by pair; `side` is the catalogue picture's longer one."""
    if len(catalogue) < FEWEST:
        return None
    there, here = catalogue.astype(np.float64), frame.astype(np.float64)
    sizes = np.log(here[:, 2] / there[:, 2])
    inliers, affine = _most_agreed(there, here, sizes, weights, side)
    if inliers.sum() < FEWEST:
        return None
    for tolerance in _TIGHTER:
        refined = _affine(there[inliers, :2], here[inliers, :2], weights[inliers], affine, side)
        if refined is None:
            break
        scale = np.sqrt(np.linalg.det(refined[:, :2]))
        near = _distances(refined, there, here) < tolerance * side * scale
        near &= np.abs(sizes - np.log(scale)) < 0.7
        if near.sum() < FEWEST:
            break
        affine, inliers = refined, near
    whole = np.vstack([affine, [0, 0, 1]])
    return _homography(there, here, inliers, whole, side) or Alignment(whole, inliers)


def moved(homography: Floats, points: Floats) -> Floats:
    """[N, 2] → [N, 2]."""
    moved = points @ homography[:, :2].T + homography[:, 2]
    if homography.shape[0] == 2:
        return np.asarray(moved)
    return np.asarray(moved[:, :2] / moved[:, 2:])


def _most_agreed(
    there: Floats, here: Floats, sizes: Floats, weights: NDArray[np.float32], side: int
) -> tuple[NDArray[np.bool_], Floats]:
    scale = np.exp(sizes)
    angle = np.deg2rad(here[:, 3] - there[:, 3])
    turn = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cosine, sine = (turn * scale[:, None]).T
    x, y = there[:, 0], there[:, 1]
    left, top = here[:, 0] - cosine * x + sine * y, here[:, 1] - sine * x - cosine * y
    # Row: whose similarity; column: whose point is moved by it.
    known = np.stack([x, y, np.ones(len(x))])
    off_x = np.stack([cosine, -sine, left], axis=1) @ known - here[:, 0]
    off_y = np.stack([sine, cosine, top], axis=1) @ known - here[:, 1]
    agree = off_x**2 + off_y**2 < (_LOOSE * side * scale[:, None]) ** 2
    agree &= np.abs(sizes[:, None] - sizes) < _SAME_SIZE
    agree &= turn @ turn.T > math.cos(_SAME_ANGLE)
    best = int(np.argmax(agree @ weights))
    return agree[best], np.array([[cosine[best], -sine[best], left[best]], [sine[best], cosine[best], top[best]]])


def _affine(there: Floats, here: Floats, weights: NDArray[np.float32], near: Floats, side: int) -> Floats | None:
    """Least squares that hold on to `near` where few pairs say otherwise. None where it would mirror the picture or squash it."""
    if len(there) < 4:
        return None
    unit = np.array([side, side, 1.0])
    known = np.ones((len(there), 3))
    known[:, :2] = there / side
    weighted = known * weights[:, None]
    hold = _RIDGE * weights.sum() * np.diag([1, 1, 1e-3])
    solved = np.linalg.solve(weighted.T @ known + hold, weighted.T @ here + hold @ (near.T * unit[:, None]))
    affine = (solved / unit[:, None]).T
    stretch = np.linalg.svd(affine[:, :2], compute_uv=False)
    if np.linalg.det(affine[:, :2]) <= 0 or stretch[0] > _MOST_SHEARED * stretch[1]:
        return None
    return np.asarray(affine)


def _homography(there: Floats, here: Floats, inliers: NDArray[np.bool_], affine: Floats, side: int) -> Alignment | None:
    """None where it explains less than the affine map does, or is no view of a flat thing."""
    if inliers.sum() < _FEWEST_FOR_HOMOGRAPHY:
        return None
    seen_side = side * float(np.sqrt(np.linalg.det(affine[:2, :2])))
    homography: Any = cv2.findHomography(
        there[inliers, :2], here[inliers, :2], cv2.USAC_MAGSAC, _SAMPLING * seen_side, maxIters=300, confidence=0.99
    )[0]
    if homography is None:
        return None
    homography = np.asarray(homography, np.float64)
    if not _is_a_view(homography, side):
        return None
    near = _distances(homography, there, here) < _HOMOGRAPHY * seen_side
    return Alignment(homography, near) if near.sum() >= 0.8 * inliers.sum() else None


def _is_a_view(homography: Floats, side: int) -> bool:
    """Of a square: convex, the right way round, and nowhere near the horizon."""
    corners = np.array([[0, 0, 1], [side, 0, 1], [side, side, 1], [0, side, 1]], np.float64) @ homography.T
    if corners[:, 2].min() <= 0.2 * corners[:, 2].max():
        return False
    edges = np.roll(corners[:, :2] / corners[:, 2:], -1, axis=0) - corners[:, :2] / corners[:, 2:]
    after = np.roll(edges, -1, axis=0)
    return bool((edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0] > 0).all())


def _distances(homography: Floats, there: Floats, here: Floats) -> Floats:
    return np.asarray(np.linalg.norm(moved(homography, there[:, :2]) - here[:, :2], axis=1))
