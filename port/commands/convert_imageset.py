"""``port convert-imageset``: the images of a list in a database."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import EXISTING, HELP

BACKEND = click.option(
    "--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", show_default=True
)


@click.command(context_settings=HELP)
@click.argument("root")
@click.argument("source", metavar="LIST", type=EXISTING)
@click.argument("database", metavar="DB", type=click.Path(path_type=Path))
@BACKEND
@click.option("--gray", is_flag=True, help="Store one channel.")
@click.option("--shuffle", is_flag=True, help="Store the images in random order.")
@click.option("--seed", type=click.IntRange(0), help="Makes the random order repeat.")
@click.option("--resize-width", type=click.IntRange(0), default=0, help="Needs --resize-height.")
@click.option("--resize-height", type=click.IntRange(0), default=0, help="Needs --resize-width.")
@click.option("--check-size", is_flag=True, help="Stop at an image of another size.")
@click.option("--encoded", is_flag=True, help="Store image files instead of pixels.")
@click.option("--encode-type", default="", metavar="EXT", help="Their type: png, jpg …")
def convert_imageset(root: str, source: Path, database: Path, **flags: object) -> None:
    """Write the images of LIST into the new database DB, as Caffe's convert_imageset does.

    ROOT stands before each path of the list. An image that cannot be read is left out and named.

    \b
    Examples:
      port convert-imageset images/ list.txt train_lmdb --shuffle
      port convert-imageset images/ list.txt train_lmdb --resize-height 112 --resize-width 96
    """
    from port.data.convert import Options, convert_imageset

    root = root if not root or root.endswith("/") else f"{root}/"
    done = convert_imageset(root, source, database, Options(**flags))  # type: ignore[arg-type]
    for message in done.skipped:
        click.echo(f"left out: {message}", err=True)
    click.echo(f"{done.count} images in {database}")
