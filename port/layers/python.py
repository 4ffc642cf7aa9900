"""Python: a layer that a user wrote, on numpy arrays."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch

from port.layers.function import call
from port.layers.layer import Layer, Shape


class NumpyBlob:
    """What a user's layer sees of a blob: float32 ``data`` and ``diff``, and its shape."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.data = np.zeros(shape, np.float32)
        self.diff = np.zeros(shape, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def count(self) -> int:
        """How many values it has."""
        return self.data.size

    @property
    def num(self) -> int:
        """Length of axis 0."""
        return self._length(0)

    @property
    def channels(self) -> int:
        """Length of axis 1."""
        return self._length(1)

    @property
    def height(self) -> int:
        """Length of axis 2."""
        return self._length(2)

    @property
    def width(self) -> int:
        """Length of axis 3."""
        return self._length(3)

    def _length(self, axis: int) -> int:
        return self.shape[axis] if axis < len(self.shape) else 1

    def reshape(self, *shape: int) -> None:
        """Give it another shape; the values are kept where their number is the same."""
        kept = self.data.size == np.prod(shape, dtype=int)
        self.data = self.data.reshape(shape) if kept else np.zeros(shape, np.float32)
        self.diff = self.diff.reshape(shape) if kept else np.zeros(shape, np.float32)


class NumpyBlobs(list[NumpyBlob]):
    """The layer's own parameters; ``add_blob`` in its setup makes one."""

    def add_blob(self, *shape: int) -> NumpyBlob:
        """Append a blob of zeros."""
        self.append(NumpyBlob(shape))
        return self[-1]


class Python(Layer):
    """Runs ``python_param``'s class: setup, reshape, forward, backward(top, down, bottom).

    It gets lists of NumpyBlob, and the attributes ``param_str``, ``phase`` and ``blobs``. The class
    is imported, so it runs as the user: only with the permission ``allow_python``. Arrays live on
    the CPU whatever the net's device.
    Source: BVLC Caffe 1.0, include/caffe/layers/python_layer.hpp.
    """

    type = "Python"
    param_field = "python_param"
    fields = frozenset({"module", "layer", "param_str", "share_in_parallel"})
    bottoms = (0, None)
    tops = (0, None)
    like: torch.Tensor
    """Empty; has the net's device and dtype."""

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        if not self.context.allow_python:
            self.refuse(
                f"would run the class '{self.param.layer}' of '{self.param.module}'; "
                "give --allow-python (allow_python=True) if you trust this prototxt"
            )
        self.register_buffer("like", torch.empty(0), persistent=False)
        self.user = self._make()
        self.user.param_str = self.param.param_str
        self.user.phase = 0 if self.phase == "TRAIN" else 1
        self.user.blobs = NumpyBlobs()
        bottom = [NumpyBlob(shape) for shape in bottoms]
        top = [NumpyBlob() for _ in self.spec.top]
        self.run("setup", bottom, top)
        self.run("reshape", bottom, top)
        for i, blob in enumerate(self.user.blobs):
            self.add_blob(f"blob_{i}", blob.shape)
            self.blobs[i].data.copy_(torch.from_numpy(blob.data))
        return [blob.shape for blob in top]

    def _make(self) -> Any:
        try:
            with _importable(self.context.folder):
                return getattr(importlib.import_module(self.param.module), self.param.layer)()
        except Exception as error:
            self.refuse(
                f"cannot load '{self.param.layer}' from module '{self.param.module}': {error!r}"
            )

    def run(self, method: str, *arguments: Any) -> None:
        """Call the user's method. Raises NetError for whatever it raises."""
        try:
            getattr(self.user, method)(*arguments)
        except Exception as error:
            self.refuse(f"{self.param.module}.{self.param.layer}.{method} failed: {error!r}")

    def forward(self, *bottoms: torch.Tensor) -> Any:
        if not self.spec.top:
            self.compute(bottoms)
            return ()
        tops: tuple[torch.Tensor, ...] = call(_UserLayer, self, *bottoms, *self.blobs)
        return tops if len(tops) > 1 else tops[0]

    def compute(self, bottoms: Sequence[torch.Tensor]) -> tuple[list[NumpyBlob], list[NumpyBlob]]:
        """The bottoms as arrays, and the tops that the user's class makes of them."""
        bottom, top = [NumpyBlob() for _ in bottoms], [NumpyBlob() for _ in self.spec.top]
        for blob, value in zip([*bottom, *self.user.blobs], [*bottoms, *self.blobs], strict=True):
            blob.data = _array(value)
            blob.diff = np.zeros_like(blob.data)
        self.run("reshape", bottom, top)
        self.run("forward", bottom, top)
        return bottom, top


class _UserLayer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, layer: Python, *values: torch.Tensor) -> Any:
        bottom, top = layer.compute(values[: len(values) - len(layer.blobs)])
        ctx.layer, ctx.bottom, ctx.top = layer, bottom, top
        return tuple(torch.from_numpy(blob.data.copy()).to(layer.like) for blob in top)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        layer, bottom, top = ctx.layer, ctx.bottom, ctx.top
        for blob, gradient in zip(top, gradients, strict=True):
            blob.diff = _array(gradient)
        down = list(ctx.needs_input_grad[1 : 1 + len(bottom)])
        layer.run("backward", top, down, bottom)
        found = [*bottom, *layer.user.blobs]
        return None, *(torch.from_numpy(blob.diff.copy()).to(layer.like) for blob in found)


def _array(value: torch.Tensor) -> Any:
    return value.detach().float().cpu().contiguous().numpy().copy()


@contextmanager
def _importable(folder: Any) -> Iterator[None]:
    """The prototxt's folder is searched for modules; ``import caffe`` finds at least Layer."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    stand_in = None
    if "caffe" not in sys.modules and importlib.util.find_spec("caffe") is None:
        stand_in = ModuleType("caffe")
        stand_in.Layer = object  # type: ignore[attr-defined]
        sys.modules["caffe"] = stand_in
    try:
        yield
    finally:
        if folder is not None:
            sys.path.remove(str(folder))
        if stand_in is not None:
            del sys.modules["caffe"]
