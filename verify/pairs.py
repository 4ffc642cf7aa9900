"""Lists of face pairs in LFW's format, read as parseList.m reads them.

A line is ``name TAB number TAB number`` for two pictures of one person, or
``name TAB number TAB name TAB number`` for two people. The first line is a header: the number of
folds and the number of same (and of different) pairs in each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from port.errors import DataError

FOLD_SIZE = 600
"""Pairs in a fold where the header does not say: the constant of parseList.m."""


@dataclass(frozen=True)
class Pair:
    """Two pictures: paths relative to the folder of the images, fold counted from 1."""

    left: str
    right: str
    same: bool
    fold: int
    line: int


@dataclass(frozen=True)
class Person:
    """One line of a people list (people.txt, peopleDevTrain.txt): fold counted from 1."""

    name: str
    images: int
    fold: int


def read_pairs(path: str | Path, strict: bool = True, extension: str = ".jpg") -> list[Pair]:
    """The pairs of a file; see `parse_pairs`. An unreadable file is a DataError."""
    return parse_pairs(_read(path), str(path), strict, extension)


def parse_pairs(
    text: str, where: str = "pairs.txt", strict: bool = True, extension: str = ".jpg"
) -> list[Pair]:
    """The pairs of a text, folds of 2 x n pairs as its header ``folds n`` says, else of 600.

    A line without tabs is split at spaces. ``strict=False`` skips every line that is no pair and
    takes folds of 600, as the original does.

    Source: SphereFace, test/code/evaluation.m, parseList.

    Raises:
        DataError: a line that is neither pair, header nor blank (strict only), or no pair at all.
    """
    lines = list(enumerate(text.splitlines(), start=1))
    size = FOLD_SIZE
    if strict and lines and (header := _header(lines[0][1])):
        size, lines = 2 * header[-1], lines[1:]
    pairs: list[Pair] = []
    for number, line in lines:
        fields = _fields(line)
        faces = _faces(fields, extension)
        if faces:
            pairs.append(Pair(*faces, len(fields) == 3, len(pairs) // size + 1, number))
        elif strict and line.strip():
            raise DataError(_malformed(where, number, line, fields))
    if not pairs:
        raise DataError(f"{where}: no pair of faces in it; lines read 'name TAB number TAB number'")
    return pairs


def parse_people(text: str, where: str = "people.txt") -> list[Person]:
    """The people of a people list: an optional number of folds, then per fold a count and lines.

    Raises:
        DataError: a malformed line, or a fold shorter or longer than its count.
    """
    rows = [(n, _fields(line)) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(rows) > 1 and len(rows[0][1]) == len(rows[1][1]) == 1:
        rows = rows[1:]  # the number of folds; the blocks themselves tell it
    people: list[Person] = []
    fold, left = 0, 0
    for number, fields in rows:
        if len(fields) == 1 and fields[0].isdigit() and left == 0:
            fold, left = fold + 1, int(fields[0])
        elif len(fields) == 2 and fields[1].isdigit() and left > 0:
            people.append(Person(fields[0], int(fields[1]), fold))
            left -= 1
        else:
            raise DataError(f"{where}, line {number}: expected 'name TAB count', found {fields}")
    if left:
        raise DataError(f"{where}: the last fold lacks {left} of the people its count announces")
    return people


def write_pairs(pairs: Sequence[tuple[str, int, str, int]], folds: int, per_fold: int) -> str:
    """The text of a pairs file from (name, number, name, number), in the order given."""
    lines = [f"{folds}\t{per_fold}"]
    for name, first, other, second in pairs:
        fields = [name, first, second] if name == other else [name, first, other, second]
        lines.append("\t".join(map(str, fields)))
    return "\n".join(lines) + "\n"


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the list of pairs: {error}") from error


def _fields(line: str) -> list[str]:
    """Fields between tabs, runs of tabs taken as one; between spaces where there is no tab."""
    fields = line.split("\t") if "\t" in line else line.split()
    return [field.strip() for field in fields if field.strip()]


def _header(line: str) -> list[int]:
    fields = _fields(line)
    if len(fields) in (1, 2) and all(field.isdigit() and int(field) for field in fields):
        return [int(field) for field in fields]
    return []


def _faces(fields: list[str], extension: str) -> tuple[str, str] | None:
    """The two pictures that three or four fields name; None where they are no pair."""
    if len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    if len(fields) != 4 or not all(re.fullmatch(r"\d+", fields[k]) for k in (1, 3)):
        return None
    left, right = (
        f"{name}/{name}_{int(number):04d}{extension}" for name, number in (fields[:2], fields[2:])
    )
    return left, right


def _malformed(where: str, number: int, line: str, fields: list[str]) -> str:
    hint = "; this looks like a list of people, not of pairs" if len(fields) == 2 else ""
    return (
        f"{where}, line {number}: expected 'name TAB number TAB number' or 'name TAB number TAB "
        f"name TAB number', found {line.strip()!r}{hint}"
    )
