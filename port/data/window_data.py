"""Batches of image windows, as Caffe's WindowData layer (R-CNN fine-tuning) makes them.

Source: BVLC Caffe 1.0, window_data_layer.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from port.data.image_data import decode_image, read_bytes, read_image
from port.data.mean_file import read_mean
from port.data.prefetch import Part, Prefetcher
from port.data.randomness import entropy
from port.errors import DataError

Array = NDArray[Any]
F = np.float32


class Window(NamedTuple):
    """One line of a window file; x2 and y2 belong to the window."""

    image: int
    label: int
    overlap: float
    x1: int
    y1: int
    x2: int
    y2: int


class WindowFile(NamedTuple):
    """``path``, the images' paths, and all windows in the order of the file."""

    path: Path
    images: list[str]
    windows: list[Window]


class Warp(NamedTuple):
    """Which box of the image (clipped) goes to which size, and how far from the crop's corner."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    right: int
    down: int


class _Job(NamedTuple):
    window: Window
    mirror: bool


def read_window_file(path: Path) -> WindowFile:
    """Reads a window file. Raises DataError naming the token where it stops making sense.

    For each image: ``# index``, its path, channels, height, width, the number of windows, and
    for each window ``class overlap x1 y1 x2 y2``; parted by any white space.
    """
    try:
        tokens = path.read_text("utf-8", "surrogateescape").split()
    except OSError as error:
        raise DataError(f"window file {path}: {error.strerror}; give the right 'source'") from error
    if not tokens:
        raise DataError(f"window file {path} is empty")
    found, at = WindowFile(path, [], []), 0
    while at < len(tokens):
        try:
            at = _read_image_block(tokens, at, found)
        except (ValueError, IndexError) as error:
            raise DataError(
                f"window file {path}: image {len(found.images)}, near word {at + 1}: {error}; "
                "expected '# index path channels height width windows' and six numbers a window"
            ) from error
    return found


def _read_image_block(tokens: list[str], at: int, found: WindowFile) -> int:
    """Adds one image and its windows; returns the place after it."""
    if tokens[at] != "#":
        raise ValueError(f"expected '#', found '{tokens[at]}'")
    index, count = int(tokens[at + 1]), int(tokens[at + 6])
    if index != len(found.images):
        raise ValueError(f"images are counted from 0: expected {len(found.images)}, found {index}")
    if int(tokens[at + 3]) != 3:
        raise ValueError(f"expected 3 channels (images are read in colour), found {tokens[at + 3]}")
    found.images.append(tokens[at + 2])
    at += 7
    for _ in range(count):
        label, overlap, *box = tokens[at : at + 6]
        x1, y1, x2, y2 = map(int, box)
        found.windows.append(Window(index, int(label), float(overlap), x1, y1, x2, y2))
        at += 6
    return at


class Frame(NamedTuple):
    """Size of the crop, context around a window in pixels of the crop, and the square mode."""

    crop: int
    pad: int = 0
    square: bool = False


def warp(window: Window, image: tuple[int, ...], frame: Frame, mirror: bool = False) -> Warp:
    """Where a window is cut out and how large it is drawn, in the original's float32 steps.

    image: (height, width). With context or `square` the window grows first; what then lies
    outside the image stays blank, and mirroring mirrors the blank margins too.
    """
    crop, pad, square = frame
    x1, y1, x2, y2 = window[3:]
    if not pad and not square:
        return Warp(x1, y1, x2, y2, crop, crop, 0, 0)
    grow = F(crop) / F(crop - 2 * pad)
    half_height, half_width = F(y2 - y1 + 1) / F(2), F(x2 - x1 + 1) / F(2)
    center_x, center_y = F(x1) + half_width, F(y1) + half_height
    if square:
        half_height = half_width = max(half_height, half_width)
    x1, x2 = _round(center_x - half_width * grow), _round(center_x + half_width * grow)
    y1, y2 = _round(center_y - half_height * grow), _round(center_y + half_height * grow)
    scale_x, scale_y = F(crop) / F(x2 - x1 + 1), F(crop) / F(y2 - y1 + 1)
    left, top, beyond = max(0, -x1), max(0, -y1), max(0, x2 - image[1] + 1)
    x1, x2, y1, y2 = x1 + left, x2 - beyond, y1 + top, min(y2, image[0] - 1)
    right = _round(F(beyond if mirror else left) * scale_x)
    down = _round(F(top) * scale_y)
    width = min(_round(F(x2 - x1 + 1) * scale_x), crop - right)
    height = min(_round(F(y2 - y1 + 1) * scale_y), crop - down)
    return Warp(x1, y1, x2, y2, width, height, right, down)


def _round(value: Any) -> int:
    """C's round: halves go away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


class WindowBatches(Prefetcher[_Job]):
    """Endless (data, label) batches of a WindowData layer.

    data (N, 3, crop, crop) float32, label (N,) float32; background windows (label 0) come
    first, then fg_fraction of the batch from the foreground. spec: WindowDataParameter; transform:
    TransformationParameter (crop_size is needed; mirroring is random). resolve turns ``source``
    and ``mean_file`` into paths; images are root_folder + path. What a window leaves blank is 0
    after the mean, as in Caffe. The batches depend on `seed`, not on `workers`.

    Raises DataError for window files and images that cannot be used.
    """

    def __init__(
        self,
        spec: Any,
        transform: Any,
        *,
        seed: int | None = None,
        workers: int | None = None,
        prefetch: int = 3,
        resolve: Callable[[str], Path] = Path,
    ) -> None:
        _check_settings(spec, transform)
        self.file = read_window_file(resolve(spec.source))
        self._frame = Frame(transform.crop_size, spec.context_pad, spec.crop_mode == "square")
        self._mean = _mean(transform, resolve)
        self._scale, self._mirror = F(transform.scale), transform.mirror
        self._root: str = spec.root_folder
        self._seed = entropy(seed)
        foreground = int(F(spec.batch_size) * F(spec.fg_fraction))
        background = spec.batch_size - foreground
        self._sets = _split(self.file, spec, background, foreground)
        self._cache = [read_bytes(self._root + name) for name in self._cached(spec)]
        shape = (spec.batch_size, 3, self._frame.crop, self._frame.crop)
        super().__init__(self._batches(), self._fill_part, shape, workers, prefetch)

    def _cached(self, spec: Any) -> list[str]:
        return self.file.images if spec.cache_images else []

    def _batches(self) -> Iterator[Sequence[_Job]]:
        number = 0
        while True:
            rng = np.random.default_rng((self._seed, number))
            yield [
                _Job(windows[place], self._mirror and bool(rng.integers(2)))
                for windows, count in self._sets
                for place in rng.integers(max(1, len(windows)), size=count).tolist()
            ]
            number += 1

    def _fill_part(self, jobs: Sequence[_Job], part: Part) -> Array:
        part.data[:] = 0
        for place, (window, mirror) in enumerate(jobs):
            self._draw(window, mirror, part.data[place])
            part.label[place] = window.label
        return part.data

    def _draw(self, window: Window, mirror: bool, out: Array) -> None:
        """Cuts the window out, warps it and writes it into `out` (3, crop, crop)."""
        image = self._image(window.image)
        box = warp(window, image.shape[:2], self._frame, mirror)
        cut = image[box.y1 : box.y2 + 1, box.x1 : box.x2 + 1]
        if box.x1 < 0 or box.y1 < 0 or cut.shape[:2] != (box.y2 - box.y1 + 1, box.x2 - box.x1 + 1):
            height, width = image.shape[:2]
            raise DataError(
                f"{self.file.path}: window {window[3:]} of {self.file.images[window.image]} lies "
                f"outside its image of {height}x{width} (height x width)"
            )
        cut = cv2.resize(cut, (box.width, box.height), interpolation=cv2.INTER_LINEAR)
        if mirror:
            cut = cv2.flip(cut, 1)
        place = (
            slice(None),
            slice(box.down, box.down + box.height),
            slice(box.right, box.right + box.width),
        )
        mean = self._mean if self._mean.shape[1] == 1 else self._mean[place]
        out[place] = (cut.transpose(2, 0, 1).astype(F) - mean) * self._scale

    def _image(self, index: int) -> Array:
        path = self._root + self.file.images[index]
        if not self._cache:
            return read_image(path)
        image = decode_image(self._cache[index], True)
        if image is None:
            raise DataError(f"cannot decode image '{path}'")
        return image


def _check_settings(spec: Any, transform: Any) -> None:
    for wrong, message in (
        (not spec.batch_size, "batch_size is 0; give a positive batch_size"),
        (not transform.crop_size, "needs crop_size in transform_param"),
        (2 * spec.context_pad >= (transform.crop_size or 1), "context_pad leaves no room in crop"),
        (
            spec.crop_mode not in ("warp", "square"),
            f"unknown crop_mode '{spec.crop_mode}'; known: warp, square",
        ),
    ):
        if wrong:
            raise DataError(f"window_data_param: {message}")


def _mean(transform: Any, resolve: Callable[[str], Path]) -> Array:
    """What is subtracted: (C, 1, 1), or the middle of the mean image, (3, crop, crop)."""
    if transform.mean_file and len(transform.mean_value):
        raise DataError("transform_param: mean_file and mean_value exclude each other; keep one")
    if not transform.mean_file:
        values = np.asarray(transform.mean_value or [0.0], F).reshape(-1, 1, 1)
        if len(values) not in (1, 3):
            raise DataError(f"transform_param has {len(values)} mean_value; give 1 or 3")
        return values
    mean, crop = read_mean(resolve(transform.mean_file)), transform.crop_size
    # Caffe takes the offset of the width for the rows too.
    start = (mean.shape[2] - crop) // 2
    middle: Array = mean[:, start : start + crop, start : start + crop]
    if start < 0 or middle.shape != (3, crop, crop):
        raise DataError(
            f"mean_file {transform.mean_file} is {mean.shape}; crop_size {crop} does not fit in it"
        )
    return middle


def _split(
    file: WindowFile, spec: Any, background: int, foreground: int
) -> tuple[tuple[list[Window], int], tuple[list[Window], int]]:
    """((background windows, how many a batch takes), (foreground windows, how many))."""
    above = [window for window in file.windows if F(window.overlap) >= F(spec.fg_threshold)]
    below = [
        window._replace(label=0, overlap=0.0)
        for window in file.windows
        if F(window.overlap) < F(spec.fg_threshold) and F(window.overlap) < F(spec.bg_threshold)
    ]
    for window in above:
        if window.label <= 0:
            raise DataError(
                f"{file.path}: the foreground window {window[3:]} of {file.images[window.image]} "
                f"has label {window.label}; foreground labels start at 1"
            )
    for kind, windows, count in (
        ("background", below, background),
        ("foreground", above, foreground),
    ):
        if count and not windows:
            raise DataError(
                f"{file.path} has no {kind} window, a batch needs {count}; "
                "change fg_threshold, bg_threshold or fg_fraction"
            )
    return (below, background), (above, foreground)
