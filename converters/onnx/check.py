"""The proof: structure, shapes, and numbers in onnxruntime against our own net."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from converters.onnx.builder import Array
from converters.onnx.emit import Options, Pixels, batch_is_free
from port.errors import ConversionError, DataError
from port.net import Net

SINGLE_BOUND, HALF_BOUND = 1e-5, 2e-2
"""Largest difference relative to the output's largest value: sums of float32 in another order;
float16 keeps 11 bits, and a deep net adds up some dozens of roundings."""
INDICES = ("BatchReindex", "Embed")
"""Layers that take some input as indices: zeros are fed to those."""
FREE_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Difference:
    """Of one output on one input: the largest difference over the largest value."""

    output: str
    fed: str
    relative: float


def check_structure(path: Path) -> None:
    """onnx's checker with strict shape inference. Raises ConversionError with its words."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConversionError(f"the written model is not valid ONNX: {error}") from error


def compare(path: Path, net: Net, options: Options, image: Path | None = None) -> list[Difference]:
    """Run the model in onnxruntime (CPU) and the net in torch on random and on real input.

    Random: batches of 1, 2 and 7 where the batch is free, and a larger size where that is. Real:
    ``image``, or a rendered face, for nets that take one picture of 1 or 3 channels.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]
    names = [value.name for value in session.get_outputs()]
    found = []
    for feed in _feeds(net, options, image):
        given = [feed.raw] if feed.raw is not None else [feed.blobs[name] for name in inputs]
        try:
            outputs = session.run(None, dict(zip(inputs, given, strict=True)))
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise ConversionError(
                f"onnxruntime cannot run the model on '{feed.what}'; where the net itself fixes "
                f"the batch, state it with --batch: {error}"
            ) from error
        reference = _reference(net, options, feed.blobs)
        for name, ours, theirs in zip(names, outputs, reference, strict=True):
            found.append(Difference(name, feed.what, relative_difference(ours, theirs)))
    return found


def relative_difference(ours: Array, theirs: Array) -> float:
    """Largest difference over the largest finite value of ``theirs``; inf where shapes differ."""
    if ours.shape != theirs.shape or (np.isfinite(ours) != np.isfinite(theirs)).any():
        return float("inf")
    finite = np.isfinite(theirs)
    if not finite.any():
        return 0.0
    scale = float(np.abs(theirs[finite]).max())
    largest = float(np.abs(ours[finite].astype(np.float64) - theirs[finite]).max())
    return largest / scale if scale else (0.0 if not largest else float("inf"))


def _reference(net: Net, options: Options, fed: Mapping[str, Array]) -> list[Array]:
    wanted = options.outputs or tuple(net.outputs)
    with torch.inference_mode():
        blobs = net(**{name: torch.from_numpy(x) for name, x in fed.items()}, blobs=wanted)
        values = [blobs[name] for name in wanted]
        return [(F.normalize(x) if options.normalize else x).numpy() for x in values]


@dataclass(frozen=True)
class _Feed:
    what: str
    blobs: Mapping[str, Array]
    raw: Array | None = None
    """The pixels that ``blobs`` were made of, where the model takes pixels."""


def _feeds(net: Net, options: Options, image: Path | None) -> Iterator[_Feed]:
    random = np.random.default_rng(0)
    shapes = {name: net.blob_shapes[name] for name in net.inputs}
    for batch in FREE_BATCHES if batch_is_free(net, options) else (options.batch,):
        yield _random(f"random, batch {batch or 'as stated'}", net, options, random, batch)
    if options.free_size:
        yield _random("random, larger", net, options, random, 1, grow=14)
    shape = next(iter(shapes.values()))
    if len(shapes) == 1 and len(shape) == 4 and shape[1] in (1, 3):
        picture = _picture(shape[2:], image)[np.newaxis].repeat(options.batch or 1, 0)
        pixels = options.pixels or Pixels()
        blob = to_blob(picture, pixels)[:, : shape[1]]
        raw = picture if options.pixels else None
        yield _Feed(image.name if image else "a face", {net.inputs[0]: blob}, raw)
    elif image:
        raise ConversionError("an image can be fed to a net with one input of 1 or 3 channels only")


def _random(
    what: str,
    net: Net,
    options: Options,
    random: np.random.Generator,
    batch: int | None,
    grow: int = 0,
) -> _Feed:
    blobs: dict[str, Array] = {}
    for name in net.inputs:
        shape = list(net.blob_shapes[name])
        shape[:1] = [batch] if shape and batch is not None else shape[:1]
        shape[2:] = [size + grow for size in shape[2:]] if len(shape) == 4 else shape[2:]
        if options.pixels:
            raw = random.integers(0, 256, (shape[0], *shape[2:], 3), np.uint8)
            return _Feed(what, {name: to_blob(raw, options.pixels)}, raw)
        readers = {layer.type for layer in net.layers if name in layer.spec.bottom}
        values = random.uniform(-1, 1, shape).astype(np.float32)
        blobs[name] = values * 0 if readers.intersection(INDICES) else values
    return _Feed(what, blobs)


def to_blob(rgb: Array, pixels: Pixels) -> Array:
    """uint8 RGB (N, H, W, 3) → float32 BGR (N, 3, H, W), (pixel - mean) * scale."""
    bgr = rgb[..., ::-1].astype(np.float32) - np.asarray(pixels.mean, np.float32)
    return np.ascontiguousarray((bgr * np.float32(pixels.scale)).transpose(0, 3, 1, 2))


def _picture(size: Sequence[int], image: Path | None) -> Array:
    """A file's picture, or a rendered face, as uint8 RGB (H, W, 3) of that size."""
    import cv2

    if image is None:
        from port.sample_faces import render

        rgb = render(0, 0)[0][..., ::-1]
    else:
        from port.preprocess.images import read_image

        try:
            rgb = read_image(image)
        except DataError as error:
            raise DataError(f"{image}: {error}") from error
    return cv2.resize(np.ascontiguousarray(rgb), (size[1], size[0]))
