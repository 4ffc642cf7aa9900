"""Im2col: every window of an image as a column of channels."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from port.layers import windows
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Im2col(Layer):
    """Bottom (N, C, spatial…) → top (N, C times taps, windows…); kernel taps change fastest.

    Source: BVLC Caffe 1.0, src/caffe/layers/im2col_layer.cpp.
    """

    type = "Im2col"
    param_field = "convolution_param"
    fields = windows.FIELDS

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom = bottoms[0]
        self.windows = at = windows.read_windows(self, bottoms)
        lead, channels = bottom[: at.channel_axis], bottom[at.channel_axis]
        sizes = at.count(self, bottom[at.channel_axis + 1 :])
        return [(*lead, channels * math.prod(at.kernel), *sizes)]

    def forward(self, x: torch.Tensor) -> Any:
        at, n = self.windows, len(self.windows.kernel)
        items = x.reshape(-1, *x.shape[at.channel_axis :])
        taps = F.pad(items, [p for pad in reversed(at.pad) for p in (pad, pad)])
        for i in range(n):
            # Each unfold appends one kernel axis; dilation keeps every d-th of its pixels.
            taps = taps.unfold(2 + i, at.extent[i], at.stride[i])[..., :: at.dilation[i]]
        order = (0, 1, *range(2 + n, 2 + 2 * n), *range(2, 2 + n))
        columns = taps.permute(order).flatten(1, 1 + n)
        return columns.reshape(*x.shape[: at.channel_axis], *columns.shape[1:])

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        at, bottom = self.windows, self.bottom_shapes[0]
        channels, taps = bottom[at.channel_axis], math.prod(at.kernel)
        # A convolution whose kernels pick one tap each gives the columns.
        picks = (
            torch.eye(taps)
            .reshape(taps, 1, *(at.kernel or (1,)))
            .repeat(channels, 1, *(1,) * max(1, len(at.kernel)))
        )
        attributes = {"kernel_shape": at.kernel or (1,), "group": channels}
        if at.kernel:
            attributes.update(strides=at.stride, pads=at.pad + at.pad, dilations=at.dilation)
        items = graph.reshape(x, windows.onnx_items(at, bottom))
        columns = graph.node("Conv", items, graph.blob("picks", picks), **attributes)
        return graph.reshape(columns, (-1, *self.top_shapes[0][1:]))
