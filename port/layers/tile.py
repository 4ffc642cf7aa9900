"""Tile: a blob repeated along an axis."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Tile(Layer):
    """Bottom → ``tiles`` copies behind each other along ``axis``.

    Source: BVLC Caffe 1.0, src/caffe/layers/tile_layer.cpp.
    """

    type = "Tile"
    param_field = "tile_param"
    fields = frozenset({"axis", "tiles"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, tiles = bottoms[0], self.param.tiles
        at = self.axis(self.param.axis, len(bottom))
        if tiles < 1:
            self.refuse(f"needs tiles above 0, found {tiles}")
        self.repeats = [tiles if i == at else 1 for i in range(len(bottom))]
        return [tuple(n * size for n, size in zip(self.repeats, bottom, strict=True))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(self.repeats)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        return graph.node("Tile", x, graph.integers(self.repeats))
