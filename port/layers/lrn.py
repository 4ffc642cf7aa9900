"""LRN: local response normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port import schema
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class LRN(Layer):
    """Bottom (N, C, H, W) → x / (k + alpha * mean square of the neighbourhood) ** beta.

    ACROSS_CHANNELS: local_size channels; WITHIN_CHANNEL: local_size² pixels, and k is 1 whatever
    is set. The mean counts the zeros beyond the borders.
    Source: BVLC Caffe 1.0, src/caffe/layers/lrn_layer.cpp.
    """

    type = "LRN"
    param_field = "lrn_param"
    fields = frozenset({"local_size", "alpha", "beta", "norm_region", "k"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        if len(bottoms[0]) != 4 or min(bottoms[0][1:]) < 1:
            self.refuse(f"needs a bottom (N, C, H, W), found {bottoms[0]}")
        if param.local_size % 2 == 0 or param.local_size > 2**15:
            self.refuse(f"local_size must be odd and below {2**15}, found {param.local_size}")
        self.across = schema.enum_name(param, "norm_region") == "ACROSS_CHANNELS"
        self.size: int = param.local_size
        self.alpha: float = param.alpha
        self.beta: float = param.beta
        self.k: float = param.k if self.across else 1.0
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.across:
            return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)
        mean = F.avg_pool2d(x * x, self.size, 1, self.size // 2)
        return x * (self.k + self.alpha * mean) ** -self.beta

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        if self.across:
            numbers = {"alpha": self.alpha, "beta": self.beta, "bias": self.k}
            return graph.node("LRN", x, size=self.size, **numbers)
        window = {"kernel_shape": (self.size,) * 2, "pads": (self.size // 2,) * 4}
        square = graph.node("Mul", x, x)
        mean = graph.node("AveragePool", square, count_include_pad=1, strides=(1, 1), **window)
        inner = graph.node("Mul", mean, graph.floats(self.alpha))
        inner = graph.node("Add", inner, graph.floats(self.k))
        return graph.node("Mul", x, graph.node("Pow", inner, graph.floats(-self.beta)))
