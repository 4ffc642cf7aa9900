"""Batches from an image list, as Caffe's ImageData layer makes them.

Source: BVLC Caffe 1.0, image_data_layer.cpp and util/io.cpp (ReadImageToCVMat).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from port.data.image_list import ImageList, read_image_list
from port.data.mean_file import read_mean
from port.data.prefetch import Part, Prefetcher
from port.data.randomness import entropy
from port.data.transformer import Draw, Transformer, dims
from port.errors import DataError

Array = NDArray[Any]
T = TypeVar("T")

LOOK_FOR = 1000
"""How many files of a list are looked for before the first batch: a wrong root folder shows at
once, and a list of millions on a network disk does not wait for it."""

_GROUP = 8
"""Images staged before their arithmetic is done in one step."""

_FLAGS = {True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE}


class _Job(NamedTuple):
    line: int
    draw: Draw


def read_bytes(path: str) -> bytes:
    """A whole file; pathlib and ``open`` cost a tenth of decoding a small face."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    try:
        data = os.read(handle, 1 << 16)
        if len(data) == 1 << 16:
            with os.fdopen(os.dup(handle), "rb") as rest:
                data += rest.read()
    finally:
        os.close(handle)
    return data


def decode_image(data: bytes, color: bool) -> Array | None:
    """BGR (H, W, 3) or grey (H, W) uint8, as cv::imread reads it; None when it is no image.

    The plain COLOR and GRAYSCALE flags, as Caffe has them: 16-bit images are cut to 8 bits, alpha
    is dropped, and an EXIF orientation is applied (OpenCV since 3.1; the original was measured
    with 4.6. A Caffe of 2017 built on OpenCV 2.4 leaves such images unturned).
    """
    if not data:
        return None
    try:
        found: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS[color])
    except cv2.error:
        return None
    return found


def read_image(path: str, color: bool = True, height: int = 0, width: int = 0) -> Array:
    """The image of a file, resized bilinearly where a size is given.

    Returns uint8 (H, W, 3) BGR or (H, W) grey. Raises DataError saying what is wrong with the file.
    """
    try:
        data = read_bytes(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"cannot read image '{path}': {reason}") from error
    # imread fills up a JPEG that ends early with grey, and so does Caffe; what imdecode makes of
    # one depends on the version.
    cut_off = data.startswith(b"\xff\xd8") and not data.endswith(b"\xff\xd9")
    image = None if cut_off else decode_image(data, color)
    if image is None:
        image = cv2.imread(path, _FLAGS[color]) if data else None
    if image is None:
        what = f"{len(data)} bytes that are no image OpenCV knows" if data else "an empty file"
        raise DataError(f"cannot decode image '{path}': found {what}; restore or remove it")
    if height and width:
        image = cv2.resize(image, (width, height))
    return image


class ImageBatches(Prefetcher[_Job]):
    """Endless (data, label) batches of an ImageData layer.

    data (N, C, H, W) float32, label (N,) float32. spec: ImageDataParameter; transform:
    TransformationParameter; phase: "TRAIN" or "TEST". resolve turns the paths ``source`` and
    ``mean_file`` into files. Images are sought under root_folder + name from the working
    directory, then from the folder of the list.

    The batches depend on the list, the parameters and `seed` only, not on `workers` nor on
    timing. Without crop_size and new_height/new_width all images need the size of the first one,
    except with batch_size 1, where each batch has its own size. With `skip_bad` an image that
    cannot be used is replaced by the next usable line of the list, and ``bad`` tells of it.

    Raises DataError (naming the line of the list) for what cannot be read, at set-up for the
    list, the first image and a look at the first files, later from ``next``.
    """

    def __init__(
        self,
        spec: Any,
        transform: Any,
        phase: str,
        *,
        seed: int | None = None,
        workers: int | None = None,
        prefetch: int = 3,
        skip_bad: bool = False,
        resolve: Callable[[str], Path] = Path,
    ) -> None:
        _check_settings(spec)
        self.images: ImageList = read_image_list(resolve(spec.source))
        mean = read_mean(resolve(transform.mean_file)) if transform.mean_file else None
        self.transformer = Transformer(transform, phase, mean)
        self.skip_bad = skip_bad
        self._bad: dict[int, str] = {}
        self._spec = spec
        self._color: bool = spec.is_color
        self._size = (spec.new_height, spec.new_width)
        self._own_size = spec.batch_size == 1 and not spec.new_height and not transform.crop_size
        self._folder = self._find_folder(spec.root_folder)
        self._seed = entropy(seed)
        self._skip = self._first_skip()
        if not skip_bad:
            self._look_for_files()
        _, shape = self._usable(next(self._indices()), self._shape)
        super().__init__(
            self._batches(), self._fill_part, (spec.batch_size, *shape), workers, prefetch
        )

    def __len__(self) -> int:
        """Number of images in the list."""
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """Largest label of the list plus one."""
        return self.images.num_classes

    @property
    def bad(self) -> list[str]:
        """One message for each line skipped so far (``skip_bad``), in list order."""
        return [self._bad[index] for index in sorted(self._bad)]

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng((self._seed, *stream))

    def _first_skip(self) -> int:
        if not self._spec.rand_skip:
            return 0
        skip = int(self._rng(0).integers(self._spec.rand_skip))
        if skip >= len(self.images):
            raise DataError(
                f"rand_skip asks to skip {skip} images, {self.images.path} has {len(self.images)}; "
                "lower rand_skip"
            )
        return skip

    def _indices(self) -> Iterator[int]:
        """List positions for ever, in a new order for each pass when `shuffle` is set."""
        order = np.arange(len(self.images))
        skip, epoch = self._skip, 0
        while True:
            if self._spec.shuffle:
                order = self._rng(1, epoch).permutation(len(self.images))
            yield from order[skip:].tolist()
            skip, epoch = 0, epoch + 1

    def _batches(self) -> Iterator[Sequence[_Job]]:
        indices, count, number = self._indices(), self._spec.batch_size, 0
        while True:
            draws = self.transformer.draws(self._rng(2, number), count)
            yield [_Job(next(indices), draw) for draw in draws]
            number += 1

    def _fill_part(self, jobs: Sequence[_Job], part: Part) -> Array:
        if self._own_size:
            line, draw = jobs[0]
            used, data = self._usable(line, self._alone, draw)
            part.label[:] = self.images.labels[used]
            return data
        staged = np.empty((_GROUP, *part.data.shape[1:]), np.uint8)
        lines = []
        for start in range(0, len(jobs), _GROUP):
            group = jobs[start : start + _GROUP]
            for (line, draw), planes in zip(group, staged, strict=False):
                lines.append(self._usable(line, self._stage, draw, planes)[0])
            span = slice(start, start + len(group))
            draws = [job.draw for job in group]
            self.transformer.finish(staged[: len(group)], draws, part.data[span])
        part.label[:] = self.images.labels[lines]
        return part.data

    def _stage(self, line: int, draw: Draw, planes: Array) -> None:
        self.transformer.stage(self._read(line), planes, draw)

    def _alone(self, line: int, draw: Draw) -> Array:
        """The batch (1, C, H, W) of an image that has its own size."""
        image = self._read(line)
        data = np.empty((1, *self.transformer.shape(*dims(image))), np.float32)
        self.transformer.image(image, data[0], draw)
        return data

    def _shape(self, line: int) -> tuple[int, int, int]:
        return self.transformer.shape(*dims(self._read(line)))

    def _read(self, line: int) -> Array:
        return read_image(self._folder + self.images.names[line], self._color, *self._size)

    def _usable(self, line: int, use: Callable[..., T], *arguments: Any) -> tuple[int, T]:
        """(line, use(line, …)), with skip_bad for the first line from there on that works."""
        for step in range(len(self.images)):
            at = (line + step) % len(self.images)
            if at in self._bad:
                continue
            try:
                return at, use(at, *arguments)
            except DataError as error:
                message = f"{self.images.where(at)}: {error}"
                if not self.skip_bad:
                    raise DataError(message) from error
                self._bad[at] = message
        raise DataError(
            f"{self.images.path}: none of its {len(self.images)} images can be used; "
            f"the first: {self.bad[0]}"
        )

    def _find_folder(self, root: str) -> str:
        """What stands before the names: root_folder from the working directory or from the list."""
        first = self.images.names[:100]
        for folder in (root, os.path.join(self.images.path.parent, root)):
            if any(os.path.isfile(folder + name) for name in first):
                return folder
        return root

    def _look_for_files(self) -> None:
        looked = sorted({*range(min(len(self.images), LOOK_FOR)), *self.images.suspects()})
        missing = [i for i in looked if not os.path.exists(self._folder + self.images.names[i])]
        if missing:
            line = missing[0]
            raise DataError(
                f"{self.images.where(line)}: no image '{self._folder + self.images.names[line]}' "
                f"({len(missing)} of {len(looked)} files looked for are missing); "
                f"{self.images.hint(line)}"
            )


def _check_settings(spec: Any) -> None:
    if not spec.batch_size:
        raise DataError("image_data_param: batch_size is 0; give a positive batch_size")
    if bool(spec.new_height) != bool(spec.new_width):
        raise DataError(
            f"image_data_param: new_height is {spec.new_height} and new_width {spec.new_width}; "
            "set both or neither"
        )
