"""InfogainLoss: softmax loss weighted by a matrix over label and class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from port import schema
from port.layers.function import call
from port.layers.labels import check_labels
from port.layers.layer import Layer, Shape
from port.layers.normalizer import divisor, ignored_label
from port.layers.softmax_with_loss import check_label_shape
from port.prototxt import resolve

LOG_THRESHOLD = 1e-20


class InfogainLoss(Layer):
    """Logits (classes at ``axis``), labels, and H (classes²) → loss (), and the probabilities.

    Minus the sum over classes of H[label, class] log(max(prob, 1e-20)), divided as ``loss_param``
    says (default VALID). H is a third bottom or a BlobProto file, ``source``.
    Source: BVLC Caffe 1.0, src/caffe/layers/infogain_loss_layer.cpp.
    """

    type = "InfogainLoss"
    param_field = "infogain_loss_param"
    fields = frozenset({"source", "axis"})
    bottoms = (2, 3)
    tops = (1, 2)
    loss = True
    infogain: torch.Tensor

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        logits, labels = bottoms[:2]
        self.over = self.axis(self.param.axis, len(logits))
        check_label_shape(self, logits, labels, self.over)
        self.ignored = ignored_label(self.spec.loss_param)
        self.divisor = divisor(self.spec.loss_param, "VALID")
        size = logits[self.over]
        if len(bottoms) < 3:
            self.register_buffer("infogain", self._read(), persistent=False)
            self._check_size(self.infogain.numel(), size)
        else:
            self._check_size(torch.Size(bottoms[2]).numel(), size)
        return [(), logits][: len(self.spec.top)]

    def _read(self) -> torch.Tensor:
        if not self.param.source:
            self.refuse("needs the matrix: a third bottom, or infogain_loss_param { source }")
        blob = schema.BlobProto()
        try:
            path = resolve(self.param.source, self.context.folder or Path())
            blob.ParseFromString(path.read_bytes())
        except Exception as error:
            self.refuse(f"cannot read the matrix '{self.param.source}': {error}")
        return torch.tensor(list(blob.data) or list(blob.double_data), dtype=torch.float32)

    def _check_size(self, found: int, classes: int) -> None:
        if found != classes * classes:
            self.refuse(f"the matrix must have {classes} x {classes} values, found {found}")

    def forward(self, logits: torch.Tensor, labels: torch.Tensor, *matrix: torch.Tensor) -> Any:
        classes = logits.shape[self.over]
        rows = logits.movedim(self.over, -1)
        index = labels.long().reshape(rows.shape[:-1])
        check_labels(self, index, classes, self.ignored)
        counted = torch.ones_like(index, dtype=torch.bool)
        if self.ignored is not None:
            counted = index != self.ignored
        size = self.divisor(
            rows.shape[: self.over].numel(),
            index.numel(),
            None if self.ignored is None else counted,
        )
        infogain = matrix[0].detach() if matrix else self.infogain.to(logits.dtype)
        gains = infogain.reshape(classes, classes)[index * counted] * counted.unsqueeze(-1)
        loss, prob = call(_InfogainLoss, rows, gains, size)
        return (loss, prob.movedim(-1, self.over)) if len(self.spec.top) == 2 else loss


class _InfogainLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, gains: torch.Tensor, size: Any) -> Any:
        prob = torch.softmax(rows, -1)
        ctx.save_for_backward(prob, gains)
        ctx.size = size
        ctx.mark_non_differentiable(prob)
        return -(gains * prob.clamp(min=LOG_THRESHOLD).log()).sum() / size, prob

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        prob, gains = ctx.saved_tensors
        change = prob * gains.sum(-1, keepdim=True) - gains
        return change * (gradients[0] / ctx.size), None, None
