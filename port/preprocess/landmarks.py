"""Files of facial points in the formats in use, as five points per image.

Five points are left eye, right eye, nose, left and right mouth corner as seen in the image, in
Matlab's 1-based pixels, as alignment wants them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from port.errors import DataError

Floats = NDArray[np.float64]

_DLIB_GROUPS = (range(36, 42), range(42, 48), (30,), (48,), (54,))
"""dlib's (iBUG's) 68 points: both eyes' outlines, the tip of the nose, the mouth's corners."""


class Landmarks:
    """Points (5, 2) by image file: as written, or by its last two parts, "identity/image"."""

    def __init__(self, found: dict[str, Floats]) -> None:
        self._found = dict(found)
        for name, points in found.items():
            self._found.setdefault(_tail(name), points)
        self.count = len(found)

    def get(self, file: str) -> Floats | None:
        """The points of an image, None where the file of landmarks has none."""
        return self._found.get(file, self._found.get(_tail(file)))


def five_from_68(points: Floats) -> Floats:
    """dlib's 68 points (68, 2), 0-based, as five points (5, 2), 1-based: an eye is its mean."""
    return np.stack([points[list(group)].mean(0) for group in _DLIB_GROUPS]) + 1


def read_landmarks(path: str | Path) -> Landmarks:
    """Reads a file of points; the format is told by its content.

    - JSON Lines with "file" and "points": our manifests (lines without points are passed over);
    - text lines ``path x1 y1 … x5 y5``, separated by tabs or spaces, as lfw_landmark.txt, in
      Matlab's pixels; or ``path x1 y1 … x68 y68`` in dlib's order and 0-based pixels;
    - dlib's imglab XML with 68 parts "00" to "67"; the first box with parts counts.
    Raises DataError naming the line.
    """
    try:
        text = Path(path).read_text("utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot read the landmarks: {error.strerror}") from error
    start = text.lstrip("\ufeff \t\r\n")
    read = next(
        (reader for mark, reader in _READERS.items() if start.startswith(mark)), _read_table
    )
    found = dict(read(text, str(path)))
    if not found:
        raise DataError(f"{path}: no landmarks in it; expected lines 'path x1 y1 ... x5 y5'")
    return Landmarks(found)


def _tail(file: str) -> str:
    return "/".join(PurePosixPath(file.replace("\\", "/")).parts[-2:])


def _five(values: Floats, where: str) -> Floats:
    if not np.isfinite(values).all():
        raise DataError(f"{where}: a coordinate is not a finite number")
    if values.size == 10:
        return values.reshape(5, 2)
    if values.size == 136:
        return five_from_68(values.reshape(68, 2))
    raise DataError(
        f"{where}: expected 5 points (10 numbers) or dlib's 68 (136 numbers), found {values.size} "
        "numbers"
    )


def _read_json_lines(text: str, path: str) -> Iterator[tuple[str, Floats]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(line)
            file, points = record["file"], record.get("points")
            values = np.asarray(points or [], np.float64)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f'{where}: expected {{"file": …, "points": …}}: {error}') from error
        if points:
            yield file, _five(values.ravel(), where)


def _read_table(text: str, path: str) -> Iterator[tuple[str, Floats]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        file, numbers = _columns(line)
        try:
            values = np.array([float(word) for word in numbers])
        except ValueError as error:
            raise DataError(f"{where}: {error}; expected 'path x1 y1 ... x5 y5'") from error
        yield file, _five(values, where)


def _columns(line: str) -> tuple[str, list[str]]:
    if "\t" in line:
        file, *numbers = line.strip("\r\n").split("\t")
        return file, [word for word in numbers if word.strip()]
    # Without tabs the path may hold spaces: the numbers are the last 136 or the last 10 words.
    words = line.split()
    count = 136 if len(words) > 136 else 10
    return line.rsplit(None, count)[0], words[-count:] if len(words) > count else words[1:]


def _read_imglab(text: str, path: str) -> Iterator[tuple[str, Floats]]:
    try:
        # The file is the user's own; entities are refused because expat's expansion is unbounded.
        if "<!ENTITY" in text:
            raise DataError(f"{path}: an imglab file has no entities")
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{path}: not well-formed XML: {error}") from error
    for image in root.iter("image"):
        parts = next((p for box in image.iter("box") if (p := box.findall("part"))), None)
        if parts:
            where = f"{path}: image '{image.get('file')}'"
            yield image.get("file", ""), _parts(parts, where)


def _parts(parts: list[ElementTree.Element], where: str) -> Floats:
    try:
        named = {int(p.attrib["name"]): (float(p.attrib["x"]), float(p.attrib["y"])) for p in parts}
    except (KeyError, ValueError) as error:
        raise DataError(f"{where}: a part needs a number as name, x and y: {error}") from error
    if sorted(named) != list(range(68)):
        raise DataError(f"{where}: expected parts 0 to 67, found {len(named)} parts")
    return five_from_68(np.array([named[i] for i in range(68)]))


_READERS = {
    "{": _read_json_lines,
    "<?xml": _read_imglab,
    "<!DOCTYPE": _read_imglab,
    "<dataset": _read_imglab,
}
"""How a file starts that is not a table."""
