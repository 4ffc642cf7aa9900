"""The LFW protocol against evaluation.m on the golden cases."""

from __future__ import annotations

import golden
import numpy as np
import pytest
from tolerance import assert_close

from port.errors import DataError
from verify import protocol

EXACT = "one division of the same counts, and the mean of the same grid values"
ROUNDING = "two orders of the same sums in float64"


def run(case: golden.Case) -> protocol.Result:
    arrays = case.arrays
    left, right = (arrays[key].T.astype(np.float64) for key in ("featuresL", "featuresR"))
    return protocol.evaluate(left, right, arrays["flags"] == 1, arrays["folds"])


@pytest.mark.parametrize("name", golden.cases("eval", "case_"))
def test_accuracies_and_thresholds_of_the_original(name: str) -> None:
    case = golden.load("eval", name)
    ours = run(case)
    present = [n for n in range(1, 11) if (case.arrays["folds"] == n).any()]
    assert ours.folds.tolist() == present
    at = np.array(present) - 1
    assert_close(ours.accuracies, case.arrays["ACC"][at], 1e-12, EXACT)
    assert_close(ours.thresholds, case.arrays["threshold"][at], 1e-12, EXACT)
    absent = np.setdiff1d(np.arange(10), at)
    assert np.isnan(case.arrays["ACC"][absent]).all()


@pytest.mark.parametrize("name", golden.cases("eval", "case_"))
def test_scores_of_the_original(name: str) -> None:
    case = golden.load("eval", name)
    first = case.arrays["folds"] == 1
    theirs = case.arrays["scores_fold1"][first]
    assert_close(run(case).scores[first], theirs, 1e-12, ROUNDING)


def as_scores(values: list[float | None], single: bool = False) -> np.ndarray:
    numbers = [np.nan if value is None else value for value in values]
    return np.array(numbers, np.float32 if single else np.float64)


@pytest.mark.parametrize("flags", ["flags", "oddflags"])
def test_get_accuracy(flags: str) -> None:
    unit = golden.load("eval", "units").meta["getAccuracy"]
    same = np.array(unit[flags]) == 1
    theirs = unit["accuracy" if flags == "flags" else "accuracy_oddflags"]
    thresholds = as_scores(unit["thresholds"])
    ours = [protocol.accuracy(as_scores(unit["scores"]), same, at) for at in thresholds]
    assert ours == theirs


@pytest.mark.parametrize("unit", golden.load("eval", "units").meta["getThreshold"])
def test_get_threshold(unit: dict) -> None:
    scores = as_scores(unit["scores"], unit["single"])
    ours = protocol.best_threshold(scores, np.array(unit["flags"]) == 1, unit["thrNum"])
    assert ours == pytest.approx(unit["best"], abs=1e-12)


def random_pairs(pairs: int = 80, dimensions: int = 6) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    left = rng.standard_normal((pairs, dimensions)) + 2.0
    right = left + rng.standard_normal((pairs, dimensions))
    same = np.arange(pairs) % 2 == 0
    right[~same] = rng.standard_normal((int((~same).sum()), dimensions)) + 2.0
    return left, right, same, np.arange(pairs) // 20 + 1


def test_scores_near_the_mean_are_not_lost_to_cancellation() -> None:
    left, right, same, fold = random_pairs()
    left, right = 1e-7 * left + 1e3, 1e-7 * right + 1e3
    mean = np.concatenate([left[fold != 1], right[fold != 1]]).mean(0)
    ours = protocol.evaluate(left, right, same, fold).scores[fold == 1]
    a, b = left[fold == 1] - mean, right[fold == 1] - mean
    plain = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    reason = "1e-16 of the mean 1e3 is 1e-6 of what is left when it is subtracted"
    assert_close(ours, plain, 1e-5, reason)


def test_without_subtracting_the_mean() -> None:
    left, right, same, fold = random_pairs()
    ours = protocol.evaluate(left, right, same, fold, subtract_mean=False).scores
    plain = (left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)
    assert_close(ours, plain, 1e-12, ROUNDING)


def test_the_pooled_threshold_is_one_and_serves_a_single_fold() -> None:
    left, right, same, fold = random_pairs()
    ours = protocol.evaluate(left, right, same, fold, pooled_threshold=True)
    assert len(set(ours.thresholds)) == 1
    assert ours.mean == pytest.approx(protocol.accuracy(ours.scores, same, ours.thresholds[0]))
    single = protocol.evaluate(left, right, same, np.ones(80, int), pooled_threshold=True)
    assert_close(single.scores, ours.scores, 1e-12, ROUNDING)


def test_mean_and_standard_deviation_over_folds() -> None:
    result = protocol.Result(np.arange(2), np.array([0.9, 1.0]), np.array([0.1, 0.3]), np.zeros(0))
    assert result.mean == pytest.approx(0.95)
    assert result.std == pytest.approx(0.05)
    assert result.threshold == pytest.approx(0.2)


def test_fewer_than_two_folds() -> None:
    left, right, same, _ = random_pairs()
    with pytest.raises(DataError, match=r"80 pairs in 1 fold\(s\): .* at least 2 are needed"):
        protocol.evaluate(left, right, same, np.ones(80, int))


def test_shapes_that_do_not_fit() -> None:
    left, right, same, fold = random_pairs()
    with pytest.raises(DataError, match=r"found \(80, 6\) on the left and \(80, 5\)"):
        protocol.evaluate(left, right[:, :5], same, fold)
    with pytest.raises(DataError, match="embeddings of 80 pairs, but 79 labels"):
        protocol.evaluate(left, right, same[1:], fold)
