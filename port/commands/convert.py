"""``port convert``: nets and weights into other programs' forms, and back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import EXISTING, HELP, PROTOTXT, parse_shape, print_table

if TYPE_CHECKING:
    from converters.onnx import Difference, Options, Pixels
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


REPORT = click.option("--report", is_flag=True, help="List the blobs used, unused and missing.")


@click.group(context_settings=HELP)
def convert() -> None:
    """Turn a net and its weights into ONNX or PyTorch, and weights into other files.

    \b
    Examples:
      port convert onnx sphereface_deploy.prototxt sphereface_model.caffemodel -o model.onnx
      port convert torch sphereface_deploy.prototxt sphereface_model.caffemodel -o model.py
      port convert weights sphereface_deploy.prototxt sphereface_model.caffemodel -o model.pt
      port convert caffe model.onnx -o net.prototxt
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
@click.option("--mean", metavar="M|B,G,R", help="Subtracted by --preprocess.  [default: 127.5]")
@click.option(
    "--scale", type=float, help="Factor of --preprocess, after the mean.  [default: 0.0078125]"
)
@click.option("--image", type=EXISTING, help="Picture for the check, in place of a rendered face.")
@click.option("--bound", type=click.FloatRange(0), help="Largest relative difference allowed.")
@click.option("--no-check", is_flag=True, help="Write without running the model.")
@REPORT
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


@convert.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.argument("weights", type=EXISTING)
@click.option("-o", "--out", "target", required=True, type=click.Path(path_type=Path))
@OUTPUT
@SHAPE
@click.option("--fold-bn", is_flag=True, help="Work BatchNorm and Scale into the convolutions.")
@click.option("--no-check", is_flag=True, help="Write without running the module.")
@REPORT
def torch(
    net_file: Path,
    weights: Path,
    target: Path,
    outputs: tuple[str, ...],
    shape: str,
    fold_bn: bool,
    no_check: bool,
    report: bool,
) -> None:
    """Write NET with WEIGHTS as a plain PyTorch module: MODEL.py, and MODEL.pt beside it.

    The file needs torch and nothing of this project. A train net becomes its deploy form, as for
    ONNX. The module is run against the net before anything is written.

    \b
    Examples:
      port convert torch sphereface_deploy.prototxt sphereface.caffemodel -o model.py
    """
    from converters.deploy import fold_batch_norm, load_deploy
    from converters.torch_module import to_torch

    net = load_deploy(net_file, weights, outputs, parse_shape(shape))
    _check_weights(net, weights, report)
    found = to_torch(fold_batch_norm(net) if fold_bn else net, target, check=not no_check)
    if found is not None:
        click.echo(f"largest difference from our net: {found:.2g} of the output's largest value")
    click.echo(f"wrote {target} and {target.with_suffix('.pt')}")


@convert.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.argument("source", metavar="WEIGHTS", type=EXISTING)
@click.option("-o", "--out", "target", required=True, type=click.Path(path_type=Path))
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TEST", show_default=True)
@SHAPE
@REPORT
def weights(
    net_file: Path, source: Path, target: Path, phase: str, shape: str, report: bool
) -> None:
    """Turn a weights file of NET into another format, which the suffix of the target names.

    .caffemodel, .h5 (Caffe's HDF5), .pt (state_dict), .safetensors; either way. Blobs are copied
    bit for bit. Keys of a state_dict are conv1_1.weight, conv1_1.bias, relu1_1.weight and so on.

    \b
    Examples:
      port convert weights sphereface_deploy.prototxt sphereface.caffemodel -o sphereface.pt
      port convert weights sphereface_deploy.prototxt tuned.safetensors -o tuned.caffemodel
    """
    from converters.weights import STATE_READERS, load_weights, save_weights
    from port.net import load_net

    net = load_net(net_file, phase=phase, open_data=False, input_shape=parse_shape(shape))
    load_weights(net, source)
    if source.suffix not in STATE_READERS:
        _check_weights(net, source, report)
    save_weights(net, target)
    click.echo(f"wrote {target}, {target.stat().st_size:,} bytes")


@convert.command(context_settings=HELP)
@click.argument("model", metavar="MODEL.onnx", type=EXISTING)
@click.option("-o", "--out", "target", required=True, type=click.Path(path_type=Path))
@click.option("--shape", metavar="C,H,W", help="Image size, where the model leaves it open.")
@click.option("--no-check", is_flag=True, help="Write without comparing the outputs.")
def caffe(model: Path, target: Path, shape: str | None, no_check: bool) -> None:
    """Write an ONNX model as NET.prototxt and NET.caffemodel beside it.

    For models whose operators are Caffe's layers: convolutions, PReLU, batch normalisation, sums,
    pooling, inner products. Anything else is refused by the node's name.

    \b
    Examples:
      port convert caffe w600k_mbf.onnx -o mbf.prototxt --shape 3,112,112
    """
    from converters.caffe import from_onnx, write_caffe

    net = from_onnx(model, parse_shape(shape) if shape else None, check=not no_check)
    write_caffe(net, target)
    click.echo(f"wrote {target} and {target.with_suffix('.caffemodel')}")


def _onnx_options(choice: dict[str, Any]) -> Options:
    from converters.onnx import Options
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
        pixels=_pixels(choice["preprocess"], choice["mean"], choice["scale"]),
    )


def _pixels(wanted: bool, mean: str | None, scale: float | None) -> Pixels | None:
    from converters.onnx import Pixels

    if not wanted:
        if mean is not None or scale is not None:
            raise click.UsageError("--mean and --scale go with --preprocess")
        return None
    usual = Pixels()
    return Pixels(
        usual.mean if mean is None else _mean(mean), usual.scale if scale is None else scale
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
