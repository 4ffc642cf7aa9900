"""Steps to a Net: in-place blobs, shapes, the layers themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from converters.caffe.steps import Step, refuse
from port import schema
from port.caffemodel import write_caffemodel, written_whole
from port.errors import ConversionError, NetError
from port.layers.layer import Context, Shape
from port.layers.registry import layer_class
from port.net import Net
from port.prototxt import format_text

IN_PLACE = {"ReLU", "PReLU", "ELU", "Sigmoid", "TanH", "BatchNorm", "Scale", "Bias", "Power"}
BOUND = 1e-5
"""Largest difference relative to an output's largest value: float32 sums in another order."""


def build(name: str, inputs: dict[str, Shape], steps: Sequence[Step], outputs: list[str]) -> Net:
    """The net of these layers; activations and normalisations work in place where they can.

    Raises ConversionError, by the operator's name, for what Caffe would compute differently.
    """
    steps = _merged(_without_same(list(steps), outputs), outputs)
    names = _blob_names(steps, set(inputs), outputs)
    param = schema.NetParameter(name=name)
    shapes: dict[str, Shape] = {}
    for blob, shape in inputs.items():
        layer = param.layer.add(name=blob, type="Input", top=[blob])
        layer.input_param.shape.add(dim=shape)
        shapes[blob] = shape
    used: set[str] = set(inputs)
    for step in steps:
        spec = param.layer.add(name=_free(step.name, used), type=step.type)
        spec.bottom.extend(names.get(blob, blob) for blob in step.bottoms)
        spec.top.extend(names.get(blob, blob) for blob in step.tops)
        _count_axis_from_front(step, spec, shapes)
        _set_values(spec, step)
        shapes.update(_top_shapes(step, spec, shapes))
    net = Net(param, Context(phase="TEST"))
    made = [layer for layer in net.layers if layer.type not in ("Input", "Split")]
    for layer, step in zip(made, steps, strict=True):
        for target, value in zip(layer.blobs, step.blobs, strict=True):
            values = torch.from_numpy(np.array(value, np.float32))
            target.data.copy_(values.reshape(target.shape))
    return net


def write_caffe(net: Net, prototxt: str | Path) -> None:
    """Write NET.prototxt and NET.caffemodel beside it."""
    target = Path(prototxt)
    if target.suffix != ".prototxt":
        raise ConversionError(f"{target}: the name must end in .prototxt")
    param = schema.NetParameter(name=net.param.name)
    for layer in _original_layers(net):
        param.layer.add().CopyFrom(layer)
    write_caffemodel(net, target.with_suffix(".caffemodel"))
    with written_whole(target) as temporary:
        temporary.write_text(format_text(param), encoding="utf-8")


def _original_layers(net: Net) -> list[Any]:
    """Without the Split layers that the net inserted, and without its own phase marks."""
    names: dict[str, str] = {}
    kept = []
    for layer in net.layers:
        if layer.type == "Split":
            names.update(dict.fromkeys(layer.spec.top, layer.spec.bottom[0]))
            continue
        spec = schema.LayerParameter()
        spec.CopyFrom(layer.spec)
        spec.ClearField("phase")
        for i, bottom in enumerate(spec.bottom):
            spec.bottom[i] = names.get(bottom, bottom)
        kept.append(spec)
    return kept


def _without_same(steps: list[Step], outputs: list[str]) -> list[Step]:
    """Leave out what passes its bottom on; an output keeps its name."""
    names: dict[str, str] = {}
    kept = []
    for step in steps:
        step.bottoms = [names.get(blob, blob) for blob in step.bottoms]
        if step.same:
            names[step.tops[0]] = step.bottoms[0]
        else:
            kept.append(step)
    for i, blob in enumerate(outputs):
        outputs[i] = names.get(blob, blob)
    return kept


def _merged(steps: list[Step], outputs: list[str]) -> list[Step]:
    """Two steps that are one Caffe layer: Scale and Bias, Flatten and InnerProduct."""
    reads = Counter(blob for step in steps for blob in step.bottoms)
    reads.update(outputs)
    kept: list[Step] = []
    for step in steps:
        last = kept[-1] if kept else step
        if last.tops == step.bottoms and reads[last.tops[0]] == 1:
            if _is_biased_scale(last, step):
                step.type, step.values["bias_term"] = "Scale", True
                step.bottoms, step.blobs = kept.pop().bottoms, last.blobs + step.blobs
            elif (last.type, step.type) == ("Flatten", "InnerProduct") and not last.values:
                step.bottoms = kept.pop().bottoms
        kept.append(step)
    return kept


def _is_biased_scale(scale: Step, bias: Step) -> bool:
    return (
        (scale.type, bias.type) == ("Scale", "Bias")
        and scale.values == {"axis": bias.values["axis"]}
        and len(scale.blobs[0]) == len(bias.blobs[0])
    )


def _blob_names(steps: list[Step], inputs: set[str], outputs: list[str]) -> dict[str, str]:
    """A value that is read once, by a layer that can work in place, has the name of its result."""
    reads = Counter(blob for step in steps for blob in step.bottoms)
    reads.update(outputs)
    names: dict[str, str] = {}
    for step in reversed(steps):
        bottom = step.bottoms[0] if len(step.bottoms) == 1 else None
        if step.type in IN_PLACE and bottom and reads[bottom] == 1 and bottom not in inputs:
            names[bottom] = names.get(step.tops[0], step.tops[0])
    return names


def _count_axis_from_front(step: Step, spec: Any, shapes: dict[str, Shape]) -> None:
    """A constant of ONNX and torch is aligned with the last axis."""
    axis = step.values.get("axis", 0)
    if step.type in ("Scale", "Bias") and axis < 0 and spec.bottom[0] in shapes:
        step.values["axis"] = len(shapes[spec.bottom[0]]) + axis


def _set_values(spec: Any, step: Step) -> None:
    field = layer_class(step.type, step.name).param_field
    for name, value in step.values.items():
        target = getattr(spec, field)
        if name == "shape":
            target.shape.dim.extend(value)
        elif isinstance(value, list):
            getattr(target, name).extend(value)
        elif name == "pool":
            target.pool = type(target).PoolMethod.Value(value)
        elif name == "operation":
            target.operation = type(target).EltwiseOp.Value(value)
        elif value != getattr(target, name):
            setattr(target, name, value)


def _top_shapes(step: Step, spec: Any, shapes: dict[str, Shape]) -> dict[str, Shape]:
    """The layer's own word on its tops' shapes; refuses weights that do not fit it."""
    missing = [blob for blob in spec.bottom if blob not in shapes]
    if missing:
        refuse(step.source, f"its input '{missing[0]}' is computed by nothing before it")
    bottoms = [shapes[blob] for blob in spec.bottom]
    try:
        layer = layer_class(step.type, step.name)(
            spec, bottoms, Context(phase="TEST", loaded=frozenset([spec.name]))
        )
    except NetError as error:
        refuse(step.source, str(error))
    found = [value.size for value in step.blobs]
    if found != [blob.numel() for blob in layer.blobs]:
        refuse(step.source, f"weights of {found} values do not fit a {step.type} here")
    if step.windows is not None:
        expected = tuple(step.windows(axis, bottoms[0][2 + axis]) for axis in (0, 1))
        if expected != layer.top_shapes[0][2:]:
            theirs, ours = ("x".join(map(str, x)) for x in (expected, layer.top_shapes[0][2:]))
            refuse(step.source, f"makes {theirs} windows, Caffe (which rounds up) {ours}")
    return dict(zip(spec.top, layer.top_shapes, strict=True))


def _free(name: str, used: set[str]) -> str:
    found, n = name, 1
    while found in used:
        n += 1
        found = f"{name}_{n}"
    used.add(found)
    return found
