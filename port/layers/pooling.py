"""Pooling: the maximum, the average, or a random value of sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from port import schema
from port.layers.layer import INT_MAX, Layer, Shape
from port.layers.onnx_graph import OnnxGraph

FLT_MAX = 3.40282346638528859812e38
FLT_MIN = 1.17549435e-38

Pair = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Windows over an image: kernel, stride and pad as (height, width)."""

    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)

    def count(self, size: Pair) -> Pair:
        """Windows along each axis, rounded up.

        With any padding, a last window that would start in the far padding is dropped; without,
        it stays even where it lies outside the image (stride above kernel).
        """
        clip = any(self.pad)
        found = []
        for length, k, s, p in zip(size, self.kernel, self.stride, self.pad, strict=True):
            n = -(-(length + 2 * p - k) // s) + 1
            found.append(n - 1 if clip and (n - 1) * s >= length + p else n)
        return found[0], found[1]

    @property
    def torch_agrees(self) -> bool:
        """Whether torch's pooling, rounding up, forms the same windows for every image size."""
        half = all(2 * p <= k for p, k in zip(self.pad, self.kernel, strict=True))
        inside = all(s <= k for s, k in zip(self.stride, self.kernel, strict=True))
        return half and (inside or any(self.pad))

    def padded(self, x: torch.Tensor, value: float) -> torch.Tensor:
        """``x`` with ``value`` around it, so that the windows cover the result exactly."""
        size = (x.shape[2], x.shape[3])
        ends = zip(self.pad, self.reach(size), size, strict=True)
        (top, bottom), (left, right) = ((p, reach - n - p) for p, reach, n in ends)
        return F.pad(x, (left, right, top, bottom), value=value)

    def reach(self, size: Pair) -> Pair:
        """Pixels from the first window's start to the last one's end."""
        steps = zip(self.count(size), self.kernel, self.stride, strict=True)
        down, across = ((n - 1) * s + k for n, k, s in steps)
        return down, across


class Pooling(Layer):
    """Bottom (N, C, H, W) → top (N, C, windows down, windows across).

    MAX: the first of equal values wins; a second top is its place h W + w in the plane; a window
    outside the image gives -FLT_MAX. AVE: divides by the window clipped to the image plus pad.
    STOCHASTIC (on any device; the original has it on the GPU only): in TRAIN a value picked
    with probability proportional to itself, in TEST the average weighted so.
    Source: BVLC Caffe 1.0, src/caffe/layers/pooling_layer.cpp and pooling_layer.cu.
    """

    type = "Pooling"
    param_field = "pooling_param"
    fields = frozenset(
        {"pool", "kernel_size", "stride", "pad", "kernel_h", "kernel_w", "stride_h", "stride_w"}
        | {"pad_h", "pad_w", "global_pooling"}
    )
    tops = (1, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        if len(bottom) != 4 or min(bottom[1:]) < 1:
            self.refuse(f"needs a bottom (N, C, H, W), found {bottom}")
        self.method: str = schema.enum_name(self.param, "pool")
        if self.method != "MAX" and len(self.spec.top) > 1:
            self.refuse("has a second top (the mask) for MAX only")
        self.grid = self._read_grid()
        self.with_mask = len(self.spec.top) == 2
        size = (1, 1) if self.grid is None else self.grid.count((bottom[2], bottom[3]))
        if min(size) < 1:
            self.refuse(f"its windows do not fit into a bottom of shape {bottom}")
        if self.grid is not None and math.prod(self.grid.reach((bottom[2], bottom[3]))) > 2**26:
            self.refuse(f"stride {self.grid.stride} is out of proportion to a bottom {bottom}")
        return [(*bottom[:2], *size)] * len(self.spec.top)

    def _read_grid(self) -> Grid | None:
        """The windows; None for the whole image."""
        param = self.param
        kernel, stride, pad = (self._pair(what) for what in ("kernel", "stride", "pad"))
        if param.global_pooling:
            if any(param.HasField(f"kernel_{side}") for side in ("size", "h", "w")):
                self.refuse("global_pooling takes the whole image: give no kernel size")
            if stride != (1, 1) or pad != (0, 0):
                self.refuse("global_pooling goes with stride 1 and pad 0 only")
            return None
        if min(kernel + stride) < 1 or max(kernel + stride) > INT_MAX:
            self.refuse(f"kernel and stride must be 1 to {INT_MAX}: {kernel} and {stride}")
        if any(pad) and self.method == "STOCHASTIC":
            self.refuse("pad goes with MAX and AVE only")
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            self.refuse(f"pad {pad} must be smaller than the kernel {kernel}")
        return Grid(kernel, stride, pad)

    def _pair(self, what: str) -> Pair:
        """(height, width) of kernel, stride or pad, given once or as _h and _w."""
        param = self.param
        both = "kernel_size" if what == "kernel" else what
        sides = [param.HasField(f"{what}_{side}") for side in "hw"]
        if any(sides):
            if not all(sides) or param.HasField(both):
                self.refuse(f"takes {both}, or {what}_h and {what}_w together, not a mixture")
            return getattr(param, f"{what}_h"), getattr(param, f"{what}_w")
        return getattr(param, both), getattr(param, both)

    def forward(self, x: torch.Tensor) -> Any:
        grid = self.grid or Grid((x.shape[2], x.shape[3]))
        if self.method == "MAX":
            return max_pool(x, grid, self.with_mask)
        if self.method == "AVE":
            return average_pool(x, grid)
        return stochastic_pool(x, grid, self.phase == "TRAIN")

    def onnx(self, graph: OnnxGraph, x: str) -> Any:
        size = self.bottom_shapes[0][2:]
        if self.grid is None and self.method != "STOCHASTIC" and not self.with_mask:
            return graph.node({"MAX": "GlobalMaxPool", "AVE": "GlobalAveragePool"}[self.method], x)
        form = OnnxPool(graph, self.grid or Grid((size[0], size[1])), (size[0], size[1]))
        if self.method == "AVE":
            return form.average(x)
        if self.method == "STOCHASTIC":
            squares, sums = form.sum(graph.node("Mul", x, x)), form.sum(x)
            return graph.node("Div", squares, graph.node("Add", sums, graph.floats(FLT_MIN)))
        if self.with_mask and form.outside:
            self.refuse("has no ONNX form with a mask and a window outside the image")
        return form.max_with_mask(x) if self.with_mask else form.max(x)


class OnnxPool:
    """The ONNX forms of pooling on one grid: its windows are stated by pads, not by rounding.

    Runtimes differ in which windows they form when rounding up, and in how they average them.
    Only where the image size is free does ONNX do the rounding, and only without padding.
    """

    def __init__(self, graph: OnnxGraph, grid: Grid, size: Pair) -> None:
        self.graph, self.grid, self.size = graph, grid, size
        ends = zip(grid.reach(size), size, grid.pad, strict=True)
        self.ends = tuple(max(0, reach - length - pad) for reach, length, pad in ends)
        self.outside = any(end >= k for end, k in zip(self.ends, grid.kernel, strict=True))
        self.windows = {"kernel_shape": grid.kernel, "strides": grid.stride}
        self.rounds = graph.free_size and grid.torch_agrees and not any(grid.pad)

    def _pool(self, op: str, n_outputs: int, x: str, value: float, **more: int) -> list[str]:
        if self.rounds:
            return self.graph.nodes(op, n_outputs, x, ceil_mode=1, **self.windows, **more)
        pads = (*self.grid.pad, *self.ends)
        if self.outside:
            around = self.graph.integers((0, 0, *pads[:2], 0, 0, *pads[2:]))
            x = self.graph.node("Pad", x, around, self.graph.floats(value))
            pads = (0, 0, 0, 0)
        return self.graph.nodes(op, n_outputs, x, pads=pads, **self.windows, **more)

    def max(self, x: str) -> str:
        """As ``max_pool``."""
        return self._pool("MaxPool", 1, x, -FLT_MAX)[0]

    def max_with_mask(self, x: str) -> tuple[str, str]:
        """As ``max_pool`` with its mask; ONNX counts places over the whole tensor."""
        top, at = self._pool("MaxPool", 2, x, -FLT_MAX)
        place = self.graph.node("Mod", at, self.graph.integers(math.prod(self.size)))
        return top, self.graph.to_float(place)

    def sum(self, x: str) -> str:
        """The sum of each window, zeros around the image."""
        mean = self._pool("AveragePool", 1, x, 0.0, count_include_pad=1)[0]
        return self.graph.node("Mul", mean, self.graph.floats(float(math.prod(self.grid.kernel))))

    def average(self, x: str) -> str:
        """As ``average_pool``: the mean over the kernel, corrected where a window is clipped."""
        if self.rounds or not (any(self.grid.pad) or self.outside):
            return self._pool("AveragePool", 1, x, 0.0, count_include_pad=0)[0]
        mean = self._pool("AveragePool", 1, x, 0.0, count_include_pad=1)[0]
        counts = self.grid.count(self.size)
        down, across = (_lengths(self.size[i], counts[i], self.grid, i) for i in (0, 1))
        area = torch.tensor(down).unsqueeze(1) * torch.tensor(across)
        if (area == math.prod(self.grid.kernel)).all():
            return mean
        return self.graph.node("Mul", mean, self.graph.floats(math.prod(self.grid.kernel) / area))


def max_pool(x: torch.Tensor, grid: Grid, with_mask: bool = False) -> Any:
    """The largest value of each window, and its place h W + w (-1 in an empty window)."""
    if grid.torch_agrees:
        if not with_mask:
            return F.max_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode=True)
        top, at = F.max_pool2d_with_indices(x, grid.kernel, grid.stride, grid.pad, (1, 1), True)
        return top, at.to(x.dtype)
    wide = grid.padded(x, -FLT_MAX)
    top, at = F.max_pool2d_with_indices(wide, grid.kernel, grid.stride)
    if not with_mask:
        return top
    row = at // wide.shape[3] - grid.pad[0]
    column = at % wide.shape[3] - grid.pad[1]
    inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
    return top, torch.where(inside, row * x.shape[3] + column, -1).to(x.dtype)


def average_pool(x: torch.Tensor, grid: Grid) -> torch.Tensor:
    """The sum of each window over its area, the area clipped to the image plus pad."""
    if grid.torch_agrees:
        return F.avg_pool2d(x, grid.kernel, grid.stride, grid.pad, ceil_mode=True)
    sums = F.avg_pool2d(grid.padded(x, 0.0), grid.kernel, grid.stride, divisor_override=1)
    down, across = (_lengths(x.shape[i + 2], sums.shape[i + 2], grid, i) for i in (0, 1))
    area = torch.tensor(down).unsqueeze(1) * torch.tensor(across)
    return sums / area.to(x.device, x.dtype)


def _lengths(size: int, windows: int, grid: Grid, i: int) -> list[int]:
    """Window lengths along one axis; outside the image they are 0 or negative, as in Caffe."""
    kernel, stride, pad = grid.kernel[i], grid.stride[i], grid.pad[i]
    starts = [n * stride - pad for n in range(windows)]
    return [min(start + kernel, size + pad) - start for start in starts]


def stochastic_pool(x: torch.Tensor, grid: Grid, sample: bool) -> torch.Tensor:
    """A value drawn with probability proportional to itself, or the average weighted so."""
    down, across = grid.count((x.shape[2], x.shape[3]))
    columns = F.unfold(grid.padded(x, 0.0), grid.kernel, stride=grid.stride)
    columns = columns.reshape(*x.shape[:2], -1, down, across)
    if not sample:
        return (columns * columns).sum(2) / (columns.sum(2) + FLT_MIN)
    with torch.no_grad():
        heights = columns.cumsum(2)
        drawn = torch.rand_like(heights[:, :, :1]) * heights[:, :, -1:]
        at = (heights < drawn).sum(2, keepdim=True).clamp(max=columns.shape[2] - 1)
    return columns.gather(2, at).squeeze(2)
