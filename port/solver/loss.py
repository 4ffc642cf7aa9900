"""The running mean of the loss that Caffe displays."""

from __future__ import annotations

import numpy as np
import torch


class SmoothedLoss:
    """The running mean over ``window`` losses, updated incrementally in float32, as Caffe does.

    Losses stay on their device until ``value`` is read.
    """

    def __init__(self, window: int, start: int = 0) -> None:
        self.window, self.start = max(window, 1), start
        self.pending: list[tuple[int, torch.Tensor]] = []
        self.on_cpu = True
        self.bad_iteration = start
        self._kept: list[np.float32] = []
        self._smoothed = np.float32(0)

    def add(self, loss: torch.Tensor, iteration: int) -> None:
        """Queue the loss of an iteration."""
        self.on_cpu = loss.device.type == "cpu"
        self.pending.append((iteration, loss.detach()))

    @property
    def value(self) -> float:
        """The smoothed loss; the first loss that is not finite in its stead."""
        if self.pending:
            iterations, losses = zip(*self.pending, strict=True)
            self.pending = []
            for iteration, loss in zip(iterations, torch.stack(losses).tolist(), strict=True):
                if not np.isfinite(loss):
                    self.bad_iteration = iteration
                    return float(loss)
                self._update(iteration, np.float32(loss))
        return float(self._smoothed)

    def _update(self, iteration: int, loss: np.float32) -> None:
        kept = self._kept
        if len(kept) < self.window:
            kept.append(loss)
            size = np.float32(len(kept))
            self._smoothed = (self._smoothed * (size - np.float32(1)) + loss) / size
        else:
            place = (iteration - self.start) % self.window
            self._smoothed += (loss - kept[place]) / np.float32(self.window)
            kept[place] = loss
