"""Concat: bottoms joined along one axis."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Concat(Layer):
    """Bottoms that differ at ``axis`` only (``concat_dim`` in old files) → one top.

    Source: BVLC Caffe 1.0, src/caffe/layers/concat_layer.cpp.
    """

    type = "Concat"
    param_field = "concat_param"
    fields = frozenset({"axis", "concat_dim"})
    bottoms = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        first = bottoms[0]
        self.along = at = one_axis(self, "concat_dim", len(first))
        for shape in bottoms:
            if len(shape) != len(first) or shape[:at] + shape[at + 1 :] != (
                first[:at] + first[at + 1 :]
            ):
                self.refuse(f"bottoms may differ at axis {at} only: {first} and {shape}")
        return [(*first[:at], sum(shape[at] for shape in bottoms), *first[at + 1 :])]

    def forward(self, *bottoms: torch.Tensor) -> torch.Tensor:
        return torch.cat(bottoms, self.along)

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> str:
        return graph.node("Concat", *bottoms, axis=self.along)


def one_axis(layer: Layer, old_field: str, rank: int) -> int:
    """``axis``, or the older unsigned field of the same meaning; both together are refused."""
    param = layer.param
    if not param.HasField(old_field):
        return layer.axis(param.axis, rank)
    if param.HasField("axis"):
        layer.refuse(f"gives both axis and {old_field}; give one")
    return layer.axis(getattr(param, old_field), rank)
