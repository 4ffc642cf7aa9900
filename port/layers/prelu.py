"""PReLU: a rectifier with a learnt slope for negative values."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port import schema
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class PReLU(Layer):
    """Bottom (N, C, …) → top of the same shape: x where x > 0, slope x elsewhere.

    Blob: weight (C,), or () with ``channel_shared``; 0.25 unless a filler is given. At exactly 0
    the gradient uses the slope. Source: BVLC Caffe 1.0, src/caffe/layers/prelu_layer.cpp.
    """

    type = "PReLU"
    param_field = "prelu_param"
    fields = frozenset({"filler", "channel_shared"})
    in_place = True
    weight: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        if len(bottom) < 2:
            self.refuse(f"needs a bottom of at least 2 axes, found {bottom}")
        default = schema.FillerParameter(type="constant", value=0.25)
        filler = param.filler if param.HasField("filler") else default
        self.add_blob("weight", () if param.channel_shared else (bottom[1],), filler)
        return [bottom]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.prelu(x, self.weight)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        ones = (1,) * (len(self.bottom_shapes[0]) - 2)
        return graph.node("PRelu", x, graph.blob("weight", self.weight.reshape(-1, *ones)))
