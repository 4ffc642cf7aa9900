"""``port identify``: name the faces of a video by a gallery of people."""

from __future__ import annotations

import colorsys
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from port.commands.embedding import model_options, open_model
from port.commands.options import HELP, add, pick_device
from port.commands.photographs import FOLDER, NEW_FILE, bar, detector_options, detector_settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from port.preprocess.video import Label, Source
    from verify.identify import Identifier, Named

    Frames = list[NDArray[np.uint8]]

TOGETHER = 8  # frames of a file that go through the nets at once; of a camera, one
GREY = (120, 120, 120)
TITLE = "port identify (q ends it)"


@click.command(context_settings=HELP)
@click.argument("video", metavar="VIDEO|CAMERA")
@click.option(
    "--gallery", type=FOLDER, required=True, help="person/picture.jpg, or person.jpg, for each."
)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    default=0.4,
    show_default=True,
    help="Cosine below which a face is an outlier; it depends on the net.",
)
@click.option(
    "-o",
    "--out",
    type=NEW_FILE,
    metavar="FILE.mp4",
    help="Annotated video; FILE.jsonl goes beside it [default: VIDEO_identified.mp4].",
)
@click.option("--show", is_flag=True, help="Show the frames in a window too; q ends it.")
@add(detector_options)
@add(model_options)
def identify(video: str, out: Path | None, show: bool, **options: Any) -> None:
    """Name every face of a video by a gallery of people, as SphereFace's demo does.

    All faces of every frame are detected, aligned and embedded; a face gets the name of the person
    whose picture has the highest cosine with it, or is an outlier below the threshold. FILE.mp4
    gets boxes and names; FILE.jsonl a line per face and, at its end, a line per track, which takes
    the mean cosine. VIDEO may be the number of a camera; Ctrl-C then ends the recording.

    \b
    Examples:
      port identify talk.mp4 --gallery people/ --weights sphereface_model.caffemodel \\
          --net reference_prototxt/sphereface_deploy.prototxt
      port identify 0 --show --min-size 80 --gallery people/ --net … --weights …
    """
    from port.preprocess.video import Source

    source = Source(video)
    out = out or Path(f"{'camera' if source.is_camera else Path(video).stem}_identified.mp4")
    if out.resolve() == Path(video).resolve():
        raise click.UsageError(f"{out} is the video itself: give --out another name")
    try:
        identifier = _load(options)
        complete = _run(source, identifier, out, show)
    finally:
        source.close()
    _say(identifier, out)
    if not complete and not source.is_camera:
        click.echo(f"stopped after {identifier.frames} frames; what was done is kept", err=True)
        sys.exit(130)


def _load(options: dict[str, Any]) -> Identifier:
    from port.preprocess.mtcnn import Detector
    from verify.gallery import embedder, read_gallery
    from verify.identify import Identifier

    model = open_model(options)
    embed_faces = embedder(model.forward, model.shape, **model.keywords())
    device = pick_device(options["device"])
    detector = Detector(options["mtcnn"], device, detector_settings(options))
    gallery = read_gallery(options["gallery"], detector, embed_faces)
    for file in gallery.unused:
        click.echo(f"no face in the gallery's {file}: left out", err=True)
    pictures = len(gallery.owners)
    click.echo(f"gallery: {len(gallery.people)} people, {pictures} pictures", err=True)
    return Identifier(detector, gallery, embed_faces, options["threshold"])


def _run(source: Source, identifier: Identifier, out: Path, show: bool) -> bool:
    """Whether the video was seen to its end; files hold whole frames in any case."""
    from port.preprocess import video

    colours = person_colours(identifier.gallery.people)
    recorder: video.Recorder | None = None
    with ExitStack() as stack:
        if show:
            stack.enter_context(video.window(TITLE))
        stopped = stack.enter_context(_ctrl_c())
        draw = stack.enter_context(bar("frames"))
        lines = stack.enter_context(_opened(out.with_suffix(".jsonl")))
        stack.callback(lambda: _write(lines, [track.record() for track in identifier.tracks()]))
        for frames in _batches(source):
            if recorder is None:
                recorder = video.Recorder(out, source.rate, frames[0])
                stack.callback(recorder.close)
            for frame, faces in zip(frames, identifier(frames), strict=True):
                _write(lines, [face.record(source.rate) for face in faces])
                video.annotate(frame, [label(face, colours) for face in faces])
                recorder(frame)
            draw(identifier.frames, source.frames, "")
            if show and not all(video.show(TITLE, frame) for frame in frames):
                return True
            if stopped:
                return False
    return True


@contextmanager
def _ctrl_c() -> Iterator[list[int]]:
    """Holds a signal's number once Ctrl-C was pressed; pressed again, it interrupts at once."""
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8", buffering=1)  # others may follow it live


def _batches(source: Source) -> Iterator[Frames]:
    frames = iter(source)
    while batch := list(islice(frames, 1 if source.is_camera else TOGETHER)):
        yield batch


def _write(lines: IO[str], records: list[dict[str, Any]]) -> None:
    lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def person_colours(people: list[str]) -> dict[str, tuple[int, int, int]]:
    """A bright RGB colour for each person, as far from the others' as may be."""
    return {
        person: _rgb(colorsys.hsv_to_rgb(i / len(people), 0.85, 0.95))
        for i, person in enumerate(people)
    }


def _rgb(colour: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def label(face: Named, colours: dict[str, tuple[int, int, int]]) -> Label:
    """What is drawn at a face: the person's name and colour, or 'outlier' in grey."""
    from port.preprocess.video import Label

    name = face.nearest if face.known else "outlier"
    colour = colours[face.nearest] if face.known else GREY
    return Label(face.box, f"{name} {face.similarity:.2f}", colour)


def _say(identifier: Identifier, out: Path) -> None:
    tracks = identifier.tracks()
    faces = sum(track.faces for track in tracks)
    click.echo(f"{identifier.frames} frames, {faces} faces in {len(tracks)} tracks")
    for name in [*identifier.gallery.people, None]:
        theirs = [t for t in tracks if (t.nearest if t.known else None) == name]
        if theirs:
            shown = sum(track.faces for track in theirs)
            click.echo(f"  {name or 'outliers'}: {shown} faces in {len(theirs)} tracks")
    click.echo(f"video:  {out}\ntracks: {out.with_suffix('.jsonl')}")
