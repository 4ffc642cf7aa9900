"""How well embeddings separate people: angles within and between them, and identification.

Blocks of rows bound the memory: no step holds more than BLOCK x N cosines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from port.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK = 1024
DISTRACTORS = (10, 100, 1000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Angles:
    """Mean angle in degrees over all pairs of one class, and over all pairs of two."""

    intra: float
    inter: float


@dataclass(frozen=True)
class Rank1:
    """Rank-1 rate of the probes against their mate and this many distractors."""

    distractors: int
    rate: float


def angular_fisher_score(embeddings: npt.ArrayLike, labels: Sequence[int] | Integers) -> float:
    """Scatter within classes over scatter between them, in cosine; lower separates better.

    Sw = sum over classes i and their x of 1 - cos(x, m_i), Sb = sum over i of
    n_i (1 - cos(m_i, m)), with m_i the mean of class i, n_i its size and m the mean of all.
    Source: SphereFace paper, appendix E.

    Raises:
        DataError: fewer than two classes, NaN or zero embeddings, or numbers that do not fit.
    """
    rows, classes = _labelled(embeddings, labels)
    names, index, counts = np.unique(classes, return_inverse=True, return_counts=True)
    means = np.zeros((len(names), rows.shape[1]))
    np.add.at(means, index, rows)
    means /= counts[:, None]
    within = (1 - (_unit(rows) * _unit(means)[index]).sum(1)).sum()
    between = (counts * (1 - _unit(means) @ _unit(rows.mean(0, keepdims=True))[0])).sum()
    return float(within / between)


def mean_angles(embeddings: npt.ArrayLike, labels: Sequence[int] | Integers) -> Angles:
    """Mean angle of all pairs of embeddings (N, D), within classes and between them.

    Raises:
        DataError: no class with two embeddings, fewer than two classes, NaN or zero embeddings.
    """
    rows, classes = _labelled(embeddings, labels)
    unit = _unit(rows)
    total, pairs = np.zeros(2), np.zeros(2)
    for at in range(0, len(unit), BLOCK):
        angles = np.degrees(np.arccos(np.clip(unit[at : at + BLOCK] @ unit.T, -1, 1)))
        same = classes[at : at + BLOCK, None] == classes
        own = np.arange(len(angles)), np.arange(at, at + len(angles))
        angles[own] = 0.0
        pairs += same.sum() - len(angles), (~same).sum()
        within = angles[same].sum()
        total += within, angles.sum() - within
    if not pairs[0]:
        raise DataError("angles within classes: no class has two embeddings")
    intra, inter = total / pairs
    return Angles(float(intra), float(inter))


def identify(
    gallery: npt.ArrayLike,
    gallery_labels: Sequence[int] | Integers,
    probes: npt.ArrayLike,
    probe_labels: Sequence[int] | Integers,
) -> float:
    """Rank-1 rate of 1:N identification: the nearest of the gallery has the probe's label.

    Of equally near ones the first counts.
    """
    stored, names = _unit(_rows(gallery)), np.asarray(gallery_labels)
    asked, truth = _unit(_rows(probes)), np.asarray(probe_labels)
    if len(stored) != len(names) or len(asked) != len(truth):
        raise DataError("identification: each embedding of gallery and probes has one label")
    blocks = range(0, len(asked), BLOCK)
    nearest = np.concatenate([(asked[at : at + BLOCK] @ stored.T).argmax(1) for at in blocks])
    return float((names[nearest] == truth).mean())


def rank1_with_distractors(
    probes: npt.ArrayLike,
    labels: Sequence[int] | Integers,
    distractors: Iterable[npt.ArrayLike],
    sizes: Sequence[int] = DISTRACTORS,
) -> list[Rank1]:
    """MegaFace's test: each probe against one mate hidden among N strangers, rank-1 for each N.

    Every ordered pair (probe, mate) of one person is one trial; it succeeds when the mate is
    strictly nearer than all of the first N distractors. Sizes beyond the stream are left out.

    distractors: blocks (B, D), read once and one at a time, so memory stays bounded.
    Source: the MegaFace challenge 1 protocol (Kemelmacher-Shlizerman et al., 2016).

    Raises:
        DataError: no person with two probes, NaN or zero embeddings, sizes D that differ.
    """
    rows, people = _labelled(probes, labels)
    unit = _unit(rows)
    best = np.full(len(unit), -np.inf)
    mates = [
        np.flatnonzero((people == person) & (np.arange(len(people)) != k))
        for k, person in enumerate(people)
    ]
    if not any(map(len, mates)):
        raise DataError("identification: no person has two probes, so no probe has a mate")
    own = [unit[found] @ row for found, row in zip(mates, unit, strict=True)]
    results, seen = [], 0
    wanted = sorted(size for size in sizes if size > 0)
    for part in _cut_at(distractors, wanted):
        strangers = _unit(_rows(part))
        if strangers.shape[1] != unit.shape[1]:
            raise DataError(
                f"distractors have {strangers.shape[1]} dimensions, the probes {unit.shape[1]}"
            )
        best = np.maximum(best, (unit @ strangers.T).max(1))
        seen += len(strangers)
        if seen in wanted:
            won = [scores > top for scores, top in zip(own, best, strict=True)]
            results.append(Rank1(seen, float(np.concatenate(won).mean())))
    return results


def _cut_at(blocks: Iterable[npt.ArrayLike], marks: Sequence[int]) -> Iterator[Floats]:
    """The rows of the blocks in parts that end at each mark and are at most BLOCK long."""
    seen = 0
    for block in blocks:
        rows = np.asarray(block)
        while len(rows):
            ahead = [mark - seen for mark in marks if mark > seen]
            if not ahead:
                return
            size = min(len(rows), BLOCK, ahead[0])
            yield rows[:size]
            rows, seen = rows[size:], seen + size


def _unit(rows: Floats) -> Floats:
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _rows(values: npt.ArrayLike) -> Floats:
    rows = np.asarray(values, np.float64)
    if rows.ndim != 2 or not len(rows):
        raise DataError(f"embeddings: expected (N, D) with N > 0, found shape {rows.shape}")
    wrong = ~np.isfinite(rows).all(1) | ~rows.any(1)
    if wrong.any():
        raise DataError(
            f"embedding {int(np.argmax(wrong))} (of {len(rows)}) holds NaN, infinity or nothing "
            "but zeros"
        )
    return rows


def _labelled(
    embeddings: npt.ArrayLike, labels: Sequence[int] | Integers
) -> tuple[Floats, Integers]:
    rows, classes = _rows(embeddings), np.asarray(labels)
    if classes.shape != (len(rows),):
        raise DataError(f"{len(rows)} embeddings but labels of shape {classes.shape}")
    if len(np.unique(classes)) < 2:
        raise DataError("embeddings of one class only: at least two classes are needed")
    return rows, classes
