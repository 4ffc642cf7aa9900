"""``port info``: what a net or a weight file holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import (
    HELP,
    PROTOTXT,
    SHAPE_HELP,
    parse_shape,
    print_table,
    python_option,
)

if TYPE_CHECKING:
    from port.layers.layer import Layer
    from port.net import Net


@click.command(context_settings=HELP)
@click.argument("file", type=PROTOTXT)
@click.option(
    "--phase",
    type=click.Choice(["TRAIN", "TEST"]),
    default="TRAIN",
    show_default=True,
    help="Which layers of a net to show.",
)
@click.option("--shape", default="3,112,96", show_default=True, metavar="C,H,W", help=SHAPE_HELP)
@click.option("--code", is_flag=True, help="Print the generated Python instead.")
@python_option
def info(file: Path, phase: str, shape: str, code: bool, allow_python: bool) -> None:
    """Show a net's layers with shapes, parameters and MACs; or what a weight file holds.

    FILE is a net's prototxt, a .caffemodel or a Caffe HDF5 snapshot. Shapes and MACs
    (multiply-adds) are for one image; no data file is opened.

    \b
    Examples:
      port info reference_prototxt/sphereface_deploy.prototxt
      port info reference_prototxt/sphereface_model.prototxt --code
      port info sphereface_model_iter_28000.caffemodel
    """
    if _holds_weights(file):
        _show_weights(file)
        return
    from port.net import load_net

    net = load_net(
        file,
        phase=phase,
        open_data=False,
        input_shape=parse_shape(shape),
        allow_python=allow_python,
    )
    if code:
        click.echo(net.code)
    else:
        _show_net(net)


def _holds_weights(file: Path) -> bool:
    """Weights are binary whatever the file's name; ``lenet_iter_10000`` of 2014 has no suffix."""
    from port.prototxt import is_text

    with open(file, "rb") as opened:
        return file.suffix in (".caffemodel", ".h5") or not is_text(opened.read(4096))


def _show_net(net: Net) -> None:
    from rich.table import Table

    table = Table(title=f"{net.param.name or 'net'}, phase {net.phase}", title_justify="left")
    for column, right in (("layer", 0), ("type", 0), ("tops", 0), ("parameters", 1), ("MACs", 1)):
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    seen: set[int] = set()
    totals = [0, 0]
    for layer in net.layers:
        if layer.type == "Split" and layer.name.endswith("_split"):
            continue
        new = [blob for blob in layer.blobs if id(blob) not in seen]
        seen.update(id(blob) for blob in new)
        counts = (sum(blob.numel() for blob in new), macs(layer))
        totals = [total + count for total, count in zip(totals, counts, strict=True)]
        table.add_row(
            layer.name, layer.type, _tops(layer), *(f"{n:,}" if n else "" for n in counts)
        )
    print_table(table)
    click.echo(f"{totals[0]:,} parameters, {totals[1]:,} MACs for one image")
    click.echo(f"inputs: {_blobs(net, net.inputs)}\noutputs: {_blobs(net, net.outputs)}")


def _tops(layer: Layer) -> str:
    pairs = zip(layer.spec.top, layer.top_shapes, strict=True)
    return ", ".join(f"{top} {_by(shape)}" for top, shape in pairs)


def _blobs(net: Net, names: list[str]) -> str:
    return ", ".join(f"{name} {_by(net.blob_shapes[name])}" for name in names)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def macs(layer: Layer) -> int:
    """Multiply-adds of one item: weights used per output value, times output values."""
    if layer.type not in ("Convolution", "Deconvolution", "InnerProduct", "MarginInnerProduct"):
        return 0
    weight = layer.blobs[0]
    if layer.type == "Deconvolution":
        return weight.numel() * math.prod(layer.bottom_shapes[0][2:])
    top = layer.top_shapes[0]
    if layer.type == "Convolution":
        return weight.numel() * math.prod(top[2:])
    return weight.numel() * math.prod(top[1:-1])


def _show_weights(file: Path) -> None:
    from rich.table import Table

    from port.caffemodel import read_weights

    weights: Any = read_weights(file)
    table = Table(title=file.name, title_justify="left")
    for column in ("layer", "blobs"):
        table.add_column(column, no_wrap=True)
    table.add_column("parameters", justify="right")
    total = 0
    for name, blobs in weights.items():
        count = sum(blob.size for blob in blobs)
        total += count
        table.add_row(name, ", ".join(_by(blob.shape) for blob in blobs), f"{count:,}")
    print_table(table)
    click.echo(f"{total:,} parameters in {len(weights)} layers")
