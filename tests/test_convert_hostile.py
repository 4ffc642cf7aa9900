"""Damaged and hostile weight files through ``port convert``: our error, in time, no file."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest
from golden import GOLDEN

from converters.deploy import load_deploy
from converters.onnx import to_onnx
from port.caffemodel import read_weights
from port.errors import PortError
from port.wire import prefixed, varint

TRAINED = GOLDEN / "train_small"
SHAPE = (3, 112, 96)
SECONDS, BYTES = 2.0, 200e6


def convert(folder: Path, content: bytes) -> None:
    weights = folder / "w.caffemodel"
    weights.write_bytes(content)
    net = load_deploy(TRAINED / "train.prototxt", weights, ["fc5"], SHAPE)
    to_onnx(net, folder / "model.onnx", check=False)


def refused(folder: Path, content: bytes, message: str = "") -> None:
    """The conversion fails with one of our errors, within the bounds, and leaves nothing."""
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(PortError, match=message):
            convert(folder, content)
        assert time.process_time() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < BYTES
    finally:
        tracemalloc.stop()
    assert {path.name for path in folder.iterdir()} <= {"w.caffemodel"}


def test_the_whole_file_converts(tmp_path: Path) -> None:
    convert(tmp_path, (TRAINED / "init.caffemodel").read_bytes())
    assert (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("percent", range(100))
def test_truncated(percent: int, tmp_path: Path) -> None:
    whole = (TRAINED / "init.caffemodel").read_bytes()
    refused(tmp_path, whole[: len(whole) * percent // 100], r"w\.caffemodel")


def blob_of(claimed: int) -> bytes:
    """A layer 'fc5' whose blob says it holds that many bytes of floats."""
    blob = prefixed(5, claimed) + b"\0" * 64
    layer = prefixed(1, 3) + b"fc5" + prefixed(7, len(blob)) + blob
    return prefixed(100, len(layer)) + layer


SHAPED = prefixed(7, 7) + prefixed(1, 5) + varint(2_500_000_000)
HOSTILE = {
    "empty": b"",
    "zip": b"PK\x03\x04" + b"\0" * 200,
    "10 GB of floats": blob_of(10 * 2**30),
    "10 GB by its shape": prefixed(100, 16)
    + (prefixed(1, 3) + b"fc5" + prefixed(7, len(SHAPED)) + SHAPED),
    "wrong wire types": b"\x0d\0\0\0\0" * 100,
    "noise": bytes(range(256)) * 40,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, tmp_path: Path) -> None:
    refused(tmp_path, HOSTILE[name], r"w\.caffemodel")


def test_beyond_2_gib_is_read(tmp_path: Path) -> None:
    """A file that protobuf itself, and so Caffe, would refuse; here a sparse one."""
    count, shape = 600_000_000, b"".join(map(varint, (600, 1_000_000)))
    tail = prefixed(7, len(shape) + 2) + prefixed(1, len(shape)) + shape
    head = prefixed(5, 4 * count)
    size = len(head) + 4 * count + len(tail)
    name = prefixed(1, 2) + b"fc" + prefixed(7, size)
    with open(tmp_path / "w.caffemodel", "wb") as file:
        file.write(prefixed(100, len(name) + size) + name + head)
        file.seek(4 * count, 1)
        file.write(tail)
    (blob,) = read_weights(tmp_path / "w.caffemodel")["fc"]
    assert blob.shape == (600, 1_000_000)
    assert blob[-1, -1] == 0
