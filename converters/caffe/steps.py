"""What both readers translate into: layers to be, and how operators state them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from port.errors import ConversionError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass
class Step:
    """One Caffe layer to be.

    source: the operator's name and type, for messages. values: fields of the layer's own param
    message. blobs: its weights. same: it gives its bottom's values (a dropout, an identity).
    windows: of a pooling, how many there must be along an axis of a given length.
    """

    source: str
    name: str
    type: str
    bottoms: list[str]
    tops: list[str]
    values: dict[str, Any] = field(default_factory=dict)
    blobs: list[Array] = field(default_factory=list)
    same: bool = False
    windows: Callable[[int, int], int] | None = None


def refuse(source: str, why: str) -> NoReturn:
    """Raise ConversionError in an operator's name."""
    raise ConversionError(f"{source}: {why}; it has no straight Caffe form")


USUAL = {"stride": 1, "dilation": 1, "pad": 0}


def sized(what: str, sizes: Sequence[int]) -> dict[str, Any]:
    """kernel_size, stride, pad or dilation of a convolution: once where all axes agree."""
    values = [int(size) for size in sizes]
    if set(values) == {USUAL.get(what)}:
        return {}
    return {what: values[:1] if len(set(values)) == 1 else values}


def convolution(
    step: Step,
    weight: Array,
    bias: Array | None,
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    group: int,
) -> Step:
    """Make ``step`` a Convolution, or a Deconvolution where its type says so."""
    outputs = weight.shape[1] * group if step.type == "Deconvolution" else weight.shape[0]
    step.values = {"num_output": int(outputs), "group": int(group), "bias_term": bias is not None}
    for what, sizes in (
        ("kernel_size", weight.shape[2:]),
        ("stride", stride),
        ("pad", pad),
        ("dilation", dilation),
    ):
        step.values.update(sized(what, sizes))
    step.blobs = [weight] if bias is None else [weight, bias]
    return step


def inner_product(step: Step, weight: Array, bias: Array | None) -> Step:
    """weight: (outputs, inputs)."""
    step.type = "InnerProduct"
    step.values = {"num_output": int(weight.shape[0]), "bias_term": bias is not None}
    step.blobs = [weight] if bias is None else [weight, bias]
    return step


def batch_norm(
    step: Step,
    factor: Array | None,
    summand: Array | None,
    mean: Array,
    variance: Array,
    eps: float,
) -> list[Step]:
    """BatchNorm, and a Scale behind it unless factor and summand are none."""
    step.type, step.values = "BatchNorm", {"use_global_stats": True, "eps": float(eps)}
    step.blobs = [mean, variance, np.ones(1, np.float32)]
    no_factor = factor is None or bool((factor == 1).all())
    if no_factor and (summand is None or not summand.any()):
        return [step]
    inner = f"{step.tops[0]}/normalised"
    blobs = [np.ones_like(mean) if factor is None else factor]
    blobs += [] if summand is None else [summand]
    scale = Step(step.source, f"{step.name}_scale", "Scale", [inner], step.tops)
    scale.values, scale.blobs = {"bias_term": summand is not None}, blobs
    step.tops = [inner]
    return [step, scale]


def pooling(
    step: Step,
    method: str,
    kernel: Sequence[int],
    stride: Sequence[int],
    pad: Sequence[int],
    end: Sequence[int],
    up: bool,
) -> Step:
    """method: MAX or AVE; sizes are (height, width). end: the pad on the far side.

    up: the number of windows is rounded up. Caffe pads both sides alike and always rounds up.
    """
    step.type, step.values = "Pooling", {"pool": method}

    def windows(axis: int, length: int) -> int:
        reach = length + pad[axis] + end[axis] - kernel[axis]
        return (-(-reach // stride[axis]) if up else reach // stride[axis]) + 1

    step.windows = windows
    for what, sizes in (("kernel", kernel), ("stride", stride), ("pad", pad)):
        down, across = (int(size) for size in sizes)
        if down == across:
            step.values["kernel_size" if what == "kernel" else what] = down
        else:
            step.values.update({f"{what}_h": down, f"{what}_w": across})
    return step


def with_constant(step: Step, operation: str, constant: Array) -> Step:
    """x + c, x * c, …: Power for a number, Bias or Scale for one value for each channel."""
    if operation in ("Sub", "Div"):
        constant = -constant if operation == "Sub" else 1 / constant
        operation = {"Sub": "Add", "Div": "Mul"}[operation]
    if constant.size == 1:
        step.type = "Power"
        step.values = {"shift" if operation == "Add" else "scale": float(constant.reshape(-1)[0])}
        return step
    axes = [i for i, size in enumerate(constant.shape) if size > 1]
    if len(axes) != 1 or operation not in ("Add", "Mul"):
        refuse(step.source, f"a constant of shape {constant.shape}")
    step.type = {"Add": "Bias", "Mul": "Scale"}[operation]
    step.values = {"axis": axes[0] - constant.ndim}
    step.blobs = [constant.reshape(-1)]
    return step
