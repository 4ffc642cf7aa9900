"""The one call of ``torch.autograd.Function.apply``, which torch leaves untyped."""

from __future__ import annotations

from typing import Any

import torch


def call(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """``function.apply(*arguments)``: the forward, with the function's own backward behind it."""
    return function.apply(*arguments)  # type: ignore[no-untyped-call]
