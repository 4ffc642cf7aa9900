"""LSTM: a long short-term memory over a sequence."""

from __future__ import annotations

import torch

from port.layers.lstm_unit import lstm_unit, onnx_lstm_unit
from port.layers.onnx_graph import OnnxGraph
from port.layers.recurrent import Recurrent, States


class LSTM(Recurrent):
    """Bottoms x (T, N, …), cont (T, N), maybe static x (N, …) → top h (T, N, D); see Recurrent.

    Blobs: weight_x (4D, inputs), bias_x (4D,), weight_static (4D, …) with a static bottom,
    weight_hidden (4D, D); rows in the order i, f, o, g. States: h, c.
    Source: BVLC Caffe 1.0, src/caffe/layers/lstm_layer.cpp.
    """

    type = "LSTM"
    gates = 4
    n_states = 2

    def step(
        self, inputs: torch.Tensor, goes_on: torch.Tensor, states: States
    ) -> tuple[torch.Tensor, States]:
        h, c = states
        c, h = lstm_unit(c, inputs + self.hidden(h, goes_on), goes_on)
        return h, (h, c)

    def onnx_step(
        self, graph: OnnxGraph, inputs: str, goes_on: str, states: list[str]
    ) -> tuple[str, list[str]]:
        h, c = states
        gates = graph.node("Add", inputs, self.onnx_hidden(graph, h, goes_on))
        c, h = onnx_lstm_unit(graph, c, gates, goes_on, self.size)
        return h, [h, c]
