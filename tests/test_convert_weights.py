"""Weights between caffemodel, HDF5, torch and safetensors: exact, stable, and honest errors."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import GOLDEN
from test_onnx import SMALL, small_net

from converters.weights import load_weights, save_weights, state_dict, weights_report
from port import load_net
from port.caffemodel import read_weights, write_caffemodel
from port.errors import ConversionError, PortError, WeightsError
from port.net import Net

TRAINED = GOLDEN / "train_small"
FORMATS = (".caffemodel", ".h5", ".pt", ".pth", ".safetensors")


def bits(net: Net) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in state_dict(net).items()}


def test_key_names() -> None:
    net = load_net(SMALL.replace('name: "conv" type', 'name: "conv1-1/a" type'))
    assert list(state_dict(net)) == [
        *("conv1_1_a.weight", "bn.mean", "bn.variance", "bn.scale_factor"),
        *("scale.weight", "scale.bias", "prelu.weight", "fc.weight", "fc.bias"),
    ]


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_round_trip_is_exact(first: str, second: str, tmp_path: Path) -> None:
    net = small_net()
    net.params["fc"][1].data[:3] = torch.tensor([-0.0, float("inf"), 1e-42])
    one, two = tmp_path / f"a{first}", tmp_path / f"b{second}"
    save_weights(net, one)
    middle, last = load_net(SMALL), load_net(SMALL)
    load_weights(middle, one)
    save_weights(middle, two)
    load_weights(last, two)
    assert bits(last) == bits(net)


@pytest.mark.parametrize("suffix", FORMATS)
def test_same_net_same_bytes(suffix: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_weights(small_net(), tmp_path / f"{name}{suffix}")
    written = [(tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b")]
    if suffix in (".pt", ".pth"):  # torch stores the file's own stem as the archive's folder
        written = [data for data in written if len(data) == len(written[0])]
        assert len(written) == 2
    else:
        assert written[0] == written[1]


@pytest.mark.parametrize("name", ["init.caffemodel", "resume_iter_15.caffemodel"])
def test_originals_file_through_a_state_dict(name: str, tmp_path: Path) -> None:
    """caffemodel of the original → state_dict → caffemodel: the same blobs, bit for bit."""
    source = TRAINED / name
    theirs = read_weights(source)
    layers = {layer: blobs for layer, blobs in theirs.items() if blobs}
    options = {"phase": "TRAIN", "open_data": False, "input_shape": (3, 112, 96)}
    net = load_net(TRAINED / "train.prototxt", source, **options)
    save_weights(net, tmp_path / "w.pt")
    again = load_net(TRAINED / "train.prototxt", **options)
    load_weights(again, tmp_path / "w.pt")
    write_caffemodel(again, tmp_path / "w.caffemodel")
    ours = read_weights(tmp_path / "w.caffemodel")
    assert layers
    for layer, blobs in layers.items():
        for a, b in zip(ours[layer], blobs, strict=True):
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes()


def test_report(tmp_path: Path) -> None:
    write_caffemodel(small_net(), tmp_path / "w.caffemodel")
    net = load_net(SMALL.replace('name: "fc" type', 'name: "fc_new" type'))
    rows = weights_report(net, tmp_path / "w.caffemodel")
    found = [(row.layer, row.index, row.shape) for row in rows if row.state == "missing"]
    assert found == [("fc_new", 0, (5, 24)), ("fc_new", 1, (5,))]
    found = [(row.layer, row.index, row.shape) for row in rows if row.state == "unused"]
    assert found == [("fc", 0, (5, 24)), ("fc", 1, (5,))]
    used = [row.layer for row in rows if row.state == "used"]
    assert used == ["conv", "bn", "bn", "bn", "scale", "scale", "prelu"]


def test_refusals(tmp_path: Path) -> None:
    net = small_net()
    with pytest.raises(ConversionError, match=r"w.bin: the suffix must be one of .caffemodel, .h5"):
        save_weights(net, tmp_path / "w.bin")
    state = state_dict(net)
    state["fc.wieght"] = state.pop("fc.weight")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"lacks 'fc.weight' \(did you mean 'fc.wieght'\?\)"):
        load_weights(net, tmp_path / "w.pt")
    state["fc.weight"] = state["fc.wieght"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"holds 'fc.wieght', which the net has not"):
        load_weights(net, tmp_path / "w.pt")
    del state["fc.wieght"]
    state["fc.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"'fc.weight' is \(2, 2\), the net has \(5, 24\)"):
        load_weights(net, tmp_path / "w.pt")


class Bomb:
    """What a hostile .pt file would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 100, b"{" * 1000, None, 1])
def test_hostile_state_files(suffix: str, content: bytes | int | None, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    if content is None:
        path.write_bytes(pickle.dumps(Bomb()))
    elif content == 1:
        torch.save([1, 2], path)
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.(pt|safetensors): "):
        load_weights(small_net(), path)


@pytest.mark.parametrize("suffix", [".h5", ".pt", ".pth", ".safetensors"])
def test_cut_short(suffix: str, tmp_path: Path) -> None:
    """A caffemodel cut between two layers is a smaller one; test_caffemodel has those."""
    path = tmp_path / f"w{suffix}"
    save_weights(small_net(), path)
    whole = path.read_bytes()
    for percent in range(0, 100, 4):
        path.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(PortError, match=path.name):
            load_weights(small_net(), path)


def test_missing_file(tmp_path: Path) -> None:
    for suffix in FORMATS:
        with pytest.raises(WeightsError, match="no such file"):
            load_weights(small_net(), tmp_path / f"absent{suffix}")


def test_values_survive_layout() -> None:
    """The net holds convolutions channels_last; a state_dict is plain."""
    net = small_net()
    weight = state_dict(net)["conv.weight"]
    assert weight.is_contiguous()
    assert np.array_equal(weight.numpy(), net.params["conv"][0].detach().numpy())
