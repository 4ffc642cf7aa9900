"""A set of sample faces on disk: a training list and held-out people with their pairs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np

from port.errors import DataError
from port.sample_faces.render import render

FOLDS = 10
PAIRS_PER_FOLD = 30
"""Same pairs in a fold, where there are enough pictures; there are as many different ones."""
_SETTINGS = "sample_faces.json"
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]

Row = tuple[str, int, str, int]


@dataclass(frozen=True)
class SampleSet:
    """Where a set lies. `train_list` has lines ``train/NAME/NAME_0001.jpg label`` below `folder`.

    `held_out` is the folder of people that the training list lacks, laid out as LFW is, and `pairs`
    the list of their pairs in LFW's format, ten folds that share no person.
    """

    folder: Path
    identities: int
    images: int

    @property
    def train_list(self) -> Path:
        return self.folder / "train.txt"

    @property
    def held_out(self) -> Path:
        return self.folder / "held_out"

    @property
    def pairs(self) -> Path:
        return self.folder / "pairs.txt"


def write_set(
    folder: str | Path,
    identities: int = 120,
    samples: int = 20,
    seed: int = 0,
    held_out: int = 60,
    held_out_samples: int = 8,
) -> SampleSet:
    """Render a set into a new folder; an equal set that is there already is used as it is.

    Everything is written beside the folder and renamed at the end, so a folder of this name is
    always complete.

    Raises:
        DataError: fewer than 20 held-out people or 2 samples of each, a folder that holds something
            else, or one that cannot be written.
    """
    folder = Path(folder)
    settings = {"identities": identities, "samples": samples, "seed": seed}
    settings |= {"held_out": held_out, "held_out_samples": held_out_samples}
    if held_out < 2 * FOLDS or held_out_samples < 2 or identities < 1 or samples < 1:
        raise DataError(
            f"sample faces: {FOLDS} folds of pairs need at least {2 * FOLDS} held-out people and 2 "
            f"samples of each, found {held_out} and {held_out_samples}; and at least one person to "
            f"train on, found {identities} with {samples} samples"
        )
    images = identities * samples + held_out * held_out_samples
    if not _is_there(folder, settings):
        _write_atomically(folder, settings)
    return SampleSet(folder, identities, images)


def _is_there(folder: Path, settings: dict[str, int]) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != settings:
        raise DataError(
            f"{folder}: holds something other than the sample faces asked for ({settings}); name "
            "another folder or remove this one"
        )
    return True


def _write_atomically(folder: Path, settings: dict[str, int]) -> None:
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        _write(partial, **settings)
        if folder.exists():
            folder.rmdir()
        partial.rename(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot write the sample faces: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    folder: Path, identities: int, samples: int, seed: int, held_out: int, held_out_samples: int
) -> None:
    """Identities are numbered on from the trained to the held-out ones."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {identity}\n"
        for identity in range(identities)
        for path in _write_person(folder / "train", identity, samples, seed)
    ]
    people = range(identities, identities + held_out)
    for identity in people:
        for _ in _write_person(folder / "held_out", identity, held_out_samples, seed):
            pass
    (folder / "train.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "pairs.txt").write_text(_pairs_text(people, held_out_samples, seed), encoding="utf-8")
    settings = {"identities": identities, "samples": samples, "seed": seed}
    settings |= {"held_out": held_out, "held_out_samples": held_out_samples}
    (folder / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def _write_person(folder: Path, identity: int, samples: int, seed: int) -> Iterator[Path]:
    name = _name(identity)
    (folder / name).mkdir(parents=True, exist_ok=True)
    for sample in range(samples):
        path = folder / name / f"{name}_{sample + 1:04d}.jpg"
        _, encoded = cv2.imencode(".jpg", render(identity, sample, seed)[0], _QUALITY)
        path.write_bytes(encoded.tobytes())
        yield path


def _name(identity: int) -> str:
    return f"identity_{identity + 1:04d}"


def _pairs_text(people: range, samples: int, seed: int) -> str:
    """LFW's pairs.txt: per fold the same pairs, then as many different ones."""
    rng = np.random.default_rng([seed, len(people), samples, 2])
    fewest = len(people) // FOLDS
    same_pairs = fewest * samples * (samples - 1) // 2
    size = min(PAIRS_PER_FOLD, same_pairs, fewest * (fewest - 1) // 2 * samples**2)
    lines = [f"{FOLDS}\t{size}"]
    for fold in np.array_split(np.array(people), FOLDS):
        pictures = [(_name(int(i)), k + 1) for i in fold for k in range(samples)]
        every = [(*a, *b) for a, b in combinations(pictures, 2)]
        order = rng.permutation(len(every))
        same = (every[k] for k in order if every[k][0] == every[k][2])
        other = (every[k] for k in order if every[k][0] != every[k][2])
        rows: list[Row] = [*islice(same, size), *islice(other, size)]
        lines += ["\t".join(map(str, _short(row))) for row in rows]
    return "\n".join(lines) + "\n"


def _short(row: Row) -> tuple[str | int, ...]:
    name, first, other, second = row
    return (name, first, second) if name == other else row
