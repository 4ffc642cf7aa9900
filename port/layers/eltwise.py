"""Eltwise: sum, product or maximum of equally shaped bottoms."""

from __future__ import annotations

from typing import Any

import torch

from port import schema
from port.layers.function import call
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph

_ONNX = {"SUM": "Add", "MAX": "Max", "PROD": "Mul"}


class Eltwise(Layer):
    """Two or more bottoms of one shape → top of that shape.

    SUM weighs the bottoms with ``coeff``. MAX gives a tie of the first two to the second, and
    later bottoms win only when strictly greater. PROD without ``stable_prod_grad`` divides the
    top by the bottom in its gradient, so a zero gives NaN there as in Caffe.
    Source: BVLC Caffe 1.0, src/caffe/layers/eltwise_layer.cpp.
    """

    type = "Eltwise"
    param_field = "eltwise_param"
    fields = frozenset({"operation", "coeff", "stable_prod_grad"})
    bottoms = (2, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        operation = schema.enum_name(param, "operation")
        if len(set(bottoms)) > 1:
            self.refuse(f"bottoms must have one shape, found {', '.join(map(str, bottoms))}")
        coeff = tuple(param.coeff)
        if coeff and len(coeff) != len(bottoms):
            self.refuse(f"gives {len(coeff)} coeff for {len(bottoms)} bottoms; give one for each")
        if coeff and operation == "PROD":
            self.refuse("takes coeff with operation SUM only, not with PROD")
        self.coeff = coeff if any(value != 1 for value in coeff) else ()
        if operation == "SUM":
            self.combine = self._weighted_sum if self.coeff else _sum
        elif operation == "MAX":
            self.combine = _max
        else:
            self.combine = _product if param.stable_prod_grad else _unstable_product
        return bottoms[:1]

    def forward(self, a: torch.Tensor, b: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        return self.combine(a, b, *more)

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> str:
        op = _ONNX[schema.enum_name(self.param, "operation")]
        if self.coeff:
            pairs = zip(bottoms, self.coeff, strict=True)
            bottoms = tuple(graph.node("Mul", x, graph.floats(c)) for x, c in pairs)
        top = bottoms[0]
        for x in bottoms[1:]:
            top = graph.node(op, top, x)
        return top

    def _weighted_sum(self, *bottoms: torch.Tensor) -> torch.Tensor:
        return _sum(*(x * c for x, c in zip(bottoms, self.coeff, strict=True)))


def _sum(a: torch.Tensor, b: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
    top = a + b
    for x in more:
        top = top + x
    return top


def _product(a: torch.Tensor, b: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
    top = a * b
    for x in more:
        top = top * x
    return top


def _max(a: torch.Tensor, b: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
    top = torch.where(a > b, a, b)
    for x in more:
        top = torch.where(x > top, x, top)
    return top


def _unstable_product(*bottoms: torch.Tensor) -> torch.Tensor:
    top: torch.Tensor = call(_UnstableProduct, *bottoms)
    return top


class _UnstableProduct(torch.autograd.Function):
    """The product whose gradient is top / bottom."""

    @staticmethod
    def forward(ctx: Any, *bottoms: torch.Tensor) -> torch.Tensor:
        top = _product(*bottoms)
        ctx.save_for_backward(top, *bottoms)
        return top

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        top, *bottoms = ctx.saved_tensors
        return tuple(top / x * gradients[0] for x in bottoms)
