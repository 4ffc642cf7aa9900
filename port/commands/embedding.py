"""What the commands on embeddings have in common: the model, its options, lists of pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import EXISTING, PROTOTXT, device_option, pick_device, python_option
from port.commands.photographs import bar
from port.errors import DataError, NetError, SolverError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from port.data.image_list import ImageList
    from verify.embed import Flip, Forward, Pixels, Progress, Shape

GPU_BATCH = 128
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
FEATURES = click.Path(exists=True, path_type=Path)


def numbers(kind: type, example: str) -> Callable[[Any, Any, str], tuple[Any, ...]]:
    """A click callback that reads comma separated numbers."""

    def read(ctx: Any, param: Any, text: str) -> tuple[Any, ...]:
        try:
            return tuple(kind(part) for part in text.split(","))
        except ValueError:
            raise click.BadParameter(f"'{text}' is not numbers such as {example}") from None

    return read


model_options: list[Any] = [
    click.option("--net", type=PROTOTXT, help="Deploy net of the face model, with --weights."),
    click.option("--weights", type=EXISTING, help="Its .caffemodel or Caffe HDF5 file."),
    click.option("--onnx", type=EXISTING, help="A model in ONNX, in place of net and weights."),
    click.option("--blob", default="", help="Blob that is the embedding [default: the output]."),
    click.option(
        "--flip",
        type=click.Choice(["concat", "sum", "none"]),
        default="concat",
        show_default=True,
        help="What the mirrored picture's embedding is for; concat is evaluation.m's way.",
    ),
    click.option("--no-flip", is_flag=True, help="The same as --flip none."),
    click.option(
        "--mean",
        callback=numbers(float, "127.5"),
        metavar="NUMBERS",
        default="127.5",
        show_default=True,
        help="Subtracted from pixels: one number, or one for each channel.",
    ),
    click.option(
        "--scale",
        type=float,
        default=0.0078125,
        show_default=True,
        help="Pixels are multiplied with this after that.",
    ),
    click.option("--rgb", is_flag=True, help="The model takes RGB; SphereFace's take BGR."),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        help=f"Images in a forward pass [default: 16, on a GPU {GPU_BATCH}].",
    ),
    python_option,
    device_option,
]


@dataclass(frozen=True)
class Model:
    """A face model that is ready to embed: keywords of `verify.embed.embed`, and its files."""

    forward: Forward
    shape: Shape
    flip: Flip
    batch_size: int
    pixels: Pixels
    files: dict[str, Path]

    def keywords(self) -> dict[str, Any]:
        """What `verify.embed.embed` and `verify.accuracy.verify_pairs` want to know."""
        return {"flip": self.flip, "batch_size": self.batch_size, "pixels": self.pixels}

    def embed(self, paths: list[Path], progress: Progress | None = None) -> npt.NDArray[np.float32]:
        """Embeddings (N, D) of picture files."""
        from verify import embed

        keywords = self.keywords()
        return embed.embed(paths, self.forward, self.shape, progress=progress, **keywords)


def require_one_source(options: dict[str, Any]) -> None:
    """Usage error unless embeddings come from one place: a net, an ONNX model or --features."""
    names = ["net", "onnx", *(["features"] if "features" in options else [])]
    given = [name for name in names if options[name]]
    if len(given) != 1:
        choices = ["--net and --weights", *(f"--{name}" for name in names[1:])]
        raise click.UsageError(f"give {' or '.join(choices)}: one of them")
    if bool(options["net"]) != bool(options["weights"]):
        raise click.UsageError("--net and --weights come together")


def open_model(options: dict[str, Any]) -> Model:
    """The model of a command's options.

    Raises PrototxtError, NetError, WeightsError, SolverError (no such device) or click.UsageError.
    """
    from verify import embed

    require_one_source({name: options[name] for name in ("net", "weights", "onnx")})
    if options["no_flip"] and options["flip"] == "sum":
        raise click.UsageError("--no-flip and --flip sum: take one")
    device = pick_device(options["device"])
    pixels = embed.Pixels(options["mean"], options["scale"], options["rgb"])
    forward, shape = (_open_onnx if options["onnx"] else _open_net)(options, device, pixels)
    batch = options["batch_size"] or (GPU_BATCH if device.startswith("cuda") else embed.BATCH)
    flip: Flip = "none" if options["no_flip"] else options["flip"]
    files = {name: options[name] for name in ("net", "weights", "onnx") if options[name]}
    return Model(forward, shape, flip, batch, pixels, files)


def _open_net(options: dict[str, Any], device: str, pixels: Pixels) -> tuple[Forward, Shape]:
    from port.net import load_net
    from verify import embed

    net = load_net(
        options["net"],
        options["weights"],
        device=device,
        open_data=False,
        allow_python=options["allow_python"],
    )
    return embed.net_forward(net, options["blob"]), embed.net_shape(net)


def _open_onnx(options: dict[str, Any], device: str, pixels: Pixels) -> tuple[Forward, Shape]:
    from verify import embed

    session = _session(options["onnx"], device)
    if embed.takes_pixels(session) and pixels != embed.PIXELS:
        raise click.UsageError(
            f"{options['onnx']} scales pixels itself: leave --mean, --scale and --rgb out"
        )
    return embed.onnx_forward(session, options["blob"]), embed.onnx_shape(session)


def _session(path: Path, device: str) -> Any:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    providers: list[Any] = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise SolverError(
                f"--device {device}: onnxruntime has no CUDA here; take --device cpu or install "
                "onnxruntime-gpu"
            )
        index = int(device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index}))
    try:
        return onnxruntime.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # onnxruntime has its own for each kind of damage
        raise NetError(f"{path}: onnxruntime cannot load it: {error}") from error


@contextmanager
def counting(what: str) -> Iterator[Progress]:
    """A progress(done, total) that draws a bar with rate and ETA on a terminal."""
    with bar(what) as draw:
        yield lambda done, total: draw(done, total, "")


def listed(list_file: Path, root: Path | None) -> tuple[ImageList, list[Path]]:
    """An image list ('path label' lines) and the pictures' paths below `root`.

    Without root, from the working directory or else beside the list. Raises DataError naming the
    line of a picture that is missing.
    """
    from port.data.image_list import read_image_list

    images = read_image_list(list_file)
    folders = [root] if root else [Path(), list_file.parent]
    folder = next((at for at in folders if (at / images.names[0]).is_file()), folders[0])
    paths = [folder / name for name in images.names]
    for index, path in enumerate(paths):
        if not path.is_file():
            raise DataError(
                f"{images.where(index)}: no image {path}; {images.hint(index)} (--root names the "
                "folder that the paths start from)"
            )
    return images, paths


def rows_of_list(
    list_file: Path, options: dict[str, Any], features: Path | None, model: Model | None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Embeddings (N, D) and labels (N,) of a list's pictures, computed or from a features file."""
    import numpy as np

    if features is None:
        assert model is not None
        images, paths = listed(list_file, options["root"])
        with counting(list_file.name) as progress:
            return model.embed(paths, progress), images.labels.astype(np.int64)
    from port.data.image_list import read_image_list
    from verify.features import read_features

    images = read_image_list(list_file)
    found = read_features(features, images.names)
    for index, name in enumerate(images.names):
        if name not in found:
            raise DataError(f"{images.where(index)}: {features} has no features of {name}")
    return np.stack([found[name] for name in images.names]), images.labels.astype(np.int64)


def check_writable(*paths: Path | None) -> None:
    """Refuse result files in folders that cannot be written, before the work is done.

    Raises DataError.
    """
    for path in paths:
        if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
            raise DataError(f"{path}: its folder does not exist or cannot be written")
