"""Flatten: some neighbouring axes become one."""

from __future__ import annotations

import math

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Flatten(Layer):
    """Axes ``axis`` to ``end_axis`` (both included, negative: from the end) become one axis.

    An end just before the start inserts an axis of length 1.
    Source: BVLC Caffe 1.0, src/caffe/layers/flatten_layer.cpp.
    """

    type = "Flatten"
    param_field = "flatten_param"
    fields = frozenset({"axis", "end_axis"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        self.start = self.axis(param.axis, len(bottom))
        self.stop = self.axis(param.end_axis, len(bottom)) + 1
        if self.start > self.stop:
            self.refuse(f"axis {self.start} lies after end_axis {self.stop - 1}")
        flat = math.prod(bottom[self.start : self.stop])
        return [(*bottom[: self.start], flat, *bottom[self.stop :])]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.start == self.stop:
            return x.unsqueeze(self.start)
        return x.flatten(self.start, self.stop - 1)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        bottom = self.bottom_shapes[0]
        if self.start == self.stop:
            return graph.unsqueeze(x, (self.start,))
        if self.start == 1 and self.stop == len(bottom):
            return graph.node("Flatten", x, axis=1)
        return graph.reshape(x, (*(0,) * self.start, -1, *bottom[self.stop :]))
