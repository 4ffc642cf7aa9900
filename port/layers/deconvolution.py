"""Deconvolution: the transpose of Convolution, for learnt upsampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from port.layers import windows
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph

_SPREAD: dict[int, Callable[..., torch.Tensor]] = {
    0: F.conv_transpose1d,
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class Deconvolution(Layer):
    """Bottom (N, C, spatial…) → top (N, num_output, stride (size - 1) + kernel extent - 2 pad…).

    Blobs: weight (C, num_output / group, kernel…), bias (num_output,).
    Source: BVLC Caffe 1.0, src/caffe/layers/base_conv_layer.cpp and deconv_layer.cpp.
    """

    type = "Deconvolution"
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
        self.add_blob("weight", (channels, outputs // group, *at.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (outputs,), param.bias_filler)
        else:
            self.bias = None
        self.plain = at.channel_axis == 1 and len(at.kernel) > 0
        self.spread = _SPREAD[len(at.kernel)]
        self.steps = (at.stride or 1, at.pad or 0, 0, group, at.dilation or 1)
        return [(*bottom[: at.channel_axis], outputs, *self._sizes(spatial))] * len(bottoms)

    def _sizes(self, spatial: Shape) -> Shape:
        at = self.windows
        steps = zip(spatial, at.extent, at.stride, at.pad, strict=True)
        sizes = tuple(s * (size - 1) + extent - 2 * p for size, extent, s, p in steps)
        if min(sizes, default=1) < 1:
            self.refuse(f"pad {at.pad} leaves nothing of the top: {sizes}")
        return sizes

    def forward(self, x: torch.Tensor, *more: torch.Tensor) -> Any:
        if more:
            return tuple(self._one(bottom) for bottom in (x, *more))
        return self._one(x)

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> list[str]:
        return windows.onnx_slide(self, graph, "ConvTranspose", bottoms)

    def _one(self, x: torch.Tensor) -> torch.Tensor:
        if self.plain:
            return self.spread(x, self.weight, self.bias, *self.steps)
        return windows.slide(
            lambda items, weight: self.spread(items, weight, self.bias, *self.steps),
            x,
            self.weight,
            self.windows,
        )
