"""The factor or summand of Scale and Bias: which of the bottom's axes it spans.

Source: BVLC Caffe 1.0, src/caffe/layers/scale_layer.cpp and bias_layer.cpp.
"""

from __future__ import annotations

from typing import Any

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


def blob_shape(layer: Layer, bottom: Shape) -> Shape:
    """The shape of a learnt blob: ``num_axes`` axes of the bottom from ``axis`` (-1: all)."""
    param: Any = layer.param
    first = layer.axis(param.axis, len(bottom)) if bottom else 0
    count = param.num_axes
    if count < -1 or first + count > len(bottom):
        layer.refuse(f"num_axes {count} from axis {first} does not fit a bottom of shape {bottom}")
    return bottom[first:] if count == -1 else bottom[first : first + count]


def trailing_axes(layer: Layer, bottom: Shape, factor: Shape) -> int:
    """How many axes of the bottom follow the factor's; refuses a factor that does not fit."""
    if not factor:
        return 0
    first = layer.axis(layer.param.axis, len(bottom))
    if bottom[first : first + len(factor)] != factor:
        layer.refuse(f"shape {factor} does not fit a bottom of shape {bottom} at axis {first}")
    return len(bottom) - first - len(factor)


def spread(factor: torch.Tensor, trailing: int) -> torch.Tensor:
    """``factor`` with that many axes of length 1 behind its own, to broadcast over the bottom."""
    return factor.reshape(factor.shape + (1,) * trailing) if trailing else factor


def onnx_spread(graph: OnnxGraph, factor: str, bottoms: list[Shape], trailing: int) -> str:
    """As ``spread``, for a factor that is the second of ``bottoms``."""
    rank = len(bottoms[1])
    return graph.unsqueeze(factor, range(rank, rank + trailing)) if trailing else factor
