"""RNN: a plain recurrent network over a sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from port.layers.layer import Shape
from port.layers.onnx_graph import OnnxGraph
from port.layers.recurrent import Recurrent, States


class RNN(Recurrent):
    """Bottoms x (T, N, …), cont (T, N), maybe static x (N, …) → top o (T, N, D); see Recurrent.

    h' = tanh(W_x x + b_x + W_static s + W_hidden h), o = tanh(W_out h' + b_out).
    Blobs: weight_x (D, inputs), bias_x (D,), weight_static (D, …) with a static bottom,
    weight_hidden (D, D), weight_out (D, D), bias_out (D,).
    Source: BVLC Caffe 1.0, src/caffe/layers/rnn_layer.cpp.
    """

    type = "RNN"
    gates = 1
    n_states = 1
    weight_out: torch.Tensor
    bias_out: torch.Tensor

    def _add_blobs(self, bottoms: list[Shape]) -> None:
        super()._add_blobs(bottoms)
        self.add_blob("weight_out", (self.size, self.size), self.param.weight_filler)
        self.add_blob("bias_out", (self.size,), self.param.bias_filler)

    def step(
        self, inputs: torch.Tensor, goes_on: torch.Tensor, states: States
    ) -> tuple[torch.Tensor, States]:
        h = torch.tanh(inputs + self.hidden(states[0], goes_on))
        return torch.tanh(F.linear(h, self.weight_out, self.bias_out)), (h,)

    def onnx_step(
        self, graph: OnnxGraph, inputs: str, goes_on: str, states: list[str]
    ) -> tuple[str, list[str]]:
        hidden = self.onnx_hidden(graph, states[0], goes_on)
        h = graph.node("Tanh", graph.node("Add", inputs, hidden))
        return graph.node("Tanh", self._onnx_product(graph, h, "weight_out", "bias_out")), [h]
