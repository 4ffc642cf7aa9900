"""A Net as an ONNX model: layers in order, with Caffe's names for blobs and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import port
from converters.deploy import needed_layers
from converters.onnx.builder import Array, Builder
from port.errors import ConversionError, close_matches
from port.layers.layer import DataLayer, Layer
from port.layers.recurrent import Recurrent
from port.layers.registry import layer_types
from port.net import Net
from port.wire import prefixed

OPSET = 17
"""Read by onnxruntime since 1.12 (2022) and by every runtime of the last two years."""
OPSETS = (13, 23)
DYNAMIC = None
LARGEST = 2**31 - 2**20
GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9
"""Field numbers in ModelProto, GraphProto and TensorProto."""
SHORTEST = 1e-12
"""The least length that an embedding is divided by, as in torch's normalize."""


@dataclass(frozen=True)
class Pixels:
    """How raw pixels become the net's input: BGR, (pixel - mean) * scale."""

    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    scale: float = 0.0078125


@dataclass(frozen=True)
class Options:
    """What the model is to be.

    outputs: blobs to give; empty: the net's own. batch: None leaves axis 0 of the inputs free.
    free_size: height and width too. half: float16 inside, float32 inputs and outputs.
    normalize: the one output is scaled to unit L2 norm along axis 1 and named
    ``<blob>_normalized``. pixels: the input is ``image``, uint8 RGB (N, H, W, 3).
    """

    outputs: tuple[str, ...] = ()
    opset: int = OPSET
    batch: int | None = DYNAMIC
    free_size: bool = False
    half: bool = False
    normalize: bool = False
    pixels: Pixels | None = None


def supported_types() -> set[str]:
    """Caffe's layer types that can be in a converted net: inputs, and all with an ONNX form."""
    return {
        name
        for name, kind in layer_types().items()
        if kind.onnx is not None or issubclass(kind, DataLayer) or name == "MarginInnerProduct"
    }


@dataclass(frozen=True)
class Emitted:
    """A model whose weights lie beside it, where the net or its file has them."""

    model: onnx.ModelProto
    graph: onnx.GraphProto
    weights: list[tuple[onnx.TensorProto, Array]]

    def proto(self) -> onnx.ModelProto:
        """The model in one piece."""
        return onnx.ModelProto.FromString(b"".join(self.chunks()))

    def chunks(self) -> list[Any]:
        """The model's file, as buffers to be written one after the other; no weight is copied.

        Raises ConversionError for more than the 2 GiB that a protobuf message can have.
        """
        inner: list[Any] = [self.graph.SerializeToString()]
        for tensor, values in self.weights:
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            header = tensor.SerializeToString() + prefixed(RAW_DATA, data.size)
            inner += [prefixed(INITIALIZER, len(header) + data.size), header, data]
        size = sum(map(len, inner))
        if size > LARGEST:
            raise ConversionError(
                f"the model would have {size} bytes, and protobuf reads no more than {LARGEST}; "
                "float16 halves it, and --output drops what follows a blob"
            )
        return [self.model.SerializeToString() + prefixed(GRAPH, size), *inner]


def to_model(net: Net, options: Options | None = None) -> onnx.ModelProto:
    """The ONNX model of a deploy net (see ``converters.deploy``).

    Nodes are named as their layer, values as their blob; of an in-place blob the last value has
    the name. Raises ConversionError for a layer without ONNX form, by its name.
    """
    return emit(net, options).proto()


def emit(net: Net, options: Options | None = None) -> Emitted:
    """As ``to_model``, with the weights left where they are."""
    options = options or Options()
    highest = min(OPSETS[1], onnx.defs.onnx_opset_version())
    if not OPSETS[0] <= options.opset <= highest:
        raise ConversionError(f"opset {options.opset} is not in {OPSETS[0]} to {highest}")
    return _Emission(net, options).model()


class _Emission:
    def __init__(self, net: Net, options: Options) -> None:
        self.net, self.options = net, options
        self.blobs: dict[str, str] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.graph = Builder(options.opset, options.half, options.free_size, net.blob_shapes)
        self.wanted = list(options.outputs) or net.outputs
        self.batch_free = batch_is_free(net, options)
        for name in self.wanted:
            if name not in net.blob_shapes:
                near = close_matches(name, net.blob_shapes)
                raise ConversionError(f"net '{net.param.name}' has no blob '{name}'{near}")

    def model(self) -> Emitted:
        """The whole model."""
        for layer in needed_layers(self.net, self.wanted):
            if isinstance(layer, DataLayer):
                for top in layer.spec.top:
                    self._add_input(top)
            else:
                self._add_layer(layer)
        names: dict[str, str] = {}
        outputs = [self._add_output(blob, names) for blob in dict.fromkeys(self.wanted)]
        self._name_blobs(names)
        self.graph.rename(names)
        return self._assembled(outputs)

    # -- inputs ------------------------------------------------------------------------------

    def _add_input(self, blob: str) -> None:
        if all(blob not in layer.spec.bottom for layer in self.net.layers):
            return
        shape = self._dims(self.net.blob_shapes[blob])
        if self.options.pixels:
            self.blobs[blob] = self._from_pixels(blob, shape, self.options.pixels)
            return
        self.inputs.append(helper.make_tensor_value_info(blob, TensorProto.FLOAT, shape))
        self.blobs[blob] = blob
        if self.options.half:
            self.graph.begin(f"{blob}/half")
            self.blobs[blob] = self.graph.to_float(blob)

    def _dims(self, shape: tuple[int, ...]) -> list[Any]:
        dims: list[Any] = list(shape)
        if dims and self.batch_free:
            dims[0] = "batch"
        elif dims and self.options.batch is not DYNAMIC:
            dims[0] = self.options.batch
        if self.options.free_size and len(dims) == 4:
            dims[2:] = ["height", "width"]
        return dims

    def _from_pixels(self, blob: str, shape: list[Any], pixels: Pixels) -> str:
        if self.inputs or len(shape) != 4 or shape[1] != 3 or len(pixels.mean) != 3:
            raise ConversionError(
                f"raw pixels need one input (N, 3, H, W) and 3 means; '{blob}' is {tuple(shape)}"
            )
        name, graph = self.graph.free_name("image"), self.graph
        dims = [shape[0], *shape[2:], 3]
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.UINT8, dims))
        graph.begin("preprocess")
        planes = graph.node("Transpose", graph.to_float(name), perm=[0, 3, 1, 2])
        bgr = graph.node("Gather", planes, graph.integers([2, 1, 0]), axis=1)
        means = [[[mean]] for mean in pixels.mean]
        return graph.node(
            "Mul", graph.node("Sub", bgr, graph.floats(means)), graph.floats(pixels.scale)
        )

    # -- layers ------------------------------------------------------------------------------

    def _add_layer(self, layer: Layer) -> None:
        if layer.onnx is None:
            raise ConversionError(
                f"layer '{layer.name}' ({layer.type}): has no ONNX form; cut the net before it "
                "with --output BLOB"
            )
        self.graph.begin(layer.name)
        tops = layer.onnx(self.graph, *(self.blobs[name] for name in layer.spec.bottom))
        self.graph.end()
        tops = [tops] if isinstance(tops, str) else tops
        self.blobs.update(zip(layer.spec.top, tops, strict=True))

    # -- outputs and names -------------------------------------------------------------------

    def _add_output(self, blob: str, names: dict[str, str]) -> onnx.ValueInfoProto:
        """Declare one output; ``names`` learns which value bears its name."""
        value, name = self.blobs[blob], blob
        self.graph.begin(f"{blob}/output")
        if self.options.normalize:
            value, name = self._normalised(value), f"{blob}_normalized"
        elif blob in self._input_names:
            name = self.graph.free_name(f"{blob}_out")  # an input changed in place
        if self.options.half:
            value = self.graph.node("Cast", value, to=TensorProto.FLOAT)
        elif value in names or value in self._input_names:
            value = self.graph.node("Identity", value)
        names[value] = name
        shape = self._output_dims(self.net.blob_shapes[blob])
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def _normalised(self, x: str) -> str:
        if len(self.wanted) != 1:
            raise ConversionError(
                f"one output can be normalised, found {', '.join(self.wanted)}; choose by --output"
            )
        graph = self.graph
        length = graph.reduce("ReduceL2", x, [1], keep=True)
        return graph.node("Div", x, graph.node("Max", length, graph.floats(SHORTEST)))

    def _output_dims(self, shape: tuple[int, ...]) -> list[Any]:
        fed = [self.net.blob_shapes[name] for name in self.net.inputs]
        with_batch = bool(shape) and any(shape[0] == other[0] for other in fed if other)
        dims = self._dims(shape)
        if shape and not with_batch:
            dims[0] = None if self.batch_free else shape[0]
        return dims[:1] + [None] * (len(dims) - 1) if self.options.free_size else dims

    def _name_blobs(self, names: dict[str, str]) -> None:
        """A blob's last value gets the blob's name, unless an input or output has it."""
        taken = {*self._input_names, *names.values()}
        for blob, value in self.blobs.items():
            if value not in names and value not in taken and blob not in taken:
                names[value] = blob

    @property
    def _input_names(self) -> set[str]:
        return {value.name for value in self.inputs}

    def _assembled(self, outputs: list[onnx.ValueInfoProto]) -> Emitted:
        opset = helper.make_opsetid("", self.options.opset)
        model = onnx.ModelProto(
            ir_version=helper.find_min_ir_version_for([opset]),
            producer_name="sphereface-port",
            producer_version=port.__version__,
            opset_import=[opset],
        )
        graph = onnx.GraphProto(
            name=self.net.param.name or "net",
            node=self.graph.proto_nodes,
            input=self.inputs,
            output=outputs,
        )
        return Emitted(model, graph, self.graph.initializers)


def batch_is_free(net: Net, options: Options) -> bool:
    """Whether axis 0 of the inputs is; recurrent layers have the time there, unrolled."""
    recurrent = any(isinstance(layer, Recurrent) for layer in net.layers)
    return options.batch is DYNAMIC and not recurrent
