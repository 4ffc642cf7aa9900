"""Mean images: BlobProto files (``.binaryproto``) with one value for each pixel and channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from port import schema
from port.errors import DataError


def read_mean(path: Path) -> NDArray[Any]:
    """The mean image (C, H, W) of a BlobProto file. Raises DataError when it holds none."""
    blob = schema.BlobProto()
    try:
        blob.ParseFromString(path.read_bytes())
    except OSError as error:
        raise DataError(f"mean_file {path}: {error.strerror}; give the right path") from error
    except DecodeError as error:
        raise DataError(f"mean_file {path} is damaged, it is no BlobProto: {error}") from error
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    values = np.asarray(blob.data or blob.double_data, np.float32)
    if len(shape) not in (3, 4) or values.size != np.prod(shape) or not values.size:
        raise DataError(
            f"mean_file {path}: {values.size} values for the shape {shape}; "
            "expected 1 x channels x height x width; make it again with port compute-mean"
        )
    image: NDArray[Any] = values.reshape(-1, *shape[-3:])[0]
    return image


def write_mean(path: Path, mean: NDArray[Any]) -> None:
    """Writes a mean image (C, H, W) as compute_image_mean does: num 1, the four old size fields."""
    channels, height, width = mean.shape
    blob = schema.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(np.asarray(mean, np.float32).ravel().tolist())
    path.write_bytes(blob.SerializeToString())
