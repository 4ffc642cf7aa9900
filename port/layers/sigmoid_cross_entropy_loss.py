"""SigmoidCrossEntropyLoss: independent yes-or-no predictions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from port.layers.layer import Layer, Shape
from port.layers.normalizer import divisor, ignored_label


class SigmoidCrossEntropyLoss(Layer):
    """Bottoms logits, targets in 0 … 1 (as many) → loss (), divided as ``loss_param`` says.

    The default divisor is the batch size. Targets equal to ``ignore_label`` do not count.
    Source: BVLC Caffe 1.0, src/caffe/layers/sigmoid_cross_entropy_loss_layer.cpp.
    """

    type = "SigmoidCrossEntropyLoss"
    param_field = "loss_param"
    fields = frozenset({"ignore_label", "normalize", "normalization"})
    bottoms = (2, 2)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        logits, targets = bottoms
        if not logits or logits[:1] != targets[:1] or math.prod(logits) != math.prod(targets):
            self.refuse(f"needs as many targets as logits, found {logits} and {targets}")
        self.ignored = ignored_label(self.param)
        self.divisor = divisor(self.param, "BATCH_SIZE")
        return [()]

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = targets.detach().reshape(logits.shape)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        counted = None
        if self.ignored is not None:
            counted = targets.long() != self.ignored
            losses = losses.masked_fill(~counted, 0)
        return losses.sum() / self.divisor(logits.shape[0], logits.numel(), counted)
