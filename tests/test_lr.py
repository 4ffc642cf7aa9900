"""Learning rates: equal to the original's float32 values, iteration by iteration."""

from __future__ import annotations

import numpy as np
import pytest
from golden import cases, load

from port import schema
from port.errors import SolverError
from port.prototxt import parse
from port.solver.log import number
from port.solver.lr import LearningRate


@pytest.mark.parametrize("name", cases("solver", "lr_"))
def test_rates_equal_the_originals(name: str) -> None:
    case = load("solver", name)
    rate = LearningRate(parse(case.meta["solver"], schema.SolverParameter))
    ours, moves = [], []
    for i in range(len(case.arrays["lr"])):
        ours.append(rate.at(i))
        if rate.moved is not None:
            moves.append((i, rate.moved))
    np.testing.assert_array_equal(np.float32(ours), case.arrays["lr"])
    np.testing.assert_array_equal(np.reshape(moves, (-1, 2)), case.arrays["multistep_log"])
    assert [number(value) for value in ours] == case.meta["lr_printed"]


def test_unknown_policy_shows_close_matches() -> None:
    with pytest.raises(
        SolverError, match=r"unknown lr_policy 'multi_step' \(did you mean 'multistep'"
    ):
        LearningRate(schema.SolverParameter(lr_policy="multi_step"))


def test_step_needs_a_stepsize() -> None:
    with pytest.raises(SolverError, match="'step' needs a stepsize above 0, found 0"):
        LearningRate(schema.SolverParameter(lr_policy="step", gamma=0.1))


def test_a_rate_beyond_float_is_infinite_as_in_c() -> None:
    rate = LearningRate(schema.SolverParameter(lr_policy="exp", base_lr=1, gamma=10))
    assert rate.at(400) == np.inf
