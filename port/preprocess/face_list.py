"""Training lists as SphereFace's get_list.m writes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from port.errors import DataError

CASIA_IDENTITIES_IN_LFW = ("0166921", "1056413", "1193098")
"""People of CASIA-WebFace who also appear in LFW: training on them spoils the test."""


class ListSummary(NamedTuple):
    """What a list holds: lines, labels 0..identities-1, folders left out, folders without image."""

    images: int
    identities: int
    excluded: list[str]
    empty: list[str]


class _Identity(NamedTuple):
    name: str
    files: list[str]


def write_face_list(
    folder: str | Path,
    list_file: str | Path,
    exclude: Iterable[str] = CASIA_IDENTITIES_IN_LFW,
    suffixes: tuple[str, ...] = (".jpg",),
) -> ListSummary:
    """Writes ``<absolute path>/<identity>/<file> <label>`` for every identity/image below a folder.

    Folders, then files, come in bytewise order; names that start with a dot count as folders, not
    as images; suffixes are matched with their case, as Matlab's dir('*.jpg') does. Labels count
    the folders that are not excluded, from 0, and a folder without an image keeps its label.
    The list is replaced in one step. Source: SphereFace's get_list.m.
    Raises DataError when the folder is missing or holds no image, or a name has a line break.
    """
    root = Path(os.path.abspath(folder))
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; it should hold one folder per identity")
    names = set(exclude)
    kept = [_Identity(name, _images(root / name, suffixes)) for name in _folders(root, names)]
    images = sum(len(identity.files) for identity in kept)
    if not images:
        raise DataError(
            f"{folder}: no identity/image{'|'.join(suffixes)} in it; expected one folder per "
            "identity with its images inside (other kinds of file: --suffix .png)"
        )
    _replace(Path(list_file), _lines(root, kept))
    excluded = sorted(name for name in names if (root / name).is_dir())
    empty = [identity.name for identity in kept if not identity.files]
    return ListSummary(images, len(kept), excluded, empty)


def _folders(root: Path, excluded: set[str]) -> list[str]:
    names = (entry.name for entry in os.scandir(root) if entry.is_dir())
    return sorted(set(names) - excluded, key=os.fsencode)


def _images(folder: Path, suffixes: tuple[str, ...]) -> list[str]:
    names = (entry.name for entry in os.scandir(folder))
    images = (name for name in names if name.endswith(suffixes) and not name.startswith("."))
    return sorted(images, key=os.fsencode)


def _lines(root: Path, identities: list[_Identity]) -> Iterator[bytes]:
    for label, identity in enumerate(identities):
        for name in identity.files:
            path = os.fsencode(root / identity.name / name)
            if b"\n" in path or b"\r" in path:
                raise DataError(f"{os.fsdecode(path)!r}: a line break in a name breaks the list")
            yield b"%s %d\n" % (path, label)


def _replace(path: Path, lines: Iterable[bytes]) -> None:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, "wb") as out:
            out.writelines(lines)
        os.replace(unfinished, path)
    except OSError as error:
        raise DataError(f"{path}: cannot write the list: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
