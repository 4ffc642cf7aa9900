"""ArgMax: the largest values, or where they stand."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class ArgMax(Layer):
    """The ``top_k`` largest, in falling order; of equal values the larger index comes first.

    With ``axis``: that axis becomes top_k long and holds indices, or values with ``out_max_val``.
    Without: items are flattened, the top is (N, 1, top_k) of indices, or (N, 2, top_k) of
    indices and values, with axes of length 1 up to the bottom's rank. No gradient.
    Source: BVLC Caffe 1.0, src/caffe/layers/argmax_layer.cpp.
    """

    type = "ArgMax"
    param_field = "argmax_param"
    fields = frozenset({"out_max_val", "top_k", "axis"})
    backward_to = False

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        self.along = self.axis(param.axis, len(bottom)) if param.HasField("axis") else None
        self.top_k: int = param.top_k
        self.values: bool = param.out_max_val
        rest = torch.Size(bottom[1:]).numel()
        length = rest if self.along is None else bottom[self.along]
        if not 1 <= self.top_k <= length:
            self.refuse(f"top_k must be 1 to {length}, found {self.top_k}")
        if self.along is not None:
            return [(*bottom[: self.along], self.top_k, *bottom[self.along + 1 :])]
        self.ones = (1,) * max(0, len(bottom) - 3)
        return [(bottom[0], 2 if self.values else 1, self.top_k, *self.ones)]

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.along is not None:
            values, at = largest(x, self.top_k, self.along)
            return values if self.values else at
        values, at = largest(x.flatten(1) if x.dim() > 1 else x.unsqueeze(1), self.top_k, 1)
        top = torch.stack((at, values), 1) if self.values else at.unsqueeze(1)
        return top.reshape(*top.shape, *self.ones)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        bottom = self.bottom_shapes[0]
        if self.along is not None:
            values, at = onnx_largest(graph, x, self.top_k, self.along, bottom[self.along])
            return values if self.values else at
        rows = graph.reshape(x, (0, -1)) if len(bottom) > 1 else graph.unsqueeze(x, (1,))
        values, at = onnx_largest(graph, rows, self.top_k, 1, torch.Size(bottom[1:]).numel())
        top = graph.unsqueeze(at, (1,))
        if self.values:
            top = graph.node("Concat", top, graph.unsqueeze(values, (1,)), axis=1)
        return graph.unsqueeze(top, range(3, 3 + len(self.ones))) if self.ones else top


def largest(x: torch.Tensor, k: int, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest along an axis and their places, both in x's dtype; later ones win ties."""
    # A stable sort keeps the order of equal values, so the axis is turned around before it.
    values, order = x.flip(axis).sort(dim=axis, descending=True, stable=True)
    at = x.shape[axis] - 1 - order.narrow(axis, 0, k)
    return values.narrow(axis, 0, k), at.to(x.dtype)


def onnx_largest(graph: OnnxGraph, x: str, k: int, axis: int, length: int) -> tuple[str, str]:
    """As ``largest``; TopK gives ties to the smaller index, so the axis is turned around."""
    turned = graph.cut(x, axis, -1, -length - 1, -1)
    values, order = graph.nodes("TopK", 2, turned, graph.integers([k]), axis=axis)
    return values, graph.to_float(graph.node("Sub", graph.integers(length - 1), order))
