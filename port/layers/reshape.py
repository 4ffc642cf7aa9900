"""Reshape: the same values under another shape."""

from __future__ import annotations

import math

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Reshape(Layer):
    """``num_axes`` axes from ``axis`` (-1: all that follow) become ``shape``.

    A dim of 0 copies the bottom's, one dim of -1 is inferred. A negative ``axis`` counts from
    after the last, so -1 appends. Source: BVLC Caffe 1.0, src/caffe/layers/reshape_layer.cpp.
    """

    type = "Reshape"
    param_field = "reshape_param"
    fields = frozenset({"shape", "axis", "num_axes"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        rank, param = len(bottoms[0]), self.param
        self.start = param.axis if param.axis >= 0 else rank + param.axis + 1
        count = param.num_axes if param.num_axes >= 0 else rank - self.start
        self.stop = self.start + count
        if param.num_axes < -1 or not 0 <= self.start <= self.stop <= rank:
            self.refuse(f"axis {param.axis} and num_axes {param.num_axes} do not fit {rank} axes")
        self.dims = tuple(param.shape.dim)
        if min(self.dims, default=0) < -1 or self.dims.count(-1) > 1:
            self.refuse(f"dims must be above 0, 0 (copy) or one -1 (infer), found {self.dims}")
        if any(dim == 0 and self.start + i >= rank for i, dim in enumerate(self.dims)):
            self.refuse(f"dim 0 copies an axis that a bottom of shape {bottoms[0]} does not have")
        return [self._target(bottoms[0])]

    def _target(self, bottom: Shape) -> Shape:
        """The top's shape for this bottom, -1 worked out."""
        middle = [dim or bottom[self.start + i] for i, dim in enumerate(self.dims)]
        lead, tail = bottom[: self.start], bottom[self.stop :]
        known = math.prod(dim for dim in (*lead, *middle, *tail) if dim != -1)
        total = math.prod(bottom)
        if -1 in middle and known and total % known == 0:
            middle[middle.index(-1)] = total // known
        target = (*lead, *middle, *tail)
        if -1 in target or math.prod(target) != total:
            self.refuse(f"a bottom of shape {bottom} cannot become {target}")
        return target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(self._target(x.shape))

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        tail = list(self.bottom_shapes[0][self.stop :])
        if self.start == 0 and tail and -1 not in self.dims:
            tail[0] = -1  # axis 0, the batch, which is free
        return graph.reshape(x, (*(0,) * self.start, *self.dims, *tail))
