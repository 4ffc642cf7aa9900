"""What a progress bar wants to know after an iteration."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from port.layers.margin_inner_product import MarginInnerProduct, lambda_at

if TYPE_CHECKING:
    from port.solver.solver import Solver


class Progress:
    """A view of a running Solver. Only ``loss`` waits for the device: read it seldom there."""

    def __init__(self, solver: Solver) -> None:
        self._solver = solver
        self._started, self._first = time.perf_counter(), solver.iteration
        net = solver.net
        shapes = [net.blob_shapes[name] for name in net.inputs]
        batch = shapes[0][0] if shapes and shapes[0] else 1
        self.images_per_iteration: int = batch * solver.param.iter_size
        layers = [layer for layer in net.layers if isinstance(layer, MarginInnerProduct)]
        self._margin = layers[0] if layers else None

    @property
    def iteration(self) -> int:
        """Updates done so far."""
        return self._solver.iteration

    @property
    def max_iter(self) -> int:
        """The iteration at which training ends."""
        return int(self._solver.param.max_iter)

    @property
    def lr(self) -> float:
        """The rate of the last update."""
        return self._solver.lr

    @property
    def loss(self) -> float:
        """The smoothed loss that Caffe would display."""
        return self._solver.loss

    @property
    def lambda_(self) -> float | None:
        """The margin layer's lambda in the last forward; None without such a layer."""
        if self._margin is None:
            return None
        p = self._margin.param
        return lambda_at(self._margin.iteration, p.base, p.gamma, p.power, p.lambda_min)

    @property
    def images_per_second(self) -> float:
        """The mean since training started or resumed, tests and snapshots included."""
        elapsed = time.perf_counter() - self._started
        return (self.iteration - self._first) * self.images_per_iteration / max(elapsed, 1e-9)
