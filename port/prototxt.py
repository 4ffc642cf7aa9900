"""Read and write nets, solvers and every other Caffe message, as text and as binary.

A prototxt is data: reading one runs nothing, and what is wrong with it is a PrototxtError.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError, Message

from port import schema
from port.errors import PrototxtError
from port.prototxt_text import FILES, parse_text, print_text
from port.upgrade import INPUT_NOTE, upgrade_net, upgrade_solver

LOG = logging.getLogger(__name__)
LARGEST_BINARY = 2**31 - 1  # bytes
LARGEST_TEXT = 4 * 2**20  # bytes; the text of the largest published nets is below 1 MB
_MESSAGES = {"NetParameter": "net", "SolverParameter": "solver"}  # what errors call them
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_SIGNATURES = {
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"PK\x03\x04": "a zip archive (or a torch checkpoint)",
    b"\x1f\x8b": "a gzip archive",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}
Source = str | os.PathLike[str] | bytes | Message


def read_net(source: Source, notes: list[str] | None = None) -> Any:
    """Read a NetParameter and upgrade it to today's schema.

    source: a path, prototxt text, the bytes of a file, or a NetParameter (copied). Text or
    binary is told by the content. notes: what was upgraded is appended to it, in words; without
    it, the notes are logged. Raises PrototxtError.
    """
    net, where = _read(source, schema.NetParameter)
    found = upgrade_net(net, where)
    if not net.layer:
        raise PrototxtError(f"{where}: a net without layers")
    _tell(found, where, notes)
    return net


def read_solver(source: Source, notes: list[str] | None = None) -> Any:
    """Read a SolverParameter and upgrade it; arguments and errors as for read_net."""
    solver, where = _read(source, schema.SolverParameter)
    found = upgrade_solver(solver, where)
    _tell(found, where, notes)
    return solver


def _tell(found: list[str], where: str, notes: list[str] | None) -> None:
    """Into the caller's list, or the log; what a program holds as a message was read before."""
    if notes is not None:
        notes += found
        return
    for note in found if where not in _MESSAGES.values() else ():
        # Nearly every deploy net has the old input, and it means the same today.
        harmless = note.startswith("input ") and note.endswith(INPUT_NOTE)
        LOG.log(logging.DEBUG if harmless else logging.INFO, "%s: %s", where, note)


def parse(text: str, message_class: Any, where: str = "text") -> Any:
    """A message from its text; ``where`` names the file in errors. Raises PrototxtError."""
    message = message_class()
    parse_text(text, message, where)
    return message


def parse_binary(data: bytes, message_class: Any, where: str = "data") -> Any:
    """A message from its bytes; raises PrototxtError when they are damaged or something else."""
    try:
        message = message_class.FromString(data)
        sound = _strings_are_text(message)
    except (DecodeError, UnicodeDecodeError):
        sound = False
    if not sound:
        raise PrototxtError(
            f"{where}: these {len(data)} bytes are no {message_class.DESCRIPTOR.name}: damaged, "
            "cut short or another kind of file"
        )
    return message


def _strings_are_text(message: Any) -> bool:
    """Whether every string is UTF-8: protobuf hands out bytes for those that are not."""
    kind = schema.fields(message.DESCRIPTOR.name)
    for descriptor, content in message.ListFields():
        field = kind[descriptor.name]
        values = content if field.repeated else (content,)
        if field.type == "string" and not all(isinstance(value, str) for value in values):
            return False
        if (
            schema.is_message(field)
            and field.type != "BlobProto"
            and not all(_strings_are_text(value) for value in values)
        ):
            return False
    return True


def format_text(message: Any) -> str:
    """The text of a message as Caffe prints it in its logs and tools."""
    return print_text(message)


def write_text(path: str | os.PathLike[str], message: Any) -> None:
    """Write a message as text; the file appears whole or not at all."""
    write_bytes(path, format_text(message).encode("ascii"))


def write_binary(path: str | os.PathLike[str], message: Any) -> None:
    """Write a message as binary; the file appears whole or not at all."""
    write_bytes(path, message.SerializeToString(deterministic=True))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file through a temporary one beside it; raises PrototxtError when it cannot."""
    target = Path(path)
    try:
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    except ValueError:
        raise PrototxtError(f"{str(path)!r} is no file name to write to") from None
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise PrototxtError(f"{target}: cannot be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def resolve(path: str | os.PathLike[str], beside: str | os.PathLike[str]) -> Path:
    """Where a path that a file names is: as given, else beside the file, else by bare name there.

    beside: the file that names it, or its folder. When none exists, the path as given.
    """
    given = Path(path)
    folder = Path(beside)
    folder = folder if os.path.isdir(folder) else folder.parent
    for candidate in (given, folder / given, folder / given.name):
        if os.path.exists(candidate):
            return candidate
    return given


def _read(source: Source, message_class: Any) -> tuple[Any, str]:
    """The message in a source, and how messages should call the source."""
    if isinstance(source, Message):
        message = message_class()
        message.CopyFrom(source)
        return message, _MESSAGES[message_class.DESCRIPTOR.name]
    if isinstance(source, bytes):
        return _from_bytes(source, message_class, "data"), "data"
    if isinstance(source, str) and _is_text(source):
        return _from_bytes(source.encode("utf-8", "surrogatepass"), message_class, "text"), "text"
    where = os.fspath(source)
    return _from_bytes(_load(where), message_class, where), where


def _is_text(source: str) -> bool:
    """Whether a string is prototxt text and not a path."""
    if os.path.exists(source):
        return False
    return (
        not source.strip()
        or "\n" in source
        or "{" in source
        or re.match(r"\s*\w+\s*:\s*[\w\"'<\[.-]", source) is not None
    )


def _load(path: str) -> bytes:
    try:
        if os.path.getsize(path) > LARGEST_BINARY:
            raise PrototxtError(f"{path}: larger than the 2 GiB that protobuf can read")
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise PrototxtError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise PrototxtError(f"{path!r} cannot be read: {reason}") from None


def is_text(data: bytes) -> bool:
    """Whether a file's bytes are prototxt text; binary messages have control characters."""
    return _BINARY.search(data) is None


def _from_bytes(data: bytes, message_class: Any, where: str) -> Any:
    """Text or binary, told by the content."""
    words = FILES[message_class.DESCRIPTOR.name]
    if not data.strip():
        raise PrototxtError(f"{where}: nothing in it, {words} is expected")
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            raise PrototxtError(f"{where}: this is {kind}, {words} is expected")
    if is_text(data):
        return _from_text(data, message_class, where)
    message = parse_binary(data, message_class, where)
    if message_class is schema.SolverParameter:
        _refuse_strangers(message, data, where)
    return message


def _refuse_strangers(solver: Any, data: bytes, where: str) -> None:
    """A caffemodel parses as a solver of unknown fields; nobody keeps binary solvers like that."""
    known = type(solver)()
    known.CopyFrom(solver)
    known.DiscardUnknownFields()
    if known.ByteSize() != solver.ByteSize():
        raise PrototxtError(
            f"{where}: these {len(data)} bytes are no SolverParameter: a solver is expected, "
            "not a net or weights"
        )


def _from_text(data: bytes, message_class: Any, where: str) -> Any:
    if len(data) > LARGEST_TEXT:
        raise PrototxtError(
            f"{where}: {len(data)} bytes of text, more than the {LARGEST_TEXT} read at most"
        )
    # Comments may be in any encoding; strings are checked to be UTF-8 as they are read.
    text = data.decode("utf-8-sig", "surrogateescape")
    return parse(text, message_class, where)
