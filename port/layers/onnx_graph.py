"""What a layer needs to state its ONNX form; ``converters.onnx`` has the graph that does it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch


class OnnxGraph(Protocol):
    """A graph under construction. Values are known by name, as ``str``.

    Only operators and forms that every opset from 13 on reads alike are used, or one of the
    methods below that know the difference. Axis 0 of a blob is free unless the graph says not;
    the other sizes are those of the layer's ``bottom_shapes``, unless ``free_size``.
    """

    opset: int
    free_size: bool
    """Whether height and width of the inputs are free too."""

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output and return that output."""

    def nodes(self, op: str, n_outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator with several outputs."""

    def blob(self, name: str, values: torch.Tensor) -> str:
        """A weight of the current layer, stored as ``<layer>.<name>``."""

    def floats(self, values: Any) -> str:
        """A constant of the graph's float type: a number, a sequence or an array."""

    def integers(self, values: int | Sequence[int]) -> str:
        """A constant of int64."""

    def to_float(self, x: str) -> str:
        """A cast to the graph's float type."""

    def to_integer(self, x: str) -> str:
        """A cast to int64, towards zero."""

    def reshape(self, x: str, dims: Sequence[int]) -> str:
        """``dims`` as ONNX has them: 0 copies the size at that place, -1 is worked out."""

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        """New axes of length 1 at these places of the result."""

    def reduce(self, op: str, x: str, axes: Sequence[int], keep: bool) -> str:
        """``ReduceMean``, ``ReduceSum``, … over axes."""

    def cut(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """One axis from start to stop."""
