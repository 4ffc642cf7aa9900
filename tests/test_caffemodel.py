"""Weight files: what is read, what is written, and what damaged files are told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from golden import GOLDEN

from port import load_net, schema
from port.caffemodel import (
    net_to_message,
    read_weights,
    write_caffemodel,
    write_hdf5,
)
from port.errors import WeightsError
from port.prototxt import parse_binary
from port.wire import MOST_FIELDS, prefixed, varint

SMALL = GOLDEN / "train_small"
TINY = """
name: "tiny"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "PReLU" bottom: "y" top: "y" }
"""
IMAGE = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
"""


def written(tmp_path: Path, message: Any) -> Path:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message.SerializeToString())
    return path


def ip_message(shape: tuple[int, ...] = (4, 3), bias: tuple[int, ...] = (4,)) -> Any:
    net = schema.NetParameter(name="tiny")
    layer = net.layer.add(name="ip", type="InnerProduct")
    for dims, start in ((shape, 0), (bias, 100)):
        blob = layer.blobs.add()
        blob.shape.dim.extend(dims)
        blob.data.extend(range(start, start + int(np.prod(dims))))
    return net


# -- reading ---------------------------------------------------------------------------------


def test_values_equal_protobufs_own_reading() -> None:
    path = SMALL / "init.caffemodel"
    theirs = parse_binary(path.read_bytes(), schema.NetParameter)
    ours = read_weights(path)
    assert list(ours) == [layer.name for layer in theirs.layer]
    assert ours.types["fc6"] == "MarginInnerProduct"
    for layer in theirs.layer:
        for blob, values in zip(layer.blobs, ours[layer.name], strict=True):
            assert values.shape == tuple(blob.shape.dim)
            np.testing.assert_array_equal(values.reshape(-1), np.float32(blob.data))


def test_arrays_are_views_of_the_mapped_file() -> None:
    weights = read_weights(SMALL / "init.caffemodel")
    assert not weights["fc5"][0].flags.owndata
    assert not weights["fc5"][0].flags.writeable


def test_original_hdf5() -> None:
    ours = read_weights(SMALL / "init_without_fc5.caffemodel.h5")
    theirs = read_weights(SMALL / "init.caffemodel")
    assert set(ours) == set(theirs) - {"fc5"}
    for name, blobs in ours.items():
        for mine, golden in zip(blobs, theirs[name], strict=True):
            np.testing.assert_array_equal(mine, golden)


def test_unpacked_and_double_data(tmp_path: Path) -> None:
    values = np.float32([1.5, -2, 3, 4])
    unpacked = b"".join(varint(5 << 3 | 5) + value.tobytes() for value in values)
    doubles = prefixed(8, 32) + values.astype(np.float64).tobytes()
    split = prefixed(5, 8) + values[:2].tobytes() + unpacked[: 5 * 2]
    for body, wanted in ((unpacked, values), (doubles, values), (split, [1.5, -2, 1.5, -2])):
        blob = body + prefixed(7, 3) + prefixed(1, 1) + varint(4)
        layer = prefixed(1, 2) + b"ip" + prefixed(7, len(blob)) + blob
        path = tmp_path / "net.caffemodel"
        path.write_bytes(prefixed(100, len(layer)) + layer)
        np.testing.assert_array_equal(read_weights(path)["ip"][0], np.float32(wanted))


def test_v1_layers_and_their_type_names(tmp_path: Path) -> None:
    net = schema.NetParameter()
    layer = net.layers.add(
        name="ip", type=schema.enum("V1LayerParameter.LayerType", "INNER_PRODUCT")
    )
    layer.blobs.add(num=1, channels=1, height=4, width=3, data=range(12))
    weights = read_weights(written(tmp_path, net))
    assert weights.types == {"ip": "InnerProduct"}
    assert weights["ip"][0].shape == (1, 1, 4, 3)


def test_v0_layers(tmp_path: Path) -> None:
    net = schema.NetParameter()
    inner = net.layers.add().layer
    inner.name, inner.type = "ip", "innerproduct"
    inner.blobs.add(num=1, channels=1, height=4, width=3, data=range(12))
    assert read_weights(written(tmp_path, net))["ip"][0].shape == (1, 1, 4, 3)


# -- copying into a net ----------------------------------------------------------------------


def test_copied_by_name_extra_ignored_missing_kept(tmp_path: Path) -> None:
    message = ip_message()
    message.layer.add(name="other", type="InnerProduct").blobs.add(data=[1.0])
    net = load_net(TINY, written(tmp_path, message))
    assert net.params["ip"][0].tolist() == np.arange(12.0).reshape(4, 3).tolist()
    assert net.params["ip"][1].tolist() == [100, 101, 102, 103]
    assert net.params["relu"][0].tolist() == [0.25] * 4


def test_legacy_four_axis_shapes_fit(tmp_path: Path) -> None:
    message = ip_message()
    for blob, dims in zip(message.layer[0].blobs, ((1, 1, 4, 3), (1, 1, 1, 4)), strict=True):
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = dims
    net = load_net(TINY, written(tmp_path, message))
    assert net.params["ip"][1].tolist() == [100, 101, 102, 103]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ip_message((4, 5)), r"'ip' \(InnerProduct\): weights are 4x3, the caffemodel has 4x5"),
        (ip_message((1, 1, 4, 3)), "weights are 4x3, the caffemodel has 1x1x4x3"),
        (ip_message(bias=(5,)), r"layer 'ip' \(InnerProduct\): blob 1 is 4, the caffemodel has 5"),
    ],
)
def test_weights_of_the_wrong_shape(tmp_path: Path, message: Any, expected: str) -> None:
    with pytest.raises(WeightsError, match=expected):
        load_net(TINY, written(tmp_path, message))


def test_wrong_number_of_blobs(tmp_path: Path) -> None:
    message = ip_message()
    del message.layer[0].blobs[1]
    with pytest.raises(WeightsError, match=r"'ip' .*has 2 blobs, the caffemodel has 1"):
        load_net(TINY, written(tmp_path, message))


# -- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5"])
@pytest.mark.parametrize("text", [TINY, IMAGE])
def test_written_weights_come_back(tmp_path: Path, suffix: str, text: str) -> None:
    net, path = load_net(text), tmp_path / f"net{suffix}"
    (write_hdf5 if suffix.endswith("h5") else write_caffemodel)(net, path)
    again = load_net(text, path)
    for name, blobs in net.params.items():
        for ours, theirs in zip(again.params[name], blobs, strict=True):
            assert torch.equal(ours, theirs)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_message_has_values_in_nchw_order_whatever_the_layout() -> None:
    net = load_net(IMAGE)
    weight = net.params["conv"][0]
    weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    blob = net_to_message(net).layer[1].blobs[0]
    assert list(blob.shape.dim) == [4, 3, 3, 3]
    np.testing.assert_array_equal(np.float32(blob.data), weight.detach().contiguous().flatten())


def test_diff_is_the_gradient_or_zeros() -> None:
    net = load_net(TINY)
    net.params["ip"][0].grad = torch.ones(4, 3)
    weight, bias = net_to_message(net, diff=True).layer[1].blobs
    assert list(weight.diff) == [1] * 12
    assert list(bias.diff) == [0] * 4


def test_a_shared_parameter_is_stored_once_in_hdf5(tmp_path: Path) -> None:
    layer = """layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}"
      param {{ name: "w" }} param {{ name: "{1}" }}
      inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}"""
    text = TINY.splitlines()[2] + layer.format("a", "b1") + layer.format("b", "b2")
    net, path = load_net(text), tmp_path / "net.caffemodel.h5"
    write_hdf5(net, path)
    with h5py.File(path) as file:
        assert sorted(file["data/a"]) == ["0", "1"]
        assert sorted(file["data/b"]) == ["1"]
    assert torch.equal(load_net(text, path).params["b"][0], net.params["a"][0])


def test_layer_names_with_slashes_survive_hdf5(tmp_path: Path) -> None:
    text, path = TINY.replace('name: "relu"', 'name: "ip/relu"'), tmp_path / "net.h5"
    net = load_net(text)
    net.params["ip/relu"][0].data.fill_(0.5)
    write_hdf5(net, path)
    assert load_net(text, path).params["ip/relu"][0].tolist() == [0.5] * 4


@pytest.mark.parametrize("write", [write_caffemodel, write_hdf5])
def test_unwritable_place(tmp_path: Path, write: Any) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"file/net\.caffemodel: cannot be written"):
        write(load_net(TINY), tmp_path / "file" / "net.caffemodel")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"old")
    net = load_net(TINY)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(WeightsError, match="No space left"):
        write_caffemodel(net, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


# -- hostile files ---------------------------------------------------------------------------


GOOD = (SMALL / "init.caffemodel").read_bytes()
LYING = prefixed(100, 40) + prefixed(1, 2) + b"ip" + prefixed(7, 2**40) + b"\0" * 40
SHAPE = prefixed(7, 12) + prefixed(1, 10) + varint(2**62) + b"\1"


def blob_file(blob: bytes) -> bytes:
    layer = prefixed(1, 2) + b"ip" + prefixed(7, len(blob)) + blob
    return prefixed(100, len(layer)) + layer


HOSTILE = {
    "empty": (b"", "the file is empty"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "this is a zip archive .a torch checkpoint"),
    "gzip": (b"\x1f\x8b" + b"\0" * 100, "this is a gzip archive"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "this is a Git LFS pointer"),
    "prototxt": (b'name: "net"\nlayer { }\n' * 20, "in the net: field .* wire type"),
    "truncated": (GOOD[:300000], "byte .* of 300000, in .*: field .* bytes, .* are left"),
    "cut in a tag": (GOOD[:1], "byte 1 of 1, in the net: a number does not end"),
    "lying length": (LYING, "in layer 'ip': field 7 has 1099511627776 bytes, 29 are left"),
    "lying shape": (blob_file(SHAPE), "'ip', blob 0: shape 4611686018427387904x1 needs"),
    "odd packed": (blob_file(prefixed(5, 3) + b"abc"), "3 bytes of packed numbers"),
    "wrong type": (blob_file(varint(5 << 3) + b"\1"), "field 5 has wire type 0, 5 is expected"),
    "group": (b"\x0b" * 20, "field 1 has wire type 3, which Caffe has not"),
    "field zero": (b"\0" * 20, "no protobuf field has number 0"),
    "endless number": (b"\xff" * 20, "a number does not end"),
    "only a name": (prefixed(1, 3) + b"net", "holds no layers"),
    "many fields": (b"\x28\x01" * (MOST_FIELDS + 1), f"more than {MOST_FIELDS} fields"),
    "many axes": (blob_file(prefixed(7, 66) + b"\x08\1" * 33), "more than 32 axes"),
    "short runs": (
        blob_file((b"\x2d\0\0\0\0" + b"\x50\1") * 100_000),
        "values lie in more than 1000 pieces",
    ),
    "not hdf5 after all": (b"\x89HDF\r\n\x1a\n" + b"\1" * 500, "damaged HDF5"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_time(tmp_path: Path, name: str) -> None:
    content, message = HOSTILE[name]
    path = tmp_path / "bad.caffemodel"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(WeightsError, match=f"bad.caffemodel: .*{message}"):
        read_weights(path)
    assert time.process_time() - started < 2


def test_every_truncation_is_an_error_or_an_earlier_end(tmp_path: Path) -> None:
    """A cut between two layers is a shorter net; every other one is found."""
    net = load_net(TINY)
    path = tmp_path / "net.caffemodel"
    write_caffemodel(net, path)
    whole, whole_layers = path.read_bytes(), 0
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        try:
            read_weights(path)
            whole_layers += 1
        except WeightsError:
            pass
    assert whole_layers == 2


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.caffemodel: no such file"):
        read_weights(tmp_path / "none.caffemodel")


def test_hdf5_without_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data/ip/0"] = b"text"
        file["other"] = 1
    with pytest.raises(WeightsError, match="/data/ip/0 holds no numbers"):
        read_weights(tmp_path / "x.h5")
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["other"] = 1
    with pytest.raises(WeightsError, match="has no group /data"):
        read_weights(tmp_path / "y.h5")


def test_hdf5_that_claims_terabytes(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("data/ip/0", shape=(2**20, 2**20), dtype="f4", chunks=(64, 64))
    with pytest.raises(WeightsError, match="/data/ip/0 claims 4398046511104 bytes: damaged"):
        read_weights(tmp_path / "x.h5")
