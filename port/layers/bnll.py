"""BNLL: log(1 + exp(x)), the binomial normal log likelihood."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class BNLL(Layer):
    """Any bottom → log(1 + exp(x)).

    Source: BVLC Caffe 1.0, src/caffe/layers/bnll_layer.cpp.
    """

    type = "BNLL"
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.softplus(x)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Softplus", x)
