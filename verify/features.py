"""Features of a list of pictures on disk: .npy, .npz, .mat, HDF5 and LMDB.

Files of the pictures are stored beside the features where the format has room for names: in all but
.npy and LMDB, whose rows keep the order of the list.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from port import schema
from port.errors import DataError, close_matches
from verify.pairs import Pair

Rows = npt.NDArray[Any]


class _Format(NamedTuple):
    write: Callable[[Path, Rows, Sequence[str]], None]
    read: Callable[[Path], tuple[Rows, list[str]]]


def write_features(path: str | Path, features: npt.ArrayLike, files: Sequence[str]) -> None:
    """Write features (N, D) of N files, whole or not at all; the suffix says the format.

    .npy holds the array; .npz and .h5 the datasets ``features`` and ``files``; .mat the variables
    ``features`` (D, N), a column each as Matlab has them, and ``files``; .lmdb what Caffe's
    extract_features writes: a Datum of D channels under each ten-digit index.

    Raises:
        DataError: an unknown suffix, numbers that do not fit, or a place that cannot be written.
    """
    path, rows = Path(path), np.asarray(features, np.float32)
    if rows.ndim != 2 or len(rows) != len(files):
        raise DataError(f"{path}: features of shape {rows.shape} for {len(files)} files")
    write = _format(path).write
    with _written_whole(path) as partial:
        write(partial, rows, list(files))


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """A place beside `path` that takes its place when the block ends without error."""
    partial = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield partial
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    except ImportError as error:
        raise DataError(f"{path}: {error}; pip install 'sphereface-port[data]'") from error
    except OSError as error:
        raise DataError(f"{path}: cannot write it: {error.strerror or error}") from error
    finally:
        _remove(partial)


def read_features(
    path: str | Path, files: Sequence[str] | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Features (D,) by file, from what `write_features` wrote or the original's pairs.mat.

    files: their names in order, for formats that store none.

    Raises:
        DataError: a file that is missing, damaged or of an unknown kind, names that do not fit.
    """
    path = Path(path)
    read = _format(path).read
    try:
        rows, stored = read(path)
    except DataError:
        raise
    except Exception as error:  # each library has its own for a damaged file
        raise DataError(f"{path}: cannot read features from it: {error}") from error
    names = stored or (list(files) if files is not None else None)
    if names is None:
        raise DataError(f"{path}: stores no names of files; give the list it was made from")
    if rows.ndim != 2 or len(rows) != len(names):
        raise DataError(f"{path}: features of shape {rows.shape} for {len(names)} files")
    return dict(zip(names, rows.astype(np.float32), strict=True))


def stream_features(path: str | Path, rows: int) -> Iterator[Rows]:
    """Features in blocks of at most `rows`, without their names.

    .npy, .h5 and .lmdb are read block by block; .npz and .mat are small and read whole.

    Raises:
        DataError: as `read_features`.
    """
    path = Path(path)
    stream = _STREAMS.get(check_suffix(path), _stream_whole)
    try:
        yield from stream(path, rows)
    except DataError:
        raise
    except Exception as error:  # each library has its own for a damaged file
        raise DataError(f"{path}: cannot read features from it: {error}") from error


def for_pairs(
    features: Mapping[str, npt.NDArray[Any]], pairs: Sequence[Pair]
) -> dict[str, npt.NDArray[Any]]:
    """The features by the pictures' names in the pairs, whatever folder and suffix they had.

    Raises:
        DataError: a picture without features (naming the pair's line), or one with two.
    """
    by_stem: dict[str, str] = {}
    for file in features:
        stem = _stem(file)
        if stem in by_stem:
            raise DataError(f"features of both {by_stem[stem]} and {file}: names must differ")
        by_stem[stem] = file
    found = {}
    for pair in pairs:
        for name in (pair.left, pair.right):
            if _stem(name) not in by_stem:
                raise DataError(f"pairs list, line {pair.line}: no features of {name}")
            found[name] = features[by_stem[_stem(name)]]
    return found


def write_pairs_mat(
    path: str | Path, pairs: Sequence[Pair], embeddings: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Write the struct array ``pairs`` that evaluation.m saves as pairs.mat.

    Fields fileL, fileR, fold, flag (1 or -1), featureL and featureR (D, 1).
    """
    from scipy.io import savemat

    fields = ("fileL", "fileR", "fold", "flag", "featureL", "featureR")
    array = np.empty((1, len(pairs)), dtype=[(field, object) for field in fields])
    for k, pair in enumerate(pairs):
        left, right = (np.asarray(embeddings[n])[:, None] for n in (pair.left, pair.right))
        flag = 1.0 if pair.same else -1.0
        array[0, k] = (pair.left, pair.right, float(pair.fold), flag, left, right)
    with _written_whole(Path(path)) as partial:
        savemat(partial, {"pairs": array}, appendmat=False)


def _stem(file: str) -> str:
    return Path(file.replace("\\", "/")).stem


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _write_npy(path: Path, rows: Rows, files: Sequence[str]) -> None:
    with path.open("wb") as stream:
        np.save(stream, rows, allow_pickle=False)


def _read_npy(path: Path) -> tuple[Rows, list[str]]:
    return np.load(path, allow_pickle=False), []


def _write_npz(path: Path, rows: Rows, files: Sequence[str]) -> None:
    with path.open("wb") as stream:
        np.savez(stream, features=rows, files=np.array(files, dtype=np.str_))


def _read_npz(path: Path) -> tuple[Rows, list[str]]:
    with np.load(path, allow_pickle=False) as stored:
        return stored["features"], [str(name) for name in stored["files"]]


def _write_mat(path: Path, rows: Rows, files: Sequence[str]) -> None:
    from scipy.io import savemat

    names = np.array(files, dtype=object)[:, None]
    savemat(path, {"features": rows.T, "files": names}, appendmat=False)


def _read_mat(path: Path) -> tuple[Rows, list[str]]:
    """Variables ``features`` and ``files``, or the struct array ``pairs`` of the original."""
    from scipy.io import loadmat

    stored = loadmat(path, appendmat=False)
    if "pairs" not in stored:
        return stored["features"].T, [str(cell[0][0]) for cell in stored["files"]]
    sides = [(pair, side) for pair in stored["pairs"].ravel() for side in "LR"]
    names = [str(pair[f"file{side}"][0]) for pair, side in sides]
    rows = _stacked([pair[f"feature{side}"].ravel() for pair, side in sides], names, path)
    first: dict[str, int] = {}
    for index, name in enumerate(names):
        first.setdefault(name, index)
    return rows[list(first.values())], list(first)


def _write_h5(path: Path, rows: Rows, files: Sequence[str]) -> None:
    import h5py

    with h5py.File(path, "w") as stream:
        stream["features"] = rows
        stream.create_dataset("files", data=list(files), dtype=h5py.string_dtype())


def _read_h5(path: Path) -> tuple[Rows, list[str]]:
    import h5py

    with h5py.File(path, "r") as stream:
        return stream["features"][:], [name.decode("utf-8") for name in stream["files"][:]]


def _write_lmdb(path: Path, rows: Rows, files: Sequence[str]) -> None:
    """As extract_features.cpp: key ``%010d``, Datum channels D, height 1, width 1, float_data."""
    import lmdb

    size = 16 * rows.nbytes + (64 << 20)
    with lmdb.open(str(path), map_size=size) as store, store.begin(write=True) as writer:
        for index, row in enumerate(rows):
            datum = schema.Datum(channels=len(row), height=1, width=1, float_data=row.tolist())
            writer.put(f"{index:010d}".encode(), datum.SerializeToString())


def _read_lmdb(path: Path) -> tuple[Rows, list[str]]:
    return np.concatenate(list(_stream_lmdb(path, 1024))), []


def _stream_lmdb(path: Path, rows: int) -> Iterator[Rows]:
    import lmdb

    with lmdb.open(str(path), readonly=True, lock=False) as store, store.begin() as reader:
        cursor = iter(reader.cursor())
        while records := list(islice(cursor, rows)):
            found = [schema.Datum.FromString(value).float_data for _, value in records]
            keys = [key.decode("utf-8", "replace") for key, _ in records]
            yield _stacked([np.array(row, np.float32) for row in found], keys, path)


def _stream_npy(path: Path, rows: int) -> Iterator[Rows]:
    stored = np.load(path, mmap_mode="r", allow_pickle=False)
    return (np.array(stored[at : at + rows]) for at in range(0, len(stored), rows))


def _stream_h5(path: Path, rows: int) -> Iterator[Rows]:
    import h5py

    with h5py.File(path, "r") as stream:
        stored = stream["features"]
        for at in range(0, len(stored), rows):
            yield stored[at : at + rows]


def _stream_whole(path: Path, rows: int) -> Iterator[Rows]:
    stored, _ = _format(path).read(path)
    return (stored[at : at + rows] for at in range(0, len(stored), rows))


def _stacked(rows: list[Rows], names: list[str], path: Path) -> Rows:
    for row, name in zip(rows, names, strict=True):
        if row.shape != rows[0].shape:
            raise DataError(
                f"{path}: {name} has {row.size} features, {names[0]} has {rows[0].size}"
            )
    return np.stack(rows)


_FORMATS = {
    ".npy": _Format(_write_npy, _read_npy),
    ".npz": _Format(_write_npz, _read_npz),
    ".mat": _Format(_write_mat, _read_mat),
    ".h5": _Format(_write_h5, _read_h5),
    ".hdf5": _Format(_write_h5, _read_h5),
    ".lmdb": _Format(_write_lmdb, _read_lmdb),
}


SUFFIXES = tuple(_FORMATS)
_STREAMS = {
    ".npy": _stream_npy,
    ".h5": _stream_h5,
    ".hdf5": _stream_h5,
    ".lmdb": _stream_lmdb,
}


def check_suffix(path: Path) -> str:
    """The suffix that says a file's format. Raises DataError for an unknown one."""
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DataError(
            f"{path}: the suffix says the format, expected one of {', '.join(_FORMATS)}"
            + close_matches(suffix, _FORMATS)
        )
    return suffix


def _format(path: Path) -> _Format:
    return _FORMATS[check_suffix(path)]
