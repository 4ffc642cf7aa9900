"""MemoryData: batches from arrays that a program hands over."""

from __future__ import annotations

import torch

from port.layers.layer import DataLayer, Shape


class MemoryData(DataLayer):
    """Tops data (batch_size, channels, height, width) and label (batch_size,) from ``reset``.

    Source: BVLC Caffe 1.0, src/caffe/layers/memory_data_layer.cpp.
    """

    type = "MemoryData"
    param_field = "memory_data_param"
    fields = frozenset({"batch_size", "channels", "height", "width"})
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        self.shape = (param.batch_size, param.channels, param.height, param.width)
        if min(self.shape) < 1:
            self.refuse(f"batch_size, channels, height, width must be above 0: {self.shape}")
        self.source: tuple[torch.Tensor, torch.Tensor] | None = None
        self.at = 0
        return [self.shape, self.shape[:1]]

    def reset(self, data: torch.Tensor, labels: torch.Tensor) -> None:
        """Serve these items (n, channels, height, width) and labels (n,), round and round.

        n must be a multiple of batch_size. Raises NetError when the shapes do not fit.
        """
        n = len(data)
        if tuple(data.shape[1:]) != self.shape[1:] or labels.numel() != n or n == 0:
            self.refuse(
                f"needs data (n, {', '.join(map(str, self.shape[1:]))}) and n labels, "
                f"found {tuple(data.shape)} and {tuple(labels.shape)}"
            )
        if n % self.shape[0]:
            self.refuse(f"{n} items are no multiple of batch_size {self.shape[0]}")
        self.source = (data, labels.reshape(-1))
        self.at = 0

    def next_batch(self) -> tuple[torch.Tensor, ...]:
        if self.source is None:
            return super().next_batch()
        data, labels = (part[self.at : self.at + self.shape[0]] for part in self.source)
        self.at = (self.at + self.shape[0]) % len(self.source[0])
        return data, labels
