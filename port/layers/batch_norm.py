"""BatchNorm: normalisation by the statistics of the batch, or by stored ones."""

from __future__ import annotations

import torch

from port.layers.layer import Layer, Shape
from port.layers.onnx_graph import OnnxGraph


class BatchNorm(Layer):
    """Bottom (N, C, …) → top of the same shape: (x - mean) / sqrt(variance + eps), per channel.

    Blobs: mean (C,), variance (C,), scale_factor (1,): running sums, to be divided by the scale
    factor (a factor of 0 means mean = variance = 0). They are no weights: lr_mult must be 0.
    ``use_global_stats`` (default: in TEST) normalises by them. Otherwise the batch's own
    statistics are used and every forward, in either phase, adds them to the blobs **in place**:
    blob = moving_average_fraction blob + new, the variance with m / (m - 1).
    Source: BVLC Caffe 1.0, src/caffe/layers/batch_norm_layer.cpp.
    """

    type = "BatchNorm"
    param_field = "batch_norm_param"
    fields = frozenset({"use_global_stats", "moving_average_fraction", "eps"})
    in_place = True
    mean: torch.Tensor
    variance: torch.Tensor
    scale_factor: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        bottom, param = bottoms[0], self.param
        if not bottom:
            self.refuse("needs a bottom of at least 1 axis")
        self.stored: bool = self.phase == "TEST"
        if param.HasField("use_global_stats"):
            self.stored = param.use_global_stats
        self.fraction: float = param.moving_average_fraction
        self.eps: float = param.eps
        self.channels = bottom[1] if len(bottom) > 1 else 1
        if self.channels < 1:
            self.refuse(f"needs a bottom with channels, found {bottom}")
        for name, size in (("mean", self.channels), ("variance", self.channels)):
            self.add_blob(name, (size,))
        self.add_blob("scale_factor", (1,))
        self._freeze_blobs()
        return bottoms

    def _freeze_blobs(self) -> None:
        for given in self.spec.param:
            if given.lr_mult != 0:
                self.refuse(f"its blobs are statistics: lr_mult must be 0, found {given.lr_mult:g}")
        while len(self.spec.param) < 3:
            self.spec.param.add(lr_mult=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x if x.dim() > 1 else x.unsqueeze(1)
        top = self._by_stored(rows) if self.stored else self._by_batch(rows)
        return top if x.dim() > 1 else top.squeeze(1)

    def onnx(self, graph: OnnxGraph, x: str) -> str:
        rank = len(self.bottom_shapes[0])
        rows = x if rank > 1 else graph.unsqueeze(x, (1,))
        top = self._onnx_by_stored(graph, rows) if self.stored else self._onnx_by_batch(graph, rows)
        return top if rank > 1 else graph.reshape(top, (-1,))

    def _onnx_by_stored(self, graph: OnnxGraph, x: str) -> str:
        mean, variance = self.statistics()
        names = ("scale", "shift", "mean", "variance")
        values = (torch.ones_like(mean), torch.zeros_like(mean), mean, variance)
        blobs = [graph.blob(name, value) for name, value in zip(names, values, strict=True)]
        return graph.node("BatchNormalization", x, *blobs, epsilon=self.eps)

    def _onnx_by_batch(self, graph: OnnxGraph, x: str) -> str:
        axes = [0, *range(2, max(2, len(self.bottom_shapes[0])))]
        centred = graph.node("Sub", x, graph.reduce("ReduceMean", x, axes, keep=True))
        square = graph.node("Mul", centred, centred)
        variance = graph.reduce("ReduceMean", square, axes, keep=True)
        deviation = graph.node("Sqrt", graph.node("Add", variance, graph.floats(self.eps)))
        return graph.node("Div", centred, deviation)

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (C,) that the blobs stand for."""
        factor = self.scale_factor.detach()
        scale = torch.where(factor == 0, factor, 1 / factor)
        return self.mean.detach() * scale, self.variance.detach() * scale

    def _by_stored(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = self.statistics()
        return torch.batch_norm(x, None, None, mean, variance, False, 0.0, self.eps, True)

    def _by_batch(self, x: torch.Tensor) -> torch.Tensor:
        mean, variance = x.new_zeros(2, self.channels)
        m = x.numel() // self.channels
        if m == 0:
            return x
        if m > 1:
            # momentum 1 hands out the batch's own mean and m / (m - 1) variance.
            top = torch.batch_norm(x, None, None, mean, variance, True, 1.0, self.eps, True)
        else:
            mean, top = x.detach().flatten(), x - x
        with torch.no_grad():
            self.mean.mul_(self.fraction).add_(mean)
            self.variance.mul_(self.fraction).add_(variance)
            self.scale_factor.mul_(self.fraction).add_(1)
        return top
