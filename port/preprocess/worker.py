"""What a worker process does: decode, detect, choose a face, align it, store the crop."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from port.errors import DataError
from port.preprocess import manifest
from port.preprocess.job import CROPS, ENCODINGS, Encoding, Job
from port.preprocess.manifest import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from port.preprocess.mtcnn import Detector, Faces

_PIXELS_TOGETHER = 4_000_000
"""Photographs held and detected together stay near this many pixels (or are a single one)."""


class Task(NamedTuple):
    """One photograph: its file, the crop to write, and its points (5, 2) where they are known."""

    file: str
    crop: str | None
    points: NDArray[np.float64] | None


class Worker:
    """Turns chunks of files into records and crops; what a worker process runs."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._detector: Detector | None = None

    def __call__(self, tasks: list[Task]) -> list[Record]:
        """The records of the tasks, in order; crops are written before their records exist."""
        records: dict[str, Record] = {}
        for group in self._readable(tasks, records):
            for (task, image), faces in zip(group, self._faces(group), strict=True):
                records[task.file] = self._finish(task, image, faces)
        for task in tasks:
            if task.crop is not None and "crop" not in records[task.file]:
                # An earlier run with other settings may have found a face here.
                (self.job.out / CROPS / task.crop).unlink(missing_ok=True)
        return [records[task.file] for task in tasks]

    def _readable(self, tasks: list[Task], records: dict[str, Record]) -> Iterator[list[Any]]:
        """Groups of decoded images; the record of an image that cannot be decoded is made here."""
        from port.preprocess.images import read_image

        group: list[Any] = []
        pixels = 0
        for task in tasks:
            if self.job.landmarks is not None and task.points is None:
                records[task.file] = _failure(task, manifest.NO_LANDMARKS)
                continue
            try:
                image = read_image(self.job.images / task.file, self.job.as_stored)
            except DataError as error:
                records[task.file] = _failure(task, manifest.UNREADABLE, str(error))
                continue
            group.append((task, image))
            pixels += image.shape[0] * image.shape[1]
            if pixels >= _PIXELS_TOGETHER:
                yield group
                group, pixels = [], 0
        yield group

    def _faces(self, group: list[Any]) -> list[Faces | None]:
        if self.job.landmarks is not None or not group:
            return [None] * len(group)
        if self._detector is None:
            from port.preprocess.mtcnn import Detector

            self._detector = Detector(self.job.weights, self.job.device, self.job.settings)
        return list(self._detector([image for _, image in group]))

    def _finish(self, task: Task, image: NDArray[np.uint8], faces: Faces | None) -> Record:
        record: Record = {"file": task.file, "status": manifest.OK}
        points = task.points
        if faces is not None:
            if not len(faces.boxes):
                return _failure(task, manifest.NO_FACE)
            from port.preprocess.boxes import nearest_to_centre

            chosen = nearest_to_centre(faces.boxes, image.shape[0], image.shape[1])
            *box, score = faces.boxes[chosen].tolist()
            points = faces.points[chosen]
            record |= {"faces": len(faces.boxes), "score": round(score, 6), "box": _rounded(box)}
        assert points is not None
        # The manifest's digits are the ones aligned, so its points give the same crop again.
        record["points"] = [_rounded(point) for point in points.tolist()]
        if task.crop is None:
            return record
        return self._crop(task, task.crop, image, record)

    def _crop(self, task: Task, crop: str, image: NDArray[np.uint8], record: Record) -> Record:
        from port.preprocess.align import align_face

        try:
            face = align_face(image, record["points"])
        except DataError as error:
            return _failure(task, manifest.BAD_LANDMARKS, str(error))
        write_crop(self.job.out / CROPS / crop, face, ENCODINGS[self.job.encoding])
        return record | {"crop": f"{CROPS}/{crop}"}


def _failure(task: Task, status: str, reason: str = "") -> Record:
    record = {"file": task.file, "status": status}
    return record | {"reason": reason} if reason else record


def _rounded(values: list[float]) -> list[float]:
    return [round(value, 4) for value in values]


def write_crop(path: Path, face: NDArray[np.uint8], encoding: Encoding) -> None:
    """Stores an RGB crop (H, W, 3) in one step: a killed run leaves no half file under its name.

    Raises DataError when it cannot be written.
    """
    import cv2

    parameters: list[int] = []
    if encoding.quality is not None:
        sampling = (
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
            if encoding.subsampled
            else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
        )
        parameters = [cv2.IMWRITE_JPEG_QUALITY, encoding.quality]
        parameters += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    _, data = cv2.imencode(encoding.suffix, face[..., ::-1], parameters)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(data.tobytes())
        os.replace(unfinished, path)
    except OSError as error:
        raise DataError(f"{path}: cannot write the crop: {error.strerror}") from error
