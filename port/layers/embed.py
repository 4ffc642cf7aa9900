"""Embed: a learnt row for each index."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Embed(Layer):
    """Bottom of indices, any shape → top (shape…, num_output): the weight's rows, plus a bias.

    Blobs: weight (input_dim, num_output), bias (num_output,).
    Source: BVLC Caffe 1.0, src/caffe/layers/embed_layer.cpp.
    """

    type = "Embed"
    param_field = "embed_param"
    fields = frozenset({"num_output", "input_dim", "bias_term", "weight_filler", "bias_filler"})
    weight: torch.Tensor
    bias: torch.Tensor | None

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        if param.num_output < 1 or param.input_dim < 1:
            self.refuse(
                f"num_output and input_dim must be above 0: {param.num_output}, {param.input_dim}"
            )
        self.add_blob("weight", (param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (param.num_output,), param.bias_filler)
        else:
            self.bias = None
        return [(*bottoms[0], param.num_output)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        index = x.long()
        check_labels(self, index, self.weight.shape[0])
        rows = F.embedding(index, self.weight)
        return rows if self.bias is None else rows + self.bias

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        rows = graph.node("Gather", graph.blob("weight", self.weight), graph.to_integer(x), axis=0)
        return rows if self.bias is None else graph.node("Add", rows, graph.blob("bias", self.bias))
