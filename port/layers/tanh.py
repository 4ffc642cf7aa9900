"""TanH: the hyperbolic tangent."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class TanH(Layer):
    """Any bottom → tanh(x). Source: BVLC Caffe 1.0, src/caffe/layers/tanh_layer.cpp."""

    type = "TanH"
    param_field = "tanh_param"
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Tanh", x)
