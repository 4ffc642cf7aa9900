"""ELU: the exponential linear unit."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class ELU(Layer):
    """Any bottom → x where x > 0, alpha (exp(x) - 1) elsewhere.

    Source: BVLC Caffe 1.0, src/caffe/layers/elu_layer.cpp.
    """

    type = "ELU"
    param_field = "elu_param"
    fields = frozenset({"alpha"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.alpha: float = self.param.alpha
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x, self.alpha)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Elu", x, alpha=self.alpha)
