"""``port draw``: a picture of a net."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import HELP, PROTOTXT, SHAPE_HELP, parse_shape, python_option


@click.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The picture: its suffix, .svg or .png, says in what format.",
)
@click.option(
    "--phase",
    type=click.Choice(["TRAIN", "TEST"]),
    default="TRAIN",
    show_default=True,
    help="Which layers of the net to draw.",
)
@click.option("--shape", default="3,112,96", show_default=True, metavar="C,H,W", help=SHAPE_HELP)
@python_option
def draw(net_file: Path, out: Path, phase: str, shape: str, allow_python: bool) -> None:
    """Draw NET's graph: a box for each layer, with its kernel and the shape of its top.

    Layers that work in place are bars below the layer they change. In an SVG, resting on a box
    shows the layer's prototxt.

    \b
    Examples:
      port draw reference_prototxt/sphereface_deploy.prototxt -o sphereface.svg
      port draw train_val.prototxt --phase TRAIN -o net.png
    """
    if out.suffix not in (".svg", ".png"):
        raise click.BadParameter(f"'{out}': give a name that ends in .svg or .png")
    from port.drawing.diagram import diagram_of
    from port.drawing.picture import picture_of, to_png, to_svg
    from port.net import load_net
    from port.prototxt import write_bytes

    net = load_net(
        net_file,
        phase=phase,
        open_data=False,
        input_shape=parse_shape(shape),
        allow_python=allow_python,
    )
    picture = picture_of(diagram_of(net))
    write_bytes(out, to_png(picture) if out.suffix == ".png" else to_svg(picture).encode())
    click.echo(f"written to {out}: {len(net.layers)} layers")
