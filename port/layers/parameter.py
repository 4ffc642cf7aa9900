"""Parameter: a learnt blob as a top."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Parameter(Layer):
    """No bottom → the blob itself, of ``shape``. Blob: weight, zeros unless loaded.

    Source: BVLC Caffe 1.0, include/caffe/layers/parameter_layer.hpp.
    """

    type = "Parameter"
    param_field = "parameter_param"
    fields = frozenset({"shape"})
    bottoms = (0, 0)
    weight: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        shape = tuple(self.param.shape.dim)
        self.add_blob("weight", shape)
        return [shape]

    def forward(self) -> torch.Tensor:
        return self.weight

    def onnx(self, graph: OnnxGraph) -> str:
        return graph.node("Identity", graph.blob("weight", self.weight))
