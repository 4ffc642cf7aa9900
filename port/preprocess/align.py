"""Five-point alignment as the original's Matlab does it: cp2tform('similarity') and imtransform.

Coordinates are Matlab's throughout: 1-based, x to the right, y down, the centre of the first pixel
at (1, 1). Points and transforms are row vectors: ``[x_image y_image 1] @ T = [x_crop y_crop 1]``.
Source: SphereFace's face_align_demo.m; Matlab's cp2tform and imtransform by their documentation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from port.errors import DataError

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Steps = NDArray[np.int16]  # grey levels whose differences must not wrap

CROP_HEIGHT, CROP_WIDTH = 112, 96

TEMPLATE: Floats = np.array(
    [
        [30.2946, 51.6963],
        [65.5318, 51.5014],
        [48.0252, 71.7366],
        [33.5493, 92.3655],
        [62.7299, 92.2041],
    ]
)
"""Left eye, right eye, nose, left and right mouth corner (as seen in the image) in the crop."""

_MIRROR = np.diag([-1.0, 1.0, 1.0])


class Similarity(NamedTuple):
    """A fitted transform: both directions (3, 3), and whether it mirrors the image."""

    forward: Floats
    inverse: Floats
    reflected: bool


def fit_similarity(points: ArrayLike, template: Floats = TEMPLATE) -> Similarity:
    """The similarity that takes five image points (5, 2) to the template, as cp2tform fits it.

    Least squares is done on the inverse map, template to image, so the error that is made small
    lives in image space. A plain and a mirrored fit compete; the smaller 2-norm of the residual
    in crop space wins, the plain one on equality.
    Raises DataError when the points are not finite or fit no similarity (all on one spot).
    """
    image = np.asarray(points, np.float64)
    if image.shape != template.shape or not np.isfinite(image).all():
        found = f"shape {image.shape}" if image.shape != template.shape else str(image.tolist())
        raise DataError(f"alignment needs {len(template)} finite points (x, y), found {found}")
    plain = _fit_plain(image, template)
    mirrored = _fit_plain(image, template * [-1.0, 1.0])
    mirrored = Similarity(mirrored.forward @ _MIRROR, _MIRROR @ mirrored.inverse, True)
    if _residual(plain, image, template) <= _residual(mirrored, image, template):
        return plain
    return mirrored


def _fit_plain(image: Floats, template: Floats) -> Similarity:
    # With centred coordinates the normal equations are diagonal: no solver, and no ill-conditioned
    # system when the face lies far from the origin.
    template_centre, image_centre = template.mean(0), image.mean(0)
    x, y = (template - template_centre).T
    u, v = (image - image_centre).T
    spread = x @ x + y @ y
    a, b = (x @ u + y @ v) / spread, (y @ u - x @ v) / spread
    scale2 = a * a + b * b
    if scale2 < 1e-20:
        raise DataError("alignment is impossible: the points lie on one spot or fit no similarity")
    return Similarity(
        _row_affine(a / scale2, -b / scale2, image_centre, template_centre),
        _row_affine(a, b, template_centre, image_centre),
        False,
    )


def _row_affine(a: float, b: float, centre_in: Floats, centre_out: Floats) -> Floats:
    (x, y), (u, v) = centre_in, centre_out
    return np.array([[a, -b, 0], [b, a, 0], [u - a * x - b * y, v + b * x - a * y, 1]])


def _residual(fit: Similarity, image: Floats, template: Floats) -> float:
    x, y = (image @ fit.forward[:2, :2] + fit.forward[2, :2] - template).T
    # The largest singular value of the (5, 2) matrix, from the eigenvalues of its 2x2 square.
    xx, yy, xy = x @ x, y @ y, x @ y
    return math.sqrt((xx + yy) / 2 + math.hypot((xx - yy) / 2, xy))


def sample_crop(
    image: Pixels, inverse: Floats, size: tuple[int, int] = (CROP_HEIGHT, CROP_WIDTH)
) -> Floats:
    """The crop before rounding, (h, w, C) in grey levels: imtransform's bilinear samples.

    `image` is (H, W, C) or (H, W) uint8, `inverse` maps crop to image. The image counts as zero
    outside its pixels, so the outermost pixel blends into the fill value over one pixel's width.
    """
    samples = np.empty((*size, _channels(image)))
    for rows, band in _bands(image, inverse, size):
        samples[rows] = band
    return samples


def align_face(
    image: Pixels, points: ArrayLike, size: tuple[int, int] = (CROP_HEIGHT, CROP_WIDTH)
) -> Pixels:
    """The aligned face (112, 96, C) uint8 of an image (H, W, C) and its five points (5, 2).

    Rounding is floor(v + 0.5), as Matlab's conversion to uint8; a mean of pixels never needs
    saturation. Raises DataError where no similarity fits the points.
    """
    crop = np.empty((*size, _channels(image)), np.uint8)
    for rows, band in _bands(image, fit_similarity(points).inverse, size):
        band += 0.5
        crop[rows] = band
    return crop


def _channels(image: Pixels) -> int:
    return 1 if image.ndim == 2 else image.shape[2]


_BAND_ROWS = 14
"""Rows sampled at a time: their arrays stay in the cache and below malloc's mmap threshold."""


def _bands(image: Pixels, inverse: Floats, size: tuple[int, int]) -> Iterator[tuple[slice, Floats]]:
    """Row ranges of the crop, each with its samples (rows, w, C)."""
    height, width = size
    corners = _places(image, inverse, np.array([1, height]), np.array([1, width]))
    (left, top), (right, bottom) = ([int(f(at)) for at in corners[:2]] for f in (np.min, np.max))
    patch = _zero_padded(image, (left, top), (right + 2, bottom + 2))
    planes, stride = patch.reshape(patch.shape[0], -1), patch.shape[2]
    across, down = np.arange(1, width + 1), np.arange(1, height + 1)
    for first in range(0, height, _BAND_ROWS):
        band = slice(first, first + _BAND_ROWS)
        columns, rows, x, y = _places(image, inverse, down[band], across)
        at = (rows - top) * stride + (columns - left)
        yield band, _bilinear(planes, at, stride, x, y).transpose(1, 2, 0)


def _places(
    image: Pixels, inverse: Floats, down: NDArray[np.int64], across: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
    """Where crop pixels lie in the image: whole columns and rows, and the fractions of each."""
    (a, b), (c, d), (e, f) = inverse[:, :2].tolist()
    columns, x = _split(across * a + (down * c + e)[:, None], image.shape[1])
    rows, y = _split(across * b + (down * d + f)[:, None], image.shape[0])
    return columns, rows, x, y


def _split(at: Floats, length: int) -> tuple[NDArray[np.int64], Floats]:
    """Whole and fractional part of 1-based coordinates.

    Coordinate 0 and length + 1 are the border of zeros: everything beyond reads the same zero.
    """
    at = at.clip(0, length + 1)
    whole = np.minimum(at.astype(np.int64), length)
    return whole, at - whole


def _zero_padded(image: Pixels, first: tuple[int, int], last: tuple[int, int]) -> Steps:
    """Planes (C, h, w) of the 1-based columns and rows first..last-1; zero outside the image."""
    (left, top), (right, bottom) = first, last
    patch = np.zeros((_channels(image), bottom - top, right - left), np.int16)
    x0, y0 = max(left, 1), max(top, 1)
    inside = image[y0 - 1 : bottom - 1, x0 - 1 : right - 1]
    height, width = inside.shape[:2]
    inside = inside.reshape(height, width, -1).transpose(2, 0, 1)
    patch[:, y0 - top : y0 - top + height, x0 - left : x0 - left + width] = inside
    return patch


def _bilinear(planes: Steps, at: NDArray[np.int64], stride: int, x: Floats, y: Floats) -> Floats:
    """Samples (C, h, w) whose upper left neighbours are the elements `at` of the planes."""
    upper = _mix(planes.take(at, 1), planes.take(at + 1, 1), x)
    at = at + stride
    lower = _mix(planes.take(at, 1), planes.take(at + 1, 1), x)
    lower -= upper
    lower *= y
    lower += upper
    return lower


def _mix(a: Steps, b: Steps, weight: Floats) -> Floats:
    mixed: Floats = (b - a) * weight
    mixed += a
    return mixed
