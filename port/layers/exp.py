"""Exp: base ** (scale x + shift)."""

from __future__ import annotations

import math

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Exp(Layer):
    """Any bottom → base ** (scale x + shift); base -1 stands for e.

    Source: BVLC Caffe 1.0, src/caffe/layers/exp_layer.cpp.
    """

    type = "Exp"
    param_field = "exp_param"
    fields = frozenset({"base", "scale", "shift"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        log_base = natural_log_of_base(self)
        self.inner: float = log_base * param.scale
        self.outer: float = math.exp(log_base * param.shift)
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = torch.exp(x if self.inner == 1 else x * self.inner)
        return top if self.outer == 1 else top * self.outer

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        if self.inner != 1:
            x = graph.node("Mul", x, graph.floats(self.inner))
        top = graph.node("Exp", x)
        return top if self.outer == 1 else graph.node("Mul", top, graph.floats(self.outer))


def natural_log_of_base(layer: Layer) -> float:
    """ln of the layer's ``base``, 1 for the stand-in -1; a base that has none is refused."""
    base = layer.param.base
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        layer.refuse(f"base must be above 0, or -1 for e, found {base:g}")
    return math.log(base)
