"""The LFW protocol of evaluation.m: ten folds, the threshold of each found on the other nine.

For a tested fold the mean of the embeddings of the other folds is subtracted, each embedding is
scaled to unit length, and the score of a pair is the cosine. A score is right above the threshold
for a same pair and below it for a different one: equal is wrong for both, and so is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from port.errors import DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]

STEPS = 10000
TESTED = tuple(range(1, 11))
"""Folds that evaluation.m tests; later folds serve for validation only."""
_ROUNDING = 4 * float(np.finfo(np.float64).eps)  # of a sum of D products is at most D times this


@dataclass(frozen=True)
class Result:
    """Outcome of the protocol.

    folds, accuracies, thresholds: (F,) of the tested folds, accuracies between 0 and 1.
    scores: (N,) the cosine of each pair as its own fold was tested; pairs of a fold that was not
        tested keep the score of the first tested fold's mean.
    """

    folds: Integers
    accuracies: Floats
    thresholds: Floats
    scores: Floats

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds: the number that papers quote."""
        return float(self.accuracies.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the folds' accuracies, divided by F (not F - 1)."""
        return float(self.accuracies.std())

    @property
    def threshold(self) -> float:
        """Mean of the folds' thresholds: for deciding about new pairs."""
        return float(self.thresholds.mean())


def evaluate(
    left: npt.ArrayLike,
    right: npt.ArrayLike,
    same: Sequence[bool] | Bools,
    fold: Sequence[int] | Integers,
    *,
    subtract_mean: bool = True,
    pooled_threshold: bool = False,
    tested: Iterable[int] = TESTED,
) -> Result:
    """Run the protocol on embeddings (N, D) of the left and the right picture of N pairs.

    With `pooled_threshold` one threshold, and one mean, serve all pairs: the variant some papers
    quote, optimistic since it has seen what it is tested on. Folds of `tested` that have no pair
    are left out (the original prints NaN for them).

    Source: SphereFace, test/code/evaluation.m.

    Raises:
        DataError: shapes that do not fit, or fewer than two folds (without `pooled_threshold`).
    """
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    same, fold = np.asarray(same, bool), np.asarray(fold, np.int64)
    _check_shapes(left, right, same, fold)
    folds = np.array([number for number in tested if (fold == number).any()], np.int64)
    if not pooled_threshold and (len(np.unique(fold)) < 2 or not len(folds)):
        raise DataError(_too_few(fold))
    used = (np.unique(fold) != folds[:, None]) | pooled_threshold
    means = _means(left, right, fold, used)
    validation = (fold != folds[:, None]) | pooled_threshold
    scores = pair_scores(left, right, means * subtract_mean)
    own = np.argmax(folds[:, None] == fold, axis=0)
    thresholds = _thresholds(scores, same, validation, pooled_threshold)
    accuracies = [
        accuracy(row[fold == number], same[fold == number], threshold)
        for row, number, threshold in zip(scores, folds, thresholds, strict=True)
    ]
    return Result(folds, np.array(accuracies), thresholds, scores[own, np.arange(len(fold))])


def _thresholds(scores: Floats, same: Bools, validation: Bools, pooled: bool) -> Floats:
    if pooled:
        return np.full(len(scores), best_threshold(scores[0], same))
    return np.array(
        [
            best_threshold(row[used], same[used])
            for row, used in zip(scores, validation, strict=True)
        ]
    )


def accuracy(scores: npt.NDArray[np.floating], same: Bools, threshold: float) -> float:
    """Part of the scores on the right side of the threshold; equal and NaN are wrong.

    Source: SphereFace, test/code/evaluation.m, getAccuracy.
    """
    at = scores.dtype.type(threshold)  # Matlab compares a single with a double as singles
    return float(np.where(same, scores > at, scores < at).mean())


def best_threshold(scores: npt.NDArray[np.floating], same: Bools, steps: int = STEPS) -> float:
    """Mean of all thresholds k / steps, -steps <= k <= steps, that classify most scores rightly.

    By sorting: the right same pairs are those above a threshold, the right different ones those
    below, so two binary searches replace a pass over all scores for each threshold.

    Source: SphereFace, test/code/evaluation.m, getThreshold.
    """
    grid = np.arange(-steps, steps + 1) / steps
    at = grid.astype(scores.dtype)
    known = ~np.isnan(scores)
    above, below = np.sort(scores[known & same]), np.sort(scores[known & ~same])
    right = len(above) - np.searchsorted(above, at, "right") + np.searchsorted(below, at, "left")
    return float(grid[right == right.max()].mean())


def pair_scores(left: Floats, right: Floats, means: Floats) -> Floats:
    """Cosine (F, N) of the pairs' embeddings (N, D) after subtracting each mean of (F, D).

    The sums are taken once for all means: (l-m)(r-m) = lr - ml - mr + mm. Where that rounding
    could decide on which side of a threshold a score lies (near a multiple of 1/STEPS, or where
    an embedding nearly equals the mean), the score is computed as the original does.
    """
    both, left_2, right_2 = (
        np.einsum("nd,nd->n", a, b) for a, b in ((left, right), (left, left), (right, right))
    )
    mean_left, mean_right = means @ left.T, means @ right.T
    mean_2 = np.einsum("fd,fd->f", means, means)[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        a = left_2 - 2 * mean_left + mean_2
        b = right_2 - 2 * mean_right + mean_2
        scale = np.sqrt(a) * np.sqrt(b)
        scores: Floats = (both - mean_left - mean_right + mean_2) / scale
        lost = (left_2 + right_2 + 2 * mean_2) * (1 / a + 1 / b + 1 / scale)
        slack = STEPS * _ROUNDING * left.shape[1] * lost
        doubtful = ~(np.abs(scores * STEPS - np.rint(scores * STEPS)) > slack)
    for row, mean in enumerate(means):
        near = np.flatnonzero(doubtful[row])
        scores[row, near] = _cosine(left[near] - mean, right[near] - mean)
    return scores


def _cosine(a: Floats, b: Floats) -> Floats:
    """As evaluation.m: both (n, D) scaled to unit length first; NaN where one is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a = a / np.sqrt((a * a).sum(1, keepdims=True))
        b = b / np.sqrt((b * b).sum(1, keepdims=True))
    cosine: Floats = (a * b).sum(1)
    return cosine


def _means(left: Floats, right: Floats, fold: Integers, used: Bools) -> Floats:
    """Mean (F, D) of both embeddings of the pairs in the folds that each row of `used` selects.

    The columns of `used` are the distinct folds in rising order.
    """
    groups = [fold == number for number in np.unique(fold)]
    sums = np.stack([left[group].sum(0) + right[group].sum(0) for group in groups])
    counts = np.array([2 * group.sum() for group in groups])
    means: Floats = (used @ sums) / (used @ counts)[:, None]
    return means


def _check_shapes(left: Floats, right: Floats, same: Bools, fold: Integers) -> None:
    if left.ndim != 2 or left.shape != right.shape:
        raise DataError(
            f"embeddings: expected two arrays (pairs, dimensions) of one shape, found "
            f"{left.shape} on the left and {right.shape} on the right"
        )
    if not len(left) == len(same) == len(fold) or same.ndim != 1 or fold.ndim != 1:
        raise DataError(
            f"embeddings of {len(left)} pairs, but {same.size} labels and {fold.size} folds: "
            "each pair has one of each"
        )


def _too_few(fold: Integers) -> str:
    return (
        f"{len(fold)} pairs in {len(np.unique(fold))} fold(s): the threshold of a fold is found on "
        "the others, so at least 2 are needed; check the header of the pairs list, or take the "
        "pooled threshold"
    )
