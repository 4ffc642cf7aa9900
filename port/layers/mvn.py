"""MVN: mean and variance of each item or plane made 0 and 1."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.function import call
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class MVN(Layer):
    """Bottom (N, C, H, W) → (x - mean) / (standard deviation + eps) over each plane, or item.

    ``across_channels`` takes an item's planes together; without ``normalize_variance`` only the
    mean goes. Fewer axes count as 1, and the top always has four. The gradient treats the eps as
    if it were not there. Source: BVLC Caffe 1.0, src/caffe/layers/mvn_layer.cpp.
    """

    type = "MVN"
    param_field = "mvn_param"
    fields = frozenset({"normalize_variance", "across_channels", "eps"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        if len(bottom) > 4:
            self.refuse(f"needs a bottom of at most 4 axes, found {bottom}")
        if 0 in bottom:
            self.refuse(f"needs planes with values in them, found a bottom of shape {bottom}")
        self.ones = (1,) * (4 - len(bottom))
        self.over = (1, 2, 3) if param.across_channels else (2, 3)
        self.eps: float | None = param.eps if param.normalize_variance else None
        return [bottom + self.ones]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.reshape(x.shape + self.ones) if self.ones else x
        if self.eps is None:
            return x - x.mean(self.over, keepdim=True)
        top: torch.Tensor = call(_Normalise, x, self.over, self.eps)
        return top

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        rank = 4 - len(self.ones)
        x = graph.unsqueeze(x, range(rank, 4)) if self.ones else x
        centred = graph.node("Sub", x, graph.reduce("ReduceMean", x, self.over, keep=True))
        if self.eps is None:
            return centred
        square = graph.node("Mul", centred, centred)
        variance = graph.reduce("ReduceMean", square, self.over, keep=True)
        deviation = graph.node("Add", graph.node("Sqrt", variance), graph.floats(self.eps))
        return graph.node("Div", centred, deviation)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, over: tuple[int, ...], eps: float) -> torch.Tensor:
        variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
        deviation = variance.sqrt() + eps
        top = (x - mean) / deviation
        ctx.save_for_backward(top, deviation)
        ctx.over = over
        return top

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (top, deviation), g = ctx.saved_tensors, gradients[0]
        along = (g * top).mean(ctx.over, keepdim=True)
        return (g - top * along - g.mean(ctx.over, keepdim=True)) / deviation, None, None
