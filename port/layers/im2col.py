"""Im2col: every window of an image as a column of channels."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from port.layers import windows
from port.layers.layer import Layer, Shape


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
