"""Photographs for tests: one real face in seeded variations, and folders of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import golden
import numpy as np
from hostile_images import encoded


def face(seed: int) -> np.ndarray:
    """The astronaut's head, a little different for every seed; (110, 100, 3) RGB."""
    random = np.random.default_rng(seed)
    x, y = random.integers(60, 72, 2)
    cut = golden.load("align", "case_09").arrays["img"][y : y + 110, x : x + 100]
    varied = cut * random.uniform(0.8, 1.1) + random.normal(0, 3, cut.shape)
    return np.clip(varied, 0, 255).astype(np.uint8)


def write_photographs(folder: Path) -> Path:
    """40 photographs of 4 people, two of them without a face and two cut off."""
    for i in range(40):
        path = folder / f"id{i % 4}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = encoded(".png", face(i)[..., ::-1])
        path.write_bytes(data[:900] if i in (5, 22) else data)
        if i in (6, 30):
            cv2.imwrite(str(path), np.full((90, 90, 3), i, np.uint8))
    return folder


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF block that holds nothing but the orientation."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([orientation]) + b"\0" * 7
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
