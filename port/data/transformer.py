"""Caffe's DataTransformer: crop, mirror, mean and scale, from bytes to float32.

Source: BVLC Caffe 1.0, data_transformer.cpp.
"""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from port.data.pixels import PixelTable
from port.errors import DataError

Array = NDArray[Any]


class Draw(NamedTuple):
    """The random numbers of one record: mirror or not, and where in [0, 1) its crop starts."""

    mirror: bool = False
    down: float = 0.0
    right: float = 0.0


CENTRE = Draw()


class Transformer:
    """(pixel - mean) * scale in float32, cropped and mirrored as a TransformationParameter says.

    spec: TransformationParameter. phase: "TRAIN" crops at random, "TEST" in the centre; mirroring
    happens in both. mean: what ``mean_file`` holds, (C, H, W); the crop is taken from it too, so
    images must have its size. Raises DataError for settings that Caffe refuses. ``image`` and
    ``planes`` may be called from several threads.
    """

    def __init__(self, spec: Any, phase: str, mean: Array | None = None) -> None:
        if spec.mean_file and len(spec.mean_value):
            raise DataError(
                "transform_param: mean_file and mean_value exclude each other; keep one"
            )
        if spec.mean_file and mean is None:
            raise DataError(f"transform_param: mean_file '{spec.mean_file}' was not loaded")
        self.crop: int = spec.crop_size
        self.mirror: bool = spec.mirror
        self.random_crop = phase == "TRAIN" and self.crop > 0
        self.scale = np.float32(spec.scale)
        self.mean_values = list(spec.mean_value)
        self.mean = None if mean is None else np.asarray(mean, np.float32)
        tables = {value: PixelTable(value, spec.scale) for value in self.mean_values or [0.0]}
        self._tables = [tables[value] for value in self.mean_values or [0.0]]
        self._one_table = len(tables) == 1
        self._thread = threading.local()

    def shape(self, channels: int, height: int, width: int) -> tuple[int, int, int]:
        """Output shape (C, H, W) of an image of this size; DataError when it does not fit."""
        if self.crop > min(height, width):
            raise DataError(
                f"crop_size {self.crop} does not fit into an image of {height}x{width} "
                "(height x width); lower crop_size or resize the images"
            )
        if self.mean is not None and self.mean.shape != (channels, height, width):
            raise DataError(
                f"mean_file holds {_size(self.mean.shape)} (channels x height x width), the image "
                f"has {_size((channels, height, width))}; resize the images or compute a new mean"
            )
        if len(self.mean_values) not in (0, 1, channels):
            raise DataError(
                f"transform_param has {len(self.mean_values)} mean_value for images of "
                f"{channels} channel(s); give 1 or {channels}"
            )
        return (channels, self.crop or height, self.crop or width)

    def draws(self, rng: np.random.Generator, count: int) -> list[Draw]:
        """Random numbers for `count` records, in order."""
        mirror = rng.random(count) < 0.5 if self.mirror else np.zeros(count, bool)
        starts = rng.random((count, 2)) if self.random_crop else np.zeros((count, 2))
        rows = zip(mirror.tolist(), starts.tolist(), strict=True)
        return [Draw(flip, down, right) for flip, (down, right) in rows]

    def image(self, image: Array, out: Array, draw: Draw = CENTRE) -> None:
        """Transforms one uint8 image (H, W) or (H, W, C) into `out` (C, H', W') float32."""
        import cv2

        height, width = image.shape[:2]
        self._check(image.shape[2] if image.ndim == 3 else 1, height, width, out.shape)
        if image.dtype != np.uint8:
            raise DataError(f"the image has {image.dtype} values; 8-bit images are needed")
        window = self._window(height, width, draw)
        image = image[window]
        planes, flipped = self._buffers(out.shape, image.shape)
        if draw.mirror:
            image = cv2.flip(image, 1, dst=flipped)
        cv2.split(image, list(planes))
        if self.mean is None:
            self._look_up(planes, out)
        else:
            self._subtract_image(planes, out, window, draw.mirror)

    def planes(self, planes: Array, out: Array, draw: Draw = CENTRE) -> None:
        """The same for a record (C, H, W), uint8 or float32, as a raw Datum holds it."""
        channels, height, width = planes.shape
        self._check(channels, height, width, out.shape)
        window = self._window(height, width, draw)
        planes = _cut(planes, window, draw.mirror)
        if self.mean is None:
            np.subtract(planes, _per_channel(self.mean_values or [0.0]), out=out)
            np.multiply(out, self.scale, out=out)
        else:
            self._subtract_image(planes, out, window, draw.mirror)

    def _check(self, channels: int, height: int, width: int, out: tuple[int, ...]) -> None:
        asked = (channels, height, width, out)
        if asked == getattr(self._thread, "accepted", None):
            return
        expected = self.shape(channels, height, width)
        if out != expected:
            raise DataError(
                f"the image gives {_size(expected)} (channels x height x width), the batch has "
                f"{_size(out)}; all images of a batch must be of one size: "
                "resize them (new_height, new_width)"
            )
        self._thread.accepted = asked

    def _window(self, height: int, width: int, draw: Draw) -> tuple[slice, slice]:
        """The rows and columns that stay."""
        if not self.crop:
            return slice(0, height), slice(0, width)
        spare_rows, spare_columns = height - self.crop, width - self.crop
        if self.random_crop:
            top, left = int(draw.down * (spare_rows + 1)), int(draw.right * (spare_columns + 1))
        else:
            top, left = spare_rows // 2, spare_columns // 2
        return slice(top, top + self.crop), slice(left, left + self.crop)

    def _look_up(self, planes: Array, out: Array) -> None:
        if self._one_table:
            width = planes.shape[2]
            self._tables[0].apply(planes.reshape(-1, width), out.reshape(-1, width))
            return
        for table, plane, target in zip(self._tables, planes, out, strict=True):
            table.apply(plane, target)

    def _subtract_image(
        self, planes: Array, out: Array, window: tuple[slice, slice], mirror: bool
    ) -> None:
        """(pixel - mean image) * scale; the mean is mirrored with the pixels it belongs to."""
        mean: Any = self.mean
        np.subtract(planes, _cut(mean, window, mirror), out=out)
        np.multiply(out, self.scale, out=out)

    def _buffers(self, planes: tuple[int, ...], image: tuple[int, ...]) -> tuple[Array, Array]:
        """This thread's room for the planes (C, H, W) and for the mirrored image."""
        held: tuple[Array, Array] | None = getattr(self._thread, "buffers", None)
        if held is None or held[0].shape != planes or held[1].shape != image:
            held = np.empty(planes, np.uint8), np.empty(image, np.uint8)
            self._thread.buffers = held
        return held


def _cut(planes: Array, window: tuple[slice, slice], mirror: bool) -> Array:
    part: Array = planes[:, window[0], window[1]]
    return part[..., ::-1] if mirror else part


def _per_channel(values: list[float]) -> Array:
    return np.asarray(values, np.float32).reshape(-1, 1, 1)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
