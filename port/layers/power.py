"""Power: (shift + scale x) ** power."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.function import call
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Power(Layer):
    """Any bottom → (shift + scale x) ** power.

    With power or scale 0 the top is a constant whose gradient is 0. Without shift, the gradient is
    power y / x as in Caffe: NaN at x = 0. Source: BVLC Caffe 1.0, src/caffe/layers/power_layer.cpp.
    """

    type = "Power"
    param_field = "power_param"
    fields = frozenset({"power", "scale", "shift"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        self.power: float = param.power
        self.scale: float = param.scale
        self.shift: float = param.shift
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.power == 1 and self.scale != 0:
            return x * self.scale + self.shift
        top: torch.Tensor = call(_Power, x, self.power, self.scale, self.shift)
        return top

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        if self.power * self.scale == 0:
            value = graph.floats(1.0 if self.power == 0 else self.shift**self.power)
            return graph.node("Expand", value, graph.node("Shape", x))
        if self.scale != 1:
            x = graph.node("Mul", x, graph.floats(self.scale))
        if self.shift != 0 or (self.scale == 1 and self.power == 1):
            x = graph.node("Add", x, graph.floats(self.shift))
        if self.power == 2:
            return graph.node("Mul", x, x)
        return x if self.power == 1 else graph.node("Pow", x, graph.floats(self.power))


class _Power(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, power: float, scale: float, shift: float
    ) -> torch.Tensor:
        inner = x * scale + shift if power and scale else torch.full_like(x, shift)
        top = inner**power if power else torch.ones_like(x)
        ctx.save_for_backward(x, top)
        ctx.numbers = power, scale, shift
        return top

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (x, top), (power, scale, shift) = ctx.saved_tensors, ctx.numbers
        if power * scale == 0:
            slope = torch.zeros_like(x)
        elif power == 2:
            slope = x * (2 * scale * scale) + 2 * scale * shift
        elif shift == 0:
            slope = top / x * power
        else:
            slope = top / (x * scale + shift) * (power * scale)
        return slope * gradients[0], None, None, None
