"""ReLU: the rectifier, leaky with ``negative_slope``."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class ReLU(Layer):
    """Any bottom → top of the same shape: x where x > 0, negative_slope x elsewhere.

    At exactly 0 the gradient is ``negative_slope``.
    Source: BVLC Caffe 1.0, src/caffe/layers/relu_layer.cpp.
    """

    type = "ReLU"
    param_field = "relu_param"
    fields = frozenset({"negative_slope"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.slope: float = self.param.negative_slope
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        if self.slope:
            return graph.node("LeakyRelu", x, alpha=self.slope)
        return graph.node("Relu", x)
