"""ContrastiveLoss: pairs pulled together or pushed apart."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.function import call
from port.layers.layer import Layer, Shape


class ContrastiveLoss(Layer):
    """Bottoms a, b (N, C), similar (N,) → loss () = sum of the pairs' terms / 2N.

    A similar pair's term is d², another's max(margin - d, 0)², or with ``legacy_version``
    max(margin - d², 0). The gradient divides by d + 1e-4.
    Source: BVLC Caffe 1.0, src/caffe/layers/contrastive_loss_layer.cpp.
    """

    type = "ContrastiveLoss"
    param_field = "contrastive_loss_param"
    fields = frozenset({"margin", "legacy_version"})
    bottoms = (3, 3)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        a, b, similar = bottoms
        flat = all(size == 1 for size in (*a[2:], *b[2:], *similar[1:]))
        same = len(a) > 1 and a[:2] == b[:2] and similar[:1] == a[:1]
        if not (flat and same):
            self.refuse(f"needs bottoms (N, C), (N, C) and (N,), found {a}, {b} and {similar}")
        self.margin: float = self.param.margin
        self.legacy: bool = self.param.legacy_version
        return [()]

    def forward(self, a: torch.Tensor, b: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
        difference = a.flatten(1) - b.flatten(1)
        together = similar.reshape(-1, 1).long() != 0
        loss: torch.Tensor = call(_Contrast, difference, together, self.margin, self.legacy)
        return loss


class _Contrast(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, difference: torch.Tensor, together: torch.Tensor, margin: float, legacy: bool
    ) -> torch.Tensor:
        squared = (difference * difference).sum(1, keepdim=True)
        gap = margin - (squared if legacy else squared.sqrt())
        apart = gap.clamp(min=0)
        terms = torch.where(together, squared, apart if legacy else apart * apart)
        ctx.save_for_backward(difference, together, squared, gap)
        ctx.legacy = legacy
        return terms.sum() / (2 * len(difference))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        difference, together, squared, gap = ctx.saved_tensors
        push = -torch.ones_like(gap) if ctx.legacy else -gap / (squared.sqrt() + 1e-4)
        factor = torch.where(together, 1.0, torch.where(gap > 0, push, 0.0))
        return difference * factor * (gradients[0] / len(difference)), None, None, None
