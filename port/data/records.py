"""Batches of Datum records from LMDB and LevelDB, as Caffe's Data layer makes them.

Source: BVLC Caffe 1.0, data_layer.cpp, data_transformer.cpp, util/io.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from port import schema
from port.data.databases import Database, open_database
from port.data.mean_file import read_mean
from port.data.prefetch import Part, Prefetcher
from port.data.randomness import entropy
from port.data.transformer import Draw, Transformer, dims
from port.errors import DataError

Array = NDArray[Any]
NATIVE, COLOR, GRAY = cv2.IMREAD_UNCHANGED, cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE


class _Job(NamedTuple):
    key: bytes
    value: bytes
    draw: Draw


def parse_datum(value: bytes) -> Any:
    """The Datum of a record. Raises DataError when it is none."""
    try:
        return schema.Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"the record is no Datum: {error}") from error


def encoded_image(datum: Any, flag: int = NATIVE) -> Array:
    """The uint8 image (H, W) or (H, W, C) of an encoded Datum, decoded as `flag` says.

    Raises DataError for bytes that are no image.
    """
    image: Array | None = None
    if datum.data:
        image = cv2.imdecode(np.frombuffer(datum.data, np.uint8), flag)
    if image is None:
        raise DataError(f"its {len(datum.data)} bytes are no image that OpenCV knows")
    return image


def raw_planes(datum: Any) -> Array:
    """The values (C, H, W) of a Datum that is not encoded: uint8 data or float32 float_data.

    Raises DataError when their number does not fit the sizes.
    """
    shape = (datum.channels, datum.height, datum.width)
    values: Array = (
        np.frombuffer(datum.data, np.uint8)
        if datum.data
        else np.asarray(datum.float_data, np.float32)
    )
    if values.size != np.prod(shape) or not values.size:
        raise DataError(
            f"it holds {values.size} values for {'x'.join(map(str, shape))} "
            "(channels x height x width)"
        )
    return values.reshape(shape)


def datum_planes(datum: Any) -> Array:
    """Values (C, H, W) of any Datum; an encoded image keeps its own channels."""
    if not datum.encoded:
        return raw_planes(datum)
    image = encoded_image(datum)
    planes: Array = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1)
    return planes


class RecordBatches(Prefetcher[_Job]):
    """Endless (data, label) batches of a Data layer, in the order of the keys.

    data (N, C, H, W) float32, label (N,) float32. spec: DataParameter; transform:
    TransformationParameter; phase: "TRAIN" or "TEST". resolve turns ``source`` and ``mean_file``
    into paths. ``rand_skip`` and ``force_encoded_color`` do nothing in Caffe 1.0, nor here;
    ``force_color`` and ``force_gray`` concern encoded records only.

    All records of a batch need one shape, that of the first record; with batch_size 1 and no
    crop each batch has its own. Raises DataError (naming the record's key) for what cannot be read.
    """

    def __init__(
        self,
        spec: Any,
        transform: Any,
        phase: str,
        *,
        seed: int | None = None,
        workers: int | None = None,
        resolve: Callable[[str], Path] = Path,
    ) -> None:
        if not spec.batch_size:
            raise DataError("data_param: batch_size is 0; give a positive batch_size")
        if transform.force_color and transform.force_gray:
            raise DataError("transform_param: force_color and force_gray exclude each other")
        self._flag = COLOR if transform.force_color else GRAY if transform.force_gray else NATIVE
        mean = read_mean(resolve(transform.mean_file)) if transform.mean_file else None
        self.transformer = Transformer(transform, phase, mean)
        backend = schema.enum_name(spec, "backend")
        self.database: Database = open_database(resolve(spec.source), backend)
        self._own_size = spec.batch_size == 1 and not transform.crop_size
        self._seed = entropy(seed)
        super().__init__(
            self._batches(spec.batch_size),
            self._fill_part,
            (spec.batch_size, *self._first_shape()),
            workers,
            spec.prefetch,
        )

    def close(self) -> None:
        """Joins the threads and closes the database."""
        super().close()
        self._plan = iter(())
        self.database.close()

    def _first_shape(self) -> tuple[int, int, int]:
        for key, value in self.database.items():
            try:
                return self._shape(*self._decode(parse_datum(value)))
            except DataError as error:
                raise self._at(key, error) from error
        raise DataError(f"database {self.database.path} is empty")

    def _decode(self, datum: Any) -> tuple[Array, bool]:
        """The record's array, and whether it is an image (H, W, C) rather than (C, H, W)."""
        if datum.encoded:
            return encoded_image(datum, self._flag), True
        return raw_planes(datum), False

    def _shape(self, array: Array, is_image: bool) -> tuple[int, int, int]:
        channels, height, width = dims(array) if is_image else array.shape
        return self.transformer.shape(channels, height, width)

    def _at(self, key: bytes, error: DataError) -> DataError:
        return DataError(f"{self.database.path}: record '{key.decode(errors='replace')}': {error}")

    def _batches(self, count: int) -> Iterator[Sequence[_Job]]:
        records, number = self._records(), 0
        while True:
            draws = self.transformer.draws(np.random.default_rng((self._seed, number)), count)
            yield [_Job(*next(records), draw) for draw in draws]
            number += 1

    def _records(self) -> Iterator[tuple[bytes, bytes]]:
        while True:
            yield from self.database.items()

    def _fill_part(self, jobs: Sequence[_Job], part: Part) -> Array:
        data = part.data
        for place, (key, value, draw) in enumerate(jobs):
            try:
                datum = parse_datum(value)
                array, is_image = self._decode(datum)
                if self._own_size:
                    data = np.empty((1, *self._shape(array, is_image)), np.float32)
                write = self.transformer.image if is_image else self.transformer.planes
                write(array, data[place], draw)
            except DataError as error:
                raise self._at(key, error) from error
            part.label[place] = datum.label
        return data
