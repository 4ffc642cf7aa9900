"""MultinomialLogisticLoss: the negative log of given probabilities."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.function import call
from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.softmax_with_loss import check_label_shape

LOG_THRESHOLD = 1e-20


class MultinomialLogisticLoss(Layer):
    """Bottoms probabilities (N, classes after axis 1 flattened), labels (N,) → loss ().

    The mean of -log(max(p, 1e-20)) at the labels; the gradient there is -1 / max(p, 1e-20).
    Source: BVLC Caffe 1.0, src/caffe/layers/multinomial_logistic_loss_layer.cpp.
    """

    type = "MultinomialLogisticLoss"
    bottoms = (2, 2)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        prob, labels = bottoms
        check_label_shape(self, (*prob[:1], 1), labels, 1)
        return [()]

    def forward(self, prob: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        prob = prob.reshape(prob.shape[0], -1)
        index = labels.long().reshape(-1, 1)
        check_labels(self, index, prob.shape[1])
        loss: torch.Tensor = call(_LogLoss, prob.gather(1, index))
        return loss


class _LogLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, prob: torch.Tensor) -> torch.Tensor:
        clamped = prob.clamp(min=LOG_THRESHOLD)
        ctx.save_for_backward(clamped)
        return -clamped.log().mean()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (clamped,) = ctx.saved_tensors
        return -gradients[0] / clamped.numel() / clamped
