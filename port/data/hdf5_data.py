"""Batches from HDF5 files, as Caffe's HDF5Data layer makes them.

Source: BVLC Caffe 1.0, hdf5_data_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from port.data.randomness import entropy
from port.errors import DataError, close_matches

Array = NDArray[Any]


class Hdf5Batches:
    """Endless tuples of float32 arrays, one for each of the named data sets.

    spec: HDF5DataParameter; its ``source`` lists .h5 files, parted by white space (no path may hold
    a space). tops: names of the data sets; all have one row for each record. With ``shuffle``
    the files come in a new order on every pass, and the rows of a file whenever it is read; a
    batch runs over the ends of files. Whole files are held in memory, one at a time.

    shapes: one (N, …) for each top. Raises DataError naming the file.
    """

    def __init__(
        self,
        spec: Any,
        tops: Sequence[str],
        *,
        seed: int | None = None,
        resolve: Callable[[str], Path] = Path,
    ) -> None:
        if not spec.batch_size:
            raise DataError("hdf5_data_param: batch_size is 0; give a positive batch_size")
        self.tops = list(tops)
        self.files = _read_list(resolve(spec.source), resolve)
        self._count, self._shuffle = spec.batch_size, spec.shuffle
        self._rng = np.random.default_rng(entropy(seed))
        first = read_rows(self.files[0], self.tops)
        self.shapes = [(self._count, *array.shape[1:]) for array in first]
        self._rows = self._endless_rows()

    def __iter__(self) -> Hdf5Batches:
        return self

    def __next__(self) -> tuple[Array, ...]:
        batch = tuple(np.empty(shape, np.float32) for shape in self.shapes)
        for place in range(self._count):
            arrays, row = next(self._rows)
            for target, array in zip(batch, arrays, strict=True):
                target[place] = array[row]
        return batch

    def close(self) -> None:
        """Ends the iteration and lets go of the file in memory."""
        self._rows = iter(())

    def _endless_rows(self) -> Iterator[tuple[list[Array], int]]:
        while True:
            for file in self._order(len(self.files)):
                arrays = self._load(self.files[file])
                for row in self._order(len(arrays[0])):
                    yield arrays, row

    def _order(self, count: int) -> list[int]:
        order = self._rng.permutation(count) if self._shuffle else np.arange(count)
        return [int(place) for place in order]

    def _load(self, path: Path) -> list[Array]:
        arrays = read_rows(path, self.tops)
        for top, array, shape in zip(self.tops, arrays, self.shapes, strict=True):
            if array.shape[1:] != shape[1:]:
                raise DataError(
                    f"{path}: rows of '{top}' are {array.shape[1:]}, those of {self.files[0]} "
                    f"are {shape[1:]}; all files need one shape"
                )
        return arrays


def read_rows(path: Path, names: Sequence[str]) -> list[Array]:
    """The named data sets of an HDF5 file as float32, each (rows, …), all with as many rows.

    Raises DataError for a file that is no HDF5, a missing data set, one that holds no numbers,
    and different numbers of rows.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = [_numbers(path, file, name) for name in names]
    except OSError as error:
        raise DataError(f"cannot read HDF5 file {path}: {error}") from error
    rows = {name: len(array) for name, array in zip(names, arrays, strict=True)}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        found = ", ".join(f"'{name}' has {count}" for name, count in rows.items())
        raise DataError(f"{path}: all data sets need the same number of rows: {found}")
    return arrays


def _numbers(path: Path, file: Any, name: str) -> Array:
    if name not in file:
        raise DataError(
            f"{path} has no data set '{name}'{close_matches(name, file)}; it has "
            f"{', '.join(file) or 'none'}"
        )
    dataset = file[name]
    if getattr(dataset, "dtype", np.dtype("O")).kind not in "fiu" or not dataset.shape:
        raise DataError(f"{path}: '{name}' is no array of numbers with one row for each record")
    return np.asarray(dataset, np.float32)


def _read_list(source: Path, resolve: Callable[[str], Path]) -> list[Path]:
    """The files that a list names, tried as given and beside the list."""
    try:
        names = source.read_text("utf-8", "surrogateescape").split()
    except OSError as error:
        raise DataError(f"HDF5 list {source}: {error.strerror}; give the right 'source'") from error
    if not names:
        raise DataError(f"HDF5 list {source} is empty: it needs at least one .h5 file")
    found = (resolve(name) for name in names)
    return [path if path.exists() else source.parent / path for path in found]
