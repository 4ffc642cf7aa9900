"""Old nets and solvers become what the original upgrade tools make of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from port import prototxt, schema
from port.errors import PrototxtError
from port.upgrade import upgrade_net, v1_type

UPGRADE = Path(__file__).parent / "golden" / "upgrade"


def upgraded(text: str) -> tuple[str, list[str]]:
    """The text of an upgraded net, and the notes."""
    notes: list[str] = []
    return prototxt.format_text(prototxt.read_net(text, notes)), notes


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("v0", ["V0 layers (2013) upgraded: 5", "input data turned into an Input layer"]),
        ("v1", ["V1 layers (2014) upgraded: 5", "input data turned into an Input layer"]),
        (
            "v1_train",
            ["data layer fields moved to transform_param: 3", "V1 layers (2014) upgraded: 6"],
        ),
        ("sphereface_deploy", ["input data turned into an Input layer"]),
    ],
)
def test_nets_are_upgraded_as_by_the_original_tool(name, notes):
    ours, ours_notes = upgraded((UPGRADE / f"{name}.prototxt").read_text())
    assert ours == (UPGRADE / f"{name}.upgraded.prototxt").read_text()
    assert ours_notes == notes
    assert upgraded(ours) == (ours, [])


def test_solver_is_upgraded_as_by_the_original_tool():
    notes: list[str] = []
    solver = prototxt.read_solver(UPGRADE / "solver_enum.prototxt", notes)
    theirs = (UPGRADE / "solver_enum.upgraded.prototxt").read_text()
    assert prototxt.format_text(solver) == theirs
    assert notes == ['solver_type: NESTEROV read as type: "Nesterov"']


def test_v1_caffemodel_holds_the_blobs_that_the_original_resaved():
    ours = prototxt.read_net(UPGRADE / "v1.caffemodel")
    theirs = prototxt.read_net(UPGRADE / "v1_resaved.caffemodel")
    blobs = {layer.name: [list(blob.data) for blob in layer.blobs] for layer in theirs.layer}
    assert {layer.name: [list(blob.data) for blob in layer.blobs] for layer in ours.layer} == blobs
    assert [len(blob) for blob in blobs["conv1"]] == [4 * 3 * 3 * 3, 4]
    assert [layer.type for layer in ours.layer] == [layer.type for layer in theirs.layer]


SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


@pytest.mark.parametrize(("old", "new"), SOLVER_TYPES.items())
def test_old_solver_types(old, new):
    solver = prototxt.read_solver(f"solver_type: {old}\n")
    assert solver.type == new
    assert not solver.HasField("solver_type")


def test_both_solver_types_are_refused():
    expected = "text: 'solver_type' (old) and 'type' are both given: keep only 'type'"
    with pytest.raises(PrototxtError, match=re.escape(expected)):
        prototxt.read_solver('solver_type: ADAM\ntype: "SGD"\n')


def test_nets_inside_a_solver_are_upgraded():
    net = '{ layers { name: "a" type: ABSVAL } }'
    solver = prototxt.read_solver(f"net_param {net}\ntest_net_param {net}\n")
    for inner in (solver.net_param, solver.test_net_param[0]):
        assert [layer.type for layer in inner.layer] == ["AbsVal"]


V1_TYPES = (
    "AbsVal Accuracy ArgMax BNLL Concat ContrastiveLoss Convolution Data Deconvolution Dropout "
    "DummyData EuclideanLoss Eltwise Exp Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData "
    "InfogainLoss InnerProduct LRN MemoryData MultinomialLogisticLoss MVN Pooling Power ReLU "
    "Sigmoid SigmoidCrossEntropyLoss Silence Softmax SoftmaxWithLoss Split Slice TanH WindowData "
    "Threshold"
)


def test_every_v1_type_has_todays_name():
    names = schema.enum_values("V1LayerParameter", schema.fields("V1LayerParameter")["type"])
    assert names is not None
    assert {v1_type(name) for name in names} == {"", *V1_TYPES.split()}


def test_v1_lists_become_param_specs():
    text, _ = upgraded(
        'layers { name: "c" type: CONVOLUTION blobs_lr: 1 blobs_lr: 2 blobs_lr: 0 '
        'weight_decay: 0.5 param: "w" param: "" blob_share_mode: PERMISSIVE }'
    )
    assert text == (
        'layer {\n  name: "c"\n  type: "Convolution"\n'
        '  param {\n    name: "w"\n    share_mode: PERMISSIVE\n    lr_mult: 1\n'
        "    decay_mult: 0.5\n  }\n"
        '  param {\n    name: ""\n    lr_mult: 2\n  }\n'
        "  param {\n    lr_mult: 0\n  }\n}\n"
    )


@pytest.mark.parametrize("param", ["data_param", "image_data_param", "window_data_param"])
def test_old_transform_fields_of_v1_data_layers_move(param):
    kind = param.removesuffix("_param").upper()
    old = 'scale: 0.5 mean_file: "m" crop_size: 20 mirror: true'
    net = prototxt.read_net(f'layers {{ name: "d" type: {kind} {param} {{ source: "s" {old} }} }}')
    transform = net.layer[0].transform_param
    assert (transform.scale, transform.mean_file) == (0.5, "m")
    assert (transform.crop_size, transform.mirror) == (20, True)
    assert prototxt.format_text(getattr(net.layer[0], param)) == 'source: "s"\n'


def test_old_transform_fields_of_todays_layers_are_named_as_ignored():
    text = 'layer { name: "d" type: "Data" data_param { mirror: true } }'
    assert upgraded(text)[1] == [
        "layer 'd': data_param.mirror is ignored: write it in transform_param"
    ]


def test_batch_norm_loses_its_three_old_params():
    old = "param { lr_mult: 0 } " * 3
    kept = "param { lr_mult: 0 }"
    net = prototxt.read_net(
        f'layer {{ name: "a" type: "BatchNorm" {old} }} layer {{ name: "b" type: "Scale" {old} }} '
        f'layer {{ name: "c" type: "BatchNorm" {kept} }}'
    )
    assert [len(layer.param) for layer in net.layer] == [0, 3, 1]


V0_PADDED = """
input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
layers { layer { name: "conv1" type: "conv" kernelsize: 5 num_output: 4 biasterm: false }
  bottom: "pad1" top: "conv1" }
"""


def test_v0_padding_layers_become_pad():
    net = prototxt.read_net(V0_PADDED)
    assert [layer.name for layer in net.layer] == ["input", "conv1"]
    conv = net.layer[1]
    assert list(conv.bottom) == ["data"]
    assert prototxt.format_text(conv.convolution_param) == (
        "num_output: 4\nbias_term: false\npad: 2\nkernel_size: 5\n"
    )


def test_v0_data_layers():
    text, notes = upgraded(
        'layers { layer { name: "d" type: "images" source: "l" batchsize: 4 scale: 0.5 '
        'meanfile: "m" cropsize: 8 mirror: true shuffle_images: true new_height: 9 new_width: 7 '
        'rand_skip: 3 num_output: 2 new_num: 1 } top: "data" top: "label" }'
    )
    assert text == (
        'layer {\n  name: "d"\n  type: "ImageData"\n  top: "data"\n  top: "label"\n'
        "  transform_param {\n    scale: 0.5\n    mirror: true\n    crop_size: 8\n"
        '    mean_file: "m"\n  }\n'
        '  image_data_param {\n    source: "l"\n    batch_size: 4\n    rand_skip: 3\n'
        "    shuffle: true\n    new_height: 9\n    new_width: 7\n  }\n}\n"
    )
    assert notes == [
        "V0 layers (2013) upgraded: 1",
        "layer 'd': 'num_output' means nothing to 'images': dropped",
        "layer 'd': 'new_num' means nothing to 'images': dropped",
    ]


def test_v0_weights_lists_and_output():
    net = prototxt.read_net(
        'layers { layer { name: "ip" type: "innerproduct" blobs { num: 1 data: 2 } blobs_lr: 3 '
        'weight_decay: 4 } } layers { layer { name: "o" type: "hdf5_output" hdf5_output_param '
        '{ file_name: "f" } } }'
    )
    layer = net.layer[0]
    assert list(layer.blobs[0].data) == [2]
    assert (layer.param[0].lr_mult, layer.param[0].decay_mult) == (3, 4)
    assert net.layer[1].hdf5_output_param.file_name == "f"


def test_input_shape_wins_over_input_dim():
    net = prototxt.read_net(
        'input: "a" input: "b" input_shape { dim: 2 } input_shape { dim: 3 dim: 4 } input_dim: 9 '
        'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    )
    assert [list(shape.dim) for shape in net.layer[0].input_param.shape] == [[2], [3, 4]]
    assert list(net.layer[0].top) == ["a", "b"]
    assert [layer.name for layer in net.layer] == ["input", "r"]


def test_an_input_without_a_shape_is_dropped_with_a_note():
    net = prototxt.parse('input: "a"\nlayer { name: "r" }', schema.NetParameter)
    assert upgrade_net(net) == ["input a has no input_dim or input_shape and is dropped"]
    assert prototxt.format_text(net) == 'layer {\n  name: "r"\n}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'layers { name: "a" type: RELU } layer { name: "b" type: "ReLU" }',
            "text: 'layers' (V1) and 'layer' in one net: write all of them as 'layer'",
        ),
        (
            'layers { layer { name: "a" type: "relu" } } layers { name: "b" type: RELU }',
            "text: V0 and V1 layers in one net: layer 'b' is V1",
        ),
        (
            'layers { layer { name: "a" type: "rleu" } }',
            "text: layer 'a': unknown V0 type 'rleu' (did you mean 'relu'?)",
        ),
        (
            V0_PADDED + 'layers { layer { name: "r" type: "relu" } bottom: "pad1" top: "r" }',
            "layer 'r' (relu) reads the padding layer 'pad1': only conv and pool layers",
        ),
        (
            V0_PADDED + 'layers { layer { name: "r" type: "relu" } bottom: "conv" top: "r" }',
            "layer 'r' reads the unknown blob 'conv' (did you mean 'conv1'?)",
        ),
        (
            V0_PADDED.replace('pad: 2 } bottom: "data"', "pad: 2 }"),
            "padding layer 'pad1' has 0 bottoms, expected 1",
        ),
        ('input: "a" input_dim: 1\n', "text: 1 input_dim given, expected 4 for each input"),
        ('input: "a" input: "b" input_shape {}\n', "text: 2 inputs but 1 input shapes"),
    ],
)
def test_nets_that_cannot_be_upgraded(text, message):
    with pytest.raises(PrototxtError, match=re.escape(message)):
        prototxt.read_net(text)
