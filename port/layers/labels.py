"""Labels arrive as floats, as in Caffe; an index outside the classes must not read memory."""

from __future__ import annotations

import torch

from port.layers.layer import Layer


def check_labels(
    layer: Layer, labels: torch.Tensor, classes: int, ignore: int | None = None
) -> None:
    """Refuse integer labels outside 0 … classes - 1, except ``ignore``.

    On the CPU a NetError names the label. On a GPU a device-side assertion does, without
    waiting for the device.
    """
    bad = (labels < 0) | (labels >= classes)
    if ignore is not None:
        bad &= labels != ignore
    if torch.compiler.is_compiling() or type(labels) is not torch.Tensor:
        return
    if labels.device.type != "cpu":
        torch._assert_async(~bad.any(), f"layer '{layer.name}': label outside 0 … {classes - 1}")
    elif bad.any():
        label = int(labels[bad][0])
        layer.refuse(
            f"label {label} is outside 0 … {classes - 1}; num_output has to be above the "
            f"largest label of the list ('port train --num-classes auto' sets it)"
        )
