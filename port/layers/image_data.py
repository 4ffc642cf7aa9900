"""ImageData: batches from an image list."""

from __future__ import annotations

from pathlib import Path

from port.data.image_data import ImageBatches
from port.layers.layer import DataLayer, Shape
from port.prototxt import resolve


class ImageData(DataLayer):
    """Tops data (N, C, H, W) and label (N,), from ``image_data_param`` and ``transform_param``.

    The list and its first image are read when the net is built, as in Caffe.
    Raises DataError for lists and images that cannot be used.
    Source: BVLC Caffe 1.0, src/caffe/layers/image_data_layer.cpp.
    """

    type = "ImageData"
    param_field = "image_data_param"
    fields = frozenset(
        {"source", "batch_size", "rand_skip", "shuffle", "new_height", "new_width"}
        | {"is_color", "root_folder"}
    )
    tops = (2, 2)

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        if not self.context.open_data:
            return [(self.param.batch_size, *self._declared_shape()), (self.param.batch_size,)]
        self.batches = ImageBatches(
            self.param,
            self.spec.transform_param,
            self.phase,
            seed=self.context.seed,
            workers=self.context.workers,
            skip_bad=self.context.skip_bad,
            resolve=self._resolve,
        )
        return [self.batches.shape, self.batches.shape[:1]]

    def _resolve(self, path: str) -> Path:
        return resolve(path, self.context.folder or Path())

    def _declared_shape(self) -> Shape:
        """(C, H, W) by the prototxt alone, else the size that the caller assumes."""
        param, crop = self.param, self.spec.transform_param.crop_size
        assumed = self.context.input_shape
        channels = 3 if param.is_color else 1
        if crop:
            return (channels, crop, crop)
        if param.new_height and param.new_width:
            return (channels, param.new_height, param.new_width)
        if assumed is None:
            self.refuse("the prototxt states no image size; give input_shape")
        return (channels, *assumed[1:])
