"""The manifest: one JSON line per image, in the order of the files, written chunk by chunk.

A record has "file" (relative, with '/') and "status"; a face adds "box" (x1, y1, x2, y2), "score",
"faces" (how many were found), "points" (five pairs) and "crop"; a failure adds "reason".
Coordinates are Matlab's: 1-based pixels of the image as it was decoded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from port.errors import DataError

Record = dict[str, Any]

OK, NO_FACE, UNREADABLE = "ok", "no face", "unreadable"
NO_LANDMARKS, BAD_LANDMARKS = "no landmarks", "bad landmarks"

FILE, SETTINGS = "manifest.jsonl", "settings.json"


def read_manifest(path: str | Path) -> list[Record]:
    """All records of a manifest. Raises DataError naming the line that is none."""
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot read the manifest: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        record = _record(line)
        if record is None:
            raise DataError(f"{path}:{number}: not a manifest record; was the run interrupted?")
        records.append(record)
    return records


def count(records: Iterable[Record]) -> Counter[str]:
    """How many images have each status."""
    return Counter(record["status"] for record in records)


class Manifest:
    """The manifest of a run in progress: takes up what an interrupted run left, then appends.

    `settings` says what the records depend on; it is kept beside the manifest, and a manifest made
    with other settings is refused. Only whole chunks are taken over: the last bits of a face's
    score depend on which images are detected together, so a chunk is always done as a whole.
    """

    def __init__(self, folder: Path, settings: Record, restart: bool = False) -> None:
        self.path = folder / FILE
        self.settings = json.loads(json.dumps(settings))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if restart:
                self.path.unlink(missing_ok=True)
            self._claim(folder / SETTINGS)
        except OSError as error:
            raise DataError(f"{folder}: cannot write results there: {error.strerror}") from error

    def _claim(self, beside: Path) -> None:
        if self.path.exists() and beside.exists():
            theirs = _record(beside.read_bytes()) or {}
            differ = sorted(k for k in self.settings if self.settings[k] != theirs.get(k))
            if differ:
                raise DataError(
                    f"{self.path}: made with another {', '.join(differ)}; finish it with the same, "
                    "name another folder, or start anew (--restart)"
                )
        beside.write_text(json.dumps(self.settings, indent=1) + "\n", "utf-8")

    def take_up(self, files: list[str], chunk: int) -> list[Record]:
        """The records that an interrupted run finished: whole chunks that match `files`.

        What follows them is cut off the file.
        """
        kept: list[Record] = []
        size = ends = 0
        for line in self._lines():
            record = _record(line)
            at = len(kept)
            if record is None or at >= len(files) or record["file"] != files[at]:
                break
            kept.append(record)
            size += len(line)
            if len(kept) % chunk == 0 or len(kept) == len(files):
                ends = size
        whole = len(kept) if len(kept) == len(files) else len(kept) - len(kept) % chunk
        if self.path.exists():
            with open(self.path, "r+b") as out:
                out.truncate(ends)
        return kept[:whole]

    def _lines(self) -> Iterator[bytes]:
        if self.path.exists():
            with open(self.path, "rb") as lines:
                yield from lines

    def append(self, records: list[Record]) -> None:
        """Adds a chunk's records to the file."""
        text = "".join(json.dumps(record) + "\n" for record in records)
        try:
            with open(self.path, "ab") as out:
                out.write(text.encode("ascii"))
        except OSError as error:
            raise DataError(f"{self.path}: cannot be written: {error.strerror}") from error


def _record(line: bytes) -> Record | None:
    """The record of a line; None for a torn or foreign one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
