"""Frames of a video file or a camera, and annotated videos."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from port.errors import DataError
from port.preprocess.images import silent_opencv

Pixels = NDArray[np.uint8]

RATE = 25.0
"""Frames per second of a source that does not say."""


class Source:
    """A video file, or a camera by its number; iterating gives RGB frames (H, W, 3).

    Raises DataError when it cannot be opened or gives no frame.
    """

    def __init__(self, source: str) -> None:
        self.name = source
        self.is_camera = source.isdigit() and not Path(source).exists()
        with silent_opencv():
            self._capture = cv2.VideoCapture(int(source) if self.is_camera else source)
        if not self._capture.isOpened():
            what = "no such camera" if self.is_camera else _wrong_with(Path(source))
            raise DataError(f"{source}: {what}")
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and 1 <= rate <= 1000 else RATE
        frames = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(frames) if math.isfinite(frames) and frames > 0 else None

    def __iter__(self) -> Iterator[Pixels]:
        found = False
        while True:
            read, frame = self._capture.read()
            if not read:
                break
            found = True
            yield np.ascontiguousarray(frame[..., ::-1], np.uint8)
        if not found:
            raise DataError(f"{self.name}: not one frame can be read from it")

    def close(self) -> None:
        """Lets the file or the camera go."""
        self._capture.release()


def _wrong_with(path: Path) -> str:
    if not path.is_file():
        return "no such file; name a video, or a camera by its number (0 is the first)"
    return "not a video that OpenCV can read"


class Label(NamedTuple):
    """What is drawn at a face: its box (x1, y1, x2, y2), 1-based, a text and an RGB colour."""

    box: Sequence[float]
    text: str
    colour: tuple[int, int, int]


def annotate(frame: Pixels, labels: Sequence[Label]) -> None:
    """Draws boxes and texts into an RGB frame, in place; what is not ASCII becomes '?'."""
    size = max(0.4, frame.shape[0] / 900)
    thick = max(1, round(size * 2))
    for label in labels:
        x1, y1, x2, y2 = (round(corner) - 1 for corner in label.box)
        text = label.text.encode("ascii", "replace").decode()
        cv2.rectangle(frame, (x1, y1), (x2, y2), label.colour, thick)
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
        # Above the box as far as the frame allows.
        bottom = min(max(y1, height + below), frame.shape[0])
        left = max(0, min(x1, frame.shape[1] - width))
        corners = (left, bottom - height - below), (left + width, bottom)
        cv2.rectangle(frame, *corners, label.colour, cv2.FILLED)
        at = (left, bottom - below)
        ink = (0, 0, 0) if sum(label.colour) > 380 else (255, 255, 255)
        cv2.putText(frame, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)


class Recorder:
    """Writes RGB frames of one size as an MPEG-4 video.

    Raises DataError when the file cannot be written.
    """

    def __init__(self, path: Path, rate: float, frame: Pixels) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        code = cv2.VideoWriter.fourcc(*"mp4v")
        with silent_opencv():
            self._writer = cv2.VideoWriter(str(path), code, rate, frame.shape[1::-1])
        if not self._writer.isOpened():
            raise DataError(f"{path}: cannot write a video there; its name should end in .mp4")
        self._shape = frame.shape

    def __call__(self, frame: Pixels) -> None:
        """Adds a frame; one of another size is brought to the first one's."""
        if frame.shape != self._shape:
            frame = np.asarray(cv2.resize(frame, self._shape[1::-1]), np.uint8)
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        """Finishes the file."""
        self._writer.release()


@contextmanager
def window(title: str) -> Iterator[None]:
    """A window for `show`, closed at the end.

    Raises DataError where it cannot.
    """
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
    except cv2.error as error:
        raise DataError(
            "this OpenCV cannot open windows (opencv-python-headless, or no screen): "
            "leave --show out"
        ) from error
    try:
        yield
    finally:
        cv2.destroyAllWindows()


def show(title: str, frame: Pixels) -> bool:
    """Shows a frame in the window; False when the user pressed q or Esc."""
    cv2.imshow(title, np.ascontiguousarray(frame[..., ::-1]))
    return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
