"""``port align``: crop the faces of a folder of photographs, upright and of one size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from port.commands.options import HELP, add
from port.commands.photographs import (
    detector_options,
    encoding_option,
    following,
    images_argument,
    landmarks_option,
    make_job,
    out_option,
    report_option,
    require_faces,
    run_options,
    say_report,
    say_summary,
)


@click.command(context_settings=HELP)
@images_argument
@out_option
@landmarks_option
@add(detector_options)
@encoding_option
@add(run_options)
@report_option
def align(images: Path, out: Path, **options: Any) -> None:
    """Crop faces to SphereFace's 112x96, as face_align_demo.m does.

    The similarity that brings five points to the template is fitted as Matlab's cp2tform fits it,
    and the crop is sampled as imtransform samples. The points come from detection, or with
    --landmarks from a file. Crops go to OUT/crops, in the folders of the photographs.
    An interrupted run is taken up by the same command.

    \b
    Examples:
      port align photos/ -o faces
      port align photos/ -o faces --landmarks found/manifest.jsonl --encoding png
      port align lfw/ -o faces --landmarks lfw_landmark.txt
    """
    from port.preprocess.pipeline import run

    chosen = {name: options[name] for name in ("landmarks", "encoding")}
    job = make_job(images, out, options, **chosen)
    with following() as progress:
        summary = run(job, options["workers"], options["restart"], progress)
    say_summary(summary)
    if options["report"]:
        say_report(options["report"], summary, images, options["as_stored"])
    require_faces(summary)
