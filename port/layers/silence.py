"""Silence: takes blobs that nobody reads."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class Silence(Layer):
    """Any bottoms → nothing, so that they are no outputs of the net.

    Source: BVLC Caffe 1.0, src/caffe/layers/silence_layer.cpp.
    """

    type = "Silence"
    bottoms = (1, None)
    tops = (0, 0)
    backward_to = False

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        return []

    def forward(self, *bottoms: torch.Tensor) -> tuple[()]:
        return ()

    def onnx(self, graph: OnnxGraph, *bottoms: str) -> tuple[()]:
        return ()
