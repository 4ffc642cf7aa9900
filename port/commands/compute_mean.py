"""``port compute-mean``: the mean image of a database."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.convert_imageset import BACKEND
from port.commands.options import HELP


@click.command(context_settings=HELP)
@click.argument("database", metavar="DB", type=click.Path(exists=True, path_type=Path))
@click.argument("out", metavar="MEAN", type=click.Path(dir_okay=False, path_type=Path))
@BACKEND
def compute_mean(database: Path, out: Path, backend: str) -> None:
    """Write the mean image of DB's records to MEAN, as Caffe's compute_image_mean does.

    MEAN is for transform_param { mean_file: … }. The means of the channels, for mean_value, are
    printed.

    \b
    Example:
      port compute-mean train_lmdb mean.binaryproto
    """
    from port.data.convert import compute_mean
    from port.data.mean_file import write_mean

    mean = compute_mean(database, backend)
    write_mean(out, mean)
    for channel, plane in enumerate(mean):
        click.echo(f"mean_value channel [{channel}]: {plane.mean(dtype='f8'):.6g}")
    click.echo(f"written to {out}")
