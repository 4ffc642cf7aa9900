"""WindowData: batches of image windows, for R-CNN."""

from __future__ import annotations

from pathlib import Path

from port.data.window_data import WindowBatches
from port.layers.layer import DataLayer, Shape
from port.prototxt import resolve


class WindowData(DataLayer):
    """Tops data (N, 3, crop, crop) and label (N,): background windows, then foreground ones.

    Raises DataError for window files and images that cannot be used.
    Source: BVLC Caffe 1.0, src/caffe/layers/window_data_layer.cpp.
    """

    type = "WindowData"
    param_field = "window_data_param"
    fields = frozenset({"source", "batch_size", "root_folder", "cache_images"}) | frozenset(
        {"fg_threshold", "bg_threshold", "fg_fraction", "context_pad", "crop_mode"}
    )
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        if not self.context.open_data:
            count, crop = self.param.batch_size, self.spec.transform_param.crop_size
            return [(count, 3, crop, crop), (count,)]
        self.batches = WindowBatches(
            self.param,
            self.spec.transform_param,
            seed=self.context.seed,
            workers=self.context.workers,
            resolve=lambda path: resolve(path, self.context.folder or Path()),
        )
        return [self.batches.shape, self.batches.shape[:1]]
