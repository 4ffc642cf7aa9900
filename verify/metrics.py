"""Numbers that summarise scores of same and different pairs: ROC, TAR at FAR, EER, AUC.

A pair is accepted when its score is greater than the threshold. FAR is the part of the different
pairs that is accepted, TAR that of the same pairs. A NaN score is never accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from port.errors import DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FARS = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Roc:
    """The step curve: (T,) false and true accept rates at falling thresholds.

    It starts at (0, 0) with the threshold +inf and ends where every score but NaN is accepted.
    """

    far: Floats
    tar: Floats
    thresholds: Floats


@dataclass(frozen=True)
class Operating:
    """TAR at the lowest threshold whose FAR is at most `far`.

    resolved: there are at least 1 / far different pairs; without, no false accept is allowed and
        the number says less than it seems to.
    """

    far: float
    tar: float
    threshold: float
    resolved: bool


def roc(scores: npt.ArrayLike, same: Sequence[bool] | Bools) -> Roc:
    """The curve over every distinct score.

    Raises:
        DataError: scores and labels differ in number, or one of the two kinds of pairs is missing.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.shape != same.shape or scores.ndim != 1:
        raise DataError(f"{scores.size} scores but {same.size} labels: each pair has one of each")
    positives, negatives = int(same.sum()), int((~same).sum())
    if not positives or not negatives:
        raise DataError(
            f"{positives} same and {negatives} different pairs: a ROC needs some of both"
        )
    order = np.argsort(-np.where(np.isnan(scores), -np.inf, scores), kind="stable")
    order = order[~np.isnan(scores[order])]
    ranked = scores[order]
    accepted = np.cumsum(same[order]), np.cumsum(~same[order])
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]  # of each run of equal scores
    tar, far = (np.concatenate([[0.0], counts[last]]) for counts in accepted)
    # Accepting a score takes a threshold below it: the next double will do.
    thresholds = np.concatenate([[np.inf], np.nextafter(ranked[last], -np.inf)])
    return Roc(far / negatives, tar / positives, thresholds)


def tar_at_far(
    scores: npt.ArrayLike, same: Sequence[bool] | Bools, fars: Sequence[float] = FARS
) -> list[Operating]:
    """True accept rate at each false accept rate, without interpolation."""
    curve = roc(scores, same)
    negatives = int((~np.asarray(same, bool)).sum())
    points = []
    for far in fars:
        at = int(np.searchsorted(curve.far, far, side="right")) - 1
        point = Operating(
            far, float(curve.tar[at]), float(curve.thresholds[at]), negatives * far >= 1
        )
        points.append(point)
    return points


def equal_error_rate(scores: npt.ArrayLike, same: Sequence[bool] | Bools) -> float:
    """Where FAR = 1 - TAR, on the straight line between the two points of the ROC around it."""
    curve = roc(scores, same)
    gap = curve.far - (1 - curve.tar)
    at = int(np.searchsorted(gap, 0.0, side="left"))
    if at == len(gap):  # NaN scores are never accepted, so the curve may end before
        return float(1 - curve.tar[-1])
    low = gap[at - 1]
    part = -low / (gap[at] - low)
    return float(curve.far[at - 1] + part * (curve.far[at] - curve.far[at - 1]))


def area_under_curve(scores: npt.ArrayLike, same: Sequence[bool] | Bools) -> float:
    """Chance that a same pair outscores a different one, ties counting half.

    NaN counts as lower than every number.
    """
    curve = roc(scores, same)
    far, tar = np.append(curve.far, 1.0), np.append(curve.tar, 1.0)
    return float(((far[1:] - far[:-1]) * (tar[1:] + tar[:-1]) / 2).sum())
