"""LSTMUnit: one time step of a long short-term memory."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.function import call
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class LSTMUnit(Layer):
    """Bottoms c (1, N, D), gate inputs (1, N, 4D) as i, f, o, g, cont (1, N) → tops c, h.

    Where cont is 0 the old c is forgotten.
    Source: BVLC Caffe 1.0, src/caffe/layers/lstm_unit_layer.cpp.
    """

    type = "LSTMUnit"
    bottoms = (3, 3)
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        c, gates, cont = bottoms
        if len(c) != 3 or c[0] != 1 or gates != (*c[:2], 4 * c[2]) or cont != c[:2]:
            self.refuse(f"needs (1, N, D), (1, N, 4D) and (1, N), found {c}, {gates} and {cont}")
        return [c, c]

    def forward(
        self, c: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return lstm_unit(c, gates, cont)

    def onnx(self, graph: OnnxGraph, c: str, gates: str, cont: str) -> tuple[str, str]:
        goes_on = graph.unsqueeze(cont, (2,))
        return onnx_lstm_unit(graph, c, gates, goes_on, self.bottom_shapes[0][2])


def lstm_unit(
    c: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The new c and h (…, D) from the old c, gate inputs (…, 4D) and cont (…)."""
    tops: tuple[torch.Tensor, torch.Tensor] = call(_Unit, c, gates, cont.unsqueeze(-1))
    return tops


class _Unit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, c: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor) -> Any:
        i, f, o, g = gates.chunk(4, -1)
        i, o, g = torch.sigmoid(i), torch.sigmoid(o), torch.tanh(g)
        f = torch.where(cont == 0, 0.0, cont * torch.sigmoid(f))
        new = f * c + i * g
        squashed = torch.tanh(new)
        ctx.save_for_backward(c, i, f, o, g, squashed)
        return new, o * squashed

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        c, i, f, o, g, squashed = ctx.saved_tensors
        to_new, to_h = gradients
        to_new = to_new + to_h * o * (1 - squashed * squashed)
        parts = (
            to_new * g * i * (1 - i),
            to_new * c * f * (1 - f),
            to_h * squashed * o * (1 - o),
            to_new * i * (1 - g * g),
        )
        return to_new * f, torch.cat(parts, -1), None


def onnx_lstm_unit(
    graph: OnnxGraph, c: str, gates: str, goes_on: str, size: int
) -> tuple[str, str]:
    """As ``lstm_unit``, on values (1, N, …) and goes_on (1, N, 1)."""
    parts = [graph.cut(gates, 2, i * size, (i + 1) * size) for i in range(4)]
    i, f, o = (graph.node("Sigmoid", part) for part in parts[:3])
    kept = graph.node("Mul", graph.node("Mul", f, goes_on), c)
    new = graph.node("Add", kept, graph.node("Mul", i, graph.node("Tanh", parts[3])))
    return new, graph.node("Mul", o, graph.node("Tanh", new))
