"""``port upgrade-solver``: an old solver in today's format."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import EXISTING, HELP
from port.commands.upgrade_net import OUTPUT, report


@click.command(context_settings=HELP)
@click.argument("file", metavar="IN", type=EXISTING)
@click.argument("out", metavar="OUT", type=OUTPUT)
@click.option("--text/--binary", "text", default=None, help="Form of OUT [default: that of IN].")
def upgrade_solver(file: Path, out: Path, text: bool | None) -> None:
    """Write the solver IN to OUT with today's fields: type "SGD" for solver_type: SGD.

    Nets inside the solver are upgraded too. OUT may be IN: it appears whole or not at all.

    \b
    Example:
      port upgrade-solver old_solver.prototxt solver.prototxt
    """
    from port import prototxt

    notes: list[str] = []
    solver = prototxt.read_solver(file, notes)
    text = prototxt.is_text(file.read_bytes()) if text is None else text
    (prototxt.write_text if text else prototxt.write_binary)(out, solver)
    report(notes, out)
