"""Bias: addition along some axes."""

from __future__ import annotations

import torch

from port.layers.along_axis import blob_shape, onnx_spread, spread, trailing_axes
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Bias(Layer):
    """Bottom x, and a summand (a second bottom, or learnt) → x plus the summand.

    The summand spans ``num_axes`` axes of x from ``axis``; as a second bottom, as many as it has.
    Blob, with one bottom: bias (those axes).
    Source: BVLC Caffe 1.0, src/caffe/layers/bias_layer.cpp.
    """

    type = "Bias"
    param_field = "bias_param"
    fields = frozenset({"axis", "num_axes", "filler"})
    bottoms = (1, 2)
    in_place = True
    bias: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        x = bottoms[0]
        shape = bottoms[1] if len(bottoms) == 2 else blob_shape(self, x)
        self.trailing = trailing_axes(self, x, shape)
        if len(bottoms) == 1:
            self.add_blob("bias", shape, self.param.filler)
        return bottoms[:1]

    def forward(self, x: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        return x + spread(self.bias if summand is None else summand, self.trailing)

    def onnx(self, graph: OnnxGraph, x: str, summand: str = "") -> str:
        if summand:
            return graph.node(
                "Add", x, onnx_spread(graph, summand, self.bottom_shapes, self.trailing)
            )
        return graph.node("Add", x, graph.blob("bias", spread(self.bias, self.trailing)))
