"""Options and small decisions that several commands have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from port.errors import NetError, SolverError

if TYPE_CHECKING:
    from rich.table import Table

    from port.net import Net

T = TypeVar("T")
SHAPE_HELP = "Image size, where the prototxt states none."
HELP = {"help_option_names": ["-h", "--help"]}

EXISTING = click.Path(exists=True, dir_okay=False, path_type=Path)


class PrototxtPath(click.Path):
    """An existing prototxt; outside a checkout, the installed copy of a reference one."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        from port.schema import data_folder

        given = Path(value)
        shipped = data_folder("reference_prototxt") / given.name
        if not given.exists() and given.parent.name in ("", "reference_prototxt"):
            value = shipped if shipped.exists() else value
        return super().convert(value, param, ctx)


PROTOTXT = PrototxtPath(exists=True, dir_okay=False, path_type=Path)

device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="auto|cpu|cuda|cuda:N",
    help="Where to compute; auto takes a GPU where there is one.",
)

python_option = click.option(
    "--allow-python",
    is_flag=True,
    help="Let Python layers import their class and run it; only for prototxts that you trust.",
)

data_options: list[Callable[..., Any]] = [
    click.option("--source", type=click.Path(), help="Image list, in place of the net's own."),
    click.option("--root", type=click.Path(), help="Folder in front of the list's paths."),
    click.option("--batch-size", type=click.IntRange(1), help="In place of the net's own."),
    click.option("--resize", metavar="H,W", help="Size that images are resized to on reading."),
    click.option("--workers", type=click.IntRange(0), help="Decoding threads [default: cores]."),
    click.option("--skip-bad", is_flag=True, help="Leave unreadable images out and count them."),
]


def add(options: list[Callable[..., Any]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that adds a list of click options, in the order they are listed."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def pick_device(name: str, solver_mode: str = "") -> str:
    """The torch device of ``--device``; auto takes the GPU unless a solver_mode says CPU.

    Where solver_mode asks for a GPU that is not there, one line says so.
    Raises SolverError for a CUDA device that is not there.
    """
    import torch

    available = torch.cuda.is_available()
    if name == "auto":
        if solver_mode == "GPU" and not available:
            click.echo("solver_mode is GPU, but no GPU is usable here: on the CPU", err=True)
        return "cuda" if available and solver_mode != "CPU" else "cpu"
    if name.startswith("cuda") and not available:
        raise SolverError(f"--device {name}: no usable GPU here; take --device cpu or auto")
    try:
        return str(torch.device(name))
    except RuntimeError as error:
        raise click.BadParameter(f"'{name}' is no device: auto, cpu, cuda or cuda:N") from error


def parse_shape(text: str) -> tuple[int, ...]:
    """``--shape``'s "3,112,96" as (3, 112, 96)."""
    try:
        shape = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        shape = ()
    if len(shape) != 3 or min(shape) < 1:
        raise click.BadParameter(f"'{text}' is not C,H,W, such as 3,112,96", param_hint="--shape")
    return shape


def override_data(param: Any, options: dict[str, Any], phase: str = "TRAIN") -> None:
    """Write ``--source``, ``--root``, ``--batch-size`` and ``--resize`` into data layers.

    Layers that only the other phase has (a test net's own list) stay as they are.
    """
    from port import schema

    source, batch = options["source"], options["batch_size"]
    height, width = _resize(options["resize"])
    other = schema.enum("Phase", "TRAIN" if phase == "TEST" else "TEST")
    for layer in param.layer:
        if any(rule.HasField("phase") and rule.phase == other for rule in layer.include):
            continue
        if layer.type == "ImageData":
            root = _folder(options["root"])
            _set(layer.image_data_param, source=source, batch_size=batch, root_folder=root)
            _set(layer.image_data_param, new_height=height, new_width=width)
        elif layer.type == "Data":
            _set(layer.data_param, source=source, batch_size=batch)
        elif layer.type == "HDF5Data":
            _set(layer.hdf5_data_param, source=source, batch_size=batch)
        elif layer.type == "WindowData":
            root = _folder(options["root"])
            _set(layer.window_data_param, source=source, batch_size=batch, root_folder=root)


def _resize(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    height, _, width = text.replace("x", ",").partition(",")
    if not (height.isdigit() and width.isdigit() and int(height) * int(width)):
        raise click.BadParameter(f"'{text}' is not H,W, such as 112,96", param_hint="--resize")
    return int(height), int(width)


def set_num_classes(param: Any, classes: str, folder: Path) -> None:
    """Set the outputs of the head: a number, or for "auto" what the image list needs.

    Raises NetError when the net has no head or no list to count, DataError for a bad list.
    """
    if classes != "auto" and not (classes.isdigit() and int(classes) > 0):
        raise click.BadParameter(f"'{classes}' is no number above 0, nor auto")
    count = _classes_of_list(param, folder) if classes == "auto" else int(classes)
    for layer in param.layer:
        if layer.type == "MarginInnerProduct":
            layer.margin_inner_product_param.num_output = count
            return
    scores = [layer.bottom[0] for layer in param.layer if layer.type == "SoftmaxWithLoss"]
    for layer in param.layer:
        if layer.type == "InnerProduct" and scores and layer.top[0] in scores:
            layer.inner_product_param.num_output = count
            return
    raise NetError("--num-classes: the net has no MarginInnerProduct and no InnerProduct + loss")


def _classes_of_list(param: Any, folder: Path) -> int:
    from port.data.image_list import read_image_list
    from port.prototxt import resolve

    for layer in param.layer:
        if layer.type == "ImageData":
            return read_image_list(resolve(layer.image_data_param.source, folder)).num_classes
    raise NetError("--num-classes auto: the net has no ImageData layer to count; give a number")


def _folder(root: str | None) -> str | None:
    """Caffe glues root_folder and path together, so a folder needs its slash."""
    return root if root is None or root.endswith("/") else f"{root}/"


def _set(message: Any, **values: Any) -> None:
    for field, value in values.items():
        if value is not None:
            setattr(message, field, value)


def print_table(table: Table) -> None:
    """Print a rich table; into a pipe it keeps its full width, with nothing cut off."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


def progress_bar(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Iterate with a bar and an ETA on a terminal, plainly elsewhere."""
    import sys

    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(items, description=what, total=total, console=console, transient=True)


def report_bad(net: Net) -> None:
    """Tell which images ``--skip-bad`` left out."""
    for layer in net.data_layers:
        bad = getattr(getattr(layer, "batches", None), "bad", [])
        if bad:
            click.echo(f"left out {len(bad)} images that could not be used:", err=True)
            for line in bad[:20]:
                click.echo(f"  {line}", err=True)
