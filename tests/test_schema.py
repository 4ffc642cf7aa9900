"""The message classes equal the measured table, on every protobuf, beside any other binding."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from port import proto_file, schema
from port.errors import PrototxtError

ROOT = Path(__file__).resolve().parents[1]
TABLE = json.loads((ROOT / "tests/golden/schema/caffe_schema.json").read_text("utf-8"))
MESSAGES: dict[str, Any] = TABLE["messages"]
PROTO_TEXT = (ROOT / "proto/caffe.proto").read_text("utf-8")


def registered() -> Any:
    """protobuf's own description of the schema, as our pool holds it."""
    return descriptor_pb2.FileDescriptorProto.FromString(
        schema.NetParameter.DESCRIPTOR.file.serialized_pb
    )


REGISTERED = {message.name: message for message in registered().message_type}


def value(text: str, kind: str) -> Any:
    """A default as a value of the field's type; floats as float32."""
    if kind in ("float", "double"):
        return struct.pack("<f" if kind == "float" else "<d", float(text))
    return text.lower() if kind == "bool" else text.strip("'")


def table_row(field: Any) -> tuple[Any, ...]:
    """One registered field as the table states it, the default as a value."""
    kinds = descriptor_pb2.FieldDescriptorProto
    named = field.type in (kinds.TYPE_MESSAGE, kinds.TYPE_ENUM)
    kind = kinds.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = field.type_name.removeprefix(".caffe.") if named else kind
    label = kinds.Label.Name(field.label).removeprefix("LABEL_").lower()
    default = value(field.default_value, kind) if field.HasField("default_value") else None
    return field.number, field.name, label, kind, default, field.options.packed


def expected_row(line: str) -> tuple[Any, ...]:
    """A line of the table: number name [repeated|required] type [= default] [packed]."""
    pattern = r"(\d+) (\w+) (?:(repeated|required) )?([\w.]+)(?: = (.*?))?( packed)?"
    match = re.fullmatch(pattern, line)
    assert match, line
    number, name, label, kind, default, packed = match.groups()
    stated = value(default, kind) if default is not None else None
    return int(number), name, label or "optional", kind, stated, bool(packed)


def test_every_message_of_the_table_is_there_and_no_other():
    assert set(schema.MESSAGES) == set(REGISTERED) == set(MESSAGES)


@pytest.mark.parametrize("name", MESSAGES)
def test_message_equals_the_table(name):
    description = REGISTERED[name]
    assert [table_row(f) for f in description.field] == [
        expected_row(line) for line in MESSAGES[name]["fields"]
    ]
    assert {
        enum.name: {v.name: v.number for v in enum.value} for enum in description.enum_type
    } == MESSAGES[name].get("enums", {})


def test_top_level_enums_equal_the_table():
    file = registered()
    assert file.package == "caffe"
    assert {e.name: {v.name: v.number for v in e.value} for e in file.enum_type} == TABLE["enums"]


def test_defaults_as_python_values():
    assert schema.FillerParameter().type == "constant"
    assert schema.BatchNormParameter().eps == pytest.approx(1e-5, rel=1e-6)  # a float32
    assert schema.SolverParameter().snapshot_after_train is True
    assert schema.SolverParameter().random_seed == -1


def test_every_message_is_described():
    assert len(re.findall(r"(?m)^// .*\nmessage \w+ {$", PROTO_TEXT)) == len(MESSAGES)


def test_enums_read_both_ways():
    net = schema.NetParameter()
    layer = net.layer.add(phase=schema.enum("Phase", "TRAIN"))
    assert schema.enum_name(layer, "phase") == "TRAIN"
    layer.pooling_param.pool = schema.enum("PoolingParameter.PoolMethod", "AVE")
    assert layer.pooling_param.pool == schema.PoolingParameter.AVE
    assert schema.enum_name(layer.pooling_param, "pool") == "AVE"
    assert schema.enum_name(schema.LossParameter(), "normalization") == "VALID"


def test_enum_name_of_another_field():
    with pytest.raises(TypeError, match=r"LayerParameter\.name is no enum"):
        schema.enum_name(schema.LayerParameter(), "name")


def test_unknown_message_suggests_names():
    with pytest.raises(AttributeError, match=r"no message 'ConvParameter' \(did you mean"):
        _ = schema.ConvParameter


def test_unpacked_values_of_old_files_are_read():
    unpacked = b"".join(b"\x2d" + struct.pack("<f", number) for number in (1.5, -2.0))
    assert list(schema.BlobProto.FromString(unpacked).data) == [1.5, -2.0]
    assert schema.BlobProto(data=[1.5]).SerializeToString() == b"\x2a\x04" + struct.pack("<f", 1.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("message A {\n  optional int32 a 1;\n}", "x.proto:2:20: expected '=', found '1'"),
        ("service A {}", "x.proto:1:9: 'service' is not in the part of proto2 read here"),
        ("message A {", "x.proto:1:12: expected optional, required or repeated, found the end"),
    ],
)
def test_proto_file_errors(text, message):
    with pytest.raises(PrototxtError, match=re.escape(message)):
        proto_file.read_proto(text, "x.proto")


def run_python(code: str, *folders: Path) -> str:
    """Standard output of a fresh interpreter that finds the project, and ``folders`` first."""
    path = os.pathsep.join(str(folder) for folder in (*folders, ROOT))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


OTHER_BINDING = """
from google.protobuf import descriptor_pb2, descriptor_pool
file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
message = file.message_type.add(name="BlobProto")
message.field.add(name="other", number=1, type=9, label=1)
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
other = descriptor_pool.Default().FindMessageTypeByName("caffe.BlobProto")
"""
OURS = "from port import schema; schema.NetParameter(name='x')\n"
BOTH = "print([f.name for f in other.fields][:1], schema.BlobProto.DESCRIPTOR.fields[0].name)"


@pytest.mark.parametrize("code", [OTHER_BINDING + OURS, OURS + OTHER_BINDING])
def test_another_caffe_package_in_the_process_does_not_clash(code):
    assert run_python(code + BOTH).strip() == "['other'] num"


def test_import_takes_less_than_60_ms_beyond_protobuf():
    code = """
import time
import google.protobuf.descriptor_pool, google.protobuf.message_factory
start = time.process_time()
from port import schema
print(time.process_time() - start)
"""
    assert min(float(run_python(code)) for _ in range(3)) < 0.060


@pytest.mark.slow
@pytest.mark.parametrize("requirement", ["protobuf==4.25.*", "protobuf>=7"])
def test_oldest_and_newest_protobuf(requirement, tmp_path):
    """The tests of schema, text and upgrade pass on both ends of the supported range."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(tmp_path)]
    subprocess.run([*install, requirement], check=True, capture_output=True, timeout=300)
    version = run_python("import google.protobuf as g; print(g.__version__, g.__file__)", tmp_path)
    assert version.startswith("4.25." if "4.25" in requirement else "7."), version
    assert str(tmp_path) in version
    names = ("test_schema.py", "test_prototxt.py", "test_upgrade.py")
    files = [str(Path(__file__).with_name(name)) for name in names]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
