"""The head in three dimensions, its pose and alignment, and the pen that draws on it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
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


def surface(xy: Floats, lift: float | Floats) -> Floats:
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
    """A canvas with the pose: fills polygons given in the frame of the head.

    The methods only note what to draw; `finish` places all points at once and draws in order.
    """

    def __init__(self, size: tuple[int, int], turn: Floats, marks: Floats, jitter: Floats) -> None:
        self.turn = turn
        self.rotate, self.shift = _fit(self._flat(marks) + jitter)
        self.scale = np.array([size[1] / 96, size[0] / 112])
        self.shape = (size[0] * _SUPER, size[1] * _SUPER)
        self.marks = self.place(marks)
        self._noted: list[tuple[Floats, float | None, Draw]] = []

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
        self._noted.append((xy, lift, functools.partial(_polygon, colour)))

    def fill_solid(self, xyz: Floats, colour: Sequence[float]) -> None:
        """Fill a polygon given by points in three dimensions."""
        self._noted.append((xyz, None, functools.partial(_polygon, colour)))

    def band(self, upper: Floats, lower: Floats, colour: Sequence[float]) -> None:
        """Fill between two lines of as many points (n, 3), also where they cross."""
        self._noted.append((np.vstack([upper, lower]), None, functools.partial(_band, colour)))

    def hull(self, xyz: Floats, colour: Sequence[float]) -> None:
        """Fill the convex hull of points (n, 3)."""
        self._noted.append((xyz, None, functools.partial(_hull, colour)))

    def line(self, xy: Floats, colour: Sequence[float], width: int, closed: bool = False) -> None:
        """Draw a line along the face, `width` in pixels of the enlarged canvas."""
        self._noted.append((xy, 1.0, functools.partial(_line, colour, width, closed)))

    def finish(self, background: Any) -> Any:
        """Draw everything onto `background`, an image of `shape`, in place; return it."""
        counts = [len(points) for points, _, _ in self._noted]
        flat = np.concatenate([points[:, :2] for points, _, _ in self._noted])
        lifts = np.repeat([np.nan if lift is None else lift for _, lift, _ in self._noted], counts)
        xyz = surface(flat, lifts)
        solid = [points[:, 2] for points, lift, _ in self._noted if lift is None]
        xyz[np.isnan(lifts), 2] = np.concatenate(solid)
        # The centre of pixel k of the small picture lies between pixels 2k and 2k+1 of the large.
        large = self.place(xyz) * _SUPER + (_SUPER - 1) / 2
        fixed = np.rint(large * (1 << _SHIFT)).astype(np.int32)
        ends = np.cumsum(counts)
        for (_, _, draw), start, end in zip(self._noted, ends - counts, ends, strict=True):
            draw(background, fixed[start:end])
        return background


Fixed = npt.NDArray[np.int32]
Draw = Callable[[Any, Fixed], None]
_SHIFT = 4  # bits of a pixel's fraction in OpenCV's fixed point coordinates


def _polygon(colour: Sequence[float], image: Any, points: Fixed) -> None:
    cv2.fillPoly(image, [points], colour, cv2.LINE_8, _SHIFT)


def _hull(colour: Sequence[float], image: Any, points: Fixed) -> None:
    cv2.fillConvexPoly(image, cv2.convexHull(points), colour, cv2.LINE_8, _SHIFT)


def _band(colour: Sequence[float], image: Any, points: Fixed) -> None:
    first, second = np.split(points, 2)
    for quad in np.stack([first[:-1], first[1:], second[1:], second[:-1]], axis=1):
        _hull(colour, image, quad)


def _line(colour: Sequence[float], width: int, closed: bool, image: Any, points: Fixed) -> None:
    cv2.polylines(image, [points], closed, colour, width, cv2.LINE_AA, _SHIFT)


def _fit(points: Floats) -> tuple[Floats, Floats]:
    """Similarity (2x2 for row vectors, shift) that takes five points to the template."""
    middle, goal = points.mean(0), TEMPLATE.mean(0)
    p, q = points - middle, TEMPLATE - goal
    size = (p * p).sum()
    a, b = (p * q).sum() / size, (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / size
    rotate = np.array([[a, b], [-b, a]])
    return rotate, goal - middle @ rotate
