"""Data: batches from a database of Datum records."""

from __future__ import annotations

from pathlib import Path

from port.data.records import RecordBatches
from port.layers.layer import DataLayer, Shape
from port.prototxt import resolve


class Data(DataLayer):
    """Tops data (N, C, H, W) and, if there is a second, label (N,), from an LMDB or a LevelDB.

    The database is opened and its first record read when the net is built, as in Caffe;
    ``rand_skip`` and ``force_encoded_color`` do nothing there either. Raises DataError for what
    cannot be read. Source: BVLC Caffe 1.0, src/caffe/layers/data_layer.cpp.
    """

    type = "Data"
    param_field = "data_param"
    fields = frozenset({"source", "batch_size", "backend", "prefetch"}) | frozenset(
        {"rand_skip", "force_encoded_color"}
    )
    tops = (1, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        if self.context.open_data:
            self.batches = RecordBatches(
                self.param,
                self.spec.transform_param,
                self.phase,
                seed=self.context.seed,
                workers=self.context.workers,
                resolve=lambda path: resolve(path, self.context.folder or Path()),
            )
            data = self.batches.shape
        else:
            data = (self.param.batch_size, *self._declared_shape())
        return [data, data[:1]][: len(self.spec.top)]

    def _declared_shape(self) -> Shape:
        """(C, H, W) that the caller assumes, cut to the crop; only the records know better."""
        if self.context.input_shape is None:
            self.refuse("the prototxt states no image size; give input_shape")
        channels, *size = self.context.input_shape
        crop = self.spec.transform_param.crop_size
        return (channels, crop, crop) if crop else (channels, *size)
