"""ImageData against bare cv2 decoding of the same files, images per second.

Run: python benchmarks/image_data.py [--threads N] [--images N]

112x96 faces as JPEG and as PNG, batch 256, mirrored, mean and scale as SphereFace has them. Both
sides use the same number of threads in the same process, turn about; the claim is that decoding
is nearly all of the cost: ratio at least 0.85.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from port import schema
from port.data.image_data import ImageBatches
from port.data.prefetch import default_workers

BOUND = 0.85
BATCH = 256


def write_faces(folder: Path, extension: str, count: int) -> list[str]:
    """Smooth random 112x96 images with some grain: about as large on disk as real faces."""
    rng = np.random.default_rng(1)
    paths = []
    for number in range(count):
        coarse = rng.integers(0, 256, (14, 12, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (96, 112), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        image += rng.integers(-6, 7, image.shape, dtype=np.int16)
        path = folder / f"{number:05d}.{extension}"
        cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8))
        paths.append(str(path))
    return paths


def decode_all(paths: list[str]) -> None:
    """The bare side: nothing but cv2.imread."""
    for path in paths:
        cv2.imread(path, cv2.IMREAD_COLOR)


def bare(paths: list[str], threads: int) -> float:
    """Images per second of cv2.imread in `threads` threads."""
    parts = [paths[start::threads] for start in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(decode_all, parts))
        return len(paths) / (time.perf_counter() - start)


def ours(spec: object, transform: object, threads: int, count: int) -> float:
    """Images per second of the batches, from one steady moment to another."""
    with ImageBatches(spec, transform, "TRAIN", seed=1, workers=threads) as batches:
        for _ in range(4):  # until what was prefetched at leisure is used up
            next(batches)
        start = time.perf_counter()
        for _ in range(count // BATCH):
            next(batches)
        return count // BATCH * BATCH / (time.perf_counter() - start)


def measure(extension: str, count: int, threads: int, rounds: int) -> float:
    """The best rate of each side over some rounds, as ours / bare."""
    transform = schema.TransformationParameter(mirror=True, mean_value=[127.5] * 3, scale=0.0078125)
    best = {"bare": 0.0, "ours": 0.0}
    with tempfile.TemporaryDirectory() as name:
        paths = write_faces(Path(name), extension, count)
        source = Path(name) / "list.txt"
        source.write_text("".join(f"{path} {i % 10}\n" for i, path in enumerate(paths)))
        spec = schema.ImageDataParameter(source=str(source), batch_size=BATCH, shuffle=True)
        for _ in range(rounds):
            best["bare"] = max(best["bare"], bare(paths, threads))
            best["ours"] = max(best["ours"], ours(spec, transform, threads, count))
    ratio = best["ours"] / best["bare"]
    print(
        f"{extension}: ImageData {best['ours']:.0f}/s, cv2.imread {best['bare']:.0f}/s, "
        f"ratio {ratio:.3f} ({threads} threads)"
    )
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=default_workers())
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    worst = min(measure(e, asked.images, asked.threads, asked.rounds) for e in ("jpg", "png"))
    print(f"worst ratio {worst:.3f}, bound {BOUND}")
    return 0 if worst >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
