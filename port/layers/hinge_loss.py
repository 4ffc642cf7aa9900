"""HingeLoss: one-against-all margins."""

from __future__ import annotations

import torch

from port import schema
from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.softmax_with_loss import check_label_shape


class HingeLoss(Layer):
    """Bottoms scores (N, classes after axis 1 flattened), labels (N,) → loss ().

    Sum of max(0, 1 - s) (squared with ``norm`` L2), s the score at the label and minus the score
    elsewhere, divided by N. Source: BVLC Caffe 1.0, src/caffe/layers/hinge_loss_layer.cpp.
    """

    type = "HingeLoss"
    param_field = "hinge_loss_param"
    fields = frozenset({"norm"})
    bottoms = (2, 2)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        scores, labels = bottoms
        check_label_shape(self, (*scores[:1], 1), labels, 1)
        self.squared = schema.enum_name(self.param, "norm") == "L2"
        return [()]

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        scores = scores.reshape(scores.shape[0], -1)
        index = labels.long().reshape(-1, 1)
        check_labels(self, index, scores.shape[1])
        sign = torch.ones_like(scores).scatter_(1, index, -1)
        short = torch.relu(1 + scores * sign)
        return (short * short if self.squared else short).sum() / scores.shape[0]
