"""(pixel - mean) * scale for 8-bit pixels, in one pass over the output.

A byte has 256 values, so the whole of Caffe's per-pixel arithmetic fits in a table that is exact
by construction: two float32 roundings, as in the original's loop.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_BYTES = np.arange(256, dtype=np.float32)


class PixelTable:
    """The 256 results of one channel, and the fastest way to look them up.

    Where the results need no rounding (SphereFace's 127.5 and 1/128 do not), every order of
    evaluation gives them, and OpenCV's vectorised ``src * a + b`` is three times as fast as its
    LUT. Python reaches that loop only through ``normalize`` with NORM_MINMAX, see ``_stretch``.
    """

    def __init__(self, mean: float, scale: float) -> None:
        self.values: Array = (_BYTES - np.float32(mean)) * np.float32(scale)
        self._table = self.values.reshape(1, 256)
        self._ends = float(self.values[0]), float(self.values[255])
        self._linear = _is_exact(mean, scale) and self._stretch_agrees()

    def apply(self, plane: Array, out: Array) -> None:
        """Looks up `plane` (H, W) uint8 into `out` (H, W) float32; may change `plane`."""
        if self._linear:
            self._stretch(plane, out)
        else:
            cv2.LUT(plane, self._table, dst=out)

    def _stretch(self, plane: Array, out: Array) -> None:
        """Maps min..max of the plane to the table's ends, after making them 0 and 255.

        The two pixels borrowed for that are then set from the table.
        """
        low, high = plane[0, 0], plane[-1, -1]
        plane[0, 0], plane[-1, -1] = 0, 255
        cv2.normalize(plane, out, *self._ends, cv2.NORM_MINMAX, cv2.CV_32F)
        out[0, 0], out[-1, -1] = self.values[low], self.values[high]

    def _stretch_agrees(self) -> bool:
        found = np.empty((16, 16), np.float32)
        self._stretch(np.arange(256, dtype=np.uint8).reshape(16, 16), found)
        return bool(np.array_equal(found.ravel(), self.values))


def _is_exact(mean: float, scale: float) -> bool:
    """Whether pixel * scale, mean * scale and their difference are all float32 numbers."""
    if scale <= 0:
        return False
    mean, scale = float(np.float32(mean)), float(np.float32(scale))
    products = [np.float64(value) * scale for value in (*range(256), mean)]
    products += [(np.float64(value) - mean) * scale for value in range(256)]
    return all(float(np.float32(value)) == value for value in products)
