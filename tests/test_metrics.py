"""ROC, TAR at FAR, EER and AUC against their definitions, evaluated by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from port.errors import DataError
from verify import metrics


def scores_with_ties(seed: int = 0, pairs: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(pairs) < 0.4
    scores = np.round(rng.normal(same * 1.2, 1.0), 1)
    return scores, same


def test_roc_points_are_what_their_thresholds_accept() -> None:
    scores, same = scores_with_ties()
    scores[:5] = np.nan
    curve = metrics.roc(scores, same)
    for far, tar, threshold in zip(curve.far, curve.tar, curve.thresholds, strict=True):
        assert far == (scores[~same] > threshold).mean()
        assert tar == (scores[same] > threshold).mean()
    assert curve.thresholds[0] == np.inf
    assert len(curve.far) == len(set(scores[~np.isnan(scores)])) + 1


def test_tar_at_far_is_the_best_that_any_threshold_reaches() -> None:
    scores, same = scores_with_ties(1)
    thresholds = np.concatenate([np.unique(scores) - 1e-9, [np.inf]])
    for point in metrics.tar_at_far(scores, same, (0.3, 0.1, 0.01, 1e-4)):
        reached = [
            (scores[same] > at).mean()
            for at in thresholds
            if (scores[~same] > at).mean() <= point.far
        ]
        assert point.tar == max(reached)
        assert (scores[~same] > point.threshold).mean() <= point.far
        assert (scores[same] > point.threshold).mean() == point.tar
        assert point.resolved == (point.far >= 0.01)


def test_area_is_the_chance_that_a_same_pair_outscores_a_different_one() -> None:
    scores, same = scores_with_ties(2)
    a, b = scores[same][:, None], scores[~same][None]
    expected = ((a > b) + 0.5 * (a == b)).mean()
    assert metrics.area_under_curve(scores, same) == pytest.approx(expected, abs=1e-12)
    with_nan = np.where(np.arange(len(scores)) < 9, np.nan, scores)
    lowest = np.where(np.isnan(with_nan), -1e9, with_nan)
    assert metrics.area_under_curve(with_nan, same) == pytest.approx(
        metrics.area_under_curve(lowest, same), abs=1e-12
    )


def test_equal_error_rate() -> None:
    same = np.array([True] * 4 + [False] * 4)
    assert metrics.equal_error_rate([4, 3, 2, 0.5, 1, 0, -1, -2], same) == pytest.approx(0.25)
    assert metrics.equal_error_rate([4, 5, 6, 7, 1, 0, -1, -2], same) == 0.0
    assert metrics.equal_error_rate([1] * 8, same) == pytest.approx(0.5)
    rng = np.random.default_rng(0)
    many = rng.random(40000) < 0.5
    normal = rng.normal(many * 2.0, 1.0)
    # Two unit normals two apart: EER = Phi(-1); 20000 pairs of each leave about 0.003.
    assert metrics.equal_error_rate(normal, many) == pytest.approx(0.1587, abs=0.01)


def test_equal_error_rate_when_nan_scores_end_the_curve_early() -> None:
    assert metrics.equal_error_rate([1, np.nan, 0, np.nan], [True, True, False, False]) == 0.5


def test_pairs_of_one_kind_only() -> None:
    with pytest.raises(DataError, match="3 same and 0 different pairs"):
        metrics.roc([1, 2, 3], [True] * 3)
    with pytest.raises(DataError, match="2 scores but 3 labels"):
        metrics.roc([1, 2], [True, True, False])
