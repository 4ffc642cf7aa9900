"""SoftmaxWithLoss: the mean negative log likelihood of the labels."""

from __future__ import annotations

import math
from typing import Any

import torch

from port.layers.function import call
from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.normalizer import divisor, ignored_label

FLT_MIN = 1.17549435e-38
"""The least probability whose logarithm is taken: the loss never exceeds 87.3365."""


class SoftmaxWithLoss(Layer):
    """Logits with the classes at ``softmax_param.axis`` and labels (the other axes) → loss ().

    Divided as ``loss_param`` says (default VALID). The gradient, prob - 1 at the label, does not
    know of the clamp. One top only: the original refuses the probabilities as a second.
    Source: BVLC Caffe 1.0, src/caffe/layers/softmax_loss_layer.cpp. Raises NetError for a label
    out of range, see ``labels.check_labels``.
    """

    type = "SoftmaxWithLoss"
    param_field = "loss_param"
    fields = frozenset({"ignore_label", "normalize", "normalization"})
    bottoms = (2, 2)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        logits, labels = bottoms
        self.over = self.axis(self.spec.softmax_param.axis, len(logits))
        check_label_shape(self, logits, labels, self.over)
        self.ignored = ignored_label(self.param)
        self.divisor = divisor(self.param, "VALID")
        return [()]

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        outer, inner = logits.shape[: self.over], logits.shape[self.over + 1 :]
        index = labels.long().reshape(outer + inner)
        check_labels(self, index, logits.shape[self.over], self.ignored)
        counted = None
        if self.ignored is not None:
            counted = index != self.ignored
            index = index * counted
        size = self.divisor(outer.numel(), index.numel(), counted)
        loss: torch.Tensor = call(_SoftmaxLoss, logits, index, counted, size, self.over)
        return loss


def check_label_shape(layer: Layer, logits: Shape, labels: Shape, over: int) -> None:
    """Refuses labels whose batch or number does not fit the predictions, as LossLayer does."""
    wanted = math.prod(logits[:over]) * math.prod(logits[over + 1 :])
    if not labels or labels[0] != logits[0] or math.prod(labels) != wanted:
        layer.refuse(
            f"needs one label for each of {wanted} predictions and the same first axis: "
            f"predictions {logits} with classes at axis {over}, labels {labels}"
        )


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, index: torch.Tensor, counted: Any, size: Any, over: int
    ) -> torch.Tensor:
        prob = torch.softmax(logits, over)
        losses = prob.gather(over, index.unsqueeze(over)).squeeze(over).clamp(min=FLT_MIN).log()
        if counted is not None:
            losses = losses.masked_fill(~counted, 0)
        ctx.save_for_backward(prob, index, counted)
        ctx.size, ctx.over = size, over
        loss: torch.Tensor = -losses.sum() / size
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        prob, index, counted = ctx.saved_tensors
        scale = gradients[0] / ctx.size
        change = prob * scale
        at_label = -scale.expand(index.shape).unsqueeze(ctx.over)
        change.scatter_add_(ctx.over, index.unsqueeze(ctx.over), at_label)
        if counted is not None:
            change = change.masked_fill(~counted.unsqueeze(ctx.over), 0)
        return change, None, None, None, None
