"""MTCNN's arithmetic on candidate boxes, in Matlab's single precision and 1-based coordinates.

A box is a row (x1, y1, x2, y2, score, …), corners included. Source: MTCNNv1's detect_face.m,
generateBoundingBox.m, nms.m, bbreg.m and rerec.m.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from port.errors import DataError

Single = NDArray[np.float32]

STRIDE, WINDOW = 2, 12
"""Of P-net's score map in the scaled image: the distance of neighbouring windows and their size."""

_ALL_PAIRS = 512
"""Up to so many boxes nms compares all pairs at once, which is quicker than one row at a time."""


@dataclass(frozen=True)
class Settings:
    """What SphereFace's face_detect_demo.m sets: smallest face, pyramid step, score thresholds."""

    min_size: float = 20
    factor: float = 0.85
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.9)

    def __post_init__(self) -> None:
        if self.min_size <= 0:
            raise DataError(f"the smallest face must be above 0 pixels, found {self.min_size}")
        if not 0 < self.factor < 1:
            raise DataError(f"the pyramid's factor must lie between 0 and 1, found {self.factor}")
        if not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise DataError(f"thresholds must lie in (0, 1], found {self.thresholds}")


def scales(height: int, width: int, settings: Settings) -> list[float]:
    """The pyramid's scales, from large to small; the first makes min_size fill a window."""
    first = WINDOW / settings.min_size
    shorter = min(height, width) * first
    found: list[float] = []
    while shorter >= WINDOW:
        found.append(first * settings.factor ** len(found))
        shorter *= settings.factor
    return found


def windows(score: Single, correction: Single, scale: float, threshold: float) -> Single:
    """P-net's windows at or above the threshold, (n, 9): box, score, four corrections.

    `score` is (columns, rows), `correction` (4, columns, rows): column by column as Matlab finds.
    """
    across, down = np.nonzero(score >= threshold)
    place = np.stack([across, down], 1)
    boxes = np.empty((len(place), 9), np.float32)
    boxes[:, 0:2] = np.fix((STRIDE * place + 1) / scale)
    boxes[:, 2:4] = np.fix((STRIDE * place + WINDOW) / scale)
    boxes[:, 4] = score[across, down]
    boxes[:, 5:] = correction[:, across, down].T
    return boxes


def nms(boxes: Single, threshold: float, of_smaller: bool = False) -> NDArray[np.intp]:
    """Indices of the boxes that survive, best score first; of equal scores the last one leads.

    A box falls when it overlaps a better one by more than the threshold: intersection over union,
    or over the smaller of the two areas (Matlab's 'Min').
    """
    order = np.argsort(boxes[:, 4], kind="stable")[::-1]
    corners = boxes[order, :4]
    area = (corners[:, 2] - corners[:, 0] + 1) * (corners[:, 3] - corners[:, 1] + 1)
    table = None
    if len(order) <= _ALL_PAIRS:
        table = _overlap(corners[:, None], area[:, None], corners, area, of_smaller) > threshold
    alive = np.ones(len(order), bool)
    for i in range(len(order)):
        if alive[i]:
            rest = slice(i + 1, None)
            beaten = (
                table[i, rest]
                if table is not None
                else _overlap(corners[i], area[i], corners[rest], area[rest], of_smaller)
                > threshold
            )
            alive[rest] &= ~beaten
    return order[alive]


def _overlap(a: Single, area_a: Single, b: Single, area_b: Single, of_smaller: bool) -> Single:
    one = np.float32(1)
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0]) + one
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1]) + one
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    whole = np.minimum(area_a, area_b) if of_smaller else area_a + area_b - shared
    with np.errstate(divide="ignore", invalid="ignore"):
        overlap: Single = shared / whole
    return overlap


def corrected(boxes: Single, correction: Single, inclusive: bool = True) -> Single:
    """The boxes (n, 5) moved by the corrections (n, 4), fractions of their width and height.

    P-net's step measures the width as x2 - x1, the later ones as x2 - x1 + 1 (`inclusive`).
    """
    size = boxes[:, 2:4] - boxes[:, 0:2] + np.float32(inclusive)
    moved: Single = boxes[:, :5].copy()
    moved[:, :4] += correction * np.tile(size, 2)
    return moved


def squared(boxes: Single) -> Single:
    """The boxes (n, 5) grown to squares around their centres."""
    size = boxes[:, 2:4] - boxes[:, 0:2]
    side = size.max(1, keepdims=True, initial=-np.inf) if len(boxes) else size[:, :1]
    square: Single = boxes.copy()
    half = np.float32(0.5)
    square[:, 0:2] = boxes[:, 0:2] + size * half - side * half
    square[:, 2:4] = square[:, 0:2] + side
    return square


def nearest_to_centre(boxes: NDArray[np.floating], height: int, width: int) -> int:
    """Index of the box (n, 5) whose centre is nearest (height, width) / 2; the first of equals.

    Source: SphereFace's face_detect_demo.m.
    """
    centres = (boxes[:, 0:2].astype(np.float64) + boxes[:, 2:4]) / 2
    return int(((centres - [width / 2, height / 2]) ** 2).sum(1).argmin())
