"""Crop: a part of one bottom, as large as another."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Crop(Layer):
    """Bottoms x, reference → x cut to the reference's sizes from ``axis`` on.

    ``offset`` says where the cut begins: one for all those axes, or one for each; default 0.
    Source: BVLC Caffe 1.0, src/caffe/layers/crop_layer.cpp.
    """

    type = "Crop"
    param_field = "crop_param"
    fields = frozenset({"axis", "offset"})
    bottoms = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        x, reference = bottoms
        self.first = self.axis(self.param.axis, len(x))
        count = len(x) - self.first
        if len(reference) != len(x):
            self.refuse(f"bottoms must have the same number of axes, found {x} and {reference}")
        offset = tuple(self.param.offset) or (0,)
        if len(offset) not in (1, count):
            self.refuse(f"gives {len(offset)} offsets for {count} axes; give 1 or {count}")
        self.offset = offset if len(offset) == count else offset * count
        for axis, start in enumerate(self.offset, self.first):
            if start + reference[axis] > x[axis]:
                self.refuse(f"offset {start} + {reference[axis]} is beyond axis {axis} of {x}")
        return [x[: self.first] + reference[self.first :]]

    def forward(self, x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        for axis, start in enumerate(self.offset, self.first):
            x = x.narrow(axis, start, reference.shape[axis])
        return x

    def onnx(self, graph: OnnxGraph, x: str, reference: str) -> str:
        for axis, start in enumerate(self.offset, self.first):
            size = self.top_shapes[0][axis]
            if (start, size) != (0, self.bottom_shapes[0][axis]):
                x = graph.cut(x, axis, start, start + size)
        return x
