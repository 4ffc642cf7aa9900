"""What a loss is divided by: the modes of LossParameter.

Source: BVLC Caffe 1.0, src/caffe/layers/softmax_loss_layer.cpp (get_normalizer).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from port import schema

Divisor = Callable[[int, int, "torch.Tensor | None"], "torch.Tensor | float"]
"""Called with the outer count, the count of labels, the mask of those that count (None: all)."""


def divisor(loss_param: Any, default: str) -> Divisor:
    """The rule of this LossParameter; ``normalize`` is the old spelling of VALID / BATCH_SIZE."""
    mode = default
    if loss_param.HasField("normalization"):
        mode = schema.enum_name(loss_param, "normalization")
    elif loss_param.HasField("normalize"):
        mode = "VALID" if loss_param.normalize else "BATCH_SIZE"
    return _MODES[mode]


def ignored_label(loss_param: Any) -> int | None:
    """``ignore_label``, None when there is none."""
    return int(loss_param.ignore_label) if loss_param.HasField("ignore_label") else None


def _full(outer: int, total: int, counted: torch.Tensor | None) -> float:
    return max(1.0, total)


def _valid(outer: int, total: int, counted: torch.Tensor | None) -> torch.Tensor | float:
    return max(1.0, total) if counted is None else counted.sum().clamp(min=1)


def _batch_size(outer: int, total: int, counted: torch.Tensor | None) -> float:
    return max(1.0, outer)


def _none(outer: int, total: int, counted: torch.Tensor | None) -> float:
    return 1.0


_MODES: dict[str, Divisor] = {
    "FULL": _full,
    "VALID": _valid,
    "BATCH_SIZE": _batch_size,
    "NONE": _none,
}
