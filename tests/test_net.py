"""The interpreter: which layers belong, names, sharing, gradients, refusals."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import torch

from port import load_net
from port.errors import PortError

IMAGES = Path(__file__).parent / "golden" / "train_small"


def _input(name: str = "x", *dims: int) -> str:
    shape = " ".join(f"dim: {dim}" for dim in dims or (2, 3))
    head = f'layer {{ name: "{name}" type: "Input" top: "{name}" '
    return head + f"input_param {{ shape {{ {shape} }} }} }}\n"


# -- what the original refuses and accepts -----------------------------------------------------

ACCEPTED_BY_US = {
    "unknown_layer_type": "Log exists in BVLC's Caffe; only the fork lost it (DEVIATIONS)",
    "margin_one_top": "the original writes lambda into a top that is not there (DEVIATIONS)",
}
LISTS = {
    "list_normal": "images/000.png 0\nimages/001.png 7\n",
    "list_crlf": "images/000.png 0\r\nimages/001.png 7\r\n",
    "list_negative": "images/000.png -1\n",
    "list_label_garbage": "images/000.png 4x\nimages/001.png abc\n",
    "list_no_final_newline": "images/000.png 0\nimages/001.png 7",
    "list_double_space": "images/000.png  0\n",
    "list_tab": "images/000.png\t0\n",
    "list_blank_line_end": "images/000.png 0\n\n",
    "list_float_label": "images/000.png 2.9\nimages/001.png 1\n",
    "list_missing_file": "images/nothing.png 0\n",
    "list_empty": "",
}
REFUSALS = golden.load("behaviour", "refusals").meta


def _conv_weights(folder: Path) -> Path:
    """A caffemodel with one layer more than the cases' nets: conv1_1 of 8x3x3x3, and fc."""
    from port.caffemodel import write_caffemodel

    net = load_net(
        _input("data", 1, 3, 12, 10)
        + 'layer { name: "conv1_1" type: "Convolution" bottom: "data" top: "y" '
        "convolution_param { num_output: 8 kernel_size: 3 } }"
        'layer { name: "fc" type: "InnerProduct" bottom: "y" top: "z" '
        "inner_product_param { num_output: 2 } }"
    )
    path = folder / "conv.caffemodel"
    write_caffemodel(net, path)
    return path


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_refusals(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = REFUSALS[name]
    (tmp_path / "images").symlink_to(IMAGES / "images")
    if name in LISTS:
        (tmp_path / f"{name}.txt").write_bytes(LISTS[name].encode())
    monkeypatch.chdir(tmp_path)
    weights = _conv_weights(tmp_path) if name.startswith("weights_") else None

    def build() -> None:
        net = load_net(case["prototxt"], weights, phase="TRAIN")
        if net.data_layers[0].type == "ImageData":
            net()
        net.close()

    if case["refused"] and name not in ACCEPTED_BY_US:
        with pytest.raises(PortError):
            build()
    else:
        build()


# -- rules ---------------------------------------------------------------------------------------


def test_phase_level_and_stage_choose_layers() -> None:
    rules = {
        "train": "include { phase: TRAIN }",
        "test": "include { phase: TEST }",
        "deep": "include { min_level: 2 max_level: 3 }",
        "staged": 'include { stage: "a" stage: "b" }',
        "unstaged": 'include { not_stage: "a" }',
        "either": 'include { phase: TRAIN } include { stage: "a" }',
        "never_in_test": "exclude { phase: TEST }",
    }
    text = _input() + "".join(
        f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}" {rule} }}\n'
        for name, rule in rules.items()
    )

    def kept(**state: object) -> set[str]:
        return set(load_net(text, **state).params | dict.fromkeys(load_net(text, **state).outputs))

    assert kept() == {"test", "unstaged"}
    assert kept(phase="TRAIN") == {"train", "unstaged", "either", "never_in_test"}
    assert kept(level=2) == {"test", "deep", "unstaged"}
    assert kept(stages=["a", "b"]) == {"test", "staged", "either"}


def test_include_and_exclude_together_are_refused() -> None:
    text = _input() + (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" '
        "include { phase: TEST } exclude { stage: 'a' } }"
    )
    with pytest.raises(PortError, match=r"layer 'r': give include rules or exclude rules"):
        load_net(text)


def test_splits_are_named_as_caffe_names_them() -> None:
    text = _input() + (
        'layer { name: "r1" type: "ReLU" bottom: "x" top: "x" }'
        'layer { name: "a" type: "ReLU" bottom: "x" top: "a" }'
        'layer { name: "b" type: "ReLU" bottom: "x" top: "b" }'
    )
    net = load_net(text)
    assert [layer.name for layer in net.layers] == ["x", "r1", "x_r1_0_split", "a", "b"]
    split = net.layer("x_r1_0_split").spec
    assert list(split.top) == ["x_r1_0_split_0", "x_r1_0_split_1"]
    assert net.layer("b").spec.bottom[0] == "x_r1_0_split_1"
    assert net.outputs == ["a", "b"]


def test_in_place_blob_holds_the_last_value() -> None:
    text = _input() + (
        'layer { name: "p" type: "InnerProduct" bottom: "x" top: "y" '
        'inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 1 } } }'
        'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }'
        'layer { name: "z" type: "ReLU" bottom: "y" top: "z" }'
    )
    blobs = load_net(text)(torch.randn(2, 3), blobs=["y"])
    assert (blobs["y"] >= 0).all()
    assert torch.equal(blobs["y"], blobs["z"])


@pytest.mark.parametrize("name", ["self", "torch", "return", "1x1", "a b", "forward", "None", "é"])
def test_blobs_and_layers_of_any_name(name: str) -> None:
    text = _input() + (
        f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}" }}'
        f'layer {{ name: "z" type: "ReLU" bottom: "{name}" top: "z" }}'
    )
    blobs = load_net(text)(torch.randn(2, 3), blobs=[name])
    assert torch.equal(blobs[name], blobs["z"])


SHARED = _input() + (
    'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" '
    'param { name: "w" lr_mult: 3 } inner_product_param { num_output: 3 bias_term: false '
    'weight_filler { type: "gaussian" std: 1 } } }'
    'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" '
    'param { name: "w" decay_mult: 7 } inner_product_param { num_output: 3 bias_term: false } }'
)


def test_shared_parameter_has_one_owner() -> None:
    net = load_net(SHARED)
    assert net.params["a"][0] is net.params["b"][0]
    (entry,) = net.learnable
    assert (entry.layer, entry.lr_mult, entry.decay_mult) == ("a", 3, 7)
    x = torch.randn(2, 3)
    net(x)["b"].sum().backward()
    weight = net.params["a"][0].detach().clone().requires_grad_()
    (x @ weight.t() @ weight.t()).sum().backward()
    np.testing.assert_allclose(net.params["a"][0].grad, weight.grad, rtol=1e-5)


def test_shared_parameter_with_two_rates_is_refused() -> None:
    with pytest.raises(PortError, match="'w' has another lr_mult in layer 'a'"):
        load_net(SHARED.replace("decay_mult: 7", "lr_mult: 2"))


def test_shared_parameter_of_another_shape_is_refused() -> None:
    with pytest.raises(PortError, match=r"layer 'b' .*shapes differ: 4x3 here, 3x3 there"):
        load_net(SHARED[::-1].replace("3 :tuptuo_mun", "4 :tuptuo_mun", 1)[::-1])


def test_permissive_sharing_of_another_shape_is_refused() -> None:
    text = _input() + (
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } '
        "inner_product_param { num_output: 4 bias_term: false } }"
        'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" '
        'param { name: "w" share_mode: PERMISSIVE } '
        "inner_product_param { num_output: 3 bias_term: false } }"
    )
    with pytest.raises(PortError, match="PERMISSIVE-ly with another shape, 3x4 and 4x3"):
        load_net(text)


def test_lr_mult_0_and_propagate_down_stop_gradients() -> None:
    inner = "inner_product_param { num_output: 3 weight_filler { type: 'xavier' } }"
    text = _input() + (
        f'layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "a" {inner} }}'
        'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" propagate_down: false '
        f"param {{ lr_mult: 1 }} param {{ lr_mult: 0 }} {inner} }}"
    )
    net = load_net(text)
    x = torch.randn(2, 3, requires_grad=True)
    net(x)["b"].sum().backward()
    assert net.params["b"][0].grad is not None
    assert not net.params["b"][1].requires_grad
    assert net.params["b"][1].grad is None
    assert net.params["a"][0].grad is None
    assert x.grad is None


def test_loss_weights_make_the_total_loss() -> None:
    text = _input() + (
        'layer { name: "a" type: "ReLU" bottom: "x" top: "a" loss_weight: 3 }'
        'layer { name: "b" type: "ReLU" bottom: "a" top: "b" loss_weight: 0.5 }'
    )
    net = load_net(text)
    outputs = net(torch.ones(2, 3))
    assert net.total_loss(outputs).item() == 3 * 6 + 0.5 * 6
    assert list(net.output_weights.values()) == [3.0, 0.5]


def test_batch_and_image_size_are_free() -> None:
    text = _input("x", 1, 3, 12, 12) + (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "y" '
        "convolution_param { num_output: 4 kernel_size: 3 } }"
    )
    net = load_net(text)
    assert net.blob_shapes["y"] == (1, 4, 10, 10)
    assert net(torch.zeros(5, 3, 9, 20))["y"].shape == (5, 4, 7, 18)


def test_generated_code_reads_like_a_module() -> None:
    text = _input("x", 1, 3, 8, 8) + (
        'layer { name: "conv1_1" type: "Convolution" bottom: "x" top: "conv1_1" '
        "convolution_param { num_output: 4 kernel_size: 3 } }"
        'layer { name: "relu1_1" type: "PReLU" bottom: "conv1_1" top: "conv1_1" }'
    )
    code = load_net(text).code
    assert "conv1_1 = self.conv1_1(x);  x = None" in code
    assert "relu1_1 = self.relu1_1(conv1_1);  conv1_1 = None" in code
    assert "return (relu1_1,)" in code


def test_layer_names_that_are_no_identifiers_or_attributes_of_a_module() -> None:
    text = _input()
    bottom = "x"
    for name in ("conv1/3x3_s2", "2nd", "forward", "params", "code", "lambda", "a.b"):
        text += (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            "inner_product_param { num_output: 3 } }\n"
        )
        bottom = name
    net = load_net(text)
    assert list(net.params) == [
        "conv1/3x3_s2", "2nd", "forward", "params", "code", "lambda", "a.b",
    ]  # fmt: skip
    assert list(net(torch.ones(2, 3))) == ["a.b"]


# -- errors ----------------------------------------------------------------------------------------

CASES = {
    "unknown type": (
        'layer { name: "r" type: "Relu" bottom: "x" top: "y" }',
        r"layer 'r': unknown layer type 'Relu' \(did you mean 'ReLU'",
    ),
    "unknown bottom": (
        'layer { name: "r" type: "ReLU" bottom: "xx" top: "y" }',
        r"layer 'r' \(ReLU\): unknown bottom 'xx' \(did you mean 'x'\?\)",
    ),
    "duplicate top": (
        'layer { name: "a" type: "ReLU" bottom: "x" top: "y" }'
        'layer { name: "b" type: "ReLU" bottom: "x" top: "y" }',
        r"layer 'b' \(ReLU\): top 'y' is produced by an earlier layer",
    ),
    "too many params": (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" param { lr_mult: 1 } }',
        r"layer 'r' \(ReLU\): has 0 parameters, found 1 param",
    ),
    "too many bottoms": (
        'layer { name: "r" type: "ReLU" bottom: "x" bottom: "x" top: "y" }',
        r"layer 'r' \(ReLU\): takes 1 bottom\(s\), found 2",
    ),
    "shape mismatch": (
        _input("z", 2, 4) + 'layer { name: "e" type: "Eltwise" bottom: "x" bottom: "z" top: "y" }',
        r"layer 'e' \(Eltwise\): .*2, 3.*2, 4",
    ),
    "propagate_down": (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" propagate_down: 1 propagate_down: 1 }',
        r"propagate_down is given 2 times for 1 bottoms",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_error(case: str) -> None:
    text, message = CASES[case]
    with pytest.raises(PortError, match=message):
        load_net(_input() + text)


def test_error_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.prototxt"
    path.write_text(_input() + 'layer { name: "r" type: "Relu" bottom: "x" top: "y" }')
    with pytest.raises(PortError, match=r"^broken\.prototxt: layer 'r'"):
        load_net(path)


def test_feeding_errors() -> None:
    net = load_net(
        _input()
        + _input("l", 2)
        + 'layer { name: "s" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" }'
    )
    with pytest.raises(PortError, match="give the inputs by name: x, l"):
        net(torch.zeros(2, 3))
    with pytest.raises(PortError, match="no input 'y'; the net's inputs are x, l"):
        net(y=torch.zeros(2, 3))
    with pytest.raises(PortError, match=r"layer 'l' \(Input\): has no data of its own"):
        net(x=torch.zeros(2, 3))
    with pytest.raises(PortError, match="has no blob 'nope'"):
        net(x=torch.zeros(2, 3), l=torch.zeros(2), blobs=["nope"])


def test_wrong_channels_say_what_was_fed() -> None:
    text = _input("x", 1, 3, 12, 12) + (
        'layer { name: "c" type: "Convolution" bottom: "x" top: "y" '
        "convolution_param { num_output: 4 kernel_size: 3 } }"
    )
    with pytest.raises(
        PortError, match=r"input 'x' is \(1, 4, 12, 12\), the net has \(1, 3, 12, 12\)"
    ):
        load_net(text)(torch.zeros(1, 4, 12, 12))


def test_a_loss_without_top_trains_and_stays_out_of_files(tmp_path: Path) -> None:
    from port.caffemodel import net_to_message

    net = load_net(
        _input()
        + _input("l", 2)
        + 'layer { name: "s" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" }'
    )
    outputs = net(x=torch.zeros(2, 3), l=torch.zeros(2))
    assert net.total_loss(outputs).item() == pytest.approx(np.log(3))
    assert net.outputs == []
    assert list(net_to_message(net).layer[-1].top) == []
