"""Nets as ONNX: the original's outputs through onnxruntime, and every option of the writer."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from seeded import fill
from tolerance import FORWARD, assert_close

from converters.deploy import deploy, fold_batch_norm, load_deploy
from converters.onnx import Options, Pixels, to_model, to_onnx
from port import load_net
from port.caffemodel import write_caffemodel
from port.errors import ConversionError
from port.net import Net

REFERENCE = Path(__file__).resolve().parents[1] / "reference_prototxt"
SUMS = "float32 sums in another order"
SMALL = """
name: "small"
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false
    weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "scaled" scale_param { bias_term: true } }
layer { name: "prelu" type: "PReLU" bottom: "scaled" top: "scaled" }
layer { name: "pool" type: "Pooling" bottom: "scaled" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
TRAIN = """
name: "train"
layer { name: "data" type: "ImageData" top: "data" top: "label" include { phase: TRAIN }
  image_data_param { source: "list.txt" batch_size: 4 } }
layer { name: "fc5" type: "InnerProduct" bottom: "data" top: "fc5"
  inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "fc5" top: "fc5" }
layer { name: "fc6" type: "MarginInnerProduct" bottom: "fc5" bottom: "label"
  top: "fc6" top: "lambda"
  margin_inner_product_param { num_output: 7 type: QUADRUPLE weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc6" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "fc6" bottom: "label" top: "accuracy" }
"""


def small_net() -> Net:
    """SMALL with statistics that are not those of an untrained net."""
    torch.manual_seed(3)
    net = load_net(SMALL)
    for layer in net.layers:
        for name, blob in zip(layer.blob_names, layer.blobs, strict=True):
            if layer.type in ("BatchNorm", "Scale"):
                blob.data.uniform_(0.5, 1.5)
            if name == "scale_factor":
                blob.data.fill_(3.0)
    return net


def run(model: onnx.ModelProto | Path, *fed: np.ndarray) -> list[np.ndarray]:
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, fed, strict=True)))


def images(n: int = 2, seed: int = 1) -> np.ndarray:
    return np.random.RandomState(seed).uniform(-1, 1, (n, 3, 8, 6)).astype(np.float32)


# -- the original's outputs ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("deploy20_slim", "sphereface_deploy"),
        pytest.param("deploy64_slim", "sphereface_64_deploy", marks=pytest.mark.slow),
    ],
)
def test_golden_deploy(name: str, file: str) -> None:
    case = golden.load("deploy", name)
    net = load_net(REFERENCE / f"{file}.prototxt")
    fill(net, case.meta["seed_weights"])
    seed = np.random.RandomState(case.meta["seed_input"])
    data = seed.uniform(-1, 1, (2, 3, 112, 96)).astype(np.float32)
    thinned = {
        key[len("blob_") : -len("_every97")]: value
        for key, value in case.arrays.items()
        if key.endswith("_every97") and "_split_" not in key and key != "blob_data_every97"
    }
    names = ("fc5", *(blob for blob in thinned if blob != "fc5"))
    model = to_model(net, Options(outputs=names))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = dict(zip(names, session.run(list(names), {"data": data}), strict=True))
    for blob, theirs in thinned.items():
        assert_close(outputs[blob].reshape(-1)[::97], theirs, FORWARD, SUMS, blob)
    theirs = case.arrays["blob_fc5"]
    assert_close(outputs["fc5"], theirs, FORWARD, SUMS, "fc5")
    for rows in ([0], [1], [0, 1, 1, 0, 0, 1, 0]):
        (ours,) = session.run(["fc5"], {"data": data[rows]})
        assert_close(ours, theirs[rows], FORWARD, SUMS, f"batch {len(rows)}")
    kept = [layer.name for layer in net.layers if layer.type not in ("Input", "Split")]
    assert [node.name for node in model.graph.node if node.name != "fc5/Flatten"] == kept


@pytest.mark.data("mtcnn")
@pytest.mark.parametrize("name", ["det1", "det2", "det3", "det4"])
def test_golden_mtcnn(name: str, shared: Path, tmp_path: Path) -> None:
    files = shared / "mtcnn"
    net = load_deploy(files / f"{name}.prototxt", files / f"{name}.caffemodel")
    to_onnx(net, tmp_path / "m.onnx", Options(free_size=name == "det1"))
    arrays = golden.load("mtcnn", name).arrays
    fed = [key.removeprefix("in_") for key in arrays if key.startswith("in_")]
    assert fed
    for each in fed:
        outputs = run(tmp_path / "m.onnx", arrays[f"in_{each}"])
        for blob, ours in zip(net.outputs, outputs, strict=True):
            assert_close(ours, arrays[f"out_{each}/{blob}"], FORWARD, SUMS, f"{each}: {blob}")


ZOO = {
    "mobilefacenet": ("mobilefacenet_deploy.prototxt", "mobilefacenet.caffemodel"),
    "caffe-zoo/lenet-v1": ("lenet.prototxt", "lenet_iter_10000"),
    "caffe-zoo/lenet-v2": ("lenet.prototxt", "lenet_iter_10000.caffemodel"),
}


@pytest.mark.data("caffe-zoo")
@pytest.mark.data("mobilefacenet")
@pytest.mark.parametrize("folder", ZOO)
def test_nets_of_others(folder: str, shared: Path, tmp_path: Path) -> None:
    """Batches of 1, 2, 7 and a face, against our net, which other tests hold to the original."""
    prototxt, weights = (shared / folder / name for name in ZOO[folder])
    found = to_onnx(load_deploy(prototxt, weights), tmp_path / "m.onnx")
    fed = ["random, batch 1", "random, batch 2", "random, batch 7", "a face"]
    assert [difference.fed for difference in found] == fed
    assert max(difference.relative for difference in found) <= FORWARD


# -- options -------------------------------------------------------------------------------------


def test_names_and_header() -> None:
    model = to_model(small_net())
    assert [node.name for node in model.graph.node if "/" not in node.name] == [
        *("conv", "bn", "scale", "prelu", "pool", "fc"),
    ]
    values = {name for node in model.graph.node for name in node.output}
    assert {"conv", "scaled", "pool", "fc"} <= values
    assert {"conv.weight", "prelu.weight", "fc.bias"} <= {t.name for t in model.graph.initializer}
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3, 8, 6]
    assert model.graph.name == "small"


@pytest.mark.parametrize("opset", range(13, 24))
def test_opsets(opset: int, tmp_path: Path) -> None:
    to_onnx(small_net(), tmp_path / "m.onnx", Options(opset=opset, normalize=True))
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def test_unknown_opset() -> None:
    with pytest.raises(ConversionError, match="opset 12 is not in 13 to 2"):
        to_model(small_net(), Options(opset=12))


def test_fixed_batch(tmp_path: Path) -> None:
    found = to_onnx(small_net(), tmp_path / "m.onnx", Options(batch=3))
    assert {difference.fed for difference in found} == {"random, batch 3", "a face"}
    model = onnx.load(tmp_path / "m.onnx")
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3


def test_half(tmp_path: Path) -> None:
    """float16 has 11 bits: 2**-11 for each rounding, some of them in a row."""
    net = small_net()
    to_onnx(net, tmp_path / "m.onnx", Options(half=True))
    to_onnx(net, tmp_path / "s.onnx")
    half, single = run(tmp_path / "m.onnx", images())[0], run(tmp_path / "s.onnx", images())[0]
    assert half.dtype == np.float32
    assert_close(half, single, 5e-3, "float16 arithmetic")
    assert not np.array_equal(half, single)
    weights = [
        t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name[-6:] == "weight"
    ]
    assert {t.data_type for t in weights} == {onnx.TensorProto.FLOAT16}


def test_fold_batch_norm(tmp_path: Path) -> None:
    net = small_net()
    to_onnx(net, tmp_path / "m.onnx", fold_bn=True)
    ops = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    assert ops == ["Conv", "PRelu", "AveragePool", "Flatten", "Gemm"]
    folded = fold_batch_norm(net)
    data = torch.from_numpy(images())
    assert_close(folded(data)["fc"].detach(), net(data)["fc"].detach(), FORWARD, SUMS)
    assert "bn" in [layer.name for layer in net.layers], "the given net stays as it is"


def test_fold_leaves_what_is_read_elsewhere() -> None:
    text = SMALL + 'layer { name: "other" type: "AbsVal" bottom: "conv" top: "other" }'
    folded = [layer.type for layer in fold_batch_norm(load_net(text)).layers]
    assert "BatchNorm" not in folded, "both readers come after it"
    assert "Scale" in folded, "the blob before it is read by another layer"


def test_normalize(tmp_path: Path) -> None:
    to_onnx(small_net(), tmp_path / "m.onnx", Options(normalize=True))
    (ours,) = run(tmp_path / "m.onnx", images())
    assert_close(np.linalg.norm(ours, axis=1), np.ones(2), 1e-6, "unit length")
    (zero,) = run(tmp_path / "m.onnx", images() * 0)
    assert np.isfinite(zero).all()
    assert onnx.load(tmp_path / "m.onnx").graph.output[0].name == "fc_normalized"
    with pytest.raises(ConversionError, match="one output can be normalised, found fc, pool"):
        to_model(small_net(), Options(outputs=("fc", "pool"), normalize=True))


def test_pixels(tmp_path: Path) -> None:
    """Raw uint8 RGB (N, H, W, 3) gives what the net gives on BGR, (pixel - mean) * scale."""
    net, mean = small_net(), (104.0, 117.0, 123.0)
    rgb = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3), np.uint8)
    to_onnx(net, tmp_path / "m.onnx", Options(pixels=Pixels(mean, 0.017)))
    bgr = (rgb[..., ::-1].astype(np.float64) - mean) * 0.017
    data = torch.from_numpy(bgr.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.no_grad():
        assert_close(run(tmp_path / "m.onnx", rgb)[0], net(data)["fc"], FORWARD, SUMS)
    assert onnx.load(tmp_path / "m.onnx").graph.input[0].name == "image"


def test_outputs_cut_the_net() -> None:
    model = to_model(small_net(), Options(outputs=("scaled",)))
    assert [node.name for node in model.graph.node] == ["conv", "bn", "scale/Mul", "scale", "prelu"]
    with pytest.raises(ConversionError, match=r"no blob 'scald' \(did you mean 'scaled'\?\)"):
        to_model(small_net(), Options(outputs=("scald",)))


def test_free_size(tmp_path: Path) -> None:
    net = load_net(SMALL[: SMALL.index('layer { name: "fc"')])
    to_onnx(net, tmp_path / "m.onnx", Options(free_size=True))
    larger = np.random.default_rng(1).normal(size=(1, 3, 21, 32)).astype(np.float32)
    with torch.no_grad():
        theirs = net(torch.from_numpy(larger))["pool"]
    assert_close(run(tmp_path / "m.onnx", larger)[0], theirs, FORWARD, SUMS)


def test_shared_parameter_is_stored_once() -> None:
    twin = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
    layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
      inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "y" top: "b" param { name: "w" }
      inner_product_param { num_output: 2 bias_term: false } }
    """
    model = to_model(load_net(twin))
    assert [tensor.name for tensor in model.graph.initializer] == ["a.weight"]
    x = np.ones((1, 3), np.float32)
    assert_close(*run(model, x, x), 0, "one weight, one input")


# -- failures ------------------------------------------------------------------------------------


def test_beyond_the_bound_leaves_no_file(tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    target.write_bytes(b"an older model")
    with pytest.raises(ConversionError, match=r"output 'fc' .*; no file was written"):
        to_onnx(small_net(), target, Options(half=True), bound=1e-7)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    assert target.read_bytes() == b"an older model"


def test_layer_without_form(tmp_path: Path) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "distance" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "d" }
    layer { name: "abs" type: "AbsVal" bottom: "d" top: "abs" }
    """
    with pytest.raises(ConversionError, match=r"layer 'distance' \(EuclideanLoss\): has no ONNX"):
        to_onnx(load_net(text), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_beyond_2_gib(tmp_path: Path) -> None:
    """Untouched zeros: the weights take no memory before they are written."""
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 32768 } } }
    layer { name: "fc" type: "InnerProduct" bottom: "x" top: "fc"
      inner_product_param { num_output: 16400 bias_term: false } }
    """
    net = load_net(text, loaded=frozenset({"fc"}))
    with pytest.raises(ConversionError, match=r"would have 2149.* bytes, and protobuf reads no"):
        to_onnx(net, tmp_path / "m.onnx", check=False)
    assert not list(tmp_path.iterdir())


def test_net_that_fixes_its_batch(tmp_path: Path) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 6 } } }
    layer { name: "r" type: "Reshape" bottom: "x" top: "y"
      reshape_param { shape { dim: 1 dim: 2 dim: 3 } } }
    """
    with pytest.raises(ConversionError, match=r"'random, batch 2'; .*state it with --batch"):
        to_onnx(load_net(text), tmp_path / "m.onnx")
    to_onnx(load_net(text), tmp_path / "m.onnx", Options(batch=1))


# -- train nets ----------------------------------------------------------------------------------


def test_train_net_becomes_its_deploy_form(tmp_path: Path) -> None:
    prototxt, weights = tmp_path / "train.prototxt", tmp_path / "w.caffemodel"
    prototxt.write_text(TRAIN)
    torch.manual_seed(0)
    trained = load_net(prototxt, phase="TRAIN", open_data=False, input_shape=(3, 4, 4))
    write_caffemodel(trained, weights)
    net = load_deploy(prototxt, weights, input_shape=(3, 4, 4))
    assert [layer.type for layer in net.layers] == [
        "Input",
        "InnerProduct",
        "Dropout",
        "InnerProduct",
    ]
    assert (net.inputs, net.outputs) == (["data"], ["fc6"])
    w5, b5 = (blob.detach() for blob in trained.params["fc5"])
    w6 = trained.params["fc6"][0].detach()
    data = torch.randn(2, 3, 4, 4)
    theirs = (data.flatten(1) @ w5.t() + b5) @ (w6 / w6.norm(dim=1, keepdim=True)).t()
    to_onnx(net, tmp_path / "m.onnx")
    assert_close(run(tmp_path / "m.onnx", data.numpy())[0], theirs, FORWARD, SUMS)
    cut = load_deploy(prototxt, weights, ["fc5"], (3, 4, 4))
    assert cut.outputs == ["fc5"]
    assert torch.equal(trained.params["fc6"][0], w6), "the trained net stays as it is"


def test_deploy_net_stays_itself() -> None:
    net = small_net()
    assert deploy(net) is net


def test_nothing_left() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "x" top: "d" }
    """
    with pytest.raises(ConversionError, match="nothing but data and losses"):
        deploy(load_net(text))
