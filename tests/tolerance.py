"""The one comparison of numbers in these tests."""

from __future__ import annotations

from typing import Any

import numpy as np

FORWARD = 1e-5
"""Outputs: float32 sums taken in another order, relative to the blob's largest value."""
GRADIENT = 1e-4
"""Gradients: the same, grown through a deep backward pass."""


def assert_close(ours: Any, theirs: Any, rel: float, reason: str, what: str = "values") -> None:
    """Fails unless ``|ours - theirs| <= rel * max|theirs|`` everywhere.

    The scale is the largest finite absolute value of `theirs` over the whole array: a blob's small
    entries carry the rounding of its large ones. Shapes must be equal (nothing is broadcast); NaN
    and infinities must stand at the same places with the same sign. ``rel=0`` asks for equality.

    ours, theirs: arrays, tensors or numbers. `reason` says why this tolerance is the right one and
    `what` names the compared thing; both are in the message.
    """
    if not reason:
        raise ValueError("a tolerance needs its reason")
    left, right = _as_float64(ours), _as_float64(theirs)
    if left.shape != right.shape:
        raise AssertionError(f"{what}: ours has shape {left.shape}, theirs {right.shape}")
    finite = np.isfinite(right)
    _assert_same_nonfinite(left, right, finite, what)
    difference = np.where(finite, np.abs(left - np.where(finite, right, 0.0)), 0.0)
    scale = float(np.abs(right[finite]).max(initial=0.0))
    if difference.size == 0 or difference.max() <= rel * scale:
        return
    place = np.unravel_index(int(difference.argmax()), difference.shape)
    worst = float(difference[place])
    raise AssertionError(
        f"{what}: largest difference {worst:.3g} = {worst / scale if scale else np.inf:.3g} of the "
        f"largest value {scale:.3g}, allowed {rel:.3g} ({reason}); at {tuple(map(int, place))} "
        f"ours is {left[place]:.9g}, theirs {right[place]:.9g}; "
        f"{int((difference > rel * scale).sum())} of {difference.size} places are beyond it"
    )


def _assert_same_nonfinite(
    left: np.ndarray, right: np.ndarray, finite: np.ndarray, what: str
) -> None:
    same = np.where(finite, np.isfinite(left), (left == right) | (np.isnan(left) & np.isnan(right)))
    if same.all():
        return
    place = tuple(map(int, np.argwhere(~same)[0]))
    raise AssertionError(
        f"{what}: {int((~same).sum())} of {same.size} places differ in being finite; "
        f"first at {place}: ours is {left[place]}, theirs {right[place]}"
    )


def _as_float64(values: Any) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)
