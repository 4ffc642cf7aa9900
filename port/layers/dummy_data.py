"""DummyData: batches from fillers."""

from __future__ import annotations

from typing import Any

import torch

from port import schema
from port.errors import NetError
from port.fillers import fill
from port.layers.layer import DataLayer, Shape


class DummyData(DataLayer):
    """Tops of the stated shapes, filled by ``data_filler`` (constant 0 without any).

    ``shape``, or the older num, channels, height, width, is given once or for each top, and so is
    the filler. Constant tops are filled once, random ones for every batch.
    Source: BVLC Caffe 1.0, src/caffe/layers/dummy_data_layer.cpp.
    """

    type = "DummyData"
    param_field = "dummy_data_param"
    fields = frozenset({"data_filler", "shape", "num", "channels", "height", "width"})
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        param = self.param
        fillers = list(param.data_filler) or [schema.FillerParameter(type="constant")]
        self.fillers: list[Any] = self._for_each_top("data_filler", fillers)
        self.shapes = self._read_shapes()
        self.held: dict[int, torch.Tensor] = {}
        return self.shapes

    def _read_shapes(self) -> list[Shape]:
        param = self.param
        old = {name: list(getattr(param, name)) for name in ("num", "channels", "height", "width")}
        if not any(old.values()):
            shapes = [tuple(shape.dim) for shape in param.shape]
            return self._for_each_top("shape", shapes)
        if param.shape:
            self.refuse("gives both shape and num/channels/height/width; give one form")
        sizes = (self._for_each_top(name, given) for name, given in old.items())
        return list(zip(*sizes, strict=True))

    def _for_each_top(self, what: str, given: list[Any]) -> list[Any]:
        n = len(self.spec.top)
        if len(given) not in (1, n):
            self.refuse(f"gives {what} {len(given)} times for {n} tops; give it once or {n} times")
        return given * n if len(given) == 1 else given

    def next_batch(self) -> tuple[torch.Tensor, ...]:
        return tuple(self._top(i) for i in range(len(self.shapes)))

    def _top(self, i: int) -> torch.Tensor:
        if i not in self.held or self.fillers[i].type != "constant":
            self.held[i] = torch.empty(self.shapes[i])
            try:
                fill(self.held[i], self.fillers[i])
            except NetError as error:
                self.refuse(str(error))
        return self.held[i]
