"""Embeddings of aligned face pictures: read, crop, scale, forward, mirror.

A forward is any function from a batch (N, C, H, W) float32, BGR and scaled as SphereFace trains, to
embeddings (N, D); `net_forward` and `onnx_forward` make one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from port.data.image_data import read_image
from port.errors import DataError, NetError

if TYPE_CHECKING:
    from port.net import Net

Batch = npt.NDArray[np.float32]
Forward = Callable[[Batch], npt.NDArray[Any]]
Shape = tuple[int, int, int]
Flip = Literal["concat", "sum", "none"]
Progress = Callable[[int, int], None]
Reader = Callable[[str, bool], npt.NDArray[np.uint8]]

SHAPE: Shape = (3, 112, 96)
"""Channels, height and width of SphereFace's crop."""
MEAN, SCALE = 127.5, 0.0078125
BATCH = 16
"""Images in a forward pass: on a CPU, few enough for a small net's blobs to stay in the cache."""
FLIPS: tuple[Flip, ...] = ("concat", "sum", "none")
_AHEAD = 3  # batches that are read while the net works


@dataclass(frozen=True)
class Pixels:
    """How pixels become the net's input: (pixel - mean) * scale, channels in BGR unless `rgb`.

    mean: one number, or one for each channel in the net's order.
    """

    mean: tuple[float, ...] = (MEAN,)
    scale: float = SCALE
    rgb: bool = False


PIXELS = Pixels()
"""As SphereFace trains."""


def embed(
    paths: Sequence[str | Path],
    forward: Forward,
    shape: Shape = SHAPE,
    *,
    flip: Flip = "concat",
    batch_size: int = BATCH,
    progress: Progress | None = None,
    read: Reader = read_image,
    pixels: Pixels = PIXELS,
) -> npt.NDArray[np.float32]:
    """Embeddings (N, D) of N image files, in their order; (N, 2 D) with the mirror concatenated.

    flip: "concat" appends the embedding of the mirrored picture, as evaluation.m does; "sum" adds
    it; "none" leaves it out. progress(done, total) is called after each batch. read(path, color)
    gives the image of a path: (H, W, 3) BGR or, where color is false, (H, W) grey.

    Raises:
        DataError: an image that cannot be read or is smaller than the net's input, or an embedding
            of the wrong size, with NaN or all zero; the message names the file.
    """
    if flip not in FLIPS:
        raise DataError(f"flip '{flip}': expected one of {', '.join(FLIPS)}")
    rows: list[npt.NDArray[Any]] = []
    done = 0
    for batch in _batches(paths, shape, batch_size, read, pixels):
        found = _checked(_both(batch, forward, flip), paths[done : done + len(batch)])
        rows.append(found)
        done += len(batch)
        if progress:
            progress(done, len(paths))
    if not rows:
        raise DataError("no image to embed")
    return np.concatenate(rows).astype(np.float32, copy=False)


def prepare(
    image: npt.NDArray[np.uint8],
    shape: Shape = SHAPE,
    where: str = "image",
    pixels: Pixels = PIXELS,
) -> Batch:
    """An image (H, W, 3) BGR or (H, W) grey as the net's input (C, H, W): cut and scaled.

    A larger image is cut to its centre, with the odd pixel at the end, as Caffe's crop does.

    Source: BVLC Caffe, data_transformer.cpp, Transform (phase TEST).

    Raises:
        DataError: an image smaller than the net's input, or means for another number of channels.
    """
    channels, height, width = shape
    image = image if image.ndim == 3 else image[:, :, None]
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top < 0 or left < 0:
        raise DataError(
            f"{where}: {image.shape[0]}x{image.shape[1]} (height x width) is smaller than the "
            f"net's input {height}x{width}; align and crop the faces to that size"
        )
    cut = image[top : top + height, left : left + width].transpose(2, 0, 1)
    if len(pixels.mean) not in (1, channels):
        raise DataError(f"{len(pixels.mean)} means for {channels} channels: give one, or one each")
    mean = np.array(pixels.mean, np.float32)[:, None, None]
    planes = np.broadcast_to(cut[::-1] if pixels.rgb else cut, (channels, height, width))
    scaled: Batch = (planes.astype(np.float32) - mean) * np.float32(pixels.scale)
    return scaled


def net_forward(net: Net, blob: str = "") -> Forward:
    """A forward that runs a `port.Net` with one image input and reads one of its blobs.

    Raises:
        NetError: several inputs or outputs, and no `blob` that says which.
    """
    import torch

    name = _only(net.inputs, "inputs")
    output = blob or _only(net.outputs, "outputs")
    extra = [] if output in net.outputs else [output]

    def forward(batch: Batch) -> npt.NDArray[Any]:
        with torch.inference_mode():
            blobs = net(blobs=extra, **{name: torch.from_numpy(batch)})
        found: npt.NDArray[Any] = blobs[output].flatten(1).float().cpu().numpy()
        return found

    return forward


def net_shape(net: Net) -> Shape:
    """Channels, height and width that the net's image input states."""
    return _image_shape(net.blob_shapes[_only(net.inputs, "inputs")], "net")


def onnx_forward(session: Any, output: str = "") -> Forward:
    """A forward that runs an onnxruntime InferenceSession; batches are cut to a fixed batch size.

    A model that takes uint8 pixels, RGB (N, H, W, 3), is given them back from the scaled batch
    (exactly: SphereFace's scale is a power of two).

    Raises:
        NetError: several inputs; several outputs and no `output` that says which, or no such one.
    """
    entry = session.get_inputs()[0]
    name = _only([item.name for item in session.get_inputs()], "inputs")
    outputs = [item.name for item in session.get_outputs()]
    if output and output not in outputs:
        raise NetError(f"the ONNX model has no output '{output}'; it has {', '.join(outputs)}")
    output = output or _only(outputs, "outputs")
    fixed = entry.shape[0] if isinstance(entry.shape[0], int) else 0

    def forward(batch: Batch) -> npt.NDArray[Any]:
        size = fixed or len(batch)
        fed = _raw(batch) if takes_pixels(session) else batch
        parts = [fed[at : at + size] for at in range(0, len(fed), size)]
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][:1], size - len(parts[-1]), 0)])
        found = [session.run([output], {name: part})[0].reshape(size, -1) for part in parts]
        embeddings: npt.NDArray[Any] = np.concatenate(found)[: len(batch)]
        return embeddings

    return forward


def takes_pixels(session: Any) -> bool:
    """Whether an ONNX model scales uint8 pixels itself."""
    return bool(session.get_inputs()[0].type == "tensor(uint8)")


def onnx_shape(session: Any) -> Shape:
    """Channels, height and width that the session's input states."""
    shape = session.get_inputs()[0].shape
    if takes_pixels(session) and len(shape) == 4:
        shape = [shape[0], shape[3], shape[1], shape[2]]
    return _image_shape(shape, "ONNX model")


def _raw(batch: Batch) -> npt.NDArray[np.uint8]:
    pixels: npt.NDArray[np.uint8] = np.rint(batch / SCALE + MEAN).astype(np.uint8)
    return np.ascontiguousarray(pixels[:, ::-1].transpose(0, 2, 3, 1))


def _only(names: Sequence[str], what: str) -> str:
    if len(names) != 1:
        raise NetError(
            f"embedding takes a net with one of them, found {what} {', '.join(names) or 'none'}; "
            "give a deploy net, or name the blob to read (--blob)"
        )
    return names[0]


def _image_shape(shape: Sequence[Any], what: str) -> Shape:
    if len(shape) != 4 or not all(isinstance(size, int) for size in shape[1:]):
        raise NetError(f"{what}: expected an input of batch x channels x height x width, {shape}")
    channels, height, width = shape[1:]
    return channels, height, width


def _both(batch: Batch, forward: Forward, flip: Flip) -> npt.NDArray[Any]:
    found = np.asarray(forward(batch))
    if flip == "none":
        return found
    mirrored = np.asarray(forward(np.ascontiguousarray(batch[..., ::-1])))
    return found + mirrored if flip == "sum" else np.concatenate([found, mirrored], axis=-1)


def _batches(
    paths: Sequence[str | Path], shape: Shape, size: int, read: Reader, pixels: Pixels
) -> Iterator[Batch]:
    """Prepared batches in order, a few read ahead by a thread of their own."""
    chunks = [paths[at : at + size] for at in range(0, len(paths), size)]
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1) as pool:
        for chunk in chunks:
            waiting.append(pool.submit(_read_batch, chunk, shape, read, pixels))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read_batch(paths: Sequence[str | Path], shape: Shape, read: Reader, pixels: Pixels) -> Batch:
    colour = shape[0] != 1
    images = [prepare(read(str(path), colour), shape, str(path), pixels) for path in paths]
    return np.stack(images)


def _checked(found: npt.NDArray[Any], paths: Sequence[str | Path]) -> npt.NDArray[Any]:
    if found.ndim != 2 or len(found) != len(paths):
        raise DataError(
            f"{paths[0]} and {len(paths) - 1} more: expected embeddings ({len(paths)}, D), found "
            f"shape {found.shape}"
        )
    check_embeddings(found, [str(path) for path in paths])
    return found


def check_embeddings(embeddings: npt.NDArray[Any], names: Sequence[str]) -> None:
    """Refuse embeddings (N, D) with NaN, infinity or nothing but zeros, by the image's name."""
    finite = np.isfinite(embeddings).all(1)
    for wrong, what in ((~finite, "NaN or infinity"), (~embeddings.any(1), "nothing but zeros")):
        if wrong.any():
            first = int(np.argmax(wrong))
            raise DataError(
                f"{names[first]}: its embedding holds {what} ({int(wrong.sum())} of "
                f"{len(names)} images); check the weights and the picture"
            )
