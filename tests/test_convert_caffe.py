"""ONNX and torch models as Caffe nets: the same numbers, or a refusal by the node's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from seeded import fill
from test_onnx import small_net
from tolerance import FORWARD, assert_close
from torch import nn

from converters.caffe import from_onnx, from_torch, write_caffe
from converters.onnx import Options, to_model
from port import load_net
from port.errors import ConversionError

REFERENCE = Path(__file__).resolve().parents[1] / "reference_prototxt"
SUMS = "float32 sums in another order"


def arch(net: Any) -> list[tuple[Any, ...]]:
    """Layers as (name, type, bottoms, tops, shapes of blobs)."""
    return [
        (
            x.name,
            x.type,
            *map(tuple, (x.spec.bottom, x.spec.top)),
            [tuple(b.shape) for b in x.blobs],
        )
        for x in net.layers
        if x.type != "Input"
    ]


def test_sphereface_20_and_back() -> None:
    """Through ONNX the whole net comes back: names, in-place blobs, splits, every bit."""
    net = load_net(REFERENCE / "sphereface_deploy.prototxt")
    fill(net, 5)
    back = from_onnx(to_model(net))
    assert arch(back) == arch(net)
    for layer, blobs in net.params.items():
        for a, b in zip(blobs, back.params[layer], strict=True):
            assert torch.equal(a, b), layer


@pytest.mark.data("mtcnn")
@pytest.mark.data("mobilefacenet")
@pytest.mark.parametrize("name", ["mtcnn/det1", "mtcnn/det2", "mtcnn/det4", "mobilefacenet"])
def test_nets_of_others_and_back(name: str, shared: Path) -> None:
    """from_onnx compares the numbers itself; here the shape of the net."""
    prototxt, weights = (f"{name}.prototxt", f"{name}.caffemodel")
    if name == "mobilefacenet":
        prototxt, weights = (f"{name}/{name}_deploy.prototxt", f"{name}/{name}.caffemodel")
    net = load_net(shared / prototxt, shared / weights)
    back = from_onnx(to_model(net, Options(batch=1)))
    assert [layer[:2] for layer in arch(back)] == [layer[:2] for layer in arch(net)]


def test_written_files_give_the_same(tmp_path: Path) -> None:
    net = from_onnx(to_model(small_net()))
    write_caffe(net, tmp_path / "net.prototxt")
    again = load_net(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    x = torch.rand(2, 3, 8, 6)
    with torch.no_grad():
        assert_close(again(x)["fc"], net(x)["fc"], 0, "the same net")
    assert arch(again) == arch(net)
    with pytest.raises(ConversionError, match=r"must end in \.prototxt"):
        write_caffe(net, tmp_path / "net.txt")


class Unit(nn.Module):
    """The residual unit of face recognition: BN, convolution, BN, PReLU, convolution, BN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1, self.bn2, self.bn3 = (nn.BatchNorm2d(channels) for _ in range(3))
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return x + self.bn3(self.conv2(y))


class Face(nn.Module):
    """A residual net with all that the usual ones have at their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.units = nn.Sequential(Unit(8), Unit(8))
        self.pool = nn.MaxPool2d(2)
        self.gap = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(8 * 6 * 4, 16)
        self.bn = nn.BatchNorm1d(16, affine=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.pool(self.units(self.act(self.stem((x - 0.5) / 0.25))))
        return self.bn(self.fc(self.dropout(x).flatten(1))), self.gap(x).view(x.size(0), -1)


def face() -> Face:
    torch.manual_seed(0)
    module = Face()
    with torch.no_grad():
        for name, value in (*module.named_buffers(), *module.named_parameters()):
            if "running" in name or "bn" in name:
                value.copy_(torch.rand(value.shape) + 0.5)
    return module.eval()


def test_torch_module(tmp_path: Path) -> None:
    module = face()
    net = from_torch(module, (1, 3, 12, 8))
    write_caffe(net, tmp_path / "face.prototxt")
    again = load_net(tmp_path / "face.prototxt", tmp_path / "face.caffemodel")
    x = torch.rand(3, 3, 12, 8)
    with torch.no_grad():
        embedding, pooled = module(x)
        ours = {value.shape[1]: value for value in again(x).values()}
    assert_close(ours[16], embedding, FORWARD, SUMS, "embedding")
    assert_close(ours[8], pooled, FORWARD, SUMS, "pooled")
    names = [layer.name for layer in again.layers]
    assert {"stem", "units.0.conv1", "units.1.bn3", "units.1.bn3_scale", "fc"} <= set(names)
    assert not module.training


def model(nodes: list[Any], constants: dict[str, np.ndarray], opset: int = 17) -> onnx.ModelProto:
    """A model of input x (1, 3, 7, 8) and output y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [1, 3, 7, 8])],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset_id = helper.make_opsetid("", opset)
    return helper.make_model(graph, opset_imports=[opset_id], ir_version=8)


def node(op: str, *inputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, ["x", *inputs], ["y"], "the_node", **attributes)


KERNEL = np.ones((4, 3, 3, 3), np.float32)
STRAIGHT = {
    "leaky": (node("LeakyRelu", alpha=0.3), {}),
    "elu": (node("Elu", alpha=0.7), {}),
    "softmax": (node("Softmax", axis=1), {}),
    "mul": (node("Mul", "c"), {"c": np.float32([[[2]], [[3]], [[4]]])}),
    "sub": (node("Sub", "c"), {"c": np.float32(0.5)}),
    "div": (node("Div", "c"), {"c": np.float32([4])}),
    "twice": (node("Add", "x"), {}),
    "conv": (node("Conv", "w", dilations=[2, 1], pads=[1, 0, 1, 0]), {"w": KERNEL}),
    "deconv": (node("ConvTranspose", "w", strides=[2, 2]), {"w": np.ones((3, 2, 2, 2), "f")}),
    "max": (node("MaxPool", kernel_shape=[3, 2], strides=[2, 2]), {}),
    "max up": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), {}),
    "average": (node("AveragePool", kernel_shape=[3, 2], strides=[2, 2]), {}),
    "global": (node("GlobalAveragePool"), {}),
    "flatten": (node("Reshape", "s"), {"s": np.int64([1, -1])}),
    "reshape": (node("Reshape", "s"), {"s": np.int64([0, 21, 8])}),
}


@pytest.mark.parametrize("name", STRAIGHT)
def test_operators(name: str) -> None:
    """from_onnx runs onnxruntime on each."""
    made, constants = STRAIGHT[name]
    net = from_onnx(model([made], constants))
    assert net.layers[-1].name == "the_node"


CROOKED = {
    "unknown": (node("Cos"), {}, "this operator is not known"),
    "rounding": (
        node("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        {},
        r"makes 3x4 windows, Caffe \(which rounds up\) 4x4",
    ),
    "uneven": (node("Conv", "w", pads=[0, 0, 1, 1]), {"w": KERNEL}, "pads unevenly"),
    "same": (node("Conv", "w", auto_pad="SAME_UPPER"), {"w": KERNEL}, "pads unevenly or by itself"),
    "average": (
        node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        {},
        "averages over pads",
    ),
    "two blobs": (node("Div", "x"), {}, "two blobs"),
    "no constant": (node("Conv", "x"), {}, "input 1 must be a constant"),
    "batch": (node("Reshape", "s"), {"s": np.int64([3, 56])}, "reshapes the batch"),
    "channels": (node("Conv", "w"), {"w": KERNEL[:, :2]}, "do not fit a Convolution"),
    "constant": (
        node("Add", "c"),
        {"c": np.ones((3, 7, 1), "f")},
        r"a constant of shape \(3, 7, 1",
    ),
}


@pytest.mark.parametrize("name", CROOKED)
def test_refused_by_name(name: str) -> None:
    made, constants, message = CROOKED[name]
    with pytest.raises(ConversionError, match=rf"node 'the_node' \({made.op_type}\): .*{message}"):
        from_onnx(model([made], constants))


def test_refused_torch_operator() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x, 1)

    with pytest.raises(ConversionError, match=r"operator 'cumsum' \(aten\.cumsum\.default\): this"):
        from_torch(Odd(), (1, 3, 4, 4))


def test_open_size_must_be_stated() -> None:
    made = model([node("Relu")], {})
    dims = made.graph.input[0].type.tensor_type.shape.dim
    dims[2].dim_param = dims[3].dim_param = "size"
    with pytest.raises(
        ConversionError, match=r"input 'x' is \(1, 3, None, None\): state its C,H,W"
    ):
        from_onnx(made)
    assert from_onnx(made, (3, 5, 5)).blob_shapes["x"] == (1, 3, 5, 5)


def test_no_model(tmp_path: Path) -> None:
    for i, content in enumerate((b"", b"\xff" * 50, b"PK\x03\x04")):
        path = tmp_path / f"{i}.onnx"
        path.write_bytes(content)
        with pytest.raises(ConversionError):
            from_onnx(path)
    with pytest.raises(ConversionError, match="absent"):
        from_onnx(tmp_path / "absent.onnx")


def test_damaged_models(tmp_path: Path) -> None:
    """Every byte of the graph's first part turned around, one at a time."""
    whole = to_model(small_net()).SerializeToString()
    path = tmp_path / "m.onnx"
    refused = 0
    for place in range(0, 900, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            from_onnx(path, check=False)
        except ConversionError:
            refused += 1
    assert refused > 150
