"""Accuracy: the share of labels among the top_k predictions."""

from __future__ import annotations

from typing import Any

import torch

from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.softmax_with_loss import check_label_shape


class Accuracy(Layer):
    """Predictions with the classes at ``axis``, labels (the other axes) → accuracy (), per class.

    A label is found when fewer than ``top_k`` classes score higher; of equal scores the larger
    index is the higher. The second top (classes,) is 0 for a class without labels. Nothing but
    ignored labels gives NaN. Source: BVLC Caffe 1.0, src/caffe/layers/accuracy_layer.cpp.
    """

    type = "Accuracy"
    param_field = "accuracy_param"
    fields = frozenset({"top_k", "axis", "ignore_label"})
    bottoms = (2, 2)
    tops = (1, 2)
    backward_to = False

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        scores, labels = bottoms
        param = self.param
        self.over = self.axis(param.axis, len(scores))
        check_label_shape(self, scores, labels, self.over)
        self.top_k: int = param.top_k
        if not 1 <= self.top_k <= scores[self.over]:
            self.refuse(f"top_k must be 1 to {scores[self.over]} (classes), found {self.top_k}")
        self.ignored = param.ignore_label if param.HasField("ignore_label") else None
        return [(), (scores[self.over],)][: len(self.spec.top)]

    @torch.no_grad()
    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> Any:
        classes = scores.shape[self.over]
        scores = scores.movedim(self.over, -1).reshape(-1, classes)
        index = labels.long().reshape(-1)
        check_labels(self, index, classes, self.ignored)
        counted = torch.ones_like(index) if self.ignored is None else (index != self.ignored).long()
        index = index * counted
        found = self._found(scores, index) & counted.bool()
        dtype = scores.dtype
        accuracy = found.sum().to(dtype) / counted.sum().to(dtype)
        if len(self.spec.top) == 1:
            return accuracy
        zeros = scores.new_zeros(classes)
        right = zeros.scatter_add(0, index, found.to(dtype))
        total = zeros.scatter_add(0, index, counted.to(dtype))
        return accuracy, right / total.clamp(min=1)

    def _found(self, scores: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """For each row: are fewer than top_k classes above the label's?"""
        label_score = scores.gather(1, index.unsqueeze(1))
        at = torch.arange(scores.shape[1], device=scores.device)
        tied_above = (scores == label_score) & (at > index.unsqueeze(1))
        return ((scores > label_score) | tied_above).sum(1) < self.top_k
