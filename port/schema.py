"""Caffe's message classes, built from proto/caffe.proto when first asked for.

    from port import schema
    net = schema.NetParameter()

They live in a private descriptor pool: another ``package caffe`` in protobuf's default pool
(pycaffe's, for one) does not clash with them. No protoc is needed. The messages do not pickle:
send ``message.SerializeToString()`` to another process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory

from port.errors import close_matches
from port.proto_file import Field, file_descriptor, read_proto

AUTOMATIC = "(automatic)"
"""Caffe's name for the top of a loss layer that states none: no output, and in no file."""


def data_folder(name: str) -> Path:
    """A folder of data files: "proto" or "reference_prototxt".

    Inside the package when installed from a wheel, beside it in a checkout.
    """
    here = Path(__file__).resolve().parent
    installed = here / name
    return installed if installed.is_dir() else here.parent / name


_PROTO = read_proto((data_folder("proto") / "caffe.proto").read_text("utf-8"), "caffe.proto")
_POOL: Any = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(file_descriptor(_PROTO, "caffe.proto").SerializeToString())

MESSAGES = tuple(_PROTO.messages)


def __getattr__(name: str) -> Any:
    """The message class of this name; raises AttributeError for a name Caffe does not have."""
    if name not in _PROTO.messages:
        hint = close_matches(name, MESSAGES) if not name.startswith("_") else ""
        raise AttributeError(f"module {__name__!r} has no message {name!r}{hint}")
    found = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PROTO.package}.{name}"))
    globals()[name] = found
    return found


def fields(message: str) -> dict[str, Field]:
    """Field name -> field of a message, in the order of caffe.proto."""
    return _PROTO.messages[message]


def is_message(field: Field) -> bool:
    """Whether a field holds a message."""
    return field.type in _PROTO.messages


def enum_values(message: str, field: Field) -> dict[str, int] | None:
    """Name -> number of the enum that a field holds; None when it holds something else."""
    name = _PROTO.enum_of(message, field)
    return None if name is None else _PROTO.enums[name]


def enum(name: str, value: str) -> int:
    """Number of a value: ``enum("Phase", "TRAIN")``, ``enum("DataParameter.DB", "LMDB")``."""
    return _PROTO.enums[name][value]


def enum_name(message: Any, field: str) -> str:
    """Name of the value that an enum field of a message holds: ``enum_name(layer, "phase")``."""
    kind = message.DESCRIPTOR.name
    values = enum_values(kind, fields(kind)[field])
    if values is None:
        raise TypeError(f"{kind}.{field} is no enum")
    number = getattr(message, field)
    return next(name for name, value in values.items() if value == number)
