"""Split: one blob under several names."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Split(Layer):
    """Any bottom → every top is the bottom; gradients add up.

    Source: BVLC Caffe 1.0, src/caffe/layers/split_layer.cpp.
    """

    type = "Split"
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms * len(self.spec.top)

    def forward(self, x: torch.Tensor) -> Any:
        n = len(self.spec.top)
        return (x,) * n if n > 1 else x

    def onnx(self, graph: OnnxGraph, x: str) -> list[str]:
        return [x] * len(self.spec.top)
