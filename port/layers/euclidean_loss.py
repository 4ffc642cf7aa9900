"""EuclideanLoss: half the mean squared distance."""

from __future__ import annotations

import math

import torch

from port.layers.layer import Layer, Shape


class EuclideanLoss(Layer):
    """Bottoms a, b (N, …) with as many values in an item → loss () = sum (a - b)² / 2N.

    Gradients go to both. Source: BVLC Caffe 1.0, src/caffe/layers/euclidean_loss_layer.cpp.
    """

    type = "EuclideanLoss"
    bottoms = (2, 2)
    loss = True

    def setup(self, bottoms: list[Shape]) -> list[Shape]:
        a, b = bottoms
        if not a or a[:1] != b[:1] or math.prod(a) != math.prod(b):
            self.refuse(f"needs two bottoms of one shape (N, …), found {a} and {b}")
        return [()]

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        difference = a.flatten() - b.flatten()
        return difference.dot(difference) / (2 * a.shape[0])
