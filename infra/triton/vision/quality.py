"""How good a frame is to look at: four plain numbers, for whoever has to tell the wearer what to do."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE = 320  # pixels of the middle; what is finer than these says more of the camera than of the view
# OpenCV's L, 0 to 255, of each grey level.
_LIGHTNESS = cv2.cvtColor(np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 1, 3)), cv2.COLOR_BGR2LAB)[:, 0, 0]


@dataclass(frozen=True)
class Quality:
    """Of the middle of the frame, the inner three fifths each way, where the wearer's product is.

    `sharpness`: how much fine detail there is beside the coarse; around 100 for a sharp frame, below 25 for one that is too
    blurred to be read. `brightness`: mean, 0 to 255. `glare`: share of blown-out pixels, of 1. `texture`: mean contrast (standard
    deviation, of 255) within 8 × 8 pixels; an even wall has 2, a package 20.
    """

    sharpness: float
    brightness: float
    glare: float
    texture: float


def quality(lab: NDArray[np.uint8]) -> Quality:
    """`lab` is the frame in OpenCV's Lab."""
    return _measured(_middle(lab[:, :, 0]))


def of_grey(frame: NDArray[np.uint8]) -> Quality:
    """`frame` is grey, [height, width]: the same numbers, but for what colour adds."""
    return _measured(np.asarray(cv2.LUT(_middle(frame), _LIGHTNESS), np.uint8))


def _middle(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frame.shape
    middle = frame[height // 5 : height - height // 5, width // 5 : width - width // 5]
    scale = min(1.0, _SIDE / max(middle.shape))
    # Copied in any case: OpenCV's table look-up wants a whole picture.
    return np.asarray(cv2.resize(middle, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def _measured(middle: NDArray[np.uint8]) -> Quality:
    grey = middle.astype(np.float32)
    fine = np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()
    coarse = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 2.0), cv2.CV_32F)).mean()
    rows, columns = max(8, grey.shape[0] // 8 * 8), max(8, grey.shape[1] // 8 * 8)
    whole_blocks = cv2.resize(grey, (columns, rows)) if grey.shape[0] < 8 or grey.shape[1] < 8 else grey[:rows, :columns]
    blocks = whole_blocks.reshape(rows // 8, 8, columns // 8, 8).std(axis=(1, 3))
    return Quality(
        sharpness=float(10 * fine / (coarse + 0.5)),
        brightness=float(grey.mean()),
        glare=float((grey > 250).mean()),
        texture=float(blocks.mean()),
    )
