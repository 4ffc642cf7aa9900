"""HDF5Data: batches from arrays of HDF5 files."""

from __future__ import annotations

from pathlib import Path

from port.data.hdf5_data import Hdf5Batches
from port.layers.layer import DataLayer, Shape
from port.prototxt import resolve


class HDF5Data(DataLayer):
    """Tops (N, …): the rows of the data sets of their names, from the files that a list names.

    Raises DataError for lists and files that cannot be used.
    Source: BVLC Caffe 1.0, src/caffe/layers/hdf5_data_layer.cpp.
    """

    type = "HDF5Data"
    param_field = "hdf5_data_param"
    fields = frozenset({"source", "batch_size", "shuffle"})
    tops = (1, None)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        if self.spec.HasField("transform_param"):
            self.refuse("serves the arrays as they are: take transform_param out")
        if not self.context.open_data:
            return self._assumed_shapes()
        batches = self.batches = Hdf5Batches(
            self.param,
            list(self.spec.top),
            seed=self.context.seed,
            resolve=lambda path: resolve(path, self.context.folder or Path()),
        )
        return batches.shapes

    def _assumed_shapes(self) -> list[Shape]:
        """Only the files know the shapes: an image first, one number an item for other tops."""
        if self.context.input_shape is None:
            self.refuse("the prototxt states no shapes; give input_shape")
        count = self.param.batch_size
        return [(count, *self.context.input_shape)] + [(count,)] * (len(self.spec.top) - 1)
