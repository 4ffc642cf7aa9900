"""The head in three dimensions, its pose and alignment, and the pen that draws on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from port.sample_faces.traits import Colour

Floats = npt.NDArray[np.float64]

# Left eye, right eye, nose tip, left and right corner of the mouth, in a crop of 112x96.
TEMPLATE = np.array(
    [
        [30.2946, 51.6963],
        [65.5318, 51.5014],
        [48.0252, 71.7366],
        [33.5493, 92.3655],
        [62.7299, 92.2041],
    ]
)
_SUPER = 2  # drawn at twice the size, then averaged down
_CAMERA = 480.0  # distance of the eye from the head's middle
_RADII = (47.0, 67.0, 40.0)  # of the ellipsoid that the parts lie on


def surface(xy: Floats, lift: float) -> Floats:
    """Points (n, 2) of the frontal head put on the ellipsoid: (n, 3)."""
    rx, ry, rz = _RADII
    xyz = np.empty((len(xy), 3))
    xyz[:, :2] = xy
    inside = 1 - (xy[:, 0] / rx) ** 2 - (xy[:, 1] / ry) ** 2
    xyz[:, 2] = rz * np.sqrt(np.maximum(inside, 0.01)) + lift
    return xyz


def rotation(yaw: float, pitch: float, roll: float) -> Floats:
    cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    cr, sr = math.cos(roll), math.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    rotated: Floats = tilt @ nod @ turn
    return rotated


def oval(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, points: int = 16) -> Floats:
    c, s = math.cos(tilt), math.sin(tilt)
    axes = np.array([[rx * c, rx * s], [-ry * s, ry * c]])
    oval: Floats = _circle(points) @ axes + (x, y)
    return oval


@functools.lru_cache
def _circle(points: int) -> Floats:
    angle = np.linspace(0, 2 * math.pi, points, endpoint=False)
    return np.column_stack([np.cos(angle), np.sin(angle)])


def shaded(colour: Sequence[float], factor: float) -> Colour:
    blue, green, red = (min(255.0, channel * factor) for channel in colour)
    return (blue, green, red)


class Pen:
    """A canvas with the pose: fills polygons given in the frame of the head."""

    def __init__(self, size: tuple[int, int], turn: Floats, marks: Floats, jitter: Floats) -> None:
        self.turn = turn
        self.rotate, self.shift = _fit(self._flat(marks) + jitter)
        self.scale = np.array([size[1] / 96, size[0] / 112])
        self.image: Any = np.empty((size[0] * _SUPER, size[1] * _SUPER, 3), np.uint8)
        self.marks = self.place(marks)

    def _flat(self, xyz: Floats) -> Floats:
        turned = xyz @ self.turn.T
        flat: Floats = turned[:, :2] * (_CAMERA / (_CAMERA - turned[:, 2:]))
        return flat

    def place(self, xyz: Floats) -> Floats:
        """Points (n, 3) of the head in pixels (n, 2) of the finished crop."""
        placed: Floats = (self._flat(xyz) @ self.rotate + self.shift) * self.scale
        return placed

    def fill(self, xy: Floats, colour: Sequence[float], lift: float = 0.0) -> None:
        """Fill a polygon that lies on the face, `lift` in front of its surface."""
        self.fill_solid(surface(xy, lift), colour)

    def fill_solid(self, xyz: Floats, colour: Sequence[float]) -> None:
        """Fill a polygon given by points in three dimensions."""
        cv2.fillPoly(self.image, [self._fixed(xyz)], colour, cv2.LINE_8, 4)

    def band(self, upper: Floats, lower: Floats, colour: Sequence[float]) -> None:
        """Fill between two lines of as many points (n, 3), also where they cross."""
        first, second = self._fixed(upper), self._fixed(lower)
        corners = np.stack([first[:-1], first[1:], second[1:], second[:-1]], axis=1)
        for quad in corners:
            cv2.fillConvexPoly(self.image, cv2.convexHull(quad), colour, cv2.LINE_8, 4)

    def hull(self, xyz: Floats, colour: Sequence[float]) -> None:
        """Fill the convex hull of points (n, 3)."""
        cv2.fillConvexPoly(self.image, cv2.convexHull(self._fixed(xyz)), colour, cv2.LINE_8, 4)

    def line(self, xy: Floats, colour: Sequence[float], width: int, closed: bool = False) -> None:
        """Draw a line along the face, `width` in pixels of the enlarged canvas."""
        fixed = self._fixed(surface(xy, 1.0))
        cv2.polylines(self.image, [fixed], closed, colour, width, cv2.LINE_AA, 4)

    def _fixed(self, xyz: Floats) -> npt.NDArray[np.int32]:
        # The centre of pixel k of the small picture lies between pixels 2k and 2k+1 of the large.
        large = self.place(xyz) * _SUPER + (_SUPER - 1) / 2
        return np.rint(large * 16).astype(np.int32)


def _fit(points: Floats) -> tuple[Floats, Floats]:
    """Similarity (2x2 for row vectors, shift) that takes five points to the template."""
    middle, goal = points.mean(0), TEMPLATE.mean(0)
    p, q = points - middle, TEMPLATE - goal
    size = (p * p).sum()
    a, b = (p * q).sum() / size, (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / size
    rotate = np.array([[a, b], [-b, a]])
    return rotate, goal - middle @ rotate
