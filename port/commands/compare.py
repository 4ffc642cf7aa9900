"""``port compare``: are two pictures of one person?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.embedding import model_options, open_model
from port.commands.options import EXISTING, HELP, add, pick_device
from port.commands.photographs import detector_options, detector_settings
from port.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Picture = npt.NDArray[np.uint8]

THRESHOLD = 0.28  # the best one for a MobileFaceNet on all pairs of LFW is 0.283


@click.command(context_settings=HELP)
@click.argument("first", metavar="A", type=EXISTING)
@click.argument("second", metavar="B", type=EXISTING)
@click.option("--aligned", is_flag=True, help="A and B are aligned crops: nothing is detected.")
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    default=THRESHOLD,
    show_default=True,
    help="Cosine above which two faces are one person's; 'port verify --no-mean-subtraction "
    "--pooled-threshold' finds a model's own.",
)
@click.option("--as-stored", is_flag=True, help="Ignore EXIF orientation.")
@add(detector_options)
@add(model_options)
def compare(first: Path, second: Path, threshold: float, **options: Any) -> None:
    """Say whether photographs A and B show one person.

    In each the face nearest the centre is found with MTCNN and aligned as SphereFace's crops are;
    then the cosine of the two embeddings is held against the threshold.

    \b
    Examples:
      port compare a.jpg b.jpg --net deploy.prototxt --weights sphereface_model.caffemodel
      port compare crop_a.png crop_b.png --aligned --onnx sphereface.onnx --threshold 0.35
    """
    model = open_model(options)
    crops = _aligned(first, second) if options["aligned"] else _detected(first, second, options)

    from verify import embed

    rows = embed.embed(
        [first, second],
        model.forward,
        model.shape,
        read=lambda path, colour: _in_colour(crops[path], colour),
        **model.keywords(),
    )
    cosine = _cosine(rows)
    click.echo(f"cosine {cosine:.4f}, angle {math.degrees(math.acos(cosine)):.1f} degrees")
    decision = "same person" if cosine > threshold else "different people"
    click.echo(f"{decision} (threshold {threshold:.4f})")


def _aligned(first: Path, second: Path) -> dict[str, Picture]:
    from port.data.image_data import read_image

    return {str(path): read_image(str(path)) for path in (first, second)}


def _detected(first: Path, second: Path, options: dict[str, Any]) -> dict[str, Picture]:
    """The aligned crops, BGR, by file; says which face was taken."""
    from port.preprocess.align import align_face
    from port.preprocess.boxes import nearest_to_centre
    from port.preprocess.images import read_image
    from port.preprocess.mtcnn import Detector

    settings, device = detector_settings(options), pick_device(options["device"])
    detector = Detector(options["mtcnn"], device, settings)
    crops = {}
    for path in (first, second):
        try:
            image = read_image(path, options["as_stored"])
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        (faces,) = detector([image])
        if not len(faces.boxes):
            raise DataError(
                f"{path}: no face found; is it upright, and {settings.min_size:g} pixels or more? "
                "For a crop that is aligned already: --aligned"
            )
        chosen = nearest_to_centre(faces.boxes, image.shape[0], image.shape[1])
        left, top, right, bottom, score = faces.boxes[chosen].tolist()
        click.echo(
            f"{path}: face at x {left:.0f} to {right:.0f}, y {top:.0f} to {bottom:.0f}, score "
            f"{score:.4f}" + (f", of {len(faces.boxes)}" if len(faces.boxes) > 1 else "")
        )
        crops[str(path)] = align_face(image, faces.points[chosen])[..., ::-1]
    return crops


def _in_colour(image: Picture, colour: bool) -> Picture:
    """BGR, or for nets of one channel the grey picture."""
    import cv2
    import numpy as np

    if colour:
        return image
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2GRAY), np.uint8)


def _cosine(rows: npt.NDArray[np.float32]) -> float:
    import numpy as np

    a, b = rows.astype(np.float64)
    return float(np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1))
