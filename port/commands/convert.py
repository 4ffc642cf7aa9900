"""``port convert``: nets and weights into other programs' forms, and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import EXISTING, HELP, PROTOTXT, parse_shape, print_table

if TYPE_CHECKING:
    from converters.onnx import Difference, Options
    from port.net import Net

SHAPE = click.option(
    "--shape",
    default="3,112,96",
    show_default=True,
    metavar="C,H,W",
    help="Image size, where the net's data layer states none.",
)
OUTPUT = click.option(
    "--output",
    "outputs",
    multiple=True,
    metavar="BLOB",
    help="Give this blob and drop what follows it; repeatable.  [default: the net's outputs]",
)


@click.group(context_settings=HELP)
def convert() -> None:
    """Turn a net and its weights into ONNX or PyTorch, and weights into other files.

    \b
    Examples:
      port convert onnx sphereface_deploy.prototxt sphereface_model.caffemodel -o model.onnx
    """


@convert.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.argument("weights", type=EXISTING)
@click.option("-o", "--out", "target", required=True, type=click.Path(path_type=Path))
@OUTPUT
@SHAPE
@click.option("--opset", type=int, help="ONNX operator set, 13 to 23.  [default: 17]")
@click.option(
    "--batch",
    default="dynamic",
    show_default=True,
    metavar="N|dynamic",
    help="Images in one run.",
)
@click.option("--free-size", is_flag=True, help="Any height and width (fully convolutional nets).")
@click.option("--fp16", is_flag=True, help="Compute in float16; inputs and outputs stay float32.")
@click.option("--fold-bn", is_flag=True, help="Work BatchNorm and Scale into the convolutions.")
@click.option("--normalize", is_flag=True, help="Scale the embedding to unit L2 length.")
@click.option(
    "--preprocess", is_flag=True, help="Take raw pixels: input 'image', uint8 RGB (N, H, W, 3)."
)
@click.option(
    "--mean",
    default="127.5",
    show_default=True,
    metavar="M|B,G,R",
    help="Subtracted by --preprocess.",
)
@click.option(
    "--scale", default=0.0078125, show_default=True, help="Factor of --preprocess, after the mean."
)
@click.option("--image", type=EXISTING, help="Picture for the check, in place of a rendered face.")
@click.option("--bound", type=click.FloatRange(0), help="Largest relative difference allowed.")
@click.option("--no-check", is_flag=True, help="Write without running the model.")
@click.option("--report", is_flag=True, help="List the blobs used, unused and missing.")
def onnx(net_file: Path, weights: Path, target: Path, **choice: Any) -> None:
    """Write NET with WEIGHTS as an ONNX model and prove that it computes the same.

    Layers and blobs keep their names. A train net becomes its deploy form: data layers are inputs,
    losses go, and MarginInnerProduct becomes a plain InnerProduct on unit rows. The check
    runs onnx's checker, shape inference and onnxruntime, on random input and on a picture, prints
    the largest difference of each output and leaves no file if one is beyond the bound.

    \b
    Examples:
      port convert onnx sphereface_deploy.prototxt sphereface.caffemodel -o sphereface.onnx
      port convert onnx sphereface_model.prototxt sphereface.caffemodel -o embed.onnx \\
        --output fc5 --normalize --preprocess
    """
    options = _onnx_options(choice)
    from converters.deploy import load_deploy
    from converters.onnx import to_onnx

    net = load_deploy(net_file, weights, choice["outputs"], parse_shape(choice["shape"]))
    _check_weights(net, weights, choice["report"])
    found = to_onnx(
        net,
        target,
        options,
        fold_bn=choice["fold_bn"],
        check=not choice["no_check"],
        image=choice["image"],
        bound=choice["bound"],
    )
    _print_differences(found)
    click.echo(f"wrote {target}, {target.stat().st_size:,} bytes")


def _onnx_options(choice: dict[str, Any]) -> Options:
    from converters.onnx import Options, Pixels
    from converters.onnx.emit import OPSET

    batch = choice["batch"]
    if batch != "dynamic" and not (batch.isdigit() and int(batch) > 0):
        raise click.BadParameter(f"'{batch}' is no number above 0, nor dynamic")
    return Options(
        outputs=choice["outputs"],
        opset=choice["opset"] or OPSET,
        batch=None if batch == "dynamic" else int(batch),
        free_size=choice["free_size"],
        half=choice["fp16"],
        normalize=choice["normalize"],
        pixels=Pixels(_mean(choice["mean"]), choice["scale"]) if choice["preprocess"] else None,
    )


def _mean(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise click.BadParameter(f"'{text}' is not one mean, nor B,G,R", param_hint="--mean")
    return values * 3 if len(values) == 1 else values


def _print_differences(found: Iterable[Difference]) -> None:
    from rich.table import Table

    worst: dict[str, Difference] = {}
    for difference in found:
        known = worst.get(difference.output)
        if known is None or difference.relative > known.relative:
            worst[difference.output] = difference
    if not worst:
        return
    table = Table(title="largest difference from our net, over the output's largest value")
    for column in ("output", "difference", "on"):
        table.add_column(column, no_wrap=True)
    for difference in worst.values():
        table.add_row(difference.output, f"{difference.relative:.2g}", difference.fed)
    print_table(table)


def _check_weights(net: Net, weights: Path, report: bool) -> None:
    """With ``report`` a table of all blobs; a word on stderr for blobs that the file lacks."""
    from converters.weights import weights_report

    rows = weights_report(net, weights)
    if report:
        from rich.table import Table

        table = Table(title=f"{weights.name} in {net.param.name or 'the net'}")
        for column in ("layer", "blob", "shape", "state"):
            table.add_column(column, no_wrap=True)
        for row in rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            table.add_row(row.layer, str(row.index), shape, row.state)
        print_table(table)
    missing = dict.fromkeys(row.layer for row in rows if row.state == "missing")
    if missing:
        click.echo(
            f"warning: {weights.name} has no blobs for {', '.join(missing)}: they keep the values "
            "of their fillers",
            err=True,
        )
