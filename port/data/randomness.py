"""Where random numbers of the data path start."""

from __future__ import annotations

import os


def entropy(seed: int | None) -> int:
    """The seed, or fresh randomness for None and for Caffe's "not set", a negative one."""
    if seed is not None and seed >= 0:
        return seed
    return int.from_bytes(os.urandom(8), "little")
