"""``port prepare``: from photographs to a training list in one go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from port.commands.face_list import say_list
from port.commands.options import HELP, add
from port.commands.photographs import (
    detector_options,
    encoding_option,
    exclude_options,
    excluded_names,
    following,
    images_argument,
    landmarks_option,
    make_job,
    out_option,
    run_options,
    say_summary,
)


@click.command(context_settings=HELP)
@images_argument
@out_option
@landmarks_option
@add(detector_options)
@encoding_option
@add(exclude_options)
@add(run_options)
def prepare(images: Path, out: Path, **options: Any) -> None:
    """Detect, align and list: everything between photographs and 'port train'.

    IMAGES holds one folder of photographs per identity. OUT gets crops/, list.txt, the manifest
    and report.html, a contact sheet of crops and failures. An interrupted run is taken up by the
    same command.

    \b
    Examples:
      port prepare photos/ -o faces
      port train reference_prototxt/sphereface_model.prototxt --source faces/list.txt \\
          --num-classes auto
    """
    from port.preprocess.pipeline import prepare as run_all

    chosen = {name: options[name] for name in ("landmarks", "encoding")}
    job = make_job(images, out, options, **chosen)
    names = excluded_names(options["exclude"], options["no_exclude"])
    with following() as progress:
        done = run_all(job, options["workers"], options["restart"], progress, names)
    say_summary(done.summary)
    say_list(done.list_file, *done.faces)
    click.echo(f"report:   {done.report}")
