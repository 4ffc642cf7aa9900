"""The contract that every layer type fulfils."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import torch
from torch import nn

from port import schema
from port.errors import NetError
from port.fillers import fill

Shape = tuple[int, ...]
INT_MAX = 2**31 - 1
"""Caffe counts a blob's values in an int."""
Count = tuple[int, "int | None"]


@dataclass(frozen=True)
class Context:
    """What a layer may know beside its own LayerParameter.

    phase: "TRAIN" or "TEST". folder: where the prototxt lies (paths in it are tried there too).
    gradient: "caffe" or "exact", see MarginInnerProduct. The rest concerns data layers:
    open_data False leaves files untouched and takes ``input_shape`` (C, H, W) for unknown sizes.
    loaded: layers whose blobs a weights file will give: their fillers do not run.
    """

    phase: str = "TEST"
    folder: Path | None = None
    gradient: str = "caffe"
    allow_python: bool = False
    open_data: bool = True
    input_shape: Shape | None = None
    seed: int | None = None
    workers: int | None = None
    skip_bad: bool = False
    loaded: frozenset[str] = frozenset()


class Layer(nn.Module):
    """Everything about one Caffe layer type: fields, blobs, shapes, forward.

    A subclass states the class attributes below and writes two methods:

    ``setup(bottoms)`` gets the bottoms' shapes, reads ``self.param``, makes the blobs with
    ``add_blob`` in Caffe's order and returns the tops' shapes.
    ``forward(*bottoms)`` returns the top, or a tuple with one tensor for each top. It takes any
    batch size (and spatial size, where the arithmetic allows), not only that of setup, and
    never writes into a bottom. Where Caffe's backward is not autograd's, forward goes through a
    ``torch.autograd.Function`` in the same module.

    A layer refuses what Caffe refuses by ``self.refuse("what was expected and found")``.
    """

    type: ClassVar[str]  # type: ignore[assignment]  # Module.type() casts; Net keeps it
    param_field: ClassVar[str] = ""
    """The layer's own message in LayerParameter, such as ``convolution_param``."""
    fields: ClassVar[frozenset[str]] = frozenset()
    """Fields of that message that the layer honours; a set field outside is refused by name."""
    bottoms: ClassVar[Count] = (1, 1)
    """Least and largest number of bottoms; None: no upper limit."""
    tops: ClassVar[Count] = (1, 1)
    in_place: ClassVar[bool] = False
    """Whether a top may be one of the bottoms."""
    loss: ClassVar[bool] = False
    """A loss layer: the first top has loss_weight 1 unless the prototxt says otherwise."""
    backward_to: ClassVar[bool] = True
    """Whether gradients flow to the bottoms (Accuracy, ArgMax, Silence … have none)."""

    onnx: ClassVar[Callable[..., Any] | None] = None
    """``onnx(graph, *bottoms)`` adds the layer to an OnnxGraph, by its bottoms' value names, and
    returns the top's, or one for each top. None: there is no such form, as for losses."""

    def __init__(self, spec: Any, bottoms: Sequence[Shape], context: Context) -> None:
        super().__init__()
        self.spec = schema.LayerParameter()
        self.spec.CopyFrom(spec)
        self.name: str = spec.name
        self.context = context
        self.phase: str = context.phase
        self.blob_names: list[str] = []
        self._check_counts()
        self._check_fields()
        if len(self.spec.loss_weight) not in (0, len(self.spec.top)):
            self.refuse(
                f"gives loss_weight {len(self.spec.loss_weight)} times for "
                f"{len(self.spec.top)} top(s); give it for every top or not at all"
            )
        if self.loss and not self.spec.loss_weight:
            self.spec.loss_weight.append(1.0)
        self.bottom_shapes: list[Shape] = list(bottoms)
        self.top_shapes: list[Shape] = [tuple(shape) for shape in self.setup(list(bottoms))]
        self._check_top_shapes()

    @property
    def param(self) -> Any:
        """The layer's own parameter message."""
        return getattr(self.spec, self.param_field)

    @property
    def blobs(self) -> list[nn.Parameter]:
        """The layer's parameters in Caffe's blob order."""
        return [getattr(self, name) for name in self.blob_names]

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        """Read the fields, make the blobs, return the tops' shapes."""
        raise NotImplementedError(f"{type(self).__name__}.setup")

    def add_blob(self, name: str, shape: Shape, filler: Any = None) -> None:
        """Register the next blob under ``name``: zeros, or values from a FillerParameter."""
        try:
            loaded = self.name in self.context.loaded
            blob = nn.Parameter(torch.empty(shape) if loaded else torch.zeros(shape))
            if filler is not None and not loaded:
                fill(blob, filler)
        except NetError as error:
            self.refuse(str(error))
        except (RuntimeError, TypeError, MemoryError):
            self.refuse(f"cannot make a blob '{name}' of shape {shape}: it is too large")
        self.register_parameter(name, blob)
        self.blob_names.append(name)

    def axis(self, axis: int, rank: int) -> int:
        """A Caffe axis (negative: from the end) as a plain index, refused when out of range."""
        if not -rank <= axis < rank:
            self.refuse(f"axis {axis} is out of range for a bottom of {rank} axes")
        return axis % rank

    def refuse(self, message: str) -> NoReturn:
        """Raise NetError in this layer's name."""
        raise NetError(f"layer '{self.name}' ({self.type}): {message}")

    def _check_counts(self) -> None:
        for kind, limits, found in (
            ("bottom", self.bottoms, len(self.spec.bottom)),
            ("top", self.tops, len(self.spec.top)),
        ):
            low, high = limits
            if found < low or (high is not None and found > high):
                self.refuse(f"takes {_count(low, high)} {kind}(s), found {found}")

    def _check_top_shapes(self) -> None:
        for top, shape in zip(self.spec.top, self.top_shapes, strict=True):
            if min(shape, default=0) < 0 or math.prod(shape) > INT_MAX:
                self.refuse(f"top '{top}' would have shape {shape}: no such blob can exist")

    def _check_fields(self) -> None:
        if not self.param_field:
            return
        honoured = self.fields | {"engine"}
        for descriptor, _ in self.param.ListFields():
            if descriptor.name not in honoured:
                self.refuse(
                    f"field '{descriptor.name}' of {self.param_field} is not supported; "
                    f"supported: {', '.join(sorted(self.fields)) or 'none'}"
                )


def _count(low: int, high: int | None) -> str:
    if high is None:
        return f"at least {low}"
    return str(low) if low == high else f"{low} to {high}"


class DataLayer(Layer):
    """A layer without bottoms whose tops are fed: by the caller, or by its own batches."""

    type: ClassVar[str]
    bottoms = (0, 0)
    backward_to = False
    batches: Any = None
    """An endless iterator of arrays, one for each top or more; it may have ``close()``."""

    def next_batch(self) -> tuple[torch.Tensor, ...]:
        """The next batch, one CPU tensor for each top. Raises NetError when there is no source."""
        if self.batches is None:
            self.refuse(f"has no data of its own: give {', '.join(self.spec.top)} by name")
        arrays = next(self.batches)[: len(self.spec.top)]
        return tuple(torch.from_numpy(array) for array in arrays)

    def close(self) -> None:
        """Stop workers and close files."""
        if self.batches is not None:
            self.batches.close()
