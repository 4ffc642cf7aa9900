"""Kernel, stride, pad and dilation as ConvolutionParameter gives them.

Source: BVLC Caffe 1.0, src/caffe/layers/base_conv_layer.cpp (LayerSetUp).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph

FIELDS = frozenset(
    {"pad", "kernel_size", "stride", "dilation", "axis", "force_nd_im2col"}
    | {f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw"}
)
"""The fields read here; ``force_nd_im2col`` and ``engine`` choose between equal algorithms."""


@dataclass(frozen=True)
class Windows:
    """One entry for each spatial axis; ``channel_axis`` is the axis before the first of them."""

    channel_axis: int
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        """Pixels from a window's first to its last tap, for each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))

    def count(self, layer: Layer, sizes: Shape) -> Shape:
        """How many windows fit along each axis of these sizes, rounded down."""
        steps = zip(sizes, self.extent, self.stride, self.pad, strict=True)
        found = tuple((size + 2 * p - extent) // s + 1 for size, extent, s, p in steps)
        if min(found, default=1) < 1:
            layer.refuse(f"windows of {self.extent} pixels do not fit into {sizes} pad {self.pad}")
        return found


def read_windows(layer: Layer, bottoms: list[Shape]) -> Windows:
    """The windows of ``layer`` on bottoms of one shape; refuses what Caffe refuses."""
    param: Any = layer.param
    bottom = bottoms[0]
    if len(layer.spec.top) != len(bottoms):
        layer.refuse(f"needs a top for each bottom: {len(bottoms)} and {len(layer.spec.top)}")
    if len(set(bottoms)) > 1:
        layer.refuse(f"bottoms must have one shape, found {', '.join(map(str, bottoms))}")
    channel_axis = layer.axis(param.axis, len(bottom))
    if min(bottom[channel_axis:]) < 1:
        layer.refuse(f"needs a bottom with channels and pixels, found {bottom}")
    n = len(bottom) - channel_axis - 1
    if n > 3:
        layer.refuse(f"has {n} spatial axes after axis {channel_axis}; up to 3 are supported")
    kernel = _per_axis(layer, "kernel_size", "kernel", n, None)
    stride = _per_axis(layer, "stride", "stride", n, 1)
    pad = _per_axis(layer, "pad", "pad", n, 0)
    dilation = _per_axis(layer, "dilation", "", n, 1)
    for what, sizes in (("kernel", kernel), ("stride", stride), ("dilation", dilation)):
        if min(sizes, default=1) < 1:
            layer.refuse(f"{what} must be above 0, found {' x '.join(map(str, sizes))}")
    return Windows(channel_axis, kernel, stride, pad, dilation)


def check_channels(layer: Layer, channels: int) -> tuple[int, int]:
    """num_output and group, refused where they do not divide the channels."""
    param: Any = layer.param
    outputs, group = param.num_output, param.group
    if outputs < 1 or group < 1 or channels < 1:
        layer.refuse(f"needs num_output, group, channels above 0: {outputs}, {group}, {channels}")
    if channels % group or outputs % group:
        layer.refuse(f"group {group} must divide the {channels} channels and num_output {outputs}")
    return outputs, group


def slide(
    convolve: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    weight: torch.Tensor,
    at: Windows,
) -> torch.Tensor:
    """``convolve(items, weight)`` where the axes before the channels are more or less than one.

    A bottom without spatial axes gets one of length 1 on the way.
    """
    items = x.reshape(-1, *x.shape[at.channel_axis :])
    flat = not at.kernel
    top = convolve(items.unsqueeze(-1), weight.unsqueeze(-1)) if flat else convolve(items, weight)
    top = top.squeeze(-1) if flat else top
    return top.reshape(*x.shape[: at.channel_axis], *top.shape[1:])


def onnx_slide(layer: Any, graph: OnnxGraph, op: str, bottoms: tuple[str, ...]) -> list[str]:
    """The ONNX form of a layer with ``windows``, ``weight`` and ``bias``: one ``op`` per bottom."""
    at: Windows = layer.windows
    flat = not at.kernel
    weight = graph.blob("weight", layer.weight.unsqueeze(-1) if flat else layer.weight)
    blobs = [weight] if layer.bias is None else [weight, graph.blob("bias", layer.bias)]
    bottom, top = layer.bottom_shapes[0], layer.top_shapes[0]
    attributes = {"kernel_shape": at.kernel or (1,), "group": layer.param.group}
    if not flat:
        attributes.update(strides=at.stride, pads=at.pad + at.pad, dilations=at.dilation)
    tops = []
    for x in bottoms:
        items = x if layer.plain else graph.reshape(x, onnx_items(at, bottom))
        y = graph.node(op, items, *blobs, **attributes)
        tops.append(y if layer.plain else graph.reshape(y, (-1, *top[1:])))
    return tops


def onnx_items(at: Windows, bottom: Shape) -> Shape:
    """All axes before the channels as one, and one of length 1 where there are no others."""
    return (-1, *bottom[at.channel_axis :], *((1,) if not at.kernel else ()))


def _per_axis(layer: Layer, repeated: str, sides: str, n: int, default: int | None) -> Shape:
    """One value for each of the n axes, from the repeated field or its _h and _w form."""
    param: Any = layer.param
    given = tuple(getattr(param, repeated))
    if sides and (param.HasField(f"{sides}_h") or param.HasField(f"{sides}_w")):
        if given:
            layer.refuse(f"gives both {repeated} and {sides}_h/{sides}_w; give one form")
        if n != 2:
            layer.refuse(f"{sides}_h and {sides}_w need 2 spatial axes, the bottom has {n}")
        return getattr(param, f"{sides}_h"), getattr(param, f"{sides}_w")
    if not given and default is not None:
        return (default,) * n
    if len(given) == n:
        return given
    if len(given) != 1:
        layer.refuse(f"gives {repeated} {len(given)} times; give it once or for all {n} axes")
    return given * n
