"""The comparison itself: what it must let through and what it must catch."""

import numpy as np
import pytest
from tolerance import assert_close

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("ours", "theirs", "rel"),
    [
        ([1.0, 100.0], [1.0009, 100.0], 1e-5),
        ([NAN, INF, -INF, 1.0], [NAN, INF, -INF, 1.0], 0.0),
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        (np.zeros((0, 3)), np.zeros((0, 3)), 0.0),
    ],
)
def test_lets_through(ours, theirs, rel):
    assert_close(ours, theirs, rel, "the case's own")


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0, 2.0], [1.0, 2.1], r"logits: largest difference 0\.1 = 0\.0476 .* at \(1,\)"),
        ([0.0], [1e-30], "largest difference"),
        ([1.0, NAN], [1.0, 2.0], r"first at \(1,\): ours is nan, theirs 2"),
        ([1.0], [INF], "ours is 1.0, theirs inf"),
        ([INF], [-INF], "ours is inf, theirs -inf"),
        ([1.0], [[1.0]], r"ours has shape \(1,\), theirs \(1, 1\)"),
        ([1.0, 1.0], [1.0], "ours has shape"),
    ],
)
def test_catches(ours, theirs, message):
    with pytest.raises(AssertionError, match=message):
        assert_close(ours, theirs, 1e-5, "the case's own", "logits")


def test_a_tolerance_needs_its_reason():
    with pytest.raises(ValueError, match="reason"):
        assert_close([1.0], [1.0], 1e-5, "")
