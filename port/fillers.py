"""Weight fillers: how a blob without trained weights gets its first values.

Source: BVLC Caffe 1.0, include/caffe/filler.hpp. Random values come from torch's
default generator (seed it with ``torch.manual_seed``); the distributions are Caffe's, the
draws are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from port import schema
from port.errors import NetError, close_matches


def fill(blob: torch.Tensor, filler: Any) -> None:
    """Fill ``blob`` in place as the FillerParameter ``filler`` says.

    Raises NetError for an unknown filler type or values the type cannot use.
    """
    if filler.type not in FILLERS:
        hint = close_matches(filler.type, FILLERS)
        raise NetError(f"unknown filler type '{filler.type}'{hint}; known: {', '.join(FILLERS)}")
    if filler.sparse != -1 and filler.type != "gaussian":
        raise NetError(f"filler '{filler.type}': 'sparse' works with type 'gaussian' only")
    if blob.numel():
        with torch.no_grad():
            FILLERS[filler.type](blob, filler)


def _constant(blob: torch.Tensor, filler: Any) -> None:
    blob.fill_(filler.value)


def _uniform(blob: torch.Tensor, filler: Any) -> None:
    if filler.min > filler.max:
        raise NetError(f"filler 'uniform': min {filler.min:g} is above max {filler.max:g}")
    blob.uniform_(filler.min, filler.max)


def _gaussian(blob: torch.Tensor, filler: Any) -> None:
    if filler.std < 0:
        raise NetError(f"filler 'gaussian': std {filler.std:g} is negative")
    blob.normal_(filler.mean, filler.std)
    if filler.sparse >= 0:
        if blob.dim() == 0:
            raise NetError("filler 'gaussian': 'sparse' needs a blob of at least 1 axis")
        # Caffe keeps a weight with probability sparse / (number of outputs).
        keep = min(1.0, filler.sparse / blob.shape[0])
        blob.mul_(torch.empty_like(blob).bernoulli_(keep))


def _fan(blob: torch.Tensor, filler: Any) -> float:
    """Caffe's fan: elements per row in, elements per column out; a missing axis counts as 1."""
    rows, columns = (*blob.shape, 1, 1)[:2]
    fan_in, fan_out = blob.numel() / max(1, rows), blob.numel() / max(1, columns)
    norm = schema.enum_name(filler, "variance_norm")
    fans: dict[str, float] = {
        "FAN_IN": fan_in,
        "FAN_OUT": fan_out,
        "AVERAGE": (fan_in + fan_out) / 2,
    }
    return fans[norm]


def _xavier(blob: torch.Tensor, filler: Any) -> None:
    scale = math.sqrt(3.0 / _fan(blob, filler))
    blob.uniform_(-scale, scale)


def _msra(blob: torch.Tensor, filler: Any) -> None:
    blob.normal_(0.0, math.sqrt(2.0 / _fan(blob, filler)))


def _positive_unitball(blob: torch.Tensor, filler: Any) -> None:
    """Uniform in [0, 1), then every row is scaled to sum to one."""
    blob.uniform_(0.0, 1.0)
    rows = blob.flatten(1) if blob.dim() > 1 else blob.view(-1, 1)
    rows.div_(rows.sum(1, keepdim=True))


def _bilinear(blob: torch.Tensor, filler: Any) -> None:
    """The kernel of bilinear upsampling, the same in every plane (for Deconvolution)."""
    if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
        raise NetError(f"filler 'bilinear': needs a square 4-D kernel, found {tuple(blob.shape)}")
    size = blob.shape[3]
    factor = math.ceil(size / 2)
    centre = (2 * factor - 1 - factor % 2) / (2.0 * factor)
    at = torch.arange(size, dtype=blob.dtype, device=blob.device)
    line = 1 - (at / factor - centre).abs()
    blob.copy_(line[:, None] * line[None, :])


FILLERS: dict[str, Callable[[torch.Tensor, Any], None]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "xavier": _xavier,
    "msra": _msra,
    "positive_unitball": _positive_unitball,
    "bilinear": _bilinear,
}
