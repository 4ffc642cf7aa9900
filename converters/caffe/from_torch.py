"""PyTorch to Caffe, by torch.export's graph of aten operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from converters.caffe import steps as s
from converters.caffe.build import build
from converters.caffe.from_onnx import check_outputs
from converters.caffe.steps import Array, Step, refuse
from port.layers.layer import Shape
from port.net import Net


def from_torch(
    module: nn.Module, shape: Shape | Sequence[Shape], *, name: str = "", check: bool = True
) -> Net:
    """The Caffe net of a PyTorch module, as it computes in evaluation mode.

    shape: of the input, batch included, or of each input. Layers are named as their module
    (``layer1.0.conv1``), results of plain operators as torch.export names them. check: the net is
    run against the module on random input. ``write_caffe`` writes the result. Raises
    ConversionError, by the operator's name, for what is no Caffe layer, and what torch.export
    raises for a module that it cannot trace.
    """
    shapes = [shape] if isinstance(shape[0], int) else list(shape)
    random = torch.Generator().manual_seed(0)
    fed = tuple(torch.rand(tuple(size), generator=random) * 2 - 1 for size in shapes)  # type: ignore[arg-type]
    was_training = module.training
    module.eval()
    try:
        program = torch.export.export(module, fed)
        reader = _Reader(program)
        net = reader.net(name or type(module).__name__)
        if check:
            with torch.inference_mode():
                theirs = module(*fed)
                ours = list(net(**dict(zip(net.inputs, fed, strict=True))).values())
            listed = theirs.values() if isinstance(theirs, dict) else theirs
            expected = [theirs] if torch.is_tensor(theirs) else list(listed)
            check_outputs(ours, [value.numpy() for value in expected])
    finally:
        module.train(was_training)
    return net


class _Node:
    """One call of an aten operator, its weights as arrays."""

    def __init__(self, node: fx.Node, owners: dict[str, str], values: dict[str, Array]) -> None:
        self.fx, self.op = node, str(node.target)
        self.values = values
        owned = [owners[a.name] for a in self._nodes() if a.name in owners]
        self.name = _owner(owned[0]) if owned else _module_of(node)
        self.source = f"operator '{node.name}' ({self.op})"

    def _nodes(self) -> list[fx.Node]:
        return [a for a in self.fx.args if isinstance(a, fx.Node)]

    def arg(self, i: int, default: Any = None) -> Any:
        """Argument i; a weight as its array."""
        if i < len(self.fx.args):
            value = self.fx.args[i]
            return self.values.get(value.name, value) if isinstance(value, fx.Node) else value
        return default

    @property
    def shape(self) -> Shape:
        """Of the result."""
        return tuple(self.fx.meta["val"].shape)

    def step(self, kind: str, *blobs: Array, **values: Any) -> Step:
        """A layer that reads the operator's first argument."""
        bottom = self.fx.args[0]
        bottoms = [bottom.name] if isinstance(bottom, fx.Node) else []
        return Step(self.source, self.name, kind, bottoms, [self.fx.name], values, list(blobs))


class _Reader:
    def __init__(self, program: Any) -> None:
        self.graph: fx.Graph = program.graph
        signature = program.graph_signature
        self.owners: dict[str, str] = {
            **signature.inputs_to_parameters,
            **signature.inputs_to_buffers,
            **getattr(signature, "inputs_to_lifted_tensor_constants", {}),
        }
        stored = {**dict(program.named_parameters()), **dict(program.named_buffers())}
        stored.update(getattr(program, "constants", {}))
        self.values: dict[str, Array] = {
            node: stored[name].detach().cpu().float().numpy() for node, name in self.owners.items()
        }

    def net(self, name: str) -> Net:
        """All of it."""
        inputs: dict[str, Shape] = {}
        steps: list[Step] = []
        outputs: list[str] = []
        for node in self.graph.nodes:
            if node.op == "placeholder" and node.name not in self.owners:
                inputs[node.name] = tuple(node.meta["val"].shape)
            elif node.op == "output":
                outputs = [value.name for value in node.args[0]]
            elif node.op == "call_function":
                steps += self._steps(node)
        return build(name, inputs, steps, outputs)

    def _steps(self, node: fx.Node) -> list[Step]:
        read = _Node(node, self.owners, self.values)
        if "getitem" in read.op:
            return []  # the pieces of a split are its tops
        if read.op not in OPERATORS:
            refuse(read.source, "this operator is not known")
        found = OPERATORS[read.op](read)
        return found if isinstance(found, list) else [found]


def _owner(weight: str) -> str:
    """The module of ``layer1.0.conv1.weight``."""
    return weight.rpartition(".")[0] or weight


def _module_of(node: fx.Node) -> str:
    """The path of torch's own module that made the call, or the call's name."""
    path, kind = list(node.meta.get("nn_module_stack", {"": ("", "")}).values())[-1]
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__name__}"
    return path if path and kind.startswith("torch.nn.modules") else node.name


def _pair(value: Any, n: int = 2) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return [int(v) for v in (values * n if len(values) == 1 else values)]


def _convolution(n: int) -> Callable[[_Node], Step]:
    def read(node: _Node) -> Step:
        if isinstance(node.arg(4), str):
            refuse(node.source, f"padding '{node.arg(4)}'")
        stride, pad, dilation = (
            _pair(node.arg(i, usual), n) for i, usual in ((3, 1), (4, 0), (5, 1))
        )
        weight, bias = node.arg(1), node.arg(2)
        return s.convolution(
            node.step("Convolution"), weight, bias, stride, pad, dilation, node.arg(6, 1)
        )

    return read


def _deconvolution(node: _Node) -> Step:
    if any(_pair(node.arg(5, 0))):
        refuse(node.source, "output_padding")
    stride, pad, dilation = (_pair(node.arg(i, usual)) for i, usual in ((3, 1), (4, 0), (7, 1)))
    step, group = node.step("Deconvolution"), node.arg(6, 1)
    return s.convolution(step, node.arg(1), node.arg(2), stride, pad, dilation, group)


def _linear(node: _Node) -> Step:
    if len(node.shape) != 2:
        refuse(node.source, f"gives a result of shape {node.shape}")
    return s.inner_product(node.step(""), node.arg(1), node.arg(2))


def _prelu(node: _Node) -> Step:
    slope = node.arg(1)
    if slope.size == 1:
        return node.step("PReLU", slope.reshape(()), channel_shared=True)
    return node.step("PReLU", slope)


def _batch_norm(node: _Node) -> list[Step]:
    factor, summand, mean, variance = (node.arg(i) for i in range(1, 5))
    if node.arg(5) or mean is None:
        refuse(node.source, "computes the batch's own statistics")
    return s.batch_norm(node.step(""), factor, summand, mean, variance, node.arg(7))


def _max_pool(node: _Node) -> Step:
    if set(_pair(node.arg(4, 1))) != {1}:
        refuse(node.source, "dilation")
    kernel = _pair(node.arg(1))
    stride, pad = _pair(node.arg(2) or kernel), _pair(node.arg(3, 0))
    return s.pooling(node.step(""), "MAX", kernel, stride, pad, pad, node.arg(5, False))


def _average_pool(node: _Node) -> Step:
    kernel, pad = _pair(node.arg(1)), _pair(node.arg(3, 0))
    if (any(pad) and not node.arg(5, True)) or node.arg(6) is not None:
        refuse(node.source, "leaves the padding out of its averages, or has a divisor of its own")
    stride, up = _pair(node.arg(2) or kernel), node.arg(4, False)
    return s.pooling(node.step(""), "AVE", kernel, stride, pad, pad, up)


def _global_average(node: _Node) -> Step:
    if set(_pair(node.arg(1))) != {1}:
        refuse(node.source, f"pools to {node.arg(1)}")
    return node.step("Pooling", pool="AVE", global_pooling=True)


def _mean(node: _Node) -> list[Step]:
    rank = len(node.fx.args[0].meta["val"].shape)  # type: ignore[union-attr]
    if rank != 4 or sorted(axis % rank for axis in node.arg(1)) != [2, 3]:
        refuse(node.source, f"averages over {node.arg(1)}")
    step = node.step("Pooling", pool="AVE", global_pooling=True)
    if node.arg(2, False):
        return [step]
    inner = f"{step.tops[0]}/pooled"
    flat = Step(step.source, f"{step.name}_flat", "Flatten", [inner], step.tops)
    step.tops = [inner]
    return [step, flat]


def _arithmetic(operation: str) -> Callable[[_Node], Step]:
    kinds = {"Add": "SUM", "Mul": "PROD", "Sub": "SUM", "Max": "MAX"}

    def read(node: _Node) -> Step:
        if node.fx.kwargs:
            refuse(node.source, f"with {', '.join(node.fx.kwargs)}")
        left, right = node.arg(0), node.arg(1)
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            if operation not in kinds:
                refuse(node.source, "two blobs")
            step = node.step("Eltwise", operation=kinds[operation])
            step.bottoms = [left.name, right.name]
            if operation == "Sub":
                step.values["coeff"] = [1.0, -1.0]
            return step
        if not isinstance(left, fx.Node):
            if operation in ("Sub", "Div"):
                refuse(node.source, "a constant in that place")
            left, right = right, left
        step = node.step("")
        step.bottoms = [left.name]
        return s.with_constant(step, operation, np.asarray(right, np.float32))

    return read


def _reshape(node: _Node) -> Step:
    if len(node.shape) == 2:
        return node.step("Flatten")
    return node.step("Reshape", shape=[0, *node.shape[1:]])


def _cat(node: _Node) -> Step:
    step = node.step("Concat", axis=int(node.arg(1, 0)))
    step.bottoms = [value.name for value in node.arg(0)]
    return step


def _split(node: _Node) -> Step:
    pieces = node.fx.meta["val"]
    axis = int(node.arg(2, 0))
    users = {int(user.args[1]): user.name for user in node.fx.users}  # type: ignore[arg-type]
    step = node.step("Slice", axis=axis)
    step.tops = [users.get(i, f"{node.fx.name}_{i}") for i in range(len(pieces))]
    ends = np.cumsum([piece.shape[axis] for piece in pieces])
    step.values["slice_point"] = [int(end) for end in ends[:-1]]
    return step


def _same(node: _Node) -> Step:
    step = node.step("")
    step.same = True
    return step


def _plain(kind: str) -> Callable[[_Node], Step]:
    return lambda node: node.step(kind)


OPERATORS: dict[str, Callable[[_Node], Any]] = {
    f"aten.{name}": read
    for name, read in {
        "abs.default": _plain("AbsVal"),
        "adaptive_avg_pool2d.default": _global_average,
        "add.Tensor": _arithmetic("Add"),
        "add_.Tensor": _arithmetic("Add"),
        "avg_pool2d.default": _average_pool,
        "batch_norm.default": _batch_norm,
        "cat.default": _cat,
        "clone.default": _same,
        "contiguous.default": _same,
        "conv1d.default": _convolution(1),
        "conv2d.default": _convolution(2),
        "conv3d.default": _convolution(3),
        "conv_transpose2d.input": _deconvolution,
        "div.Tensor": _arithmetic("Div"),
        "dropout.default": _same,
        "elu.default": lambda node: node.step("ELU", alpha=float(node.arg(1, 1.0))),
        "exp.default": _plain("Exp"),
        "flatten.using_ints": _reshape,
        "leaky_relu.default": lambda node: node.step(
            "ReLU", negative_slope=float(node.arg(1, 0.01))
        ),
        "linear.default": _linear,
        "log.default": _plain("Log"),
        "max_pool2d.default": _max_pool,
        "maximum.default": _arithmetic("Max"),
        "mean.dim": _mean,
        "mul.Tensor": _arithmetic("Mul"),
        "prelu.default": _prelu,
        "relu.default": _plain("ReLU"),
        "relu_.default": _plain("ReLU"),
        "reshape.default": _reshape,
        "sigmoid.default": _plain("Sigmoid"),
        "softmax.int": lambda node: node.step("Softmax", axis=int(node.arg(1))),
        "softplus.default": _plain("BNLL"),
        "split_with_sizes.default": _split,
        "split.Tensor": _split,
        "sub.Tensor": _arithmetic("Sub"),
        "tanh.default": _plain("TanH"),
        "view.default": _reshape,
    }.items()
}
