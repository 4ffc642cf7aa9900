"""From any net to the one that is deployed: a Net in, a new Net that shares its weights out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from port import schema
from port.errors import ConversionError, close_matches
from port.graph import filter_net
from port.layers.batch_norm import BatchNorm
from port.layers.layer import DataLayer, Layer, Shape
from port.layers.margin_inner_product import MarginInnerProduct
from port.layers.scale import Scale
from port.net import Net, load_net
from port.prototxt import read_net

HEADS = ("Accuracy", "HDF5Output", "Silence")
"""Beside the losses, what only training and testing read."""


def load_deploy(
    prototxt: str | Path,
    weights: str | Path | None,
    outputs: Sequence[str] = (),
    input_shape: Shape | None = None,
) -> Net:
    """Load a net and give it its deploy form; see ``deploy``.

    A file whose data layers belong to the TRAIN phase only is read as it is trained, and computes
    as it is tested. ``input_shape`` (C, H, W) is used where a data layer's file would have to be
    opened. Raises what ``load_net`` does, and ConversionError.
    """
    param = filter_net(read_net(prototxt), "TEST", 0, ())
    if not any(layer.type == "Input" or not layer.bottom for layer in param.layer):
        param = filter_net(read_net(prototxt), "TRAIN", 0, ())
        for layer in param.layer:
            del layer.include[:]
    folder = Path(prototxt).parent
    net = load_net(param, weights, open_data=False, input_shape=input_shape, folder=folder)
    return deploy(net, outputs)


def deploy(net: Net, outputs: Sequence[str] = ()) -> Net:
    """The net for inference: data layers are inputs, and the training heads are gone.

    MarginInnerProduct becomes an InnerProduct without bias, on the rows scaled to unit length.
    ``outputs``: only what these blobs depend on is kept. A net that is as it should be already is
    returned itself. Raises ConversionError for a blob that the net lacks, or if nothing is left.
    """
    for name in outputs:
        if name not in net.blob_shapes:
            near = close_matches(name, net.blob_shapes)
            raise ConversionError(f"net '{net.param.name}' has no blob '{name}'{near}")
    kept = needed_layers(net, outputs or _results(net))
    if not kept:
        raise ConversionError(f"net '{net.param.name}' has nothing but data and losses")
    if kept == net.layers and not any(_changes(layer) for layer in kept):
        return net
    read = {bottom for layer in kept for bottom in _bottoms(layer)}
    param = _without_layers(net)
    for layer in kept:
        if isinstance(layer, DataLayer):
            _add_inputs(param, net, [top for top in layer.spec.top if top in read])
        else:
            param.layer.add().CopyFrom(_deployed(layer))
    return _built(param, net)


def needed_layers(net: Net, outputs: Sequence[str]) -> list[Layer]:
    """The layers that these blobs depend on at inference, in the net's order."""
    wanted, needed = set(outputs), []
    for layer in reversed(net.layers):
        if wanted.intersection(layer.spec.top):
            wanted.difference_update(layer.spec.top)
            wanted.update(_bottoms(layer))
            needed.append(layer)
    return needed[::-1]


def _bottoms(layer: Layer) -> list[str]:
    """What the layer reads once deployed: a margin head no longer reads the label."""
    bottoms = list(layer.spec.bottom)
    return bottoms[:1] if isinstance(layer, MarginInnerProduct) else bottoms


def _results(net: Net) -> list[str]:
    """The blobs that nothing but training heads reads."""
    bodies = [layer for layer in net.layers if not (layer.loss or layer.type in HEADS)]
    available: dict[str, None] = {}
    for layer in bodies:
        if isinstance(layer, DataLayer):
            continue
        for bottom in _bottoms(layer):
            available.pop(bottom, None)
        tops = layer.spec.top[:1] if isinstance(layer, MarginInnerProduct) else layer.spec.top
        available.update(dict.fromkeys(tops))
    return _whole_blobs(net, available)


def _whole_blobs(net: Net, names: dict[str, None]) -> list[str]:
    """Splits that were made for the heads' sake give back the blob that they split."""
    splits = {top: layer for layer in net.layers if layer.type == "Split" for top in layer.spec.top}
    found: dict[str, None] = {}
    for name in names:
        layer = splits.get(name)
        if layer is None or not layer.name.endswith("_split"):
            found[name] = None
        elif all(top in names for top in layer.spec.top):
            found[layer.spec.bottom[0]] = None
    inputs = set(net.inputs)
    return [name for name in found if name not in inputs]


def _changes(layer: Layer) -> bool:
    return isinstance(layer, MarginInnerProduct) or (
        isinstance(layer, DataLayer) and layer.type != "Input"
    )


def _add_inputs(param: Any, net: Net, tops: list[str]) -> None:
    for top in tops:
        layer = param.layer.add(name=top, type="Input", top=[top])
        layer.input_param.shape.add(dim=net.blob_shapes[top])


def _deployed(layer: Layer) -> Any:
    if not isinstance(layer, MarginInnerProduct):
        return layer.spec
    spec = schema.LayerParameter(name=layer.name, type="InnerProduct")
    spec.bottom.extend(_bottoms(layer))
    spec.top.append(layer.spec.top[0])
    spec.inner_product_param.num_output = layer.outputs
    spec.inner_product_param.axis = layer.first_axis
    spec.inner_product_param.bias_term = False
    return spec


# -- batch normalisation into the convolution ----------------------------------------------------


def fold_batch_norm(net: Net) -> Net:
    """A net without the BatchNorm, Scale and Bias layers that directly follow a Convolution.

    Their arithmetic is worked into the convolution's weight and bias, in float64. The layers'
    own blobs of the net go: the convolution's top takes the name of the last of the chain.
    """
    chains = {chain[0].name: chain for chain in _chains(net)}
    gone = {layer.name for chain in chains.values() for layer in chain[1:]}
    param = _without_layers(net)
    for layer in net.layers:
        if layer.name in gone:
            continue
        spec = param.layer.add()
        spec.CopyFrom(layer.spec)
        if layer.name in chains:
            spec.top[0] = chains[layer.name][-1].spec.top[0]
            spec.convolution_param.bias_term = True
            del spec.param[:]
    return _built(param, net, {name: _folded(chain) for name, chain in chains.items()})


def _chains(net: Net) -> list[list[Layer]]:
    """Each Convolution with the layers behind it that can be folded, where there are any."""
    found = []
    for i, layer in enumerate(net.layers):
        if layer.type != "Convolution" or len(layer.spec.top) != 1:
            continue
        chain, top = [layer], layer.spec.top[0]
        for follower in net.layers[i + 1 :]:
            if list(follower.spec.bottom) == [top] and _is_affine(follower):
                chain.append(follower)
                top = follower.spec.top[0]
            elif top in follower.spec.bottom or top in follower.spec.top:
                break
        if len(chain) > 1:
            found.append(chain)
    return found


def _is_affine(layer: Layer) -> bool:
    if isinstance(layer, BatchNorm):
        return layer.stored
    per_channel = [blob.shape == layer.bottom_shapes[0][1:2] for blob in layer.blobs]
    return layer.type in ("Scale", "Bias") and layer.param.axis == 1 and all(per_channel)


def _folded(chain: list[Layer]) -> list[torch.Tensor]:
    """The convolution's new weight and bias."""
    convolution = chain[0]
    weight = convolution.blobs[0].detach().double()
    outputs = weight.shape[0]
    bias = (
        convolution.blobs[1].detach().double()
        if len(convolution.blobs) > 1
        else weight.new_zeros(outputs)
    )
    for layer in chain[1:]:
        factor, summand = _affine(layer)
        weight = weight * factor.reshape(-1, *(1,) * (weight.dim() - 1))
        bias = bias * factor + summand
    return [weight.float(), bias.float()]


def _affine(layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor and summand (C,) of one layer."""
    if isinstance(layer, BatchNorm):
        mean, variance = (value.double() for value in layer.statistics())
        factor = (variance + layer.eps).rsqrt()
        return factor, -mean * factor
    blobs = [blob.detach().double() for blob in layer.blobs]
    if isinstance(layer, Scale):
        return blobs[0], blobs[1] if len(blobs) > 1 else torch.zeros_like(blobs[0])
    return torch.ones_like(blobs[0]), blobs[0]


# -- building -------------------------------------------------------------------------------------


def _without_layers(net: Net) -> Any:
    param = schema.NetParameter()
    param.CopyFrom(net.param)
    del param.layer[:]
    return param


def _built(param: Any, source: Net, blobs: dict[str, list[torch.Tensor]] | None = None) -> Net:
    """The net of ``param``: weights by layer name from ``blobs``, or shared with ``source``."""
    _join_splits(param)
    context = replace(source.context, phase="TEST", loaded=frozenset(source.params))
    net = Net(param, context)
    for layer in net.layers:
        if not layer.blob_names:
            continue
        values: Sequence[torch.Tensor] = (blobs or {}).get(layer.name, ())
        original = source.layer(layer.name)
        values = values or [blob.detach() for blob in original.blobs]
        if isinstance(original, MarginInnerProduct):
            values = [values[0] / torch.linalg.vector_norm(values[0], dim=1, keepdim=True)]
        for name, value in zip(layer.blob_names, values, strict=True):
            getattr(layer, name).data = value
    return net


def _join_splits(param: Any) -> None:
    """Take out the Split layers that the net inserted by itself; it inserts what it needs."""
    names: dict[str, str] = {}
    layers = list(param.layer)
    del param.layer[:]
    for layer in layers:
        for i, bottom in enumerate(layer.bottom):
            layer.bottom[i] = names.get(bottom, bottom)
        if layer.type == "Split" and layer.name.endswith("_split"):
            names.update(dict.fromkeys(layer.top, layer.bottom[0]))
        else:
            param.layer.add().CopyFrom(layer)
