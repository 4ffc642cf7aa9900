"""HDF5Output: blobs written to a file."""

from __future__ import annotations

from pathlib import Path

import torch

from port.errors import DataError
from port.layers.layer import Layer, Shape


class HDF5Output(Layer):
    """Bottoms data, label (N, …) → datasets "data" and "label" of ``file_name``, no top.

    Written with four axes, as Caffe does. The first forward replaces an existing file; later ones
    append, where Caffe stops. Raises DataError when the file cannot be written.
    Source: BVLC Caffe 1.0, src/caffe/layers/hdf5_output_layer.cpp.
    """

    type = "HDF5Output"
    param_field = "hdf5_output_param"
    fields = frozenset({"file_name"})
    bottoms = (2, 2)
    tops = (0, 0)
    backward_to = False

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        data, label = bottoms
        if not self.param.file_name:
            self.refuse("needs hdf5_output_param { file_name }")
        if not data or data[:1] != label[:1] or max(len(data), len(label)) > 4:
            self.refuse(f"needs bottoms (N, …) of up to 4 axes and one N, found {data} and {label}")
        self.path = Path(self.param.file_name)
        self.mode = "w"
        return []

    @torch.no_grad()
    def forward(self, data: torch.Tensor, label: torch.Tensor) -> tuple[()]:
        import h5py

        try:
            with h5py.File(self.path, self.mode) as file:
                for name, values in (("data", data), ("label", label)):
                    rows = values.reshape(values.shape + (1,) * (4 - values.dim())).cpu().numpy()
                    if name not in file:
                        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
                    else:
                        file[name].resize(len(file[name]) + len(rows), 0)
                        file[name][-len(rows) :] = rows
        except OSError as error:
            raise DataError(f"layer '{self.name}': cannot write {self.path}: {error}") from error
        self.mode = "a"
        return ()
