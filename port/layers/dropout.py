"""Dropout: random zeros while training."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Dropout(Layer):
    """Any bottom → the same shape; in TRAIN each value is 0 or x / (1 - dropout_ratio).

    Random zeros come from torch's generator of the bottom's device. In TEST the top is the bottom.
    Source: BVLC Caffe 1.0, src/caffe/layers/dropout_layer.cpp.
    """

    type = "Dropout"
    param_field = "dropout_param"
    fields = frozenset({"dropout_ratio"})
    in_place = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.ratio: float = self.param.dropout_ratio
        if not 0 <= self.ratio < 1:
            self.refuse(f"dropout_ratio must be from 0 to below 1, found {self.ratio:g}")
        return bottoms

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, self.ratio) if self.phase == "TRAIN" else x

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return x
