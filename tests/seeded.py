"""The seeded weights that the golden deploy and train_step cases were made with."""

from __future__ import annotations

import math

import numpy as np
import torch

from port.net import Net


def fill(net: Net, seed: int) -> None:
    """Write the recipe's weights into ``net``, layer by layer in the prototxt's order."""
    random = np.random.RandomState(seed)
    for layer in net.layers:
        for name, blob in zip(layer.blob_names, layer.blobs, strict=True):
            shape = tuple(blob.shape)
            if layer.type == "PReLU":
                values = random.uniform(0.05, 0.45, shape)
            elif name == "bias":
                values = random.standard_normal(shape) * 0.05
            else:
                values = random.standard_normal(shape) * _std(layer.name, math.prod(shape[1:]))
            blob.data.copy_(torch.from_numpy(values.astype(np.float32)))


def _std(name: str, fan_in: int) -> float:
    if name == "fc5":
        return math.sqrt(1 / fan_in)
    second_of_pair = name.startswith("conv") and int(name.split("_")[1]) >= 3
    gain = 0.5 if second_of_pair and int(name.split("_")[1]) % 2 == 1 else 1.0
    return gain * math.sqrt(2 / ((1 + 0.25**2) * fan_in))
