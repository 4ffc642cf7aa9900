"""AbsVal: the absolute value."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class AbsVal(Layer):
    """Any bottom → |x|; the gradient at 0 is 0. Never in place.

    Source: BVLC Caffe 1.0, src/caffe/layers/absval_layer.cpp.
    """

    type = "AbsVal"

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.abs()

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Abs", x)
