"""Every layer type against the original: outputs, gradients, and blobs after a forward."""

from __future__ import annotations

from collections.abc import Iterator

import golden
import pytest
import torch
from layer_cases import CASES, SUMS, Case
from tolerance import assert_close

from port.layers.registry import layer_types
from port.net import as_list

RANDOM = {"layer_Dropout_train"}
"""Its mask is the original's draw: test_dropout checks what the case's note states."""
OVERWRITTEN = {"layer_HingeLoss_l1", "layer_HingeLoss_l2"}
"""Caffe keeps the margins in the bottom's diff between forward and backward. The recording filled
that diff with 777 in between, so din is the gradient of 777s; test_hinge_gradient explains it."""
ELSEWHERE = {
    "Input": "no arithmetic: every case here feeds through it",
    "ImageData": "golden group imagedata",
    "MarginInnerProduct": "golden group margin",
    "Data": "records have tests of their own",
    "HDF5Data": "records have tests of their own",
    "WindowData": "windows have tests of their own",
    "DummyData": "draws at random: test_dummy_data",
    "MemoryData": "serves what it is given: test_memory_data",
    "HDF5Output": "writes a file: test_hdf5_output",
    "Python": "runs the user's class: test_python_layer",
    "LSTMUnit": "the golden LSTM runs it; test_lstm_unit",
    "Parameter": "no arithmetic: test_parameter",
}
"""Types without a golden layer case, and why."""


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in RANDOM])
def test_golden(name: str, dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    fed, outputs = case.inputs(), {}
    for forward in range(1, case.info["forwards"] + 1):
        outputs = case.net(**fed)
        case.check(outputs, forward)
    if name not in OVERWRITTEN:
        case.check_backward(fed, outputs)


@pytest.mark.parametrize("name", [name for name in CASES if name not in RANDOM])
def test_layout_and_shapes(name: str) -> None:
    """The layer alone on channels_last bottoms; its shapes are those that setup announced."""
    case = Case(name)
    fed = case.inputs()
    bottoms = [_channels_last(fed[bottom]) for bottom in case.layer.spec.bottom]
    before = [bottom.clone() for bottom in bottoms]
    tops = as_list(case.layer(*bottoms))
    case.check(dict(zip(case.layer.spec.top, tops, strict=True)))
    assert all(torch.equal(x, y) for x, y in zip(before, bottoms, strict=True)), "wrote a bottom"
    if case.layer.type != "Filter":  # its length is known at run time only
        assert [tuple(top.shape) for top in tops] == case.layer.top_shapes


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


@pytest.mark.parametrize("name", [name for name in CASES if name != "layer_Filter_a"])
def test_reads_no_value(name: str) -> None:
    """On tensors without data: nothing is copied to the CPU, nothing made on another device.

    Filter has to: the length of its tops is data.
    """
    case = Case(name)
    case.layer.to("meta")
    fed = case.inputs()
    bottoms = [fed[bottom].detach().to("meta") for bottom in case.layer.spec.bottom]
    for bottom, source in zip(bottoms, case.layer.spec.bottom, strict=True):
        bottom.requires_grad_(fed[source].requires_grad)
    tops = [top for top in as_list(case.layer(*bottoms)) if top.requires_grad]
    if tops:
        torch.autograd.backward(tops, [torch.empty_like(top) for top in tops])


def test_every_type_has_a_case() -> None:
    covered = {golden.load("layers", name).meta["type"] for name in CASES}
    without = set(layer_types()) - covered - set(ELSEWHERE)
    assert not without, f"add a golden case to tests/golden/layers for {sorted(without)}"
    assert not covered & set(ELSEWHERE), "has a case now: take it out of ELSEWHERE"


NOT_A_GRADIENT = {
    "layer_ContrastiveLoss_a": "divides by d + 1e-4",
    "layer_MVN_eps": "treats eps as if it were not there",
    "layer_Dropout_train": "a new mask in every forward",
    "layer_AbsVal_zero": "a kink",
    "layer_ReLU_zero": "a kink",
    "layer_PReLU_zero": "a kink",
    "layer_Eltwise_max_ties": "a kink",
    "layer_Pooling_MAX_ties": "a kink",
    "layer_SoftmaxWithLoss_fltmin": "the gradient does not know of the clamp",
    "layer_LSTM_a": "carries its state into the next forward; test_lstm_unit",
    "layer_RNN_a": "carries its state into the next forward",
}
"""Where Caffe's backward is not the derivative of one forward, and why."""


def _differentiable() -> Iterator[str]:
    for name in CASES:
        case = golden.load("layers", name)
        if name not in NOT_A_GRADIENT and (case.under("din") or case.under("dparam")):
            yield name


@pytest.mark.parametrize("name", list(_differentiable()))
def test_gradcheck(name: str) -> None:
    case = Case(name, torch.float64)
    fed = case.inputs()
    bottoms = [fed[bottom] for bottom in case.layer.spec.bottom]
    blobs = [] if case.layer.type == "BatchNorm" else case.layer.blobs

    def run(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(top for top in as_list(case.layer(*bottoms)) if top.requires_grad)

    leaves = [x for x in (*bottoms, *blobs) if x.requires_grad]
    if run():
        assert torch.autograd.gradcheck(run, leaves, fast_mode=True, atol=1e-6)


ITEMWISE = [
    "Convolution_group,Convolution_1d,Deconvolution_a,PReLU_a,ReLU_a,InnerProduct_a",
    "Pooling_MAX_3_2_p1,Pooling_AVE_4_3_p2,Pooling_AVE_global,LRN_across,LRN_within_k,MVN_a,SPP_max",
    "Scale_a,Bias_axis,BatchNorm_test,Softmax_4d,Flatten_a,Reshape_a,Slice_c,Concat_c,Im2col_a",
    "Reduction_SUM_1,Tile_a,Eltwise_max,ArgMax_4d,Embed_a,Crop_a,Power_p2_ss,Split_a,Scale_two",
]


@pytest.mark.parametrize("short", [s for line in ITEMWISE for s in line.split(",")])
def test_any_batch_size(short: str) -> None:
    """Twice the batch gives twice the items, on a net built for one batch."""
    name = f"layer_{short}"
    if name not in CASES:
        pytest.fail(f"no such case: {name}")
    case = Case(name)
    fed = case.inputs()
    once = case.net(**fed)
    twice = case.net(**{key: torch.cat([value, value]) for key, value in fed.items()})
    for key, value in once.items():
        assert_close(twice[key], torch.cat([value, value]), 1e-6, SUMS, key)
