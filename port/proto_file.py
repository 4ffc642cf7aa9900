"""Read a .proto file without protoc: the part of proto2 that caffe.proto uses.

Messages that do not nest, enums at the top and inside messages, labels, defaults, packed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2

from port.tokens import PROTO_TOKENS, Scanner

_Field: Any = descriptor_pb2.FieldDescriptorProto
SCALARS = ("float", "double", "int32", "int64", "uint32", "bool", "string", "bytes")


class Field(NamedTuple):
    """One field of a message, as the .proto file states it."""

    name: str
    number: int
    label: str  # optional, required or repeated
    type: str  # a scalar's name, or the name of a message or enum
    default: str | None  # as written, without quotes
    packed: bool

    @property
    def repeated(self) -> bool:
        return self.label == "repeated"


class ProtoFile(NamedTuple):
    """What a .proto file declares."""

    package: str
    messages: dict[str, dict[str, Field]]  # message -> field name -> field
    enums: dict[str, dict[str, int]]  # "Phase" or "PoolingParameter.PoolMethod" -> name -> number

    def enum_of(self, message: str, field: Field) -> str | None:
        """Full name of the enum that a field holds; None when it holds something else."""
        for name in (f"{message}.{field.type}", field.type):
            if name in self.enums:
                return name
        return None


def read_proto(text: str, where: str) -> ProtoFile:
    """Parse the text of a .proto file; raises PrototxtError with line and column."""
    scanner = Scanner(text, where, PROTO_TOKENS)
    proto = ProtoFile("", {}, {})
    while scanner.token.kind != "end":
        keyword = scanner.take_kind("name", "a declaration").text
        if keyword == "syntax":
            scanner.take_if("=")
            scanner.take_kind("string", "the syntax")
            _expect(scanner, ";")
        elif keyword == "package":
            proto = proto._replace(package=scanner.take_kind("name", "a package name").text)
            _expect(scanner, ";")
        elif keyword == "enum":
            _enum(scanner, proto, "")
        elif keyword == "message":
            _message(scanner, proto)
        else:
            raise scanner.error(f"'{keyword}' is not in the part of proto2 read here")
    return proto


def _expect(scanner: Scanner, symbol: str) -> None:
    if not scanner.take_if(symbol):
        raise scanner.error(f"expected '{symbol}', found {scanner.found()}")


def _integer(scanner: Scanner) -> int:
    return int(scanner.take_kind("number", "a number").text)


def _enum(scanner: Scanner, proto: ProtoFile, prefix: str) -> None:
    values = proto.enums.setdefault(prefix + scanner.take_kind("name", "an enum's name").text, {})
    _expect(scanner, "{")
    while not scanner.take_if("}"):
        name = scanner.take_kind("name", "a value's name").text
        _expect(scanner, "=")
        values[name] = _integer(scanner)
        _expect(scanner, ";")


def _message(scanner: Scanner, proto: ProtoFile) -> None:
    message = scanner.take_kind("name", "a message's name").text
    fields = proto.messages.setdefault(message, {})
    _expect(scanner, "{")
    while not scanner.take_if("}"):
        if scanner.take_if("enum"):
            _enum(scanner, proto, message + ".")
        else:
            field = _field(scanner)
            fields[field.name] = field


def _field(scanner: Scanner) -> Field:
    label = scanner.take_kind("name", "optional, required or repeated").text
    kind = scanner.take_kind("name", "a type").text
    name = scanner.take_kind("name", "a field's name").text
    _expect(scanner, "=")
    number = _integer(scanner)
    options: dict[str, str] = {}
    if scanner.take_if("["):
        while not scanner.take_if("]"):
            option = scanner.take_kind("name", "an option").text
            _expect(scanner, "=")
            sign = "-" if scanner.take_if("-") else ""
            options[option] = sign + scanner.take().text.strip('"')
            scanner.take_if(",")
    _expect(scanner, ";")
    packed = options.get("packed") == "true"
    return Field(name, number, label, kind, options.get("default"), packed)


def file_descriptor(proto: ProtoFile, name: str) -> descriptor_pb2.FileDescriptorProto:
    """The file as protobuf's own description of it, ready for a descriptor pool."""
    file = descriptor_pb2.FileDescriptorProto(name=name, package=proto.package, syntax="proto2")
    messages = {message: file.message_type.add(name=message) for message in proto.messages}
    for full_name, values in proto.enums.items():
        outer, _, inner = full_name.rpartition(".")
        enum = (messages[outer] if outer else file).enum_type.add(name=inner)
        for value, number in values.items():
            enum.value.add(name=value, number=number)
    for message, fields in proto.messages.items():
        for field in fields.values():
            _add_field(messages[message], proto, message, field)
    return file


def _add_field(
    target: descriptor_pb2.DescriptorProto, proto: ProtoFile, message: str, field: Field
) -> None:
    added: Any = target.field.add(name=field.name, number=field.number)
    added.label = getattr(_Field, "LABEL_" + field.label.upper())
    if field.type in SCALARS:
        added.type = getattr(_Field, "TYPE_" + field.type.upper())
    else:
        enum = proto.enum_of(message, field)
        added.type = _Field.TYPE_ENUM if enum else _Field.TYPE_MESSAGE
        added.type_name = f".{proto.package}.{enum or field.type}"
    if field.default is not None:
        added.default_value = field.default
    if field.packed:
        added.options.packed = True
