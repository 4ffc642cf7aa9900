"""Naming the faces of consecutive frames by a gallery, and of the tracks they form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from port.errors import DataError
from port.preprocess.align import align_face
from port.preprocess.mtcnn import Detector, Faces
from port.preprocess.tracks import Tracker
from verify.gallery import Embed, Embeddings, Gallery

Pixels = npt.NDArray[np.uint8]


class Named(NamedTuple):
    """A face of a frame: box (x1, y1, x2, y2), detection score and points (5, 2), 1-based.

    `nearest` is the person of the gallery that is most like it, `similarity` their cosine; `known`
    says whether that reaches the threshold.
    """

    frame: int
    track: int
    box: list[float]
    score: float
    points: list[list[float]]
    nearest: str
    similarity: float
    known: bool

    def record(self, rate: float) -> dict[str, Any]:
        """The line of a JSON Lines file; `rate` are frames per second."""
        return {
            "frame": self.frame,
            "time": round(self.frame / rate, 3),
            "track": self.track,
            "name": self.nearest if self.known else None,
            "nearest": self.nearest,
            "similarity": round(self.similarity, 4),
            "box": [round(corner, 2) for corner in self.box],
            "score": round(self.score, 4),
            "points": [[round(x, 2) for x in point] for point in self.points],
        }


class Track(NamedTuple):
    """A face followed through frames: who it is by the mean of its cosines."""

    track: int
    first: int
    last: int
    faces: int
    nearest: str
    similarity: float
    known: bool

    def record(self) -> dict[str, Any]:
        """The line of a JSON Lines file."""
        line = {key: value for key, value in self._asdict().items() if key != "known"}
        line["similarity"] = round(self.similarity, 4)
        return line | {"name": self.nearest if self.known else None}


class Identifier:
    """Detects, aligns, embeds and names the faces of frames, in the order the frames come."""

    def __init__(
        self, detector: Detector, gallery: Gallery, embed_faces: Embed, threshold: float
    ) -> None:
        self.detector, self.gallery, self.embed_faces = detector, gallery, embed_faces
        self.threshold = threshold
        self.frames = 0
        self._tracker = Tracker()
        self._seen: dict[int, list[int]] = defaultdict(list)
        self._sums: dict[int, Embeddings] = {}

    def __call__(self, images: Sequence[Pixels]) -> list[list[Named]]:
        """The named faces of each of the next frames, RGB (H, W, 3)."""
        found = self.detector(images)
        kept = [_alignable(image, faces) for image, faces in zip(images, found, strict=True)]
        crops = [crop for _, frame in kept for crop in frame]
        scores = np.empty((0, len(self.gallery.people)))
        if crops:
            scores = self.gallery.scores(self.embed_faces(crops))
        named = []
        for faces, frame in kept:
            rows, scores = scores[: len(frame)], scores[len(frame) :]
            tracks = self._tracker(self.frames, faces.boxes)
            named.append(list(self._named(self.frames, faces, tracks, rows)))
            self.frames += 1
        return named

    def _named(
        self, frame: int, faces: Faces, tracks: list[int], scores: Embeddings
    ) -> Iterator[Named]:
        for box, points, track, row in zip(
            faces.boxes.tolist(), faces.points.tolist(), tracks, scores, strict=True
        ):
            self._seen[track].append(frame)
            self._sums[track] = self._sums.get(track, 0.0) + row
            yield Named(frame, track, box[:4], box[4], points, *self._best(row))

    def _best(self, scores: Embeddings) -> tuple[str, float, bool]:
        best = int(scores.argmax())
        similarity = float(scores[best])
        return self.gallery.people[best], similarity, similarity >= self.threshold

    def tracks(self) -> list[Track]:
        """All tracks so far, in the order they began."""
        return [
            Track(track, seen[0], seen[-1], len(seen), *self._best(self._sums[track] / len(seen)))
            for track, seen in sorted(self._seen.items())
        ]


def _alignable(image: Pixels, faces: Faces) -> tuple[Faces, list[Pixels]]:
    """The faces whose points fit a similarity, and their crops."""
    kept, crops = [], []
    for i, points in enumerate(faces.points):
        try:
            crops.append(align_face(image, points))
        except DataError:
            continue
        kept.append(i)
    return Faces(faces.boxes[kept], faces.points[kept]), crops
