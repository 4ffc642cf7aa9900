"""Faces followed from frame to frame of a video by the overlap of their boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.floating]

OVERLAP = 0.3
"""Intersection over union from which a box continues a track."""


class Tracker:
    """Gives the boxes of consecutive frames the numbers of their tracks, from 0.

    A track ends when it had no box for more than `patience` frames.
    """

    def __init__(self, patience: int = 10) -> None:
        self.patience = patience
        self._started = 0
        self._live: dict[int, tuple[Boxes, int]] = {}  # track → its last box, and that box's frame

    def __call__(self, frame: int, boxes: Boxes) -> list[int]:
        """The tracks of a frame's boxes (n, 4 or more), x1 y1 x2 y2; frames come in order."""
        self._live = {
            track: (box, seen)
            for track, (box, seen) in self._live.items()
            if frame - seen <= self.patience + 1
        }
        tracks = self._continued(boxes)
        for i, box in enumerate(boxes):
            if i not in tracks:
                tracks[i] = self._started
                self._started += 1
            self._live[tracks[i]] = (box, frame)
        return [tracks[i] for i in range(len(boxes))]

    def _continued(self, boxes: Boxes) -> dict[int, int]:
        """Box → track, the pairs that overlap most first."""
        live = list(self._live)
        if not live or not len(boxes):
            return {}
        overlap = intersection_over_union(boxes, np.stack([self._live[t][0] for t in live]))
        tracks: dict[int, int] = {}
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            i, j = divmod(int(flat), len(live))
            if overlap[i, j] < OVERLAP:
                break
            if i not in tracks and live[j] not in tracks.values():
                tracks[i] = live[j]
        return tracks


def intersection_over_union(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """The overlap of boxes (n, 4 or more) with boxes (m, 4 or more), (n, m); empty ones have 0."""
    a, b = np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:4], b[..., 2:4])
    shared = np.prod(np.maximum(high - low, 0), axis=-1)
    areas = [np.prod(np.maximum(x[..., 2:4] - x[..., :2], 0), axis=-1) for x in (a, b)]
    union = areas[0] + areas[1] - shared
    overlap: NDArray[np.float64] = shared / np.where(union > 0, union, 1)
    return overlap
