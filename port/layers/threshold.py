"""Threshold: 1 above a threshold, else 0."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Threshold(Layer):
    """Any bottom → 1 where x > threshold, 0 elsewhere; no gradient.

    Source: BVLC Caffe 1.0, src/caffe/layers/threshold_layer.cpp.
    """

    type = "Threshold"
    param_field = "threshold_param"
    fields = frozenset({"threshold"})
    in_place = True
    backward_to = False

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.threshold: float = self.param.threshold
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > self.threshold).to(x.dtype)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.to_float(graph.node("Greater", x, graph.floats(self.threshold)))
