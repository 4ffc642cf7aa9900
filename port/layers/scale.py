"""Scale: multiplication along some axes, with an optional bias."""

from __future__ import annotations

import torch

from port import schema
from port.layers.along_axis import blob_shape, onnx_spread, spread, trailing_axes
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Scale(Layer):
    """Bottom x, and a factor (a second bottom, or learnt) → x times the factor, plus a bias.

    The factor spans ``num_axes`` axes of x from ``axis``; as a second bottom, as many as it has.
    Blobs: weight (those axes; 1 unless a filler is given) with one bottom, then bias of the same
    shape with ``bias_term``. Source: BVLC Caffe 1.0, src/caffe/layers/scale_layer.cpp.
    """

    type = "Scale"
    param_field = "scale_param"
    fields = frozenset({"axis", "num_axes", "filler", "bias_term", "bias_filler"})
    bottoms = (1, 2)
    in_place = True
    weight: torch.Tensor
    bias: torch.Tensor | None

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        x, param = bottoms[0], self.param
        shape = bottoms[1] if len(bottoms) == 2 else blob_shape(self, x)
        self.trailing = trailing_axes(self, x, shape)
        if len(bottoms) == 1:
            ones = schema.FillerParameter(type="constant", value=1)
            self.add_blob("weight", shape, param.filler if param.HasField("filler") else ones)
        if param.bias_term:
            self.add_blob("bias", shape, param.bias_filler)
        else:
            self.bias = None
        return bottoms[:1]

    def forward(self, x: torch.Tensor, factor: torch.Tensor | None = None) -> torch.Tensor:
        top = x * spread(self.weight if factor is None else factor, self.trailing)
        return top if self.bias is None else top + spread(self.bias, self.trailing)

    def onnx(self, graph: OnnxGraph, x: str, factor: str = "") -> str:
        if factor:
            factor = onnx_spread(graph, factor, self.bottom_shapes, self.trailing)
        else:
            factor = graph.blob("weight", spread(self.weight, self.trailing))
        top = graph.node("Mul", x, factor)
        if self.bias is None:
            return top
        return graph.node("Add", top, graph.blob("bias", spread(self.bias, self.trailing)))
