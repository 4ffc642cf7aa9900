"""Input: tops that the caller feeds."""

from __future__ import annotations

from port.layers.layer import DataLayer, Shape


class Input(DataLayer):
    """Declares input blobs: one ``shape`` for every top, or one for all of them."""

    type = "Input"
    param_field = "input_param"
    fields = frozenset({"shape"})
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        shapes = [tuple(shape.dim) for shape in self.param.shape]
        n_tops = len(self.spec.top)
        if len(shapes) not in (0, 1, n_tops):
            self.refuse(f"gives {len(shapes)} shapes for {n_tops} tops; give one, or one for each")
        return shapes if len(shapes) == n_tops else (shapes or [()]) * n_tops
