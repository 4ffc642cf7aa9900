"""Convolution: N-d cross-correlation with groups and dilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from port.layers import windows
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph

_CONVOLVE: dict[int, Callable[..., torch.Tensor]] = {
    0: F.conv1d,
    1: F.conv1d,
    2: F.conv2d,
    3: F.conv3d,
}


class Convolution(Layer):
    """Bottom (N, C, spatial…) → top (N, num_output, spatial…), for each bottom with one kernel.

    Axes before ``axis`` (default 1) count as N. Output sizes round down.
    Blobs: weight (num_output, C / group, kernel…), bias (num_output,).
    Source: BVLC Caffe 1.0, src/caffe/layers/base_conv_layer.cpp and conv_layer.cpp.
    """

    type = "Convolution"
    param_field = "convolution_param"
    fields = windows.FIELDS | {"num_output", "group", "bias_term", "weight_filler", "bias_filler"}
    bottoms = (1, None)
    tops = (1, None)
    weight: torch.Tensor
    bias: torch.Tensor | None

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        self.windows = at = windows.read_windows(self, bottoms)
        channels, spatial = bottom[at.channel_axis], bottom[at.channel_axis + 1 :]
        outputs, group = windows.check_channels(self, channels)
        self.add_blob("weight", (outputs, channels // group, *at.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (outputs,), param.bias_filler)
        else:
            self.bias = None
        self.plain = at.channel_axis == 1 and len(at.kernel) > 0
        self.convolve = _CONVOLVE[len(at.kernel)]
        self.steps = (at.stride or 1, at.pad or 0, at.dilation or 1, group)
        return [(*bottom[: at.channel_axis], outputs, *at.count(self, spatial))] * len(bottoms)

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> Any:
        if more:
            return tuple(self._one(bottom) for bottom in (x, *more))
        return self._one(x)

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> list[str]:
        return windows.onnx_slide(self, graph, "Conv", bottoms)

    def _one(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            return self.convolve(x, self.weight, self.bias, *self.steps)
        return windows.slide(
            lambda items, weight: self.convolve(items, weight, self.bias, *self.steps),
            x,
            self.weight,
            self.windows,
        )
