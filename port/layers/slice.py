"""Slice: one blob cut into several along an axis."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from port.layers.concat import one_axis
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Slice(Layer):
    """Bottom → a top for each piece along ``axis`` (``slice_dim`` in old files).

    Cut before each ``slice_point``, or into equal pieces without any.
    Source: BVLC Caffe 1.0, src/caffe/layers/slice_layer.cpp.
    """

    type = "Slice"
    param_field = "slice_param"
    fields = frozenset({"axis", "slice_dim", "slice_point"})
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, n = bottoms[0], len(self.spec.top)
        self.along = at = one_axis(self, "slice_dim", len(bottom))
        points = list(self.param.slice_point)
        if points:
            if len(points) != n - 1:
                self.refuse(f"needs {n - 1} slice_point for {n} tops, found {len(points)}")
            ends = [0, *points, bottom[at]]
            if any(left >= right for left, right in pairwise(ends)):
                self.refuse(f"slice_point must rise from above 0 to below {bottom[at]}: {points}")
        elif bottom[at] % n or not bottom[at]:
            self.refuse(f"cannot cut axis {at} of {bottom} into {n} equal pieces")
        self.cuts: Any = points or n
        return [tuple(x.shape) for x in self._cut(torch.empty(bottom, device="meta"))]

    def _cut(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.tensor_split(x, self.cuts, self.along)

    def forward(self, x: torch.Tensor) -> Any:
        pieces = self._cut(x)
        return pieces if len(pieces) > 1 else pieces[0]

    def onnx(self, graph: OnnxGraph, x: str) -> list[str]:
        n = len(self.top_shapes)
        if self.along == 0 and isinstance(self.cuts, int):
            # Equal pieces of the batch, which is free.
            count = {"num_outputs": n} if graph.opset >= 18 else {}
            return graph.nodes("Split", n, x, axis=0, **count)
        sizes = graph.integers([shape[self.along] for shape in self.top_shapes])
        return graph.nodes("Split", n, x, sizes, axis=self.along)
