"""``port detect``: find the faces and their five points in a folder of photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from port.commands.options import HELP, add
from port.commands.photographs import (
    detector_options,
    following,
    images_argument,
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
@add(detector_options)
@add(run_options)
@report_option
def detect(images: Path, out: Path, **options: Any) -> None:
    """Find faces and their five points with MTCNN, as SphereFace's face_detect_demo.m does.

    IMAGES holds photographs in any depth of folders, usually identity/image. OUT/manifest.jsonl
    gets one line per image: file, status, and the box, the score and the points (1-based pixels)
    of the face nearest the centre. 'port align --landmarks OUT/manifest.jsonl' crops them later.
    An interrupted run is taken up by the same command.

    \b
    Examples:
      port detect photos/ -o found
      port detect photos/ -o found --mtcnn models/ --min-size 40 --report found/report.html
    """
    from port.preprocess.pipeline import run

    job = make_job(images, out, options, crops=False)
    with following() as progress:
        summary = run(job, options["workers"], options["restart"], progress)
    say_summary(summary)
    if options["report"]:
        say_report(options["report"], summary, images, options["as_stored"])
    require_faces(summary)
