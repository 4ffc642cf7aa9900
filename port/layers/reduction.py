"""Reduction: the tail of a blob made one number."""

from __future__ import annotations

from collections.abc import Callable

import torch

from port import schema
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


def _sum(x: torch.Tensor) -> torch.Tensor:
    return x.sum(-1)


def _sum_of_absolutes(x: torch.Tensor) -> torch.Tensor:
    return x.abs().sum(-1)


def _sum_of_squares(x: torch.Tensor) -> torch.Tensor:
    return (x * x).sum(-1)


def _mean(x: torch.Tensor) -> torch.Tensor:
    return x.mean(-1)


_OPERATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "SUM": _sum,
    "ASUM": _sum_of_absolutes,
    "SUMSQ": _sum_of_squares,
    "MEAN": _mean,
}
_ONNX = {
    "SUM": "ReduceSum",
    "ASUM": "ReduceL1",
    "SUMSQ": "ReduceSumSquare",
    "MEAN": "ReduceMean",
}


class Reduction(Layer):
    """Bottom → coeff times the sum (absolute sum, sum of squares, mean) of all axes from ``axis``.

    Source: BVLC Caffe 1.0, src/caffe/layers/reduction_layer.cpp.
    """

    type = "Reduction"
    param_field = "reduction_param"
    fields = frozenset({"operation", "axis", "coeff"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        self.first = self.axis(param.axis, len(bottom))
        self.reduce = _OPERATIONS[schema.enum_name(param, "operation")]
        self.coeff: float = param.coeff
        return [bottom[: self.first]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = self.reduce(x.flatten(self.first))
        return top if self.coeff == 1 else top * self.coeff

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        axes = range(self.first, len(self.bottom_shapes[0]))
        top = graph.reduce(_ONNX[schema.enum_name(self.param, "operation")], x, axes, keep=False)
        return top if self.coeff == 1 else graph.node("Mul", top, graph.floats(self.coeff))
