"""Reads LevelDB databases, without changing them.

The ``leveldb`` libraries need write access, rewrite the log and the manifest of whatever they open,
and have no wheels for today's Pythons; a Caffe data set is read from its first key to its last,
which takes little. Format: LevelDB's doc/log_format.md, table_format.md and version_edit.cc;
Snappy's format_description.txt.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from port.errors import DataError

_LOG_BLOCK = 32768
_TABLE_MAGIC = 0xDB4775248B80FB57
_STORED = 1
# Tags of a version edit that hold one number, and what a new file's entry holds.
_COMPARATOR, _COMPACT_POINTER, _DELETED_FILE, _NEW_FILE = 1, 5, 6, 7
_LOG_NUMBER = 2


class _Entry(NamedTuple):
    """One version of a key; sorted, the newest version of a key comes first."""

    key: bytes
    age: int
    kind: int
    value: bytes


class _Files(NamedTuple):
    """What the manifest names: level -> file number -> smallest key, and the oldest live log."""

    levels: dict[int, dict[int, bytes]]
    log_number: int


class LevelDb:
    """A LevelDB folder, read only. Raises DataError where it is damaged or no LevelDB at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files = _read_manifest(path)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) from the first key to the last."""
        try:
            last = None
            for entry in heapq.merge(*self._runs()):
                if entry.key != last and entry.kind == _STORED:
                    yield entry.key, entry.value
                last = entry.key
        except (struct.error, IndexError) as error:
            raise DataError(f"LevelDB {self.path} is damaged: {error}") from error
        except OSError as error:
            raise DataError(f"LevelDB {self.path}: {error}") from error

    def close(self) -> None:
        """Nothing stays open."""

    def _runs(self) -> Iterator[Iterator[_Entry]]:
        """Sorted runs of entries: the log, each table of level 0, each deeper level as a whole."""
        logs = sorted(
            path
            for path in self.path.glob("*.log")
            if path.stem.isdigit() and int(path.stem) >= self._files.log_number
        )
        yield iter(sorted(entry for path in logs for entry in _log_entries(path)))
        for level, tables in self._files.levels.items():
            by_key = sorted(tables, key=tables.__getitem__)
            if level == 0:
                yield from (self._table(number) for number in by_key)
            else:
                yield (entry for number in by_key for entry in self._table(number))

    def _table(self, number: int) -> Iterator[_Entry]:
        """Entries of one table file; it is opened when the first one is asked for."""
        for suffix in ("ldb", "sst"):
            path = self.path / f"{number:06d}.{suffix}"
            if path.exists():
                return _table_entries(path)
        raise DataError(f"LevelDB {self.path}: table {number:06d} is missing; copy it again")


def _read_manifest(path: Path) -> _Files:
    """Replays the manifest that CURRENT names."""
    try:
        name = (path / "CURRENT").read_text("ascii").strip()
        records = list(_log_records((path / name).read_bytes()))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no LevelDB: {error}") from error
    files = _Files({}, 0)
    try:
        for record in records:
            files = _apply_edit(record, files)
    except (IndexError, ValueError) as error:
        raise DataError(f"LevelDB {path}: {name} is damaged: {error}") from error
    return files


def _apply_edit(record: bytes, files: _Files) -> _Files:
    levels, log_number, at = files.levels, files.log_number, 0
    while at < len(record):
        tag, at = _varint(record, at)
        if tag == _COMPARATOR:
            name, at = _string(record, at)
            if name != b"leveldb.BytewiseComparator":
                raise ValueError(f"its keys are ordered by {name!r}, Caffe's never are")
        elif tag == _COMPACT_POINTER:
            _, at = _varint(record, at)
            _, at = _string(record, at)
        elif tag == _DELETED_FILE:
            level, at = _varint(record, at)
            number, at = _varint(record, at)
            levels.get(level, {}).pop(number, None)
        elif tag == _NEW_FILE:
            level, at = _varint(record, at)
            number, at = _varint(record, at)
            _, at = _varint(record, at)
            smallest, at = _string(record, at)
            _, at = _string(record, at)
            levels.setdefault(level, {})[number] = smallest[:-8]
        else:
            value, at = _varint(record, at)
            log_number = value if tag == _LOG_NUMBER else log_number
    return _Files(levels, log_number)


def _log_records(data: bytes) -> Iterator[bytes]:
    """Records of a log file; one that a crash cut off at the end is dropped, as LevelDB does."""
    at, parts = 0, b""
    while at + 7 <= len(data):
        left = _LOG_BLOCK - at % _LOG_BLOCK
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 0 or at + 7 + length > len(data):
            return
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def _log_entries(path: Path) -> Iterator[_Entry]:
    """Entries of a write-ahead log, in the order of writing."""
    for record in _log_records(path.read_bytes()):
        sequence, count = struct.unpack_from("<QI", record)
        at = 12
        for number in range(sequence, sequence + count):
            kind, value = record[at], b""
            key, at = _string(record, at + 1)
            if kind == _STORED:
                value, at = _string(record, at)
            yield _Entry(key, -number, kind, value)


def _table_entries(path: Path) -> Iterator[_Entry]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 48))
        footer = file.read(48)
        if len(footer) < 48 or struct.unpack_from("<Q", footer, 40)[0] != _TABLE_MAGIC:
            raise DataError(f"LevelDB table {path} is damaged or cut off; copy it again")
        at = _varint(footer, _varint(footer, 0)[1])[1]  # past the handle of the metaindex
        for _, handle in _block_entries(_block(file, footer[at:])):
            for key, value in _block_entries(_block(file, handle)):
                tag = int.from_bytes(key[-8:], "little")
                yield _Entry(key[:-8], -(tag >> 8), tag & 0xFF, value)


def _block(file: BinaryIO, handle: bytes) -> bytes:
    """The block at a handle (offset, size), decompressed."""
    offset, at = _varint(handle, 0)
    size, _ = _varint(handle, at)
    file.seek(offset)
    data = file.read(size + 1)
    if len(data) <= size:
        raise IndexError("a block ends early")
    return unsnappy(data[:size]) if data[size] else data[:size]


def _block_entries(block: bytes) -> Iterable[tuple[bytes, bytes]]:
    """(key, value) of a block; a key holds only what differs from the one before it."""
    restarts = struct.unpack_from("<I", block, len(block) - 4)[0]
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        size, at = _varint(block, at)
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + size]
        at += size


def unsnappy(data: bytes) -> bytes:
    """Decompresses a Snappy block. Raises IndexError where it ends early."""
    size, at = _varint(data, 0)
    out = bytearray()
    while at < len(data):
        tag = data[at]
        kind, length, at = tag & 3, (tag >> 2) + 1, at + 1
        if kind == 0:  # literal bytes
            if length > 60:
                extra = length - 60
                length = int.from_bytes(data[at : at + extra], "little") + 1
                at += extra
            out += data[at : at + length]
            at += length
            continue
        if kind == 1:  # a copy, with 11 bits of offset
            length, offset, at = ((tag >> 2) & 7) + 4, (tag >> 5) << 8 | data[at], at + 1
        else:
            width = 2 if kind == 2 else 4
            offset = int.from_bytes(data[at : at + width], "little")
            at += width
        if not 0 < offset <= len(out):
            raise IndexError("a compressed block points before its start")
        start = len(out) - offset
        piece = bytes(out[start : start + length])
        out += (piece * (length // len(piece) + 1))[:length]
    if len(out) != size:
        raise IndexError(f"a compressed block holds {len(out)} bytes, it states {size}")
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length number and the place after it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string after its length, and the place after it."""
    size, at = _varint(data, at)
    if at + size > len(data):
        raise IndexError("a string ends early")
    return data[at : at + size], at + size
