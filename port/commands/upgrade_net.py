"""``port upgrade-net``: a net of any age in today's format."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import EXISTING, HELP

OUTPUT = click.Path(dir_okay=False, path_type=Path)


@click.command(context_settings=HELP)
@click.argument("file", metavar="IN", type=EXISTING)
@click.argument("out", metavar="OUT", type=OUTPUT)
@click.option("--text/--binary", "text", default=None, help="Form of OUT [default: that of IN].")
def upgrade_net(file: Path, out: Path, text: bool | None) -> None:
    """Write the net or caffemodel IN to OUT with today's layers and fields.

    Reads V0 (2013), V1 (2014) and today's nets, text or binary, told by their content. Says what
    was upgraded. OUT may be IN: it appears whole or not at all.

    \b
    Examples:
      port upgrade-net old_train_val.prototxt train_val.prototxt
      port upgrade-net old.caffemodel new.caffemodel
      port upgrade-net model.caffemodel model.txt --text
    """
    from port import prototxt

    notes: list[str] = []
    net = prototxt.read_net(file, notes)
    text = prototxt.is_text(file.read_bytes()) if text is None else text
    (prototxt.write_text if text else prototxt.write_binary)(out, net)
    report(notes, out)


def report(notes: list[str], out: Path) -> None:
    """Print what was upgraded, and where it was written."""
    for note in notes or ["nothing was old"]:
        click.echo(note)
    click.echo(f"written to {out}")
