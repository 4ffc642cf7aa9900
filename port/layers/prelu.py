"""PReLU: a rectifier with a learnt slope for negative values."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from port import schema
from port.layers.function import call
from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class _CpuPReLU(torch.autograd.Function):
    """F.prelu with a backward of plain vector operations: 2 to 3 times faster on a CPU.

    There torch's own kernel takes 7 % of a SphereFace-20 step.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, slope)
        return F.prelu(x, slope)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        x, slope = ctx.saved_tensors
        above = torch.ops.aten.threshold_backward(grad, x, 0)
        below = grad - above
        grad_x = above.addcmul_(below, slope.reshape(-1, *(1,) * (x.dim() - 2)))
        if not ctx.needs_input_grad[1]:
            return grad_x, None
        axes = [axis for axis in range(x.dim()) if axis != 1 or slope.numel() == 1]
        return grad_x, below.mul_(x).sum(axes).reshape(slope.shape)


class PReLU(Layer):
    """Bottom (N, C, …) → top of the same shape: x where x > 0, slope x elsewhere.

    Blob: weight (C,), or () with ``channel_shared``; 0.25 unless a filler is given. At exactly 0
    the gradient uses the slope. Source: BVLC Caffe 1.0, src/caffe/layers/prelu_layer.cpp.
    """

    type = "PReLU"
    param_field = "prelu_param"
    fields = frozenset({"filler", "channel_shared"})
    in_place = True
    weight: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        if len(bottom) < 2:
            self.refuse(f"needs a bottom of at least 2 axes, found {bottom}")
        default = schema.FillerParameter(type="constant", value=0.25)
        filler = param.filler if param.HasField("filler") else default
        self.add_blob("weight", () if param.channel_shared else (bottom[1],), filler)
        return [bottom]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu" and torch.is_grad_enabled():
            return call(_CpuPReLU, x, self.weight)  # type: ignore[no-any-return]
        return F.prelu(x, self.weight)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        ones = (1,) * (len(self.bottom_shapes[0]) - 2)
        return graph.node("PRelu", x, graph.blob("weight", self.weight.reshape(-1, *ones)))
