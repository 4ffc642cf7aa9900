"""Caffe's DataTransformer: crop, mirror, mean and scale, from bytes to float32.

Source: BVLC Caffe 1.0, data_transformer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from port.data.pixels import PixelTable
from port.errors import DataError

Array = NDArray[Any]
Window = tuple[slice, slice]


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
    images must have its size. Raises DataError for settings that Caffe refuses. All methods may be
    called from several threads.

    ``image`` and ``planes`` transform one record. For many images, ``stage`` each and ``finish``
    some together: the fewer and larger the steps, the less threads wait for each other.
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
        self._accepted: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()

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
        staged = np.empty((1, *out.shape), np.uint8)
        self.stage(image, staged[0], draw)
        self.finish(staged, [draw], out[np.newaxis])

    def stage(self, image: Array, planes: Array, draw: Draw = CENTRE) -> None:
        """Crops and mirrors one uint8 image (H, W) or (H, W, C) into `planes` (C, H', W') uint8."""
        if (image.shape, planes.shape) not in self._accepted:
            if image.dtype != np.uint8:
                raise DataError(f"the image has {image.dtype} values; 8-bit images are needed")
            self._check(dims(image), planes.shape)
            self._accepted.add((image.shape, planes.shape))
        if self.crop:
            image = image[self._window(image.shape[0], image.shape[1], draw)]
        if draw.mirror:
            image = cv2.flip(image, 1)
        cv2.split(image, list(planes))

    def finish(self, planes: Array, draws: Sequence[Draw], out: Array) -> None:
        """(pixel - mean) * scale of staged images: `planes` to `out`, both (n, C, H', W').

        May change `planes`.
        """
        if self.mean is not None:
            _, height, width = self.mean.shape
            for staged, draw, target in zip(planes, draws, out, strict=True):
                window = self._window(height, width, draw) if self.crop else None
                self._subtract_image(staged, target, window, draw.mirror)
        elif self._one_table:
            width = planes.shape[-1]
            self._tables[0].apply(planes.reshape(-1, width), out.reshape(-1, width))
        else:
            for staged, target in zip(planes, out, strict=True):
                for table, channel, result in zip(self._tables, staged, target, strict=True):
                    table.apply(channel, result)

    def planes(self, planes: Array, out: Array, draw: Draw = CENTRE) -> None:
        """The same for a record (C, H, W), uint8 or float32, as a raw Datum holds it."""
        self._check(planes.shape, out.shape)
        window = self._window(planes.shape[1], planes.shape[2], draw) if self.crop else None
        planes = _cut(planes, window, draw.mirror)
        if self.mean is not None:
            self._subtract_image(planes, out, window, draw.mirror)
            return
        mean = np.asarray(self.mean_values or [0.0], np.float32)
        np.subtract(planes, mean.reshape(-1, 1, 1), out=out)
        np.multiply(out, self.scale, out=out)

    def _check(self, source: tuple[int, ...], out: tuple[int, ...]) -> None:
        channels, height, width = source
        expected = self.shape(channels, height, width)
        if out != expected:
            raise DataError(
                f"the image gives {_size(expected)} (channels x height x width), the batch has "
                f"{_size(out)}; all images of a batch must be of one size: "
                "resize them (new_height, new_width)"
            )

    def _window(self, height: int, width: int, draw: Draw) -> Window:
        """The rows and columns of the crop."""
        spare_rows, spare_columns = height - self.crop, width - self.crop
        if self.random_crop:
            top, left = int(draw.down * (spare_rows + 1)), int(draw.right * (spare_columns + 1))
        else:
            top, left = spare_rows // 2, spare_columns // 2
        return slice(top, top + self.crop), slice(left, left + self.crop)

    def _subtract_image(
        self, planes: Array, out: Array, window: Window | None, mirror: bool
    ) -> None:
        """(pixel - mean image) * scale; the mean is mirrored with the pixels it belongs to."""
        mean: Any = self.mean
        np.subtract(planes, _cut(mean, window, mirror), out=out)
        np.multiply(out, self.scale, out=out)


def dims(image: Array) -> tuple[int, int, int]:
    """(C, H, W) of an image (H, W) or (H, W, C)."""
    return (image.shape[2] if image.ndim == 3 else 1, image.shape[0], image.shape[1])


def _cut(planes: Array, window: Window | None, mirror: bool) -> Array:
    part = planes if window is None else planes[:, window[0], window[1]]
    return part[..., ::-1] if mirror else part


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
