"""The two key-value stores that Caffe keeps records in: LMDB and LevelDB.

Source: BVLC Caffe 1.0, util/db_lmdb.cpp and util/db_leveldb.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from port.data.leveldb import LevelDb
from port.errors import DataError, close_matches

_BATCH = 1000
"""Records in one transaction, as in Caffe's tools."""


class Database(Protocol):
    """A database to read from."""

    path: Path

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) from the first key to the last, in bytewise order."""

    def close(self) -> None:
        """Closes the files."""


class Writer(Protocol):
    """A new database to fill."""

    def put(self, key: bytes, value: bytes) -> None:
        """Stores a record."""

    def close(self) -> None:
        """Commits and closes the files."""


class Lmdb:
    """An LMDB folder (or single file), read only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        import lmdb

        self._lmdb = lmdb
        try:
            # Without locks a read-only disk will do; nobody writes a data set while it is used.
            self._environment = self._lmdb.open(
                str(path), readonly=True, lock=False, subdir=path.is_dir(), readahead=False
            )
        except self._lmdb.Error as error:
            raise DataError(f"LMDB {path}: {error}") from error

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) from the first key to the last."""
        try:
            with self._environment.begin() as transaction:
                yield from transaction.cursor()
        except self._lmdb.Error as error:
            raise DataError(f"LMDB {self.path} is damaged: {error}") from error

    def close(self) -> None:
        """Closes the files."""
        self._environment.close()


class LmdbWriter:
    """A new LMDB folder; the map grows as Caffe's does, by doubling."""

    def __init__(self, path: Path) -> None:
        import lmdb

        self._lmdb = lmdb
        self._environment = self._lmdb.open(str(path), map_size=1 << 24)
        self._waiting: list[tuple[bytes, bytes]] = []

    def put(self, key: bytes, value: bytes) -> None:
        """Stores a record; it is on disk after `close`, or a thousand records later."""
        self._waiting.append((key, value))
        if len(self._waiting) == _BATCH:
            self._commit()

    def close(self) -> None:
        """Commits and closes the files."""
        self._commit()
        self._environment.close()

    def _commit(self) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._waiting:
                        transaction.put(key, value)
            except self._lmdb.MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            else:
                self._waiting.clear()
                return


class LevelDbWriter:
    """A new LevelDB folder; needs the package plyvel."""

    def __init__(self, path: Path) -> None:
        plyvel = _plyvel()
        # Caffe's options: db_leveldb.cpp, GetOptions.
        self._database = plyvel.DB(
            str(path), create_if_missing=True, error_if_exists=True, block_size=65536
        )

    def put(self, key: bytes, value: bytes) -> None:
        """Stores a record."""
        self._database.put(key, value)

    def close(self) -> None:
        """Closes the files."""
        self._database.close()


READERS: dict[str, type[Lmdb] | type[LevelDb]] = {"LMDB": Lmdb, "LEVELDB": LevelDb}
WRITERS: dict[str, type[LmdbWriter] | type[LevelDbWriter]] = {
    "LMDB": LmdbWriter,
    "LEVELDB": LevelDbWriter,
}
_MARKS = {"LMDB": "data.mdb", "LEVELDB": "CURRENT"}


def open_database(path: Path, backend: str) -> Database:
    """Opens a database to read. backend: "LMDB" or "LEVELDB", as DataParameter.DB names them.

    Raises DataError when it is missing, damaged or of the other kind.
    """
    name = _known(backend)
    if not path.exists():
        raise DataError(f"database {path} does not exist; give the right 'source'")
    for kind, mark in _MARKS.items():
        if kind != name and (path / mark).exists():
            raise DataError(f"{path} is a database of the kind {kind}: set backend: {kind}")
    return READERS[name](path)


def new_database(path: Path, backend: str) -> Writer:
    """Makes an empty database. Raises DataError when something is there already."""
    name = _known(backend)
    if path.exists():
        raise DataError(f"{path} exists already; remove it or choose another name")
    if not path.parent.is_dir():
        raise DataError(f"cannot make {path}: there is no folder {path.parent}")
    try:
        return WRITERS[name](path)
    except OSError as error:
        raise DataError(f"cannot make {path}: {error.strerror or error}") from error


def _known(backend: str) -> str:
    name = backend.upper()
    if name not in READERS:
        hint = close_matches(name, READERS)
        raise DataError(f"unknown backend '{backend}'{hint}; known: {', '.join(READERS)}")
    return name


def _plyvel() -> Any:
    try:
        return import_module("plyvel")
    except ImportError as error:
        raise DataError(
            "writing a LevelDB needs the package plyvel: install sphereface-port[leveldb]; "
            "or write an LMDB (--backend lmdb)"
        ) from error
