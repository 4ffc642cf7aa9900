"""Sigmoid: 1 / (1 + exp(-x))."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Sigmoid(Layer):
    """Any bottom → 1 / (1 + exp(-x)).

    Source: BVLC Caffe 1.0, src/caffe/layers/sigmoid_layer.cpp.
    """

    type = "Sigmoid"
    param_field = "sigmoid_param"
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Sigmoid", x)
