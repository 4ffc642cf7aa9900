"""Image lists: one ``<path> <label>`` on each line, read by Caffe's own rules.

Source: BVLC Caffe 1.0, image_data_layer.cpp, DataLayerSetUp.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from port.errors import DataError

_LEADING_INTEGER = re.compile(r"[ \t\n\v\f\r]*([+-]?[0-9]+)")
_INT_MAX, _LONG_MAX = 2**31 - 1, 2**63 - 1


@dataclass(frozen=True)
class ImageList:
    """A list file as read: line i + 1 is ``names[i]`` with label ``labels[i]``."""

    path: Path
    names: list[str]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def num_classes(self) -> int:
        """Largest label plus one: the num_output that a classifier of this list needs."""
        return int(self.labels.max()) + 1

    def where(self, index: int) -> str:
        """``list.txt:17``: file and line of an entry."""
        return f"{self.path}:{index + 1}"

    def suspects(self) -> list[int]:
        """Indices of lines whose name Caffe's rule makes odd: double space, tab, no label."""
        return [i for i, name in enumerate(self.names) if "\t" in name or name[-1].isspace()]

    def hint(self, index: int) -> str:
        """What is probably wrong with a line whose image cannot be found."""
        name = self.names[index]
        if name.endswith(" "):
            return "the line has more than one space before the label: leave exactly one"
        if "\t" in name:
            return "the line has a tab: put one space between the path and the label"
        if name.endswith("\r"):
            return "the line has no space: write '<path> <label>'"
        return "check the list and root_folder"


def atoi(text: str) -> int:
    """C's atoi: the integer that the text starts with, else 0: '4x' is 4, '2.9' is 2.

    What does not fit is cut to 32 bits as glibc does it.
    """
    match = _LEADING_INTEGER.match(text)
    if match is None:
        return 0
    value = max(-_LONG_MAX - 1, min(int(match[1]), _LONG_MAX))
    return (value + _INT_MAX + 1) % 2**32 - _INT_MAX - 1


def split_line(line: str) -> tuple[str, int]:
    """(name, label) of a line: the label is what follows the last space, read by ``atoi``.

    Names keep their own spaces. A line without a space is a name, and its label is ``atoi`` of the
    name: Caffe finds no space, takes the whole line for both and goes on.
    """
    name, space, label = line.rpartition(" ")
    return (name, atoi(label)) if space else (line, atoi(line))


def read_image_list(path: Path) -> ImageList:
    """Reads a list file.

    A line ends at the newline; a CR before it falls to atoi, so CRLF files are fine. Raises
    DataError when the file cannot be read, is empty, or has a blank line (Caffe starts and dies
    when it comes to that line).
    """
    try:
        # Any bytes may be a path: what is not UTF-8 comes back unchanged at os.open.
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except OSError as error:
        raise DataError(
            f"image list {path}: {error.strerror}; give the right 'source', or --source"
        ) from error
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"image list {path} is empty: it needs one '<path> <label>' a line")
    pairs = [split_line(line) for line in lines]
    for number, (name, _) in enumerate(pairs, 1):
        if not name.strip():
            raise DataError(
                f"{path}:{number}: no image path, found {lines[number - 1]!r}; "
                "each line is '<path> <label>', remove blank lines"
            )
    labels: Any = [label for _, label in pairs]
    return ImageList(path, [name for name, _ in pairs], np.asarray(labels, np.int32))
