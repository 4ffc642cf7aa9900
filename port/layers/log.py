"""Log: the logarithm of scale x + shift."""

from __future__ import annotations

import torch

from port.layers.exp import natural_log_of_base
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Log(Layer):
    """Any bottom → log to ``base`` of (scale x + shift); base -1 stands for e.

    Source: BVLC Caffe 1.0, src/caffe/layers/log_layer.cpp.
    """

    type = "Log"
    param_field = "log_param"
    fields = frozenset({"base", "scale", "shift"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        log_base = natural_log_of_base(self)
        if log_base == 0:
            self.refuse("base must not be 1")
        self.factor: float = 1 / log_base
        self.scale: float = param.scale
        self.shift: float = param.shift
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top = torch.log(x * self.scale + self.shift)
        return top if self.factor == 1 else top * self.factor

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        if self.scale != 1:
            x = graph.node("Mul", x, graph.floats(self.scale))
        if self.shift != 0:
            x = graph.node("Add", x, graph.floats(self.shift))
        top = graph.node("Log", x)
        return top if self.factor == 1 else graph.node("Mul", top, graph.floats(self.factor))
