"""InnerProduct: the fully connected layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class InnerProduct(Layer):
    """Bottom (M axes before ``axis``, K flattened) → top (…, num_output): x Wᵀ + b.

    Blobs: weight (num_output, K), or (K, num_output) with ``transpose``; bias (num_output,).
    Source: BVLC Caffe 1.0, src/caffe/layers/inner_product_layer.cpp.
    """

    type = "InnerProduct"
    param_field = "inner_product_param"
    fields = frozenset(
        {"num_output", "bias_term", "weight_filler", "bias_filler", "axis", "transpose"}
    )
    weight: torch.Tensor
    bias: torch.Tensor | None

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        self.first_axis = self.axis(param.axis, len(bottom))
        self.inputs = math.prod(bottom[self.first_axis :])
        self.outputs: int = param.num_output
        if self.outputs < 1 or self.inputs < 1:
            self.refuse(f"needs num_output and inputs above 0: {self.outputs} and {self.inputs}")
        self.transposed: bool = param.transpose
        size = (self.outputs, self.inputs)
        self.add_blob("weight", size[::-1] if self.transposed else size, param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (self.outputs,), param.bias_filler)
        else:
            self.bias = None
        return [(*bottom[: self.first_axis], self.outputs)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.flatten(self.first_axis)
        if rows.shape[-1] != self.inputs:
            self.refuse(
                f"weights take {self.inputs} values per item, the bottom {tuple(x.shape)} "
                f"has {rows.shape[-1]}; feed the size that the net was written for"
            )
        weight = self.weight.t() if self.transposed else self.weight
        return F.linear(rows, weight, self.bias)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        bottom, top = self.bottom_shapes[0], self.top_shapes[0]
        if (self.first_axis, len(bottom)) != (1, 2):
            x = graph.node("Flatten", x, axis=self.first_axis)
        blobs = [graph.blob("weight", self.weight)]
        if self.bias is not None:
            blobs.append(graph.blob("bias", self.bias))
        rows = graph.node("Gemm", x, *blobs, transB=0 if self.transposed else 1)
        return rows if self.first_axis == 1 else graph.reshape(rows, (-1, *top[1:]))
