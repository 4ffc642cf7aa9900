"""A net as boxes and arrows: what is written in each box, before anything has a place."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from port import schema
from port.layers.layer import DataLayer, Layer, Shape
from port.net import Net
from port.prototxt import format_text

TIMES = "\N{MULTIPLICATION SIGN}"
FAMILIES = {
    "data": "#dfe7dd",
    "weights": "#c9dcf3",
    "normalise": "#efe6c4",
    "activate": "#f7d3b5",
    "pool": "#d9cfee",
    "join": "#c5e5e1",
    "reshape": "#e4e4e4",
    "loss": "#f2c4c4",
}
"""Fill of a box by what its layer does."""
_FAMILY_OF = {
    "weights": "Convolution Deconvolution InnerProduct MarginInnerProduct Embed LSTM RNN",
    "normalise": "BatchNorm LRN MVN Scale Bias",
    "activate": "AbsVal BNLL Dropout ELU Exp Log Power PReLU ReLU Sigmoid Softmax TanH Threshold",
    "pool": "Pooling SPP Reduction",
    "join": "Concat Eltwise",
    "loss": "Accuracy",
}
FAMILY = {kind: name for name, kinds in _FAMILY_OF.items() for kind in kinds.split()}
_DEFAULT = {"kernel_size": "", "stride": "1", "pad": "0"}
_WINDOWED = ("Convolution", "Deconvolution", "Pooling", "Im2col")
_SHOWN_BY_SHAPE = ("num_output", "engine", "bias_term", "shape", "axis")


@dataclass
class Box:
    """A layer, with those that work in place on its top as bars below."""

    name: str
    kind: str
    detail: str
    color: str
    shapes: list[str]
    bars: list[tuple[str, str]] = field(default_factory=list)
    """(text, colour) of each layer in place."""
    source: str = ""
    """Prototxt of the layers, shown when the pointer rests on the box."""


@dataclass
class Diagram:
    """Boxes in the order of the net's layers, and arrows (from, to) between their indices."""

    title: str
    boxes: list[Box] = field(default_factory=list)
    arrows: list[tuple[int, int]] = field(default_factory=list)


def diagram_of(net: Net) -> Diagram:
    """The boxes and arrows of a net; splits that Caffe inserts are left out."""
    diagram = Diagram(net.param.name or "net")
    maker: dict[str, int] = {}
    for layer in net.layers:
        spec = layer.spec
        if layer.type == "Split" and layer.name.endswith("_split"):
            maker.update(dict.fromkeys(spec.top, maker[spec.bottom[0]]))
        elif list(spec.top) == list(spec.bottom):
            _add_bar(diagram.boxes[maker[spec.top[0]]], layer)
        else:
            diagram.arrows += [(maker[name], len(diagram.boxes)) for name in spec.bottom]
            maker.update(dict.fromkeys(spec.top, len(diagram.boxes)))
            diagram.boxes.append(_box(layer))
    return diagram


def _box(layer: Layer) -> Box:
    return Box(
        layer.name,
        layer.type,
        _detail(layer),
        _color(layer),
        list(_shapes(layer)),
        [],
        _text(layer),
    )


def _add_bar(box: Box, layer: Layer) -> None:
    detail = _detail(layer)
    box.bars.append((f"{layer.name}  {layer.type} {detail}".rstrip(), _color(layer)))
    box.source += _text(layer)


def _color(layer: Layer) -> str:
    if isinstance(layer, DataLayer):
        return FAMILIES["data"]
    return FAMILIES["loss" if layer.loss else FAMILY.get(layer.type, "reshape")]


def _shapes(layer: Layer) -> Iterable[str]:
    for top, shape in zip(layer.spec.top, layer.top_shapes, strict=True):
        alone = len(layer.top_shapes) == 1 and top == layer.name
        yield by(shape) if alone else f"{top}: {by(shape)}"


def by(shape: Shape) -> str:
    """Shape (1, 64, 56, 48) with multiplication signs between the numbers."""
    return f" {TIMES} ".join(map(str, shape)) or "scalar"


def _detail(layer: Layer) -> str:
    """The set fields of the layer's own message, without what the shape tells already."""
    if not layer.param_field:
        return ""
    set_fields = {
        descriptor.name: _values(descriptor, value, layer.type in _WINDOWED)
        for descriptor, value in layer.param.ListFields()
        if descriptor.name not in _SHOWN_BY_SHAPE and descriptor.message_type is None
    }
    words = [_window(set_fields)] if layer.type in _WINDOWED else []
    for name, value in set_fields.items():
        plain = name in ("pool", "operation", "type")
        words.append(value if plain else f"{name} {value}")
    return ", ".join(word for word in words if word)


def _values(descriptor: Any, value: Any, window: bool) -> str:
    if descriptor.enum_type is not None:
        return str(descriptor.enum_type.values_by_number[value].name)
    is_list = hasattr(value, "__len__") and not isinstance(value, (str, bytes))
    return (TIMES if window else " ").join(map(_short, value)) if is_list else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 32 else f"...{text[-29:]}"


def _window(fields: dict[str, str]) -> str:
    """Takes kernel, stride, pad and their _h, _w forms out of ``fields``, as a few words."""
    words = []
    for name, key in (("", "kernel_size"), ("stride ", "stride"), ("pad ", "pad")):
        pair = [fields.pop(f"{key.removesuffix('_size')}_{side}", "") for side in "hw"]
        value = fields.pop(key, "") or TIMES.join(filter(None, pair))
        if key == "kernel_size" and value.isdigit():
            value = f"{value}{TIMES}{value}"
        words.append(name + value if value not in ("", _DEFAULT[key]) else "")
    return ", ".join(filter(None, words))


def _text(layer: Layer) -> str:
    spec = schema.LayerParameter()
    spec.CopyFrom(layer.spec)
    spec.ClearField("blobs")
    return format_text(spec)
