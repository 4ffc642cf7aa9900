"""Drives the golden layer cases, and single layers on made-up inputs."""

from __future__ import annotations

from typing import Any

import golden
import torch
from tolerance import FORWARD, GRADIENT, assert_close

from port.layers.layer import Layer
from port.net import Net, load_net

CASES = golden.cases("layers")
SUMS = "float32 sums taken in another order"


class Case:
    """One golden case, and the net with the case's parameters."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        record = golden.load("layers", name)
        self.info, self.dtype = record.meta, dtype
        self.under = record.under
        self.net: Net = load_net(self.info["prototxt"], phase=self.info["phase"]).to(dtype)
        self.layer: Layer = self.net.layers[-1]
        for i, value in self.under("param").items():
            self.layer.blobs[int(i)].data.copy_(torch.from_numpy(value))

    def inputs(self) -> dict[str, torch.Tensor]:
        """Fresh bottoms; those that have a golden gradient ask for one."""
        wanted = self.under("din")
        values = {n: torch.tensor(v, dtype=self.dtype) for n, v in self.under("in").items()}
        return {name: value.requires_grad_(name in wanted) for name, value in values.items()}

    def check(self, outputs: dict[str, torch.Tensor], forward: int = 1) -> None:
        """Outputs and blobs after the n-th forward."""
        suffix = "" if forward == 1 else f"_fwd{forward}"
        for name, theirs in self.under(f"out{suffix}").items():
            assert_close(outputs[name], theirs, FORWARD, SUMS, f"forward {forward}: {name}")
        for i, theirs in self.under(f"param_after{suffix}").items():
            ours = self.layer.blobs[int(i)]
            assert_close(ours, theirs, FORWARD, SUMS, f"blob {i} after forward {forward}")

    def check_backward(
        self, fed: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor]
    ) -> None:
        """Gradients of bottoms and blobs; where autograd gives none, Caffe's is 0."""
        pairs = [(outputs[name], g) for name, g in self.under("dout").items()]
        pairs = [(out, torch.tensor(g, dtype=out.dtype)) for out, g in pairs if out.requires_grad]
        if pairs:
            torch.autograd.backward([out for out, _ in pairs], [g for _, g in pairs])
        for name, theirs in self.under("din").items():
            assert_close(_gradient(fed[name]), theirs, GRADIENT, SUMS, f"d {name}")
        for i, theirs in self.under("dparam").items():
            ours = _gradient(self.layer.blobs[int(i)])
            assert_close(ours, theirs, GRADIENT, SUMS, f"d blob {i}")


def _gradient(value: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad


def build(layer: str, *shapes: tuple[int, ...], phase: str = "TEST", **options: Any) -> Layer:
    """One layer on inputs of these shapes, named a, b, c …"""
    inputs = []
    for name, shape in zip("abcdef", shapes, strict=False):
        dims = " ".join(f"dim: {n}" for n in shape)
        inputs.append(f'layer {{ name: "{name}" type: "Input" top: "{name}" ')
        inputs.append(f"input_param {{ shape {{ {dims} }} }} }}\n")
    text = "".join(inputs) + f'layer {{ name: "l" {layer} }}'
    return load_net(text, phase=phase, **options).layers[-1]
