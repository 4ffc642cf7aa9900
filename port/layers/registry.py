"""Finds the layer classes: every module of this package may define some."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

import port.layers
from port.errors import NetError, close_matches
from port.layers.layer import Layer


@cache
def layer_types() -> dict[str, type[Layer]]:
    """Caffe type string → class, in alphabetical order."""
    found: dict[str, type[Layer]] = {}
    for module in pkgutil.iter_modules(port.layers.__path__, "port.layers."):
        for value in vars(import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Layer) and "type" in vars(value):
                found[value.type] = value
    return dict(sorted(found.items()))


def layer_class(layer_type: str, layer_name: str) -> type[Layer]:
    """The class of a type string. Raises NetError with close matches for an unknown one."""
    types = layer_types()
    if layer_type not in types:
        raise NetError(
            f"layer '{layer_name}': unknown layer type '{layer_type}'"
            f"{close_matches(layer_type, types)}; 'port layers' lists all of them"
        )
    return types[layer_type]
