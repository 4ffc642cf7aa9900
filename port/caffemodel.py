"""Weights as Caffe keeps them in files: .caffemodel and Caffe's HDF5, in both directions."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from port import schema
from port.errors import WeightsError
from port.upgrade import v1_type
from port.wire import (
    BYTES,
    VARINT,
    Array,
    Blob,
    Field,
    WireFile,
    blob_chunks,
    by,
    prefixed,
    read_blob,
)

if TYPE_CHECKING:
    import torch

    from port.net import Net

LOG = logging.getLogger(__name__)
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive (a torch checkpoint?)",
    b"\x1f\x8b": "a gzip archive: unpack it first",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
}
_LARGEST_RATIO = 1100  # gzip, the strongest filter that HDF5 has by default, reaches 1032


class Weights(Mapping[str, list[Array]]):
    """Layer name → its blobs (float32) as a file holds them, in the file's order of layers.

    ``types``: layer name → type, "" where the file does not say. Arrays of a .caffemodel are
    read-only views of the mapped file.
    """

    def __init__(self, path: Path, hdf5: bool = False) -> None:
        self.path = path
        self.hdf5 = hdf5
        self.types: dict[str, str] = {}
        self.blobs: dict[str, list[Blob | None]] = {}
        """None: HDF5 leaves out what a layer shares with an earlier one."""

    def __getitem__(self, layer: str) -> list[Array]:
        return [blob.values for blob in self.blobs[layer] if blob is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.blobs)

    def __len__(self) -> int:
        return len(self.blobs)


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a .caffemodel (of any age) or a Caffe HDF5 file, told by the content.

    Of two layers with one name the later counts, as it does when Caffe copies them.
    Raises WeightsError, which says what is wrong and where, for anything else.
    """
    path = Path(path)
    with suppress(OSError), open(path, "rb") as file:
        head = file.read(64)
        if head.startswith(HDF5_SIGNATURE):
            return _read_hdf5(path)
        for signature, kind in _OTHER_KINDS.items():
            if head.startswith(signature):
                raise WeightsError(f"{path}: this is {kind}, a .caffemodel is expected")
    return _read_binary(WireFile(path))


def copy_weights(net: Net, weights: Weights) -> None:
    """Write a file's weights into the parameters of ``net``, layer by layer, by name.

    Layers that the net lacks are ignored; layers that the file lacks keep their filler.
    Raises WeightsError where the number of blobs or a shape differs.
    Source: BVLC Caffe 1.0, src/caffe/net.cpp, CopyTrainedLayersFrom.
    """
    owners = {(entry.layer, entry.index) for entry in net.learnable}
    for layer in net.layers:
        if layer.name not in weights:
            continue
        where = f"{weights.path}: layer '{layer.name}' ({layer.type})"
        found, blobs = weights.blobs[layer.name], layer.blobs
        owned = [(layer.name, i) in owners for i in range(len(blobs))]
        if weights.hdf5 and len(found) <= len(blobs):
            found = found + [None] * (len(blobs) - len(found))
        missing = any(blob is None and mine for blob, mine in zip(found, owned, strict=False))
        if len(found) != len(blobs) or missing:
            raise WeightsError(
                f"{where}: has {len(blobs)} blobs, the caffemodel has {len(weights[layer.name])}; "
                "rename the layer to start it from its filler"
            )
        for i, (source, target) in enumerate(zip(found, blobs, strict=True)):
            if source is not None:
                _copy_blob(where, i, source, target)


def _copy_blob(where: str, index: int, source: Blob, target: torch.Tensor) -> None:
    if not same_shape(source, tuple(target.shape)):
        what = "weights are" if index == 0 else f"blob {index} is"
        raise WeightsError(
            f"{where}: {what} {by(target.shape)}, the caffemodel has {by(source.values.shape)}; "
            "rename the layer to start it from its filler"
        )
    write_values(target, source.values)


def same_shape(blob: Blob, shape: tuple[int, ...]) -> bool:
    """Whether a file's blob fits a parameter; old 4-axis blobs fit what they equal with leading 1s.

    Source: BVLC Caffe 1.0, src/caffe/blob.cpp, Blob::ShapeEquals.
    """
    found: tuple[int, ...] = blob.values.shape
    if blob.legacy and len(shape) <= 4:
        return found == (1,) * (4 - len(shape)) + shape
    return found == shape


def write_values(target: torch.Tensor, values: Array) -> None:
    """Fill a tensor, whatever its device and memory layout, with as many values in (N, C, H, W)."""
    import torch

    with torch.no_grad():
        values = values.reshape(tuple(target.shape))
        if target.device.type == "cpu" and target.dtype == torch.float32:
            np.copyto(target.detach().numpy(), values)
        else:
            target.copy_(torch.from_numpy(np.array(values, np.float32)))


def read_values(tensor: torch.Tensor) -> Array:
    """A tensor as float32 in (N, C, H, W) order; a view where it lies so on the CPU already."""
    return np.asarray(tensor.detach().cpu().float().numpy())


# -- reading -------------------------------------------------------------------------------


def _read_binary(file: WireFile) -> Weights:
    weights = Weights(file.path)
    position = old = 0
    while position < file.size:
        field = file.field(position, file.size, "the net")
        position = field.stop
        if field.number in (2, 100):
            file.expect(field, BYTES, "the net")
            _read_layer(file, field, weights)
            old += field.number == 2
    if old:
        LOG.info("%s: weights of V1 layers (2014) read: %d", file.path, old)
    if not weights:
        raise WeightsError(
            f"{file.path}: holds no layers; a .caffemodel, not a prototxt, mean file or "
            "solverstate, is expected"
        )
    return weights


# Numbers of (name, type, blobs, nested layer) in LayerParameter, V1LayerParameter and V0's.
_TODAY, _V1, _V0 = (1, 2, 7, 0), (4, 5, 6, 1), (1, 2, 50, 0)


def _read_layer(file: WireFile, field: Field, weights: Weights) -> None:
    layer = _LayerFields(f"layer {len(weights)}")
    _walk_layer(file, field, _TODAY if field.number == 100 else _V1, layer)
    weights.types[layer.name] = layer.type
    weights.blobs[layer.name] = [
        read_blob(file, blob.start, blob.stop, f"layer '{layer.name}', blob {i}")
        for i, blob in enumerate(layer.blobs)
    ]


class _LayerFields:
    def __init__(self, where: str) -> None:
        self.where = where
        self.name = self.type = ""
        self.blobs: list[Field] = []


def _walk_layer(
    file: WireFile, message: Field, numbers: tuple[int, int, int, int], layer: _LayerFields
) -> None:
    name, kind, blobs, nested = numbers
    position = message.start
    while position < message.stop:
        field = file.field(position, message.stop, layer.where)
        position = field.stop
        if field.number == name:
            layer.name = file.text(field, layer.where)
            layer.where = f"layer '{layer.name}'"
        elif field.number == kind:
            is_enum = numbers is _V1 and field.kind == VARINT
            layer.type = _v1_name(field.value) if is_enum else file.text(field, layer.where)
        elif field.number == blobs:
            file.expect(field, BYTES, layer.where)
            layer.blobs.append(field)
        elif nested and field.number == nested:
            file.expect(field, BYTES, layer.where)
            _walk_layer(file, field, _V0, layer)


def _v1_name(number: int) -> str:
    try:
        return v1_type(schema.enum_name(schema.V1LayerParameter(type=number), "type"))
    except (StopIteration, ValueError):
        return f"type {number}"


def _read_hdf5(path: Path) -> Weights:
    import h5py

    weights = Weights(path, hdf5=True)
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("data"), h5py.Group):
                raise WeightsError(f"{path}: has no group /data, so it holds no Caffe weights")
            groups: dict[str, Any] = {}
            # A layer named "conv1/bn" is a group inside the group of "conv1".
            file["data"].visititems(
                lambda name, item: groups.update({name: item} if hasattr(item, "keys") else {})
            )
            for name, group in groups.items():
                weights.types[name] = ""
                weights.blobs[name] = _hdf5_blobs(path, group)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(f"{path}: damaged HDF5: {error}; fetch it again") from None
    return weights


def _hdf5_blobs(path: Path, group: Any) -> list[Blob | None]:
    stored = {int(key): item for key, item in group.items() if key.isdigit() and len(key) < 4}
    blobs: list[Blob | None] = [None] * (max(stored, default=-1) + 1)
    for i, item in stored.items():
        if not hasattr(item, "keys"):
            blobs[i] = Blob(read_dataset(path, item))
    return blobs


def read_dataset(path: Path, dataset: Any) -> Array:
    """An HDF5 dataset as float32; one that claims more than its file can hold is refused."""
    if getattr(dataset, "dtype", np.dtype(object)).kind not in "fiu":
        raise WeightsError(f"{path}: {dataset.name} holds no numbers")
    if dataset.nbytes > _LARGEST_RATIO * path.stat().st_size:
        raise WeightsError(f"{path}: {dataset.name} claims {dataset.nbytes} bytes: damaged")
    return np.asarray(dataset[()], np.float32)


# -- writing -------------------------------------------------------------------------------


def net_to_message(net: Net, diff: bool = False) -> Any:
    """The NetParameter that a snapshot of ``net`` holds: name, layers and blobs.

    Data and Split layers are there too. diff: with each parameter's ``grad`` beside its values.
    Source: BVLC Caffe 1.0, src/caffe/net.cpp, Net::ToProto.
    """
    return schema.NetParameter.FromString(b"".join(_net_chunks(net, diff)))


def write_caffemodel(net: Net, path: str | os.PathLike[str], diff: bool = False) -> None:
    """Write a .caffemodel, all or nothing; arguments as for net_to_message. Raises WeightsError."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        for chunk in _net_chunks(net, diff):
            file.write(chunk)


def write_hdf5(net: Net, path: str | os.PathLike[str], diff: bool = False) -> None:
    """Write /data/<layer>/<i>, and /diff with ``diff``; a shared parameter by its owner only.

    Source: BVLC Caffe 1.0, src/caffe/net.cpp, Net::ToHDF5. Raises WeightsError.
    """
    import h5py

    owners = {(entry.layer, entry.index) for entry in net.learnable}
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        for root in ("data", "diff") if diff else ("data",):
            for layer in net.layers:
                group = file.create_group(f"{root}/{layer.name}")
                for i, blob in enumerate(layer.blobs):
                    if (layer.name, i) in owners:
                        group[str(i)] = read_values(blob if root == "data" else gradient(blob))


def gradient(blob: torch.Tensor) -> torch.Tensor:
    """A parameter's gradient; zeros when nothing has computed one."""
    return blob.detach().new_zeros(blob.shape) if blob.grad is None else blob.grad


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    Raises WeightsError when the folder cannot be written or the disk is full.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WeightsError(f"{target}: cannot be written: {reason}") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _net_chunks(net: Net, diff: bool) -> Iterator[Any]:
    yield schema.NetParameter(name=net.param.name).SerializeToString()
    for layer in net.layers:
        yield from _layer_chunks(layer, diff)


def _layer_chunks(layer: Any, diff: bool) -> list[Any]:
    """One LayerParameter, its fields in ascending order as Caffe's own writer has them."""
    before, after = (_fields_of(layer.spec, low) for low in (True, False))
    chunks = [before]
    for blob in layer.blobs:
        values = read_values(blob)
        chunks += blob_chunks(7, values, read_values(gradient(blob)) if diff else None)
    chunks.append(after)
    return [prefixed(100, sum(map(len, chunks))), *chunks]


def _fields_of(spec: Any, before_blobs: bool) -> bytes:
    kept = schema.LayerParameter()
    kept.CopyFrom(spec)
    if schema.AUTOMATIC in kept.top:  # Caffe's own name for a top that the prototxt leaves out
        kept.top.remove(schema.AUTOMATIC)
    for field, _ in spec.ListFields():
        if (field.number < 7) != before_blobs or field.number == 7:
            kept.ClearField(field.name)
    return bytes(kept.SerializeToString())
