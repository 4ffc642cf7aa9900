"""The learning rate of every iteration, in the float32 arithmetic of Caffe."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from port.errors import SolverError, close_matches

f32 = np.float32


def _pow(base: float, exponent: float) -> float:
    """C's pow, which returns infinity or NaN where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


class LearningRate:
    """The rate as a function of the iteration; ``current_step`` moves with step and multistep.

    Source: BVLC Caffe 1.0, src/caffe/solvers/sgd_solver.cpp, GetLearningRate.
    Raises SolverError for an unknown policy, or one whose fields are missing.
    """

    def __init__(self, param: Any) -> None:
        self.param = param
        self.current_step = 0
        self.moved: int | None = None
        """The step that the last call moved to (multistep only); Caffe logs it."""
        if param.lr_policy not in _POLICIES:
            near = close_matches(param.lr_policy, _POLICIES)
            raise SolverError(
                f"unknown lr_policy '{param.lr_policy}'{near}; "
                f"known: {', '.join(sorted(_POLICIES))}"
            )
        if param.lr_policy == "step" and param.stepsize < 1:
            raise SolverError(f"lr_policy 'step' needs a stepsize above 0, found {param.stepsize}")

    def at(self, iteration: int) -> float:
        """The rate of an iteration; call it once for each, in order, as multistep counts."""
        self.moved = None
        with np.errstate(all="ignore"):
            return float(_POLICIES[self.param.lr_policy](self, iteration))

    def _fixed(self, iteration: int) -> Any:
        return f32(self.param.base_lr)

    def _step(self, iteration: int) -> Any:
        self.current_step = iteration // self.param.stepsize
        return self._stepped()

    def _multistep(self, iteration: int) -> Any:
        steps = self.param.stepvalue
        if self.current_step < len(steps) and iteration >= steps[self.current_step]:
            self.current_step += 1
            self.moved = self.current_step
        return self._stepped()

    def _stepped(self) -> Any:
        # pow(float, int) is a double in C++11, and so is its product with the base rate.
        return f32(self.param.base_lr * _pow(self.param.gamma, self.current_step))

    def _exp(self, iteration: int) -> Any:
        return f32(self.param.base_lr * _pow(self.param.gamma, iteration))

    def _inv(self, iteration: int) -> Any:
        base = f32(1) + f32(self.param.gamma) * f32(iteration)
        return f32(self.param.base_lr) * f32(_pow(base, -self.param.power))

    def _poly(self, iteration: int) -> Any:
        left = f32(1) - f32(iteration) / f32(self.param.max_iter)
        return f32(self.param.base_lr) * f32(_pow(left, self.param.power))

    def _sigmoid(self, iteration: int) -> Any:
        exponent = -f32(self.param.gamma) * (f32(iteration) - f32(self.param.stepsize))
        return f32(self.param.base_lr) * (f32(1) / (f32(1) + f32(np.exp(np.float64(exponent)))))


_POLICIES: dict[str, Callable[[LearningRate, int], Any]] = {
    "fixed": LearningRate._fixed,
    "step": LearningRate._step,
    "exp": LearningRate._exp,
    "inv": LearningRate._inv,
    "multistep": LearningRate._multistep,
    "poly": LearningRate._poly,
    "sigmoid": LearningRate._sigmoid,
}
