"""Filter: the items that a selector picks."""

from __future__ import annotations

import math
from typing import Any

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Filter(Layer):
    """Bottoms (N, …) and, last, a selector (N,) → for each bottom its items where it is not 0.

    The tops' first axis is known at run time only; ``top_shapes`` has N.
    Source: BVLC Caffe 1.0, src/caffe/layers/filter_layer.cpp.
    """

    type = "Filter"
    bottoms = (2, None)
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        *data, selector = bottoms
        if len(self.spec.top) != len(data):
            self.refuse(f"needs a top for each of {len(data)} bottoms before the selector")
        if not selector or math.prod(selector[1:]) != 1:
            self.refuse(f"needs a selector of shape (N,), found {selector}")
        for shape in data:
            if shape[:1] != selector[:1]:
                self.refuse(f"the selector {selector} does not fit a bottom of shape {shape}")
        return data

    def forward(self, *bottoms: torch.Tensor) -> Any:
        *data, selector = bottoms
        kept = selector.detach().flatten().nonzero().flatten()
        tops = tuple(x.index_select(0, kept) for x in data)
        return tops if len(tops) > 1 else tops[0]

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> list[str]:
        *data, selector = bottoms
        zero = graph.node("Equal", graph.reshape(selector, (-1,)), graph.floats(0.0))
        kept = graph.node("Not", zero)
        return [graph.node("Compress", x, kept, axis=0) for x in data]
