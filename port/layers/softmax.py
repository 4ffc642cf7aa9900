"""Softmax: exponentials normalised over one axis."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Softmax(Layer):
    """Any bottom → top of the same shape, summing to one over ``axis``.

    Source: BVLC Caffe 1.0, src/caffe/layers/softmax_layer.cpp.
    """

    type = "Softmax"
    param_field = "softmax_param"
    fields = frozenset({"axis"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.over = self.axis(self.param.axis, len(bottoms[0]))
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, self.over)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Softmax", x, axis=self.over)
