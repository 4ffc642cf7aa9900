"""What single golden cases of the layers cannot show: random draws, state, files, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import SUMS, Case, build
from tolerance import FORWARD, assert_close

from port import schema
from port.errors import NetError
from port.layers.layer import DataLayer
from port.layers.python import NumpyBlob
from port.net import as_list, load_net

OVERWRITTEN = ["layer_HingeLoss_l1", "layer_HingeLoss_l2"]


def test_dropout() -> None:
    case = Case("layer_Dropout_train")
    fed = case.inputs()
    top = case.net(**fed)["y"]
    kept = top != 0
    scaled = fed["x"] / (1 - 0.4)
    assert_close(top, torch.where(kept, scaled, 0.0), 1e-6, "one multiplication")
    assert 0.4 < kept.float().mean() < 0.8, "200 draws with probability 0.6: five sigma"
    top.backward(torch.ones_like(top))
    assert_close(fed["x"].grad, kept / (1 - 0.4), 1e-6, "the same mask")


@pytest.mark.parametrize("name", OVERWRITTEN)
def test_hinge_gradient(name: str) -> None:
    """The recorded din is the formula at margins of 777; ours is the formula at the margins."""
    case = Case(name)
    fed = case.inputs()
    loss = case.net(**fed)["loss"]
    loss.backward(torch.tensor(case.under("dout")["loss"]))
    scores, labels = case.under("in")["x"], case.under("in")["l"].astype(int)
    sign = np.ones_like(scores)
    sign[np.arange(len(labels)), labels] = -1
    weight = case.under("dout")["loss"] / len(labels)
    slope = np.sign if name.endswith("l1") else lambda margin: 2 * margin
    assert_close(sign * slope(777.0) * weight, case.under("din")["x"], FORWARD, "one product")
    ours = sign * slope(np.maximum(0, 1 + scores * sign)) * weight
    assert_close(fed["x"].grad, ours, FORWARD, "one product")


POOLS = [
    (5, 7, (3, 3), (2, 2), (2, 2)),
    (6, 5, (2, 3), (4, 5), (0, 0)),
    (7, 6, (1, 2), (3, 3), (0, 1)),
    (5, 6, (2, 2), (3, 3), (1, 1)),
    (2, 3, (3, 4), (2, 1), (2, 3)),
    (4, 2, (3, 3), (2, 2), (0, 0)),
]


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize(("height", "width", "kernel", "stride", "pad"), POOLS)
def test_pooling_by_hand(pool: str, height: int, width: int, kernel, stride, pad) -> None:
    """Windows that torch would not form: pad above half the kernel, stride above the kernel."""
    sizes = " ".join(
        f"{what}_h: {pair[0]} {what}_w: {pair[1]}"
        for what, pair in (("kernel", kernel), ("stride", stride), ("pad", pad))
    )
    tops = 'top: "y" top: "mask"' if pool == "MAX" else 'top: "y"'
    text = f'type: "Pooling" bottom: "a" {tops} pooling_param {{ pool: {pool} {sizes} }}'
    layer = build(text, (1, 1, height, width))
    x = torch.randn(1, 1, height, width, dtype=torch.float64)
    tops = as_list(layer(x))
    theirs = _pool(x[0, 0].numpy(), pool, kernel, stride, pad)
    assert [tuple(top.shape) for top in tops] == layer.top_shapes
    for ours, wanted in zip(tops, theirs, strict=False):
        assert_close(ours[0, 0], wanted, 1e-12, "float64")


def _pool(image: np.ndarray, pool: str, kernel, stride, pad) -> tuple[np.ndarray, np.ndarray]:
    """Caffe's loops over the windows."""
    size = [
        int(np.ceil((n + 2 * p - k) / s)) + 1 for n, k, s, p in _axes(image, kernel, stride, pad)
    ]
    if any(pad):
        steps = zip(size, _axes(image, kernel, stride, pad), strict=True)
        size = [n - ((n - 1) * s >= length + p) for n, (length, _, s, p) in steps]
    top, mask = np.full(size, -np.float64(np.finfo(np.float32).max)), np.full(size, -1.0)
    for at in np.ndindex(*size):
        start = [i * s - p for i, s, p in zip(at, stride, pad, strict=True)]
        limit = [n + p for n, p in zip(image.shape, pad, strict=True)]
        end = [min(b + k, n) for b, k, n in zip(start, kernel, limit, strict=True)]
        rows, columns = (
            range(max(b, 0), min(e, n)) for b, e, n in zip(start, end, image.shape, strict=True)
        )
        window = [(image[r, c], r * image.shape[1] + c) for r in rows for c in columns]
        if pool == "AVE":
            with np.errstate(all="ignore"):
                area = np.float64((end[0] - start[0]) * (end[1] - start[1]))
                top[at] = np.float64(sum(value for value, _ in window)) / area
        elif window:
            top[at], mask[at] = max(window, key=lambda pair: (pair[0], -pair[1]))
    return top, mask


def _axes(image: np.ndarray, kernel, stride, pad) -> Iterator[tuple[int, int, int, int]]:
    return zip(image.shape, kernel, stride, pad, strict=True)


def test_stochastic_pooling() -> None:
    text = (
        'type: "Pooling" bottom: "a" top: "y" pooling_param { pool: STOCHASTIC '
        "kernel_size: 3 stride: 2 }"
    )
    x = torch.tensor([[1.0, 0, 0, 3], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 6]]).reshape(1, 1, 4, 4)
    test = build(text, (1, 1, 4, 4))
    mean = [[1.0, 3.0], [0.0, 6.0]]
    assert_close(test(x)[0, 0], mean, 1e-6, "sum of squares over sum, of one value each")
    torch.manual_seed(0)
    x = torch.tensor([1.0, 3.0]).repeat(2000).reshape(1, 1, 2000, 2)
    text = text.replace("kernel_size: 3 stride: 2", "kernel_h: 1 kernel_w: 2")
    train = build(text, tuple(x.shape), phase="TRAIN")
    drawn = train(x.requires_grad_())
    share = (drawn == 3).float().mean()
    assert 0.70 < share < 0.80, "3 with probability 3/4, 2000 draws: five sigma"
    drawn.sum().backward()
    assert torch.equal(x.grad[0, 0, :, 1], (drawn[0, 0, :, 0] == 3).float())


def test_lstm_unit() -> None:
    layer = build(
        'type: "LSTMUnit" bottom: "a" bottom: "b" bottom: "c" top: "new" top: "h"',
        *((1, 2, 3), (1, 2, 12), (1, 2)),
    )
    torch.manual_seed(0)
    c = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    gates = torch.randn(1, 2, 12, dtype=torch.float64, requires_grad=True)
    cont = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    new, h = layer(c, gates, cont)
    i, f, o, g = gates.chunk(4, 2)
    wanted = torch.sigmoid(f) * c * cont.unsqueeze(2) + torch.sigmoid(i) * torch.tanh(g)
    assert_close(new, wanted, 1e-12, "float64")
    assert_close(h, torch.sigmoid(o) * torch.tanh(wanted), 1e-12, "float64")
    assert torch.autograd.gradcheck(layer, (c, gates, cont))


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_sequence_in_two_parts(kind: str) -> None:
    """The state carries over to the next forward, or through the exposed bottoms and tops."""
    n = {"LSTM": 2, "RNN": 1}[kind]
    filler = 'weight_filler { type: "uniform" min: -1 max: 1 }'
    param = f"recurrent_param {{ num_output: 3 {filler} }}"
    bottoms = 'bottom: "a" bottom: "b" bottom: "c"'
    shapes = [(4, 2, 5), (4, 2), (2, 6)]
    whole = build(f'type: "{kind}" {bottoms} top: "y" {param}', *shapes)
    x, static = torch.randn(4, 2, 5), torch.randn(2, 6)
    cont = torch.tensor([[0.0, 0], [1, 1], [1, 0], [1, 1]])
    together = whole(x, cont, static)
    parts = [whole(x[:2], cont[:2], static), whole(x[2:], cont[2:], static)]
    assert_close(torch.cat(parts), together, 1e-6, SUMS)

    names = "defg"[:n]
    hidden = "".join(f' bottom: "{name}"' for name in names)
    outs = "".join(f' top: "{name}_end"' for name in names)
    text = f'type: "{kind}" {bottoms}{hidden} top: "y"{outs} {param[:-1]} expose_hidden: true }}'
    exposed = build(text, *shapes, *[(1, 2, 3)] * n)
    exposed.load_state_dict(whole.state_dict())
    first, *states = exposed(x[:2], cont[:2], static, *[torch.ones(1, 2, 3)] * n)
    second, *states = exposed(x[2:], cont[2:], static, *states)
    assert_close(torch.cat([first, second]), together, 1e-6, SUMS)
    assert [tuple(state.shape) for state in states] == exposed.top_shapes[1:]


def test_parameter() -> None:
    layer = build('type: "Parameter" top: "y" parameter_param { shape { dim: 2 dim: 3 } }')
    assert layer.top_shapes == [(2, 3)]
    layer.blobs[0].data.fill_(2)
    layer().square().sum().backward()
    assert torch.equal(layer.blobs[0].grad, torch.full((2, 3), 4.0))


def test_infogain_from_a_file(tmp_path: Path) -> None:
    case = Case("layer_InfogainLoss_a")
    matrix = schema.BlobProto(data=case.under("in")["H"].ravel().tolist())
    (tmp_path / "H.binaryproto").write_bytes(matrix.SerializeToString())
    layer = build(
        'type: "InfogainLoss" bottom: "a" bottom: "b" top: "loss" top: "prob" '
        'loss_weight: 1 loss_weight: 0 infogain_loss_param { source: "H.binaryproto" }',
        *((6, 7), (6,)),
        folder=tmp_path,
    )
    fed = case.inputs()
    logits = fed["x"].detach().double().requires_grad_()
    loss, prob = layer(logits, fed["l"])
    assert_close(loss, case.under("out")["loss"], FORWARD, SUMS)
    assert_close(prob.sum(1), torch.ones(6), 1e-6, SUMS)
    assert torch.autograd.gradcheck(lambda x: layer(x, fed["l"])[0], (logits,))


@pytest.mark.parametrize(("kind", "picks"), [("BatchReindex", [2, 0, 2, 1]), ("Filter", [0, 1, 1])])
def test_picked_items(kind: str, picks: list[int]) -> None:
    """An item's gradient is the sum over the tops it went to."""
    layer = build(f'type: "{kind}" bottom: "a" bottom: "b" top: "y"', (3, 2), (len(picks),))
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor(picks, dtype=torch.float64)
    top = layer(x, index)
    places = picks if kind == "BatchReindex" else [i for i, pick in enumerate(picks) if pick]
    assert torch.equal(top, x[places])
    assert torch.autograd.gradcheck(lambda x: layer(x, index), (x,))


IN_PLACE = {
    "BNLL": "",
    "Log": "log_param { base: 2 shift: 5 }",
    "Power": "power_param { power: 3 scale: 2 shift: 1 }",
    "ReLU": "relu_param { negative_slope: -0.5 }",
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_gradient_in_place_is_the_gradient(kind: str) -> None:
    """The original reads its bottom in backward, which the top has overwritten by then."""

    def gradient(top: str) -> torch.Tensor:
        net = load_net(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
            'layer { name: "s" type: "Split" bottom: "x" top: "a" }'
            f'layer {{ name: "l" type: "{kind}" bottom: "a" top: "{top}" {IN_PLACE[kind]} }}'
        )
        x = torch.linspace(-2, 2, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
        net(x)[top].square().sum().backward()
        return x.grad

    assert torch.equal(gradient("a"), gradient("y"))
    assert gradient("a").abs().min() > 0


def test_infogain_gives_its_probabilities_without_loss_weights() -> None:
    layer = build(
        'type: "InfogainLoss" bottom: "a" bottom: "b" bottom: "c" top: "loss" top: "prob"',
        *((6, 7), (6,), (1, 1, 7, 7)),
    )
    assert list(layer.spec.loss_weight) == [1]
    assert layer.top_shapes == [(), (6, 7)]


def test_dummy_data() -> None:
    layer = build(
        'type: "DummyData" top: "x" top: "y" dummy_data_param { num: 2 channels: 3 height: 4 '
        'width: 5 data_filler { type: "constant" value: 7 } data_filler { type: "gaussian" } }'
    )
    assert isinstance(layer, DataLayer)
    (x, y), (again, other) = layer.next_batch(), layer.next_batch()
    assert layer.top_shapes == [tuple(x.shape), tuple(y.shape)] == [(2, 3, 4, 5)] * 2
    assert bool((x == 7).all())
    assert torch.equal(x, again)
    assert not torch.equal(y, other)


def test_memory_data() -> None:
    text = (
        'layer { name: "d" type: "MemoryData" top: "x" top: "y" '
        "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"
    )
    net = load_net(text)
    with pytest.raises(NetError, match="has no data of its own: give x, y by name"):
        net()
    data = torch.arange(12.0).reshape(4, 1, 1, 3)
    net.layers[0].reset(data, torch.arange(4.0))
    served = [net()["y"].tolist() for _ in range(3)]
    assert served == [[0, 1], [2, 3], [0, 1]]
    with pytest.raises(NetError, match="3 items are no multiple of batch_size 2"):
        net.layers[0].reset(data[:3], torch.arange(3.0))


def test_hdf5_output(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "out.h5"
    layer = build(
        f'type: "HDF5Output" bottom: "a" bottom: "b" hdf5_output_param {{ file_name: "{path}" }}',
        *((2, 3), (2,)),
    )
    data = torch.randn(2, 3)
    for _ in range(2):
        layer(data, torch.tensor([4.0, 5.0]))
    with h5py.File(path) as file:
        assert file["data"].shape == (4, 3, 1, 1)
        assert file["label"][:, 0, 0, 0].tolist() == [4, 5, 4, 5]
        assert np.array_equal(file["data"][2:, :, 0, 0], data.numpy())


USER_LAYER = """
import caffe

class Scaled(caffe.Layer):
    def setup(self, bottom, top):
        self.factor = float(self.param_str)
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * self.blobs[0].data[0] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = self.factor * (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * self.blobs[0].data[0] * top[0].diff
"""
USER_TEXT = (
    'type: "Python" bottom: "a" top: "y" '
    'python_param { module: "scaled_by_test" layer: "Scaled" param_str: "3" }'
)


def test_python_layer(tmp_path: Path) -> None:
    (tmp_path / "scaled_by_test.py").write_text(USER_LAYER)
    layer = build(USER_TEXT, (2, 3), folder=tmp_path, allow_python=True)
    x = torch.randn(4, 3, requires_grad=True)
    top = layer(x)
    top.backward(torch.ones_like(top))
    assert_close(top, 6 * x, 1e-6, "two products")
    assert_close(x.grad, torch.full((4, 3), 6.0), 0, "a constant")
    assert_close(layer.blobs[0].grad, 3 * x.sum().reshape(1), 1e-5, SUMS)


def test_python_layer_needs_permission(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"would run the class 'Scaled' .* give --allow-python"):
        build(USER_TEXT, (2, 3), folder=tmp_path)
    with pytest.raises(NetError, match="cannot load 'Scaled' from module 'scaled_by_tests'"):
        build(USER_TEXT.replace("by_test", "by_tests"), (2, 3), folder=tmp_path, allow_python=True)


def test_python_layer_failure_is_one_message(tmp_path: Path) -> None:
    broken = USER_LAYER.replace("self.factor * self.blobs[0].data[0] *", "1 / 0 *")
    (tmp_path / "broken_by_test.py").write_text(broken)
    text = USER_TEXT.replace("scaled_by_test", "broken_by_test")
    layer = build(text, (2, 3), folder=tmp_path, allow_python=True)
    with pytest.raises(NetError, match=r"broken_by_test\.Scaled\.forward failed: ZeroDivision"):
        layer(torch.ones(2, 3))


def test_numpy_blob() -> None:
    blob = NumpyBlob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]]
    blob.reshape(4)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (4, 1, 1, 1, 4)


def test_batch_norm_keeps_its_blobs_from_the_solver() -> None:
    text = 'type: "BatchNorm" bottom: "a" top: "y"'
    assert [spec.lr_mult for spec in build(text, (2, 3)).spec.param] == [0, 0, 0]
    with pytest.raises(NetError, match="lr_mult must be 0, found 1"):
        build(text + " param { lr_mult: 1 }", (2, 3))


CONV = 'type: "Convolution" bottom: "a" top: "y" convolution_param { num_output: 4 %s }'
POOL = 'type: "Pooling" bottom: "a" top: "y" pooling_param { %s }'
LOSS = 'type: "SoftmaxWithLoss" bottom: "a" bottom: "b" top: "loss"'
IMAGE = (1, 3, 8, 8)
REFUSED = [
    (CONV % "kernel_size: 3 kernel_h: 3 kernel_w: 3", [IMAGE], "both kernel_size and kernel_h"),
    (CONV % "kernel_h: 3", [IMAGE], "kernel must be above 0, found 3 x 0"),
    (CONV % "kernel_h: 3 kernel_w: 3", [(1, 3, 8)], "need 2 spatial axes, the bottom has 1"),
    (CONV % "kernel_size: 3 kernel_size: 3 kernel_size: 3", [IMAGE], "kernel_size 3 times"),
    (CONV % "", [IMAGE], "kernel_size 0 times"),
    (CONV % "kernel_size: 3 group: 2", [IMAGE], "group 2 must divide the 3 channels"),
    (CONV % "kernel_size: 3", [(1, 3, 8, 8, 8, 8)], "has 4 spatial axes after axis 1; up to 3"),
    (CONV % "kernel_size: 3 dilation: 0", [IMAGE], "dilation must be above 0, found 0 x 0"),
    (
        'type: "Im2col" bottom: "a" top: "y" convolution_param { kernel_size: 3 num_output: 4 }',
        [IMAGE],
        "field 'num_output' of convolution_param is not supported",
    ),
    ('type: "MVN" bottom: "a" top: "y"', [(2, 3, 0, 4)], "needs planes with values in them"),
    (CONV % "kernel_size: 9", [IMAGE], r"windows of \(9, 9\) pixels do not fit"),
    (CONV % "kernel_size: 3 axis: 4", [IMAGE], "axis 4 is out of range for a bottom of 4 axes"),
    (POOL % "", [IMAGE], "kernel and stride must be 1 to"),
    (POOL % "kernel_size: 3 pad: 3", [IMAGE], r"pad \(3, 3\) must be smaller than the kernel"),
    (POOL % "kernel_size: 3 stride_h: 2", [IMAGE], "stride_h and stride_w together"),
    (POOL % "global_pooling: true kernel_size: 3", [IMAGE], "give no kernel size"),
    (POOL % "kernel_size: 2", [(1, 3, 8)], r"needs a bottom \(N, C, H, W\)"),
    (LOSS + ' top: "prob"', [(2, 3), (2,)], r"takes 1 top\(s\), found 2"),
    (LOSS, [(2, 3), (3,)], "one label for each of 2 predictions"),
    (LOSS + " loss_weight: 1 loss_weight: 1", [(2, 3), (2,)], "loss_weight 2 times for 1 top"),
    ('type: "PReLU" bottom: "a" top: "y"', [(3,)], "at least 2 axes"),
    (
        'type: "Concat" bottom: "a" bottom: "b" top: "y"',
        [(2, 3), (3, 3)],
        "may differ at axis 1 only",
    ),
    (
        'type: "Concat" bottom: "a" top: "y" concat_param { axis: 1 concat_dim: 1 }',
        [(2, 3)],
        "both axis and concat_dim",
    ),
    (
        'type: "Eltwise" bottom: "a" bottom: "b" top: "y" eltwise_param { coeff: 1 }',
        [(2, 3), (2, 3)],
        "1 coeff for 2 bottoms",
    ),
    (
        'type: "Scale" bottom: "a" bottom: "b" top: "y"',
        [(2, 3), (4,)],
        r"shape \(4,\) does not fit a bottom of shape \(2, 3\) at axis 1",
    ),
    (
        'type: "Slice" bottom: "a" top: "x" top: "y"',
        [(2, 3)],
        r"cannot cut axis 1 of \(2, 3\) into 2 equal pieces",
    ),
    (
        'type: "Reshape" bottom: "a" top: "y" reshape_param { shape { dim: 4 dim: -1 } }',
        [(2, 3)],
        r"cannot become \(4, -1\)",
    ),
    ('type: "LRN" bottom: "a" top: "y" lrn_param { local_size: 4 }', [IMAGE], "must be odd"),
    ('type: "Tile" bottom: "a" top: "y"', [(2, 3)], "needs tiles above 0"),
    (
        'type: "Tile" bottom: "a" top: "y" tile_param { tiles: 2147483647 }',
        [(2, 3)],
        r"top 'y' would have shape \(2, 6442450941\): no such blob",
    ),
    ('type: "Log" bottom: "a" top: "y" log_param { base: 0 }', [(2, 3)], "base must be above 0"),
    (
        'type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 2 '
        'weight_filler { type: "xaver" } }',
        [(2, 3)],
        r"unknown filler type 'xaver' \(did you mean 'xavier'",
    ),
    (
        'type: "Embed" bottom: "a" top: "y" embed_param { num_output: 4294967295 '
        "input_dim: 4294967295 }",
        [(2,)],
        "it is too large",
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), REFUSED)
def test_refuses(layer: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(NetError, match=message) as caught:
        build(layer, *shapes)
    assert "layer 'l' (" in str(caught.value)


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"])
@pytest.mark.parametrize("label", [-1.0, 3.0])
def test_label_out_of_range(kind: str, label: float) -> None:
    layer = build(f'type: "{kind}" bottom: "a" bottom: "b" top: "loss"', (2, 3), (2,))
    with pytest.raises(NetError, match=rf"layer 'l' \({kind}\): label {label:.0f} is outside 0"):
        layer(torch.rand(2, 3), torch.tensor([0.0, label]))
