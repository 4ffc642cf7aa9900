"""ONNX to Caffe, operator by operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.caffe import steps as s
from converters.caffe.build import BOUND, build
from converters.caffe.steps import Array, Step, refuse
from converters.onnx.check import relative_difference
from port.errors import ConversionError
from port.layers.layer import Shape
from port.net import Net


def from_onnx(
    model: str | Path | onnx.ModelProto, shape: Shape | None = None, *, check: bool = True
) -> Net:
    """The Caffe net of an ONNX model: names of nodes and values are kept.

    shape: (C, H, W) of the input, where the model leaves it open; the batch may stay open. check:
    the net is run against onnxruntime on random input. ``write_caffe`` writes the result.
    Raises ConversionError, by the node's name, for an operator that is no Caffe layer.
    """
    if not isinstance(model, onnx.ModelProto):
        try:
            model = onnx.load(str(model))
        except Exception as error:  # protobuf's DecodeError and what onnx adds
            raise ConversionError(f"{model}: no ONNX model: {error}") from error
    if not model.graph.node:
        raise ConversionError("the file holds no ONNX graph")
    try:
        net, inputs = _read(model, shape)
    except _DAMAGE as error:
        raise ConversionError(f"the model is damaged: {type(error).__name__}: {error}") from error
    if check:
        _check(net, model, inputs)
    return net


_DAMAGE = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError)
"""What attributes of a wrong type, names that are no text and tensors of a wrong size end in."""


def _read(model: onnx.ModelProto, shape: Shape | None) -> tuple[Net, dict[str, Shape]]:
    """The net and the shapes of its inputs."""
    reader = _Reader(model)
    inputs = reader.inputs(shape)
    steps = [step for node in model.graph.node for step in reader.steps(node)]
    outputs = [value.name for value in model.graph.output]
    return build(model.graph.name or "net", inputs, steps, outputs), inputs


class _Node:
    """One node with its attributes; ``const`` has the constants among its inputs."""

    def __init__(self, node: Any, constants: dict[str, Array]) -> None:
        self.op: str = node.op_type
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.name: str = node.name or node.output[0]
        self.source = f"node '{self.name}' ({self.op})"
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.constants = constants

    def const(self, i: int) -> Array | None:
        """Input i as a constant; None where it is left out."""
        if i >= len(self.inputs) or not self.inputs[i]:
            return None
        if self.inputs[i] not in self.constants:
            refuse(self.source, f"its input {i} must be a constant")
        return self.constants[self.inputs[i]]

    def weight(self, i: int) -> Array:
        """Input i as a constant that must be there."""
        found = self.const(i)
        return refuse(self.source, f"lacks input {i}") if found is None else found

    def attribute(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)

    def step(self, kind: str, *blobs: Array, **values: Any) -> Step:
        """A layer of this node's name that reads its first input."""
        return Step(
            self.source, self.name, kind, self.inputs[:1], self.outputs[:1], values, list(blobs)
        )


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def inputs(self, shape: Shape | None) -> dict[str, Shape]:
        """Shapes of the inputs that are no constants; an open batch is 1."""
        found = {}
        for value in self.graph.input:
            if value.name in self.constants:
                continue
            dims = [d.dim_value or None for d in value.type.tensor_type.shape.dim]
            if shape is not None and len(dims) == 4:
                dims[1:] = shape
            dims[:1] = [dims[0] or 1] if dims else []
            if None in dims:
                raise ConversionError(
                    f"input '{value.name}' is {tuple(dims)}: state its C,H,W with --shape"
                )
            found[value.name] = tuple(int(d) for d in dims if d is not None)
        return found

    def steps(self, proto: Any) -> list[Step]:
        if proto.op_type == "Constant":
            values = [helper.get_attribute_value(a) for a in proto.attribute if a.name == "value"]
            if values:
                self.constants[proto.output[0]] = numpy_helper.to_array(values[0])
                return []
        node = _Node(proto, self.constants)
        if node.op not in OPERATORS or proto.domain not in ("", "ai.onnx"):
            refuse(node.source, "this operator is not known")
        found = OPERATORS[node.op](node)
        return found if isinstance(found, list) else [found]


def _pads(node: _Node, n: int) -> list[int]:
    """The pad of each axis; both sides must agree."""
    automatic = node.attribute("auto_pad", b"NOTSET")
    pads = list(node.attribute("pads", [0] * 2 * n))
    if automatic not in (b"NOTSET", b"VALID") or pads[:n] != pads[n:]:
        refuse(node.source, f"pads unevenly or by itself: {pads}, {automatic.decode()}")
    return pads[:n]


def _convolution(node: _Node) -> Step:
    weight, bias = node.weight(1), node.const(2)
    n = weight.ndim - 2
    kind = {"Conv": "Convolution", "ConvTranspose": "Deconvolution"}[node.op]
    if any(node.attribute("output_padding", [])) or "output_shape" in node.attributes:
        refuse(node.source, "states its output's size")
    stride, dilation = (node.attribute(what, [1] * n) for what in ("strides", "dilations"))
    group = node.attribute("group", 1)
    step = node.step(kind)
    return s.convolution(step, weight, bias, stride, _pads(node, n), dilation, group)


def _gemm(node: _Node) -> Step:
    if node.attribute("transA", 0) or node.attribute("alpha", 1.0) != 1:
        refuse(node.source, "transA or alpha")
    weight, bias = node.weight(1), node.const(2)
    weight = weight if node.attribute("transB", 0) else weight.T
    if bias is not None:
        bias = np.broadcast_to(bias * node.attribute("beta", 1.0), (1, len(weight))).reshape(-1)
    return s.inner_product(node.step(""), weight, bias)


def _matmul(node: _Node) -> Step:
    weight = node.weight(1)
    if weight.ndim != 2:
        refuse(node.source, f"a weight of shape {weight.shape}")
    return s.inner_product(node.step(""), weight.T, None)


def _prelu(node: _Node) -> Step:
    slope = node.weight(1)
    if slope.size == 1:
        return node.step("PReLU", slope.reshape(()), channel_shared=True)
    if slope.size != max(slope.shape):
        refuse(node.source, f"a slope of shape {slope.shape}, not one for each channel")
    return node.step("PReLU", slope.reshape(-1))


def _batch_norm(node: _Node) -> list[Step]:
    blobs = [node.weight(i) for i in range(1, 5)]
    eps = node.attribute("epsilon", 1e-5)
    return s.batch_norm(node.step(""), blobs[0], blobs[1], blobs[2], blobs[3], eps)


def _pooling(node: _Node) -> Step:
    kernel = list(node.attribute("kernel_shape", []))
    if len(kernel) != 2 or len(node.outputs) > 1 or set(node.attribute("dilations", [1])) != {1}:
        refuse(node.source, f"a kernel of {kernel} with a mask or dilation")
    pads = list(node.attribute("pads", [0] * 4))
    method = {"MaxPool": "MAX", "AveragePool": "AVE"}[node.op]
    counts_pad = bool(node.attribute("count_include_pad", 0))
    # Caffe's average counts the padding, but not what lies beyond it for the last window's sake.
    evenly = pads[:2] == pads[2:] and (counts_pad or not any(pads))
    if method == "AVE" and not (evenly or (not any(pads[:2]) and not counts_pad)):
        refuse(node.source, f"averages over pads {pads} in its own way")
    if node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        refuse(node.source, "pads by itself")
    stride, up = node.attribute("strides", [1, 1]), bool(node.attribute("ceil_mode", 0))
    return s.pooling(node.step(""), method, kernel, stride, pads[:2], pads[2:], up)


def _global(method: str) -> Callable[[_Node], Step]:
    return lambda node: node.step("Pooling", pool=method, global_pooling=True)


_ELTWISE = {"Add": "SUM", "Sum": "SUM", "Mul": "PROD", "Max": "MAX", "Sub": "SUM"}


def _arithmetic(node: _Node) -> Step:
    constant = [i for i, name in enumerate(node.inputs) if name in node.constants]
    if not constant:
        if node.op not in _ELTWISE:
            refuse(node.source, "two blobs")
        step = node.step("Eltwise", operation=_ELTWISE[node.op])
        step.bottoms = node.inputs
        if node.op == "Sub":
            step.values["coeff"] = [1.0, -1.0]
        return step
    if len(node.inputs) != 2 or (constant == [0] and node.op in ("Sub", "Div")):
        refuse(node.source, "a constant in that place")
    step = node.step("")
    step.bottoms = [node.inputs[1 - constant[0]]]
    return s.with_constant(step, node.op, node.weight(constant[0]))


def _reshape(node: _Node) -> Step:
    dims = [int(dim) for dim in node.weight(1).reshape(-1)]
    if len(dims) == 2 and -1 in dims:
        return node.step("Flatten")
    if dims[:1] not in ([0], [-1]):
        refuse(node.source, f"reshapes the batch too: {dims}")
    return node.step("Reshape", shape=[0, *dims[1:]])


def _flatten(node: _Node) -> Step:
    if node.attribute("axis", 1) != 1:
        refuse(node.source, f"axis {node.attribute('axis', 1)}")
    return node.step("Flatten")


def _concat(node: _Node) -> Step:
    step = node.step("Concat", axis=int(node.attribute("axis", 1)))
    step.bottoms = node.inputs
    return step


def _split(node: _Node) -> Step:
    step = node.step("Slice", axis=int(node.attribute("axis", 0)))
    step.tops = node.outputs
    sizes = node.const(1)
    if sizes is not None:
        step.values["slice_point"] = [int(end) for end in np.cumsum(sizes)[:-1]]
    return step


def _softmax(node: _Node) -> Step:
    return node.step("Softmax", axis=int(node.attribute("axis", -1)))


def _same(node: _Node) -> Step:
    step = node.step("")
    step.same = True
    return step


def _plain(kind: str, **attributes: tuple[str, float]) -> Callable[[_Node], Step]:
    """A layer without weights; attributes: field → (ONNX attribute, its default)."""
    return lambda node: node.step(
        kind, **{field: float(node.attribute(*found)) for field, found in attributes.items()}
    )


OPERATORS: dict[str, Callable[[_Node], Any]] = {
    "Abs": _plain("AbsVal"),
    "Add": _arithmetic,
    "AveragePool": _pooling,
    "BatchNormalization": _batch_norm,
    "Concat": _concat,
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "Div": _arithmetic,
    "Dropout": _same,
    "Elu": _plain("ELU", alpha=("alpha", 1.0)),
    "Exp": _plain("Exp"),
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global("AVE"),
    "GlobalMaxPool": _global("MAX"),
    "Identity": _same,
    "LeakyRelu": _plain("ReLU", negative_slope=("alpha", 0.01)),
    "Log": _plain("Log"),
    "MatMul": _matmul,
    "Max": _arithmetic,
    "MaxPool": _pooling,
    "Mul": _arithmetic,
    "PRelu": _prelu,
    "Relu": _plain("ReLU"),
    "Reshape": _reshape,
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _softmax,
    "Softplus": _plain("BNLL"),
    "Split": _split,
    "Sub": _arithmetic,
    "Sum": _arithmetic,
    "Tanh": _plain("TanH"),
}


def _check(net: Net, model: onnx.ModelProto, inputs: dict[str, Shape]) -> None:
    import onnxruntime
    import torch

    random = np.random.default_rng(0)
    fed = {name: random.uniform(-1, 1, shape).astype(np.float32) for name, shape in inputs.items()}
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        theirs = session.run(None, fed)
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise ConversionError(f"onnxruntime cannot run the model: {error}") from error
    with torch.inference_mode():
        ours = list(net(**{name: torch.from_numpy(x) for name, x in fed.items()}).values())
    check_outputs(ours, theirs)


def check_outputs(ours: list[Any], theirs: list[Array]) -> None:
    """Raises ConversionError unless each output of theirs is among ours, by its numbers."""
    for i, expected in enumerate(theirs):
        found = min((relative_difference(x.numpy(), expected) for x in ours), default=np.inf)
        if not found <= BOUND:
            raise ConversionError(
                f"output {i} of the Caffe net differs by {found:.2g} of its largest value from "
                f"the model's, {BOUND:.2g} is allowed"
            )
