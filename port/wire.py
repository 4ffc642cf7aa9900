"""Protobuf's wire format, as far as Caffe's weight files need it.

A caffemodel is hundreds of megabytes of packed floats between a few thousand small fields. The
file is mapped, the fields are walked, and the floats are viewed where they lie: nothing passes
through Python objects. What a damaged or hostile file can cost is bounded: every length is
checked against what encloses it, and the number of fields has a limit.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from port.errors import WeightsError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MOST_FIELDS = 200_000
"""Fields walked in one file, runs of unpacked numbers counted once; real nets stay below 20000."""
MOST_AXES = 32
MOST_PIECES = 1000
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")

Array = np.ndarray[Any, np.dtype[Any]]


class Field(NamedTuple):
    """One field: ``value`` of a varint; ``start``, ``stop`` of a payload; ``tag``: where it began.

    The next field begins at ``stop``.
    """

    number: int
    kind: int
    tag: int
    start: int
    stop: int
    value: int


class WireFile:
    """A mapped file to be walked as protobuf; its errors say where in the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = MOST_FIELDS
        try:
            with open(path, "rb") as file:
                size = file.seek(0, 2)
                if not size:
                    raise WeightsError(f"{path}: the file is empty; fetch or write it again")
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise WeightsError(f"{path}: no such file") from None
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read: {error.strerror}") from None
        self.size = size

    def fail(self, position: int, where: str, what: str) -> NoReturn:
        """Raise WeightsError for byte ``position`` of the file."""
        raise WeightsError(
            f"{self.path}: byte {position} of {self.size}, in {where}: {what}; "
            "the file is damaged, cut short or of another kind: fetch it again"
        )

    def field(self, position: int, end: int, where: str) -> Field:
        """The field that begins at ``position`` inside a message that ends at ``end``."""
        self.left -= 1
        if self.left < 0:
            self.fail(position, where, f"more than {MOST_FIELDS} fields")
        key, start = self._varint(position, end, where)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            self.fail(position, where, f"no protobuf field has number {number}")
        if kind == VARINT:
            value, stop = self._varint(start, end, where)
            return Field(number, kind, position, start, stop, value)
        if kind == BYTES:
            length, start = self._varint(start, end, where)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            self.fail(position, where, f"field {number} has wire type {kind}, which Caffe has not")
        if length > end - start:
            self.fail(position, where, f"field {number} has {length} bytes, {end - start} are left")
        return Field(number, kind, position, start, start + length, 0)

    def expect(self, field: Field, kind: int, where: str) -> None:
        """Refuse a field whose wire type is not ``kind``."""
        if field.kind != kind:
            found = f"field {field.number} has wire type {field.kind}, {kind} is expected"
            self.fail(field.tag, where, found)

    def text(self, field: Field, where: str) -> str:
        """A string field; bytes that are not UTF-8 are replaced, as old tools wrote any."""
        self.expect(field, BYTES, where)
        return self.data[field.start : field.stop].decode("utf-8", "replace")

    def integers(self, field: Field, where: str) -> list[int]:
        """The values of a repeated varint field, packed or one at a time."""
        if field.kind == VARINT:
            return [field.value]
        self.expect(field, BYTES, where)
        values: list[int] = []
        position = field.start
        while position < field.stop and len(values) <= MOST_AXES:
            value, position = self._varint(position, field.stop, where)
            values.append(value)
        return values

    def numbers(
        self, field: Field, end: int, dtype: np.dtype[Any], where: str
    ) -> tuple[Array, int]:
        """A view of float values, and where to go on: a packed field, or a run of single ones."""
        if field.kind == BYTES:
            length = field.stop - field.start
            if length % dtype.itemsize:
                found = f"{length} bytes of packed numbers are no multiple of {dtype.itemsize}"
                self.fail(field.tag, where, found)
            count = length // dtype.itemsize
            return np.frombuffer(self.data, dtype, count, field.start), field.stop
        self.expect(field, FIXED32 if dtype.itemsize == 4 else FIXED64, where)
        return self._unpacked(field, end, dtype)

    def _unpacked(self, field: Field, end: int, dtype: np.dtype[Any]) -> tuple[Array, int]:
        """Old files repeat the tag before every number; the whole run is one strided view."""
        tag = self.data[field.tag : field.start]
        step = field.stop - field.tag
        rows = np.frombuffer(self.data, np.uint8, (end - field.tag) // step * step, field.tag)
        rows = rows.reshape(-1, step)
        count, block = 0, 16  # growing blocks, so that many short runs do not cost the whole file
        while count < len(rows):
            same = (rows[count : count + block, : len(tag)] == list(tag)).all(axis=1)
            if not same.all():
                count += int(same.argmin())
                break
            count, block = count + len(same), min(2 * block, 1 << 20)
        values = np.ascontiguousarray(rows[:count, len(tag) :]).view(dtype).reshape(-1)
        return values, field.tag + count * step

    def _varint(self, position: int, end: int, where: str) -> tuple[int, int]:
        value, data = 0, self.data
        for at in range(position, min(end, position + 10)):
            byte = data[at]
            value |= (byte & 127) << 7 * (at - position)
            if byte < 128:
                return value & (2**64 - 1), at + 1
        return self.fail(position, where, "a number does not end")


@dataclass
class Blob:
    """One BlobProto: its values in their shape; ``legacy``: num, channels, height, width."""

    values: Array
    legacy: bool = False


def read_blob(file: WireFile, start: int, end: int, where: str, diff: bool = False) -> Blob:
    """The BlobProto between two bytes of a file: float32, a read-only view wherever possible.

    diff: its gradient instead of its data. Raises WeightsError where shape and values disagree.
    Source: BVLC Caffe 1.0, src/caffe/blob.cpp, Blob::FromProto.
    """
    single, double = (6, 9) if diff else (5, 8)
    chunks: dict[int, list[Array]] = {single: [], double: []}
    shape: list[int] = []
    legacy: dict[int, int] = {}
    position = start
    while position < end:
        field = file.field(position, end, where)
        position = field.stop
        if field.number in chunks:
            dtype = _FLOAT if field.number == single else _DOUBLE
            values, position = file.numbers(field, end, dtype, where)
            chunks[field.number].append(values)
            if len(chunks[field.number]) > MOST_PIECES:
                file.fail(field.tag, where, f"its values lie in more than {MOST_PIECES} pieces")
        elif field.number == 7:
            file.expect(field, BYTES, where)
            shape += _dims(file, field, where)
        elif field.number <= 4:
            file.expect(field, VARINT, where)
            legacy[field.number] = field.value
    if legacy:
        shape = [legacy.get(number, 0) for number in (1, 2, 3, 4)]
    values = _joined(chunks[double] or chunks[single])
    return Blob(_shaped(file, start, values, shape, where), bool(legacy))


def _dims(file: WireFile, message: Field, where: str) -> list[int]:
    dims: list[int] = []
    position = message.start
    while position < message.stop:
        field = file.field(position, message.stop, where)
        position = field.stop
        if field.number == 1:
            dims += file.integers(field, where)
        if len(dims) > MOST_AXES:
            file.fail(message.tag, where, f"a shape of more than {MOST_AXES} axes")
    return dims


def _joined(chunks: Sequence[Array]) -> Array:
    if not chunks:
        return np.empty(0, _FLOAT)
    values = chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    if values.dtype == _FLOAT:
        return values
    with np.errstate(over="ignore"):
        return values.astype(_FLOAT)


def _shaped(file: WireFile, start: int, values: Array, shape: list[int], where: str) -> Array:
    if math.prod(shape) != values.size:
        needed = f"shape {by(shape)} needs {math.prod(shape)} values"
        file.fail(start, where, f"{needed}, it holds {values.size}")
    return values.reshape(shape)


def by(shape: Sequence[int]) -> str:
    """A shape as messages print it: ``512x21504``."""
    return "x".join(map(str, shape)) or "scalar"


# -- writing -------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """An unsigned number as a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefixed(number: int, length: int) -> bytes:
    """The tag and length before a payload of field ``number``."""
    return varint(number << 3 | BYTES) + varint(length)


def blob_chunks(number: int, data: Array, diff: Array | None = None) -> list[Any]:
    """Field ``number`` holding a BlobProto, as buffers to be written one after the other."""
    chunks = _packed(5, data)
    if diff is not None:
        chunks += _packed(6, diff)
    if data.ndim:
        dims = b"".join(map(varint, data.shape))
        dims = prefixed(1, len(dims)) + dims
        chunks += [prefixed(7, len(dims)), dims]
    return [prefixed(number, sum(map(len, chunks))), *chunks]


def _packed(number: int, values: Array) -> list[Any]:
    if not values.size:
        return []
    payload = np.ascontiguousarray(values, _FLOAT).reshape(-1).view(np.uint8)
    return [prefixed(number, payload.size), payload]
