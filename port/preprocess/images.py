"""Finding and decoding photographs; whatever is wrong with one is a DataError, never a crash."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from port.errors import DataError

Pixels = NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm"})

LARGEST = 70_000_000
"""Pixels of the largest image taken: detection in it needs some 3 GB of memory."""


def find_images(folder: str | Path) -> list[str]:
    """Image files below `folder`, as relative paths with '/', in bytewise order part by part.

    Files whose name starts with a dot are passed over. Raises DataError when there are none.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold one folder per identity")
    found = [
        Path(where, name).relative_to(root).as_posix()
        for where, _, names in os.walk(root)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
    ]
    if not found:
        wanted = ", ".join(sorted(SUFFIXES))
        raise DataError(f"{folder}: no image in it; expected identity/image files ({wanted})")
    return sorted(found, key=lambda path: os.fsencode(path).split(b"/"))


def read_image(path: str | Path, as_stored: bool = False) -> Pixels:
    """The image as (H, W, 3) uint8 RGB; grey is repeated, 16 bits are cut to 8, alpha is dropped.

    EXIF orientation is honoured unless `as_stored` (Matlab's imread ignores it).
    Raises DataError with the reason alone: the caller knows the file.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot be opened: {error.strerror}") from error
    if not data:
        raise DataError("the file is empty (zero bytes)")
    if _is_cut_off(data):
        raise DataError("the file is cut off before its end marker")
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    try:
        with silent_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except (cv2.error, MemoryError) as error:
        raise DataError("the decoder refuses it: damaged, or too large") from error
    if image is None:
        raise DataError("not an image that can be decoded")
    if image.shape[0] * image.shape[1] > LARGEST:
        raise DataError(
            f"{image.shape[1]}x{image.shape[0]} pixels are more than {LARGEST}: make it smaller"
        )
    return np.ascontiguousarray(image[..., ::-1], np.uint8)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end: decoders fill the missing part with grey in silence."""
    if data.startswith(b"\xff\xd8"):
        # Inside a scan every 0xff is stuffed, so the marker cannot occur by chance; the last scan
        # counts, because a thumbnail has a scan and an end marker of its own.
        scan = data.rfind(b"\xff\xda")
        return data.find(b"\xff\xd9", max(scan, 0)) < 0
    return data.startswith(b"\x89PNG") and b"IEND" not in data


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keeps OpenCV's log off the screen: what is wrong with an image is reported by us."""
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
