"""SPP: spatial pyramid pooling, a fixed length for any image size."""

from __future__ import annotations

from typing import Any

import torch

from port import schema
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph
from port.layers.pooling import Grid, OnnxPool, Pair, average_pool, max_pool


class SPP(Layer):
    """Bottom (N, C, H, W) → pooled on grids of 1, 2², 4² … bins, flattened and joined: (N, …).

    With ``pyramid_height`` 1 the top is (N, C, 1, 1). A grid may have more bins than its level
    names, as in Caffe, where the padding makes room for them.
    Source: BVLC Caffe 1.0, src/caffe/layers/spp_layer.cpp.
    """

    type = "SPP"
    param_field = "spp_param"
    fields = frozenset({"pyramid_height", "pool"})

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        if len(bottom) != 4 or min(bottom[1:]) < 1:
            self.refuse(f"needs a bottom (N, C, H, W), found {bottom}")
        method = schema.enum_name(param, "pool")
        if method == "STOCHASTIC":
            self.refuse("pools with MAX or AVE, not STOCHASTIC")
        self.pool: Any = max_pool if method == "MAX" else average_pool
        self.height: int = param.pyramid_height
        if self.height < 1:
            self.refuse("needs a pyramid_height of at least 1")
        if self.height > 32 or 2 ** (self.height - 1) > 2 * max(bottom[2:]):
            self.refuse(f"pyramid_height {self.height} is too much for a bottom {bottom}")
        grids = self._grids((bottom[2], bottom[3]))
        if self.height == 1:
            return [(*bottom[:2], 1, 1)]
        counts = [grid.count((bottom[2], bottom[3])) for grid in grids]
        return [(bottom[0], bottom[1] * sum(down * across for down, across in counts))]

    def _grids(self, size: Pair) -> list[Grid]:
        return [self._grid(size, 2**level) for level in range(self.height)]

    def _grid(self, size: Pair, bins: int) -> Grid:
        kernel = (-(-size[0] // bins), -(-size[1] // bins))
        pad = tuple((k * bins - length + 1) // 2 for k, length in zip(kernel, size, strict=True))
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.refuse(f"cannot cut {size[0]} x {size[1]} pixels into {bins} x {bins} bins")
        return Grid(kernel, kernel, (pad[0], pad[1]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.pool(x, grid) for grid in self._grids((x.shape[2], x.shape[3]))]
        if self.height == 1:
            return levels[0]  # type: ignore[no-any-return]
        return torch.cat([level.flatten(1) for level in levels], 1)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        size = self.bottom_shapes[0][2:]
        levels = []
        for grid in self._grids((size[0], size[1])):
            form = OnnxPool(graph, grid, (size[0], size[1]))
            levels.append(form.max(x) if self.pool is max_pool else form.average(x))
        if self.height == 1:
            return levels[0]
        flat = [graph.node("Flatten", level, axis=1) for level in levels]
        return graph.node("Concat", *flat, axis=1)
