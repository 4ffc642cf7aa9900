"""What RNN and LSTM share: bottoms, blobs and states of an unrolled sequence.

Source: BVLC Caffe 1.0, src/caffe/layers/recurrent_layer.cpp.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph

States = tuple[torch.Tensor, ...]


class Recurrent(Layer):
    """Bottoms x (T, N, …), cont (T, N), maybe static x (N, …) → top (T, N, num_output).

    cont is 0 where a sequence begins and 1 where it goes on. States (1, N, num_output) are carried
    from one forward to the next (the buffers ``state_0``, …); a batch of another N begins anew.
    With ``expose_hidden`` they are the last bottoms and tops instead, outside the gradient.
    """

    type: ClassVar[str]
    param_field = "recurrent_param"
    fields = frozenset(
        {"num_output", "weight_filler", "bias_filler", "debug_info", "expose_hidden"}
    )
    bottoms = (2, None)
    tops = (1, None)
    gates: ClassVar[int]
    """Rows of the input and hidden weights for each output."""
    n_states: ClassVar[int]
    weight_x: torch.Tensor
    bias_x: torch.Tensor
    weight_static: torch.Tensor
    weight_hidden: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        self.size: int = self.param.num_output
        self.exposed = self.n_states if self.param.expose_hidden else 0
        self.static = len(bottoms) - self.exposed == 3
        self._check_bottoms(bottoms)
        self._add_blobs(bottoms)
        time, batch = bottoms[0][:2]
        state = (1, batch, self.size)
        for i in range(self.n_states):
            self.register_buffer(f"state_{i}", torch.zeros(state), persistent=False)
        return [(time, batch, self.size)] + [state] * self.exposed

    def _check_bottoms(self, bottoms: list[Shape]) -> None:
        if self.size < 1:
            self.refuse("needs num_output above 0")
        least = 2 + self.exposed
        if len(bottoms) not in (least, least + 1) or len(self.spec.top) != 1 + self.exposed:
            self.refuse(
                f"takes {least} or {least + 1} bottoms and {1 + self.exposed} tops, "
                f"found {len(bottoms)} and {len(self.spec.top)}"
            )
        x, cont = bottoms[:2]
        if len(x) < 2 or cont != x[:2]:
            self.refuse(f"needs x (T, N, …) and cont (T, N), found {x} and {cont}")
        if self.static and bottoms[2][:1] != x[1:2]:
            self.refuse(f"needs a static bottom ({x[1]}, …), found {bottoms[2]}")
        for shape in bottoms[2 + self.static :]:
            if shape != (1, x[1], self.size):
                self.refuse(f"needs hidden states {(1, x[1], self.size)}, found {shape}")

    def _add_blobs(self, bottoms: list[Shape]) -> None:
        param, rows = self.param, self.gates * self.size
        self.add_blob("weight_x", (rows, math.prod(bottoms[0][2:])), param.weight_filler)
        self.add_blob("bias_x", (rows,), param.bias_filler)
        if self.static:
            static = math.prod(bottoms[2][1:])
            self.add_blob("weight_static", (rows, static), param.weight_filler)
        self.add_blob("weight_hidden", (rows, self.size), param.weight_filler)

    def forward(self, x: torch.Tensor, cont: torch.Tensor, *rest: torch.Tensor) -> Any:
        inputs = F.linear(x.reshape(*x.shape[:2], -1), self.weight_x, self.bias_x)
        if self.static:
            inputs = inputs + F.linear(rest[0].flatten(1), self.weight_static)
        states = self._first_states(x, rest[self.static :])
        tops = []
        for step, goes_on in zip(torch.split(inputs, 1), torch.split(cont, 1), strict=True):
            top, states = self.step(step, goes_on, states)
            tops.append(top)
        last = tuple(state.detach() for state in states)
        if self.exposed:
            return (torch.cat(tops), *last)
        for i, state in enumerate(last):
            setattr(self, f"state_{i}", state)
        return torch.cat(tops)

    def onnx(self, graph: OnnxGraph, x: str, cont: str, *rest: str) -> Any:
        """Unrolled over the T steps of the prototxt; hidden states begin at zero."""
        time = self.bottom_shapes[0][0]
        inputs = self._onnx_product(graph, graph.reshape(x, (0, 0, -1)), "weight_x", "bias_x")
        if self.static:
            rows = self._onnx_product(graph, graph.reshape(rest[0], (0, -1)), "weight_static")
            inputs = graph.node("Add", inputs, rows)
        goes_on = graph.unsqueeze(cont, (2,))
        states = list(rest[self.static :]) or [graph.floats(torch.zeros(1, 1, self.size))] * (
            self.n_states
        )
        tops = []
        for t in range(time):
            now = [graph.cut(value, 0, t, t + 1) for value in (inputs, goes_on)]
            top, states = self.onnx_step(graph, now[0], now[1], states)
            tops.append(top)
        joined = graph.node("Concat", *tops, axis=0)
        return (joined, *states) if self.exposed else joined

    def _onnx_product(self, graph: OnnxGraph, x: str, weight: str, bias: str = "") -> str:
        top = graph.node("MatMul", x, graph.blob(weight, getattr(self, weight).t()))
        return graph.node("Add", top, graph.blob(bias, getattr(self, bias))) if bias else top

    def onnx_hidden(self, graph: OnnxGraph, h: str, goes_on: str) -> str:
        """As ``hidden``."""
        return self._onnx_product(graph, graph.node("Mul", h, goes_on), "weight_hidden")

    def onnx_step(
        self, graph: OnnxGraph, inputs: str, goes_on: str, states: list[str]
    ) -> tuple[str, list[str]]:
        """As ``step``, on values (1, N, …) and goes_on (1, N, 1)."""
        raise NotImplementedError(f"{type(self).__name__}.onnx_step")

    def _first_states(self, x: torch.Tensor, given: States) -> States:
        if given:
            return tuple(state.detach() for state in given)
        carried: States = tuple(getattr(self, f"state_{i}") for i in range(self.n_states))
        if carried[0].shape[1] != x.shape[1]:
            return tuple(x.new_zeros(1, x.shape[1], self.size) for _ in carried)
        return carried

    def hidden(self, h: torch.Tensor, goes_on: torch.Tensor) -> torch.Tensor:
        """What the last step's h adds to the inputs: nothing where a sequence begins."""
        return F.linear(h * goes_on.unsqueeze(-1), self.weight_hidden)

    def step(
        self, inputs: torch.Tensor, goes_on: torch.Tensor, states: States
    ) -> tuple[torch.Tensor, States]:
        """One time step: the top (1, N, num_output) and the new states."""
        raise NotImplementedError(f"{type(self).__name__}.step")
