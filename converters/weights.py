"""Weights of a Net in every file that people pass around: caffemodel, HDF5, torch, safetensors.

The key of a blob is ``<layer>.<blob>``: the layer's name, with ``_`` for every character that no
Python name can have, and the blob's name in its layer class: ``weight`` and ``bias`` for most;
``mean``, ``variance``, ``scale_factor`` for BatchNorm. These are the keys of ``net.state_dict()``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from port.caffemodel import (
    copy_weights,
    read_weights,
    write_caffemodel,
    write_hdf5,
    written_whole,
)
from port.errors import ConversionError, WeightsError, close_matches
from port.net import Net

State = dict[str, torch.Tensor]


def state_dict(net: Net) -> State:
    """The net's blobs by key: contiguous copies on the CPU, shared parameters once for each key."""
    return {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in net.state_dict().items()
    }


def load_state_dict(net: Net, state: Mapping[str, torch.Tensor], where: str = "state_dict") -> None:
    """Write a state_dict's values into the net, in place.

    Raises WeightsError for a key that is missing or unknown, and for a shape that differs.
    """
    own = net.state_dict()
    missing = [key for key in own if key not in state]
    unknown = [key for key in state if key not in own]
    if missing:
        near = close_matches(missing[0], unknown)
        raise WeightsError(f"{where}: lacks '{missing[0]}'{near} and {len(missing) - 1} more")
    if unknown:
        raise WeightsError(f"{where}: holds '{unknown[0]}', which the net has not")
    for key, value in own.items():
        if state[key].shape != value.shape:
            found, needed = tuple(state[key].shape), tuple(value.shape)
            raise WeightsError(f"{where}: '{key}' is {found}, the net has {needed}")
        value.copy_(state[key])


def save_weights(net: Net, path: str | os.PathLike[str]) -> None:
    """Write the net's weights in the format that the suffix names, all or nothing.

    .caffemodel, .h5 (Caffe's HDF5), .pt or .pth (a state_dict), .safetensors. The same net gives
    the same bytes. Raises ConversionError for another suffix, WeightsError if it cannot be written.
    """
    suffix = Path(path).suffix
    if suffix not in WRITERS:
        raise ConversionError(f"{path}: the suffix must be one of {', '.join(WRITERS)}")
    WRITERS[suffix](net, path)


def load_weights(net: Net, path: str | os.PathLike[str]) -> None:
    """Read what ``save_weights`` or Caffe wrote into the net, in place.

    State dicts must fit wholly; caffemodels and HDF5 are matched layer by layer, by name, as
    Caffe does. Raises WeightsError.
    """
    suffix = Path(path).suffix
    if suffix in STATE_READERS:
        load_state_dict(net, STATE_READERS[suffix](Path(path)), str(path))
    else:
        copy_weights(net, read_weights(path))


def _save_torch(net: Net, path: str | os.PathLike[str]) -> None:
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        torch.save(state_dict(net), file)


def _load_torch(path: Path) -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except Exception as error:  # torch names no one error for a damaged or unsafe file
        first = str(error).strip().split("\n")[0]
        raise WeightsError(f"{path}: no weights-only file of torch: {first}") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(x) for x in state.values()):
        raise WeightsError(f"{path}: holds no state_dict (names of tensors)")
    return state


def _save_safetensors(net: Net, path: str | os.PathLike[str]) -> None:
    data = _safetensors().save(state_dict(net))
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def _load_safetensors(path: Path) -> State:
    library = _safetensors()
    try:
        state: State = library.load_file(str(path))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except Exception as error:  # the library's own error, OSError, or what Rust makes of it
        raise WeightsError(f"{path}: no safetensors file: {error}") from error
    return state


def _safetensors() -> Any:
    try:
        import safetensors.torch as library
    except ImportError:
        raise WeightsError(
            "safetensors files need the package safetensors: pip install safetensors"
        ) from None
    return library


WRITERS: dict[str, Callable[[Net, Any], None]] = {
    ".caffemodel": write_caffemodel,
    ".h5": write_hdf5,
    ".pt": _save_torch,
    ".pth": _save_torch,
    ".safetensors": _save_safetensors,
}
STATE_READERS: dict[str, Callable[[Path], State]] = {
    ".pt": _load_torch,
    ".pth": _load_torch,
    ".safetensors": _load_safetensors,
}


# -- which blobs of a file a net uses ------------------------------------------------------------


@dataclass(frozen=True)
class BlobUse:
    """One blob of a net or file. state: "used", "unused" (the net lacks it), "missing"."""

    layer: str
    index: int
    shape: tuple[int, ...]
    state: str


def weights_report(net: Net, path: str | os.PathLike[str]) -> list[BlobUse]:
    """Every blob of the net, and every other of a caffemodel or HDF5 file, and what became of it.

    A missing blob keeps its filler. Raises WeightsError for a damaged file.
    """
    weights = read_weights(path)
    rows = []
    for layer, blobs in net.params.items():
        state = "used" if layer in weights else "missing"
        rows += [BlobUse(layer, i, tuple(blob.shape), state) for i, blob in enumerate(blobs)]
    for layer, found in weights.items():
        if layer not in net.params:
            rows += [BlobUse(layer, i, x.shape, "unused") for i, x in enumerate(found)]
    return rows
