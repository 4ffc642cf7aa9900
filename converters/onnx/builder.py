"""The ONNX graph that layers add themselves to: ``port.layers.onnx_graph.OnnxGraph``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

Array = np.ndarray[Any, np.dtype[Any]]
AXES_AS_INPUT = {"ReduceSum": 13}
"""Since which opset a reduction takes its axes as an input; 18 for the others."""


class Builder:
    """Nodes and initializers under construction; values have provisional names until ``rename``.

    opset: 13 or later. half: floats are float16. free_size: see OnnxGraph.
    reserved: names that values must not take by chance, the net's blobs.
    """

    def __init__(
        self, opset: int, half: bool, free_size: bool, reserved: Iterable[str] = ()
    ) -> None:
        self.opset = opset
        self.free_size = free_size
        self.float_type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.dtype = np.dtype(np.float16 if half else np.float32)
        self.proto_nodes: list[onnx.NodeProto] = []
        self.initializers: list[tuple[onnx.TensorProto, Array]] = []
        self._taken = set(reserved)
        self._stored: dict[Any, str] = {}
        self._layer = ""

    # -- one layer ---------------------------------------------------------------------------

    def begin(self, layer: str) -> None:
        """What follows belongs to this layer."""
        self._layer = layer
        self._first = len(self.proto_nodes)

    def end(self) -> None:
        """The layer's last node gets the layer's own name."""
        if len(self.proto_nodes) > self._first:
            self.proto_nodes[-1].name = self._layer

    # -- what layers call --------------------------------------------------------------------

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator with one output and return that output."""
        return self.nodes(op, 1, *inputs, **attributes)[0]

    def nodes(self, op: str, n_outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operator with several outputs."""
        outputs = [self.free_name(f"{self._layer}/{op}") for _ in range(n_outputs)]
        node = helper.make_node(op, inputs, outputs, outputs[0], **attributes)
        self.proto_nodes.append(node)
        return outputs

    def blob(self, name: str, values: torch.Tensor) -> str:
        """A weight of the current layer; the same parameter is stored once."""
        key = id(values) if isinstance(values, torch.nn.Parameter) else (self._layer, name)
        if key not in self._stored:
            stored = values.detach().cpu().float().contiguous().numpy()
            self._stored[key] = self._store(self.free_name(f"{self._layer}.{name}"), stored)
        return self._stored[key]

    def floats(self, values: Any) -> str:
        """A constant of the graph's float type: a number, a sequence or an array."""
        return self._constant(np.asarray(values, np.float32))

    def integers(self, values: int | Sequence[int]) -> str:
        """A constant of int64."""
        return self._constant(
            np.asarray(values if isinstance(values, int) else list(values), np.int64)
        )

    def to_float(self, x: str) -> str:
        """A cast to the graph's float type."""
        return self.node("Cast", x, to=self.float_type)

    def to_integer(self, x: str) -> str:
        """A cast to int64, towards zero."""
        return self.node("Cast", x, to=TensorProto.INT64)

    def reshape(self, x: str, dims: Sequence[int]) -> str:
        """``dims`` as ONNX has them: 0 copies the size at that place, -1 is worked out."""
        return self.node("Reshape", x, self.integers(dims))

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        """New axes of length 1 at these places of the result."""
        return self.node("Unsqueeze", x, self.integers(axes))

    def reduce(self, op: str, x: str, axes: Sequence[int], keep: bool) -> str:
        """``ReduceMean``, ``ReduceSum``, … over axes."""
        if self.opset >= AXES_AS_INPUT.get(op, 18):
            return self.node(op, x, self.integers(axes), keepdims=int(keep))
        return self.node(op, x, axes=list(axes), keepdims=int(keep))

    def cut(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        """One axis from start to stop."""
        numbers = ([start], [stop], [axis], [step])
        return self.node("Slice", x, *map(self.integers, numbers))

    # -- names and storage -------------------------------------------------------------------

    def free_name(self, name: str) -> str:
        """``name``, numbered while it is taken; it is taken then."""
        found, n = name, 1
        while found in self._taken:
            n += 1
            found = f"{name}_{n}"
        self._taken.add(found)
        return found

    def rename(self, names: Mapping[str, str]) -> None:
        """Give values their final names, in every node."""
        for node in self.proto_nodes:
            for side in (node.input, node.output):
                for i, name in enumerate(side):
                    if name in names:
                        side[i] = names[name]

    def _constant(self, values: Array) -> str:
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._stored:
            kind = "shape" if values.dtype == np.int64 else "number"
            self._stored[key] = self._store(self.free_name(f"{self._layer}/{kind}"), values)
        return self._stored[key]

    def _store(self, name: str, values: Array) -> str:
        if values.dtype == np.float32 and self.dtype == np.float16:
            largest = np.finfo(np.float16).max
            finite = np.isfinite(values)
            values = np.where(finite, values.clip(-largest, largest), values).astype(np.float16)
        kind = TensorProto.INT64 if values.dtype == np.int64 else self.float_type
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        self.initializers.append(
            (TensorProto(name=name, data_type=kind, dims=values.shape), little)
        )
        return name
