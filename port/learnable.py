"""Caffe's list of learnable parameters: who owns a shared one, and the rates of each.

Source: BVLC Caffe 1.0, src/caffe/net.cpp, AppendParam.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from port import schema
from port.layers.layer import Layer
from port.wire import by


@dataclass
class LearnableParam:
    """One entry of Caffe's list of learnable parameters; a shared parameter stands there once."""

    layer: str
    index: int
    module: Layer
    attribute: str
    lr_mult: float = 1.0
    decay_mult: float = 1.0

    @property
    def parameter(self) -> nn.Parameter:
        """The tensor; it has ``requires_grad`` unless lr_mult is 0."""
        return getattr(self.module, self.attribute)  # type: ignore[no-any-return]


class Register:
    """Collects parameters layer by layer; ``learnable`` has each tensor once, in Caffe's order."""

    def __init__(self) -> None:
        self.learnable: list[LearnableParam] = []
        self._owners: dict[str, LearnableParam] = {}

    def add(self, layer: Layer) -> None:
        """Take in a layer's parameters, with the rates of its ``param {}`` blocks."""
        given = len(layer.spec.param)
        if given > len(layer.blob_names):
            layer.refuse(f"has {len(layer.blob_names)} parameters, found {given} param {{}} blocks")
        for i, attribute in enumerate(layer.blob_names):
            spec = layer.spec.param[i] if i < given else schema.ParamSpec()
            entry = LearnableParam(layer.name, i, layer, attribute, spec.lr_mult, spec.decay_mult)
            owner = self._owners.get(spec.name) if spec.name else None
            if owner is None:
                self.learnable.append(entry)
                if spec.name:
                    self._owners[spec.name] = entry
            else:
                share(layer, attribute, spec, owner)
        for entry in self.learnable:
            entry.parameter.requires_grad_(entry.lr_mult != 0)


def share(layer: Layer, attribute: str, spec: Any, owner: LearnableParam) -> None:
    """Make one blob of ``layer`` the owner's tensor, by Caffe's rules for shapes and rates."""
    ours, theirs = getattr(layer, attribute), owner.parameter
    permissive = schema.enum_name(spec, "share_mode") == "PERMISSIVE"
    fits = ours.numel() == theirs.numel() if permissive else ours.shape == theirs.shape
    if not fits:
        layer.refuse(
            f"shares parameter '{spec.name}' of layer '{owner.layer}', but the shapes differ: "
            f"{by(ours.shape)} here, {by(theirs.shape)} there"
        )
    for field in ("lr_mult", "decay_mult"):
        if not spec.HasField(field):
            continue
        owned = owner.module.spec.param[owner.index]
        if owned.HasField(field) and getattr(owned, field) != getattr(spec, field):
            layer.refuse(f"parameter '{spec.name}' has another {field} in layer '{owner.layer}'")
        setattr(owned, field, getattr(spec, field))
        setattr(owner, field, getattr(spec, field))
    if ours.shape == theirs.shape:
        setattr(layer, attribute, theirs)
    else:
        layer.refuse(
            f"shares parameter '{spec.name}' PERMISSIVE-ly with another shape, "
            f"{by(ours.shape)} and {by(theirs.shape)}: not supported, give both one shape"
        )
