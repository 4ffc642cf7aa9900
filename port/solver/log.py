"""Caffe's log lines, so that log parsers in the wild read ours.

Every line carries glog's prefix (severity, date, time, process id) and the file and line of
Caffe's source that prints it there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from port.prototxt import format_text

if TYPE_CHECKING:
    import torch

    from port.layers.layer import Layer
    from port.net import Net


class Log:
    """Formats lines and hands them to ``sink``, one string without its newline at a time."""

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self.sink = sink or _to_stderr

    def __call__(self, where: str, text: str, severity: str = "I") -> None:
        """Log ``text`` as line ``where`` ("solver.cpp:237") of Caffe's source does."""
        now = datetime.now()
        stamp = f"{severity}{now:%m%d %H:%M:%S.%f} {os.getpid():5d}"
        self.sink(f"{stamp} {where}] {text}")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def number(value: float) -> str:
    """A number as a C++ stream prints it: 6 significant digits."""
    return f"{value:g}"


def loss_note(weight: float, value: float) -> str:
    """What follows an output that counts in the loss; empty for any other."""
    return f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""


# -- start-up --------------------------------------------------------------------------------


def log_solver(log: Log, param: Any, device: torch.device) -> None:
    """The device and the SolverParameter, which Caffe prints first of all."""
    if device.type == "cpu":
        log("caffe.cpp:211", "Use CPU.")
    else:
        log("caffe.cpp:218", f"Using GPUs {device.index or 0}")
    text = format_text(param).rstrip()
    log("solver.cpp:44", f"Initializing solver from parameters: \n{text}")


def log_rules(log: Log, net: Any, state: Any) -> None:
    """The include/exclude rules of a NetParameter that a NetState does not meet."""
    for layer in net.layer:
        for rule in [*layer.include, *layer.exclude]:
            if not _broken(log, state, rule, layer.name):
                break  # Caffe stops at the first rule that decides


def _broken(log: Log, state: Any, rule: Any, layer: str) -> bool:
    """Whether a rule is not met; the first reason is logged, in Caffe's words."""
    reasons = [
        (
            294,
            rule.HasField("phase") and rule.phase != state.phase,
            f"phase ({state.phase}) differed from the phase ({rule.phase})",
        ),
        (
            304,
            rule.HasField("min_level") and state.level < rule.min_level,
            f"level ({state.level}) is above the min_level ({rule.min_level})",
        ),
        (
            314,
            rule.HasField("max_level") and state.level > rule.max_level,
            f"level ({state.level}) is above the max_level ({rule.max_level})",
        ),
    ]
    reasons += [
        (330, stage not in state.stage, f"did not contain stage '{stage}'") for stage in rule.stage
    ]
    reasons += [
        (345, stage in state.stage, f"contained a not_stage '{stage}'") for stage in rule.not_stage
    ]
    for line, broken, text in reasons:
        if broken:
            log(f"net.cpp:{line}", f"The NetState {text} specified by a rule in layer {layer}")
            return True
    return False


def log_net(log: Log, net: Net, param: Any) -> None:
    """Everything Caffe prints while it builds a net; ``param``: the filtered NetParameter."""
    log("net.cpp:51", f"Initializing net from parameters: \n{format_text(param).rstrip()}")
    shapes: dict[str, tuple[int, ...]] = {}
    memory = 0
    for layer in net.layers:
        shapes.update(zip(layer.spec.top, layer.top_shapes, strict=True))
        memory += 4 * sum(_count(shapes[top]) for top in layer.spec.top)
        _log_layer(log, layer, memory)
    needed = backward_layers(net)
    for layer in reversed(net.layers):
        if layer.name in needed:
            log("net.cpp:198", f"{layer.name} needs backward computation.")
        else:
            log("net.cpp:200", f"{layer.name} does not need backward computation.")
    for output in net.outputs:
        log("net.cpp:242", f"This network produces output {output}")
    log("net.cpp:255", "Network initialization done.")


def _log_layer(log: Log, layer: Layer, memory: int) -> None:
    spec = layer.spec
    log("layer_factory.hpp:77", f"Creating layer {spec.name}")
    log("net.cpp:84", f"Creating Layer {spec.name}")
    for bottom in spec.bottom:
        log("net.cpp:406", f"{spec.name} <- {bottom}")
    for i, top in enumerate(spec.top):
        if i < len(spec.bottom) and spec.bottom[i] == top:
            log("net.cpp:367", f"{spec.name} -> {top} (in-place)")
        else:
            log("net.cpp:380", f"{spec.name} -> {top}")
    if spec.type == "ImageData":
        _log_images(log, layer)
    if spec.type in ("SoftmaxWithLoss", "InfogainLoss"):
        # Caffe makes a Softmax layer of the same name inside.
        log("layer_factory.hpp:77", f"Creating layer {spec.name}")
    log("net.cpp:122", f"Setting up {spec.name}")
    for i, shape in enumerate(layer.top_shapes):
        log("net.cpp:129", f"Top shape: {''.join(f'{dim} ' for dim in shape)}({_count(shape)})")
        if i < len(spec.loss_weight) and spec.loss_weight[i]:
            log("net.cpp:132", f"    with loss weight {number(spec.loss_weight[i])}")
    log("net.cpp:137", f"Memory required for data: {memory}")


def _log_images(log: Log, layer: Layer) -> None:
    param = layer.param
    log("image_data_layer.cpp:38", f"Opening file {param.source}")
    if param.shuffle:
        log("image_data_layer.cpp:53", "Shuffling data")
    images = getattr(layer, "batches", None)
    if images is not None:
        log("image_data_layer.cpp:63", f"A total of {len(images)} images.")
    size = ",".join(map(str, layer.top_shapes[0]))
    log("image_data_layer.cpp:90", f"output data size: {size}")


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for dim in shape:
        count *= dim
    return count


def backward_layers(net: Net) -> dict[str, list[str]]:
    """Layers that Caffe runs backward → those of their bottoms that get a gradient.

    Source: BVLC Caffe 1.0, src/caffe/net.cpp, Net::Init.
    """
    moving: set[str] = set()
    wanted: dict[str, list[str]] = {}
    for layer in net.layers:
        spec = layer.spec
        flows = list(spec.propagate_down) or [bottom in moving for bottom in spec.bottom]
        learns = any(_rate(layer, i) for i in range(len(layer.blob_names)))
        if learns or any(bottom in moving for bottom in spec.bottom):
            moving.update(spec.top)
            pairs = zip(spec.bottom, flows, strict=True)
            wanted[layer.name] = [bottom for bottom, flow in pairs if flow]
        else:
            moving.difference_update(spec.top)
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for layer in reversed(net.layers):
        spec = layer.spec
        contributes = any(spec.loss_weight) or any(top in under_loss for top in spec.top)
        if not contributes or all(top in skipped for top in spec.top):
            wanted.pop(layer.name, None)
        if contributes:
            under_loss.update(spec.bottom)
        skipped.update(set(spec.bottom) - set(wanted.get(layer.name, ())))
    return wanted


def _rate(layer: Layer, index: int) -> float:
    specs = layer.spec.param
    return float(specs[index].lr_mult) if index < len(specs) else 1.0
