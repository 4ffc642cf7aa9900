"""BatchReindex: items picked, repeated or reordered by index."""

from __future__ import annotations

import torch

from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class BatchReindex(Layer):
    """Bottoms x (N, …), index (M,) → top (M, …) with top[i] = x[index[i]].

    Source: BVLC Caffe 1.0, src/caffe/layers/batch_reindex_layer.cpp.
    """

    type = "BatchReindex"
    bottoms = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        x, index = bottoms
        if not x or len(index) != 1:
            self.refuse(f"needs bottoms (N, …) and (M,), found {x} and {index}")
        return [(*index, *x[1:])]

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        places = index.long()
        check_labels(self, places, x.shape[0])
        return x.index_select(0, places)

    def onnx(self, graph: OnnxGraph, x: str, index: str) -> str:
        return graph.node("Gather", x, graph.to_integer(index), axis=0)
