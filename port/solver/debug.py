"""debug_info: the mean absolute value of every blob, parameter and gradient, as Caffe logs it.

Source: BVLC Caffe 1.0, src/caffe/net.cpp, ForwardDebugInfo, BackwardDebugInfo and Backward.
"""

from __future__ import annotations

import torch

from port.caffemodel import gradient
from port.net import Net
from port.solver.log import Log, backward_layers, number


def _mean(tensor: torch.Tensor) -> str:
    return number(float(tensor.detach().abs().mean()))


def logged_forward(net: Net, log: Log) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """Run ``net`` layer by layer, log it, and return its blobs by name and every top in order.

    Tops keep their gradients, for logged_backward.
    """
    blobs: dict[str, torch.Tensor] = {}
    bottoms_of: list[torch.Tensor] = []
    for layer, bottoms, tops in net.walk():
        bottoms_of += bottoms.values()
        for name, top in tops.items():
            blobs[name] = top
            if top.requires_grad:
                top.retain_grad()
            log(
                "net.cpp:591",
                f"    [Forward] Layer {layer.name}, top blob {name} data: {_mean(top)}",
            )
        for i, blob in enumerate(layer.blobs):
            shown = layer.spec.param[i].name if i < len(layer.spec.param) else ""
            text = f"    [Forward] Layer {layer.name}, param blob {shown or i} data: {_mean(blob)}"
            log("net.cpp:603", text)
    return blobs, bottoms_of


def logged_backward(net: Net, loss: torch.Tensor, bottoms: list[torch.Tensor], log: Log) -> None:
    """Backward from ``loss`` and its log; ``bottoms``: every layer's, from logged_forward."""
    loss.backward()  # type: ignore[no-untyped-call]
    needed = backward_layers(net)
    first = len(bottoms)
    for layer in reversed(net.layers):
        names = list(dict.fromkeys(layer.spec.bottom))
        first -= len(names)
        if layer.name not in needed:
            continue
        where = f"    [Backward] Layer {layer.name}"
        for name, bottom in zip(names, bottoms[first:], strict=False):
            if name in needed[layer.name]:
                text = f"{where}, bottom blob {name} diff: {_mean(gradient(bottom))}"
                log("net.cpp:619", text)
        for i, blob in enumerate(layer.blobs):
            if blob.requires_grad:
                log("net.cpp:630", f"{where}, param blob {i} diff: {_mean(gradient(blob))}")
    _log_norms(net, log)


def _log_norms(net: Net, log: Log) -> None:
    data = [entry.parameter.detach() for entry in net.learnable]
    diff = [gradient(entry.parameter) for entry in net.learnable]

    def norm(tensors: list[torch.Tensor], order: int) -> str:
        norms = torch._foreach_norm(tensors, order)
        return number(float(torch.linalg.vector_norm(torch.stack(list(norms)), order)))

    first = f"L1 norm = ({norm(data, 1)}, {norm(diff, 1)})"
    second = f"L2 norm = ({norm(data, 2)}, {norm(diff, 2)})"
    text = f"    [Backward] All net params (data, diff): {first}; {second}"
    log("net.cpp:719", text, severity="E")
