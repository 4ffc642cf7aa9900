"""``port layers``: the layer types that the port knows."""

from __future__ import annotations

import click

from port.commands.options import HELP


@click.command(context_settings=HELP)
def layers() -> None:
    """List the layer types that the port knows, one a line."""
    from port.layers.registry import layer_types

    for name in layer_types():
        click.echo(name)
