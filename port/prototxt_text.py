"""The text form of Caffe's messages: parse it with helpful errors, print it as Caffe's logs do."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

from port import schema
from port.errors import PrototxtError, close_matches
from port.proto_file import Field
from port.tokens import LONGEST_SHOWN, Scanner, Token

_RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
}
_BOOLS = {"true": True, "True": True, "t": True, "1": True} | {
    "false": False, "False": False, "f": False, "0": False
}  # fmt: skip
FILES = {"NetParameter": "a net", "SolverParameter": "a solver"}  # files and their words
_LONGEST_NUMBER = 400  # characters; a double written in full has fewer
_INTEGER = {
    8: re.compile("[0-7]+"),
    10: re.compile("[0-9]+"),
    16: re.compile("0[xX][0-9a-fA-F]+"),
}
_FLOAT = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?")
_FLOAT_OVERFLOW = float.fromhex("0x1.ffffffp127")  # from here on float32 rounds to infinity
_SURROGATES = re.compile("[\ud800-\udfff]")

_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|[\x00-\x7f]|[^\x00-\x7f]+)")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b", b"f": b"\f",
            b"v": b"\v", b"\\": b"\\", b"'": b"'", b'"': b'"', b"?": b"?"}  # fmt: skip


def parse_text(text: str, message: Any, where: str) -> None:
    """Fill ``message`` from prototxt text; raises PrototxtError with file, line and column."""
    scanner = Scanner(text, where)
    _fields(scanner, message, closing=None)


def _fields(scanner: Scanner, message: Any, closing: Token | None) -> None:
    """Read fields up to the end of the text, or to the bracket that matches ``closing``."""
    kind = message.DESCRIPTOR.name
    known = schema.fields(kind)
    seen: set[str] = set()
    end = {"{": "}", "<": ">"}[closing.text] if closing else ""
    while True:
        token = scanner.token
        if closing and scanner.take_if(end):
            return
        if token.kind == "end":
            if closing:
                raise scanner.error(f"this '{closing.text}' is never closed", closing.at)
            return
        name = scanner.take_kind("name", f"a field of {kind}")
        field = known.get(name.text)
        if field is None:
            raise scanner.error(_unknown_field(name.text, kind, not seen), name.at)
        if name.text in seen and not field.repeated:
            raise scanner.error(f"{kind}.{name.text} is given twice", name.at)
        seen.add(name.text)
        _values(scanner, message, field)
        scanner.take_if(",", ";")


def _unknown_field(name: str, kind: str, first: bool) -> str:
    """Say so when the field, or from the first one on the file, belongs to another kind of file."""
    expected = FILES.get(kind)
    name = name[:LONGEST_SHOWN]
    for other, words in FILES.items():
        if expected and other != kind and name in schema.fields(other):
            if first:
                return f"this is {words} (it has '{name}'), {expected} is expected"
            return f"{kind} has no field '{name}': it belongs in {words}"
    return f"{kind} has no field '{name}'{close_matches(name, schema.fields(kind))}"


def _values(scanner: Scanner, message: Any, field: Field) -> None:
    """Read ``: value``, ``{ ... }`` or ``: [value, ...]``."""
    colon = scanner.take_if(":")
    if not scanner.take_if("["):
        _value(scanner, message, field, colon)
        return
    if not field.repeated:
        raise scanner.error(f"{message.DESCRIPTOR.name}.{field.name} takes one value, not a list")
    while not scanner.take_if("]"):
        _value(scanner, message, field, colon)
        if not scanner.take_if(",") and scanner.token.text != "]":
            raise scanner.error(f"expected ',' or ']', found {scanner.found()}")


def _value(scanner: Scanner, message: Any, field: Field, colon: bool) -> None:
    if schema.is_message(field):
        _submessage(scanner, message, field)
        return
    if not colon:
        raise scanner.error(f"expected ':' after '{field.name}', found {scanner.found()}")
    value = _scalar(scanner, message.DESCRIPTOR.name, field)
    if field.repeated:
        getattr(message, field.name).append(value)
    else:
        setattr(message, field.name, value)


def _submessage(scanner: Scanner, message: Any, field: Field) -> None:
    opening = scanner.token
    if not scanner.take_if("{", "<"):
        raise scanner.error(f"expected '{{' after '{field.name}', found {scanner.found()}")
    target = getattr(message, field.name)
    if field.repeated:
        target = target.add()
    else:
        target.SetInParent()
    _fields(scanner, target, opening)


def _scalar(scanner: Scanner, kind: str, field: Field) -> Any:
    """One value of a scalar or enum field, checked."""
    values = schema.enum_values(kind, field)
    if values is not None:
        return _enum(scanner, kind, field, values)
    return _READERS[field.type](scanner, kind, field)


def _wrong(scanner: Scanner, kind: str, field: Field, token: Token | None = None) -> PrototxtError:
    wanted = {"bool": "true or false", "string": "a string in quotes"}.get(field.type)
    wanted = wanted or f"{'an' if field.type[0] in 'i' else 'a'} {field.type}"
    found = scanner.found() if token is None else f"'{token.text[:LONGEST_SHOWN]}'"
    at = None if token is None else token.at
    return scanner.error(f"{kind}.{field.name} takes {wanted}, found {found}", at)


def _enum(scanner: Scanner, kind: str, field: Field, values: dict[str, int]) -> int:
    """An enum's value by name, or by number as some released files have it."""
    token = scanner.token
    by_word = values | {str(number): number for number in values.values()}
    if token.text in by_word and token.kind in ("name", "number"):
        return by_word[scanner.take().text]
    raise scanner.error(
        f"{kind}.{field.name} cannot be {scanner.found()}{close_matches(token.text, values)}: "
        f"it is one of {', '.join(values)}"
    )


def _is_number(token: Token, form: re.Pattern[str]) -> bool:
    fits = token.kind == "number" and len(token.text) <= _LONGEST_NUMBER
    return fits and form.fullmatch(token.text) is not None


def _integer(scanner: Scanner, kind: str, field: Field) -> int:
    """Decimal, hexadecimal after 0x, octal after 0, as in C."""
    start = scanner.token
    sign = "-" if scanner.take_if("-") else ""
    token = scanner.token
    base = 16 if token.text[:2] in ("0x", "0X") else 8 if token.text[:1] == "0" else 10
    if not _is_number(token, _INTEGER[base]):
        raise _wrong(scanner, kind, field)
    value = int(sign + token.text, base)
    low, high = _RANGES[field.type]
    if not low <= value <= high:
        raise scanner.error(
            f"{kind}.{field.name} is {field.type}: {low} to {high}, "
            f"found {sign}{token.text[:LONGEST_SHOWN]}",
            start.at,
        )
    scanner.take()
    return value


def _float(scanner: Scanner, kind: str, field: Field) -> float:
    """A decimal number, or inf or nan; one too large for the type is refused, not infinite."""
    negative = scanner.take_if("-")
    token = scanner.token
    if token.kind == "name" and token.text.lower() in ("inf", "infinity", "nan"):
        value = float(scanner.take().text)
        return -value if negative else value
    if not _is_number(token, _FLOAT):
        raise _wrong(scanner, kind, field)
    value = float(token.text.rstrip("fF"))
    if math.isinf(value) or (field.type == "float" and abs(value) >= _FLOAT_OVERFLOW):
        shown = token.text[:LONGEST_SHOWN]
        raise scanner.error(f"{kind}.{field.name}: {shown} is too large for {field.type}")
    scanner.take()
    return -value if negative else value


def _bool(scanner: Scanner, kind: str, field: Field) -> bool:
    if scanner.token.text not in _BOOLS or scanner.token.kind not in ("name", "number"):
        raise _wrong(scanner, kind, field)
    return _BOOLS[scanner.take().text]


def _bytes(scanner: Scanner, kind: str, field: Field) -> bytes:
    """Adjacent strings are one string, as in C."""
    if scanner.token.kind != "string":
        raise _wrong(scanner, kind, field)
    parts = []
    while scanner.token.kind == "string":
        token = scanner.take()
        if _SURROGATES.search(token.text):
            raise scanner.error(f"{kind}.{field.name}: the string is not UTF-8", token.at)
        try:
            parts.append(_ESCAPE.sub(_unescape, token.text[1:-1].encode("utf-8")))
        except KeyError as escape:
            unknown = "\\" + escape.args[0].decode("utf-8")
            raise scanner.error(
                f"{kind}.{field.name}: unknown escape {unknown} (in a path write / or \\\\)",
                token.at,
            ) from None
    return b"".join(parts)


def _unescape(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if code[:1] == b"x" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    if code.isdigit():
        return bytes([int(code, 8) & 0xFF])
    return _ESCAPED[code]


def _string(scanner: Scanner, kind: str, field: Field) -> str:
    start = scanner.token
    try:
        return _bytes(scanner, kind, field).decode("utf-8")
    except UnicodeDecodeError:
        raise scanner.error(f"{kind}.{field.name}: the string is not UTF-8", start.at) from None


_READERS: dict[str, Callable[[Scanner, str, Field], Any]] = {
    "int32": _integer,
    "int64": _integer,
    "uint32": _integer,
    "float": _float,
    "double": _float,
    "bool": _bool,
    "string": _string,
    "bytes": _bytes,
}


def print_text(message: Any) -> str:
    """The message as protobuf's C++ DebugString prints it: in the order of field numbers."""
    return "".join(_lines(message, ""))


def _lines(message: Any, indent: str) -> Iterator[str]:
    kind = message.DESCRIPTOR.name
    known = schema.fields(kind)
    for descriptor, content in message.ListFields():
        field = known[descriptor.name]
        show = _printer(kind, field)
        for value in content if field.repeated else (content,):
            if show is None:
                yield f"{indent}{field.name} {{\n"
                yield from _lines(value, indent + "  ")
                yield f"{indent}}}\n"
            else:
                yield f"{indent}{field.name}: {show(value)}\n"


def _printer(kind: str, field: Field) -> Callable[[Any], str] | None:
    """How one value of a field is printed; None for a message."""
    if schema.is_message(field):
        return None
    values = schema.enum_values(kind, field)
    if values is not None:
        names = {number: name for name, number in values.items()}
        return lambda value: names[value]
    return _PRINTERS.get(field.type, str)


def shortest_float(value: float) -> str:
    """A float32 with 6 significant digits if they give it back exactly, else 8, else 9."""
    for digits in (6, 8):
        text = f"{value:.{digits}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return text
    return f"{value:.9g}"


def _shortest_double(value: float) -> str:
    text = f"{value:.15g}"
    return text if float(text) == value else f"{value:.17g}"


def _quoted(value: str | bytes) -> str:
    """In double quotes; what is not printable ASCII as C escapes, bytes in octal."""
    raw = value.encode("utf-8") if isinstance(value, str) else value
    return '"' + "".join(_QUOTED[byte] for byte in raw) + '"'


_QUOTED = [chr(code) if 32 <= code < 127 else f"\\{code:03o}" for code in range(256)]
for _char, _code in {
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    '"': '\\"',
    "'": "\\'",
    "\\": "\\\\",
}.items():
    _QUOTED[ord(_char)] = _code

_PRINTERS: dict[str, Callable[[Any], str]] = {
    "float": shortest_float,
    "double": _shortest_double,
    "bool": lambda value: "true" if value else "false",
    "string": _quoted,
    "bytes": _quoted,
}
