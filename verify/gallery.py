"""People to recognise, each by one picture or several, and whose face another picture shows.

The protocol is that of SphereFace's video demo: open set, cosine similarity of the probe with
every gallery face, an outlier where even the best stays below a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from port.errors import DataError
from port.preprocess.align import CROP_HEIGHT, CROP_WIDTH, align_face
from port.preprocess.boxes import nearest_to_centre
from port.preprocess.images import find_images, read_image
from port.preprocess.mtcnn import Detector
from verify.embed import SHAPE, Forward, Shape, embed

Pixels = npt.NDArray[np.uint8]
Embeddings = npt.NDArray[np.float64]
Embed = Callable[[Sequence[Pixels]], Embeddings]


class Gallery(NamedTuple):
    """Unit embeddings (N, D) of N pictures, whose picture each is, and files without a face."""

    embeddings: Embeddings
    owners: list[int]
    people: list[str]
    unused: list[str]

    def scores(self, embeddings: Embeddings) -> Embeddings:
        """Cosine of probes (n, D), unit vectors, with every person (n, P): the best picture's."""
        every = embeddings @ self.embeddings.T
        scores = np.full((len(self.people), len(embeddings)), -np.inf)
        np.maximum.at(scores, np.array(self.owners), every.T)
        return np.ascontiguousarray(scores.T)


def embedder(forward: Forward, shape: Shape = SHAPE, **options: Any) -> Embed:
    """Unit embeddings (n, D) of aligned RGB faces (112, 96, 3), with `verify.embed`'s options.

    The function it returns raises DataError when an embedding holds NaN, infinity or only zeros.
    """

    def embed_faces(faces: Sequence[Pixels]) -> Embeddings:
        bgr = {f"face {i}": face[..., ::-1] for i, face in enumerate(faces)}

        def read(name: str, colour: bool) -> Pixels:
            return bgr[name] if colour else _grey(bgr[name])

        rows = embed(list(bgr), forward, shape, read=read, **options).astype(np.float64)
        unit: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return unit

    return embed_faces


def _grey(bgr: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2GRAY), np.uint8)


def read_gallery(folder: str | Path, detector: Detector, embed_faces: Embed) -> Gallery:
    """The people of a folder: ``person/picture.jpg``, any number of each, or ``person.jpg``.

    Of several faces in a picture the one nearest the centre counts; a picture of 112x96 pixels is
    taken as an aligned face. A picture without a face is left out and named in `unused`.
    Raises DataError when a person has no usable picture, or the folder holds none.
    """
    files = find_images(folder)
    faces = {file: _face(Path(folder) / file, detector) for file in files}
    used = {file: face for file, face in faces.items() if face is not None}
    people = sorted({_person(file) for file in files})
    lost = sorted(set(people) - {_person(file) for file in used})
    if lost:
        raise DataError(
            f"{folder}: no face found in any picture of {', '.join(lost)}; give another picture, "
            "or a lower --min-size or --thresholds"
        )
    owners = [people.index(_person(file)) for file in used]
    unused = [file for file in files if file not in used]
    return Gallery(embed_faces(list(used.values())), owners, people, unused)


def _person(file: str) -> str:
    path = PurePosixPath(file)
    return path.parts[0] if len(path.parts) > 1 else path.stem


def _face(path: Path, detector: Detector) -> Pixels | None:
    try:
        image = read_image(path)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    if image.shape[:2] == (CROP_HEIGHT, CROP_WIDTH):
        return image
    (found,) = detector([image])
    if not len(found.boxes):
        return None
    chosen = nearest_to_centre(found.boxes, image.shape[0], image.shape[1])
    return align_face(image, found.points[chosen])
