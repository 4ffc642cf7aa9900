"""Every golden layer case through its ONNX form in onnxruntime."""

from __future__ import annotations

import onnx
import onnxruntime as ort
import pytest
from layer_cases import CASES, Case
from tolerance import FORWARD, assert_close

from converters.onnx import Options, supported_types, to_model
from port.layers.registry import layer_types

SUMS = "float32 sums in another order"
DRAWN = {"layer_Dropout_train"}
"""Its outputs are the original's random draw; no model has that."""
WITHOUT_FORM = {
    "Accuracy",
    "ContrastiveLoss",
    "EuclideanLoss",
    "HDF5Output",
    "HingeLoss",
    "InfogainLoss",
    "MultinomialLogisticLoss",
    "Python",
    "SigmoidCrossEntropyLoss",
    "SoftmaxWithLoss",
}
"""Training heads, and what runs code of the user's."""


def with_form() -> list[str]:
    return [n for n in CASES if Case(n).layer.onnx is not None and n not in DRAWN]


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("name", with_form())
def test_golden(name: str, opset: int) -> None:
    case = Case(name)
    theirs = case.under("out")
    if not theirs:
        assert case.layer.type == "Silence"
        return
    model = to_model(case.net, Options(outputs=tuple(theirs), opset=opset))
    runtime = session(model)
    known = {value.name for value in runtime.get_inputs()}
    fed = {blob: x.detach().numpy() for blob, x in case.inputs().items() if blob in known}
    ours = runtime.run(None, fed)
    for (blob, expected), found in zip(theirs.items(), ours, strict=True):
        assert_close(found, expected, FORWARD, SUMS, blob)
    assert [value.name.removesuffix("_out") for value in model.graph.output] == list(theirs)
    named = [node.name for node in model.graph.node]
    assert case.layer.name in named or case.layer.type in ("Split", "Dropout")
    assert len(named) == len(set(named))


def test_supported_types() -> None:
    assert set(layer_types()) - supported_types() == WITHOUT_FORM


def test_half_of_an_empty_window() -> None:
    case = Case("layer_Pooling_MAX_empty_window")
    theirs = case.under("out")
    (blob,) = theirs
    runtime = session(to_model(case.net, Options(half=True)))
    fed = {name: x.detach().numpy() for name, x in case.inputs().items()}
    (ours,) = runtime.run(None, fed)
    empty = theirs[blob] < -1e38
    assert empty.any()
    assert (ours[empty] == -65504).all()
