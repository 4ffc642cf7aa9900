"""Reads the golden cases: outputs of the original Caffe and Matlab, never of the code under test.

A case is ``tests/golden/<group>/<name>.json`` and, where it has arrays, ``<name>.npz`` beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Case:
    """One golden case: ``meta`` as the json states it, ``arrays`` by their npz names."""

    group: str
    name: str
    meta: Any
    arrays: dict[str, np.ndarray] = field(repr=False)

    @property
    def folder(self) -> Path:
        """The folder of the group, where the files that a prototxt names lie."""
        return GOLDEN / self.group

    def under(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays named ``prefix/…``, by what follows: ``case.under("in")["x"]``."""
        start = prefix + "/"
        return {
            key.removeprefix(start): value
            for key, value in self.arrays.items()
            if key.startswith(start)
        }


def load(group: str, name: str) -> Case:
    """The case `name` of `group`; an unknown one is a FileNotFoundError."""
    path = GOLDEN / group / f"{name}.json"
    meta = json.loads(path.read_text(encoding="utf-8"))
    npz = path.with_suffix(".npz")
    if not npz.exists():
        return Case(group, name, meta, {})
    with np.load(npz, allow_pickle=False) as stored:
        return Case(group, name, meta, {key: stored[key] for key in stored.files})


def cases(group: str, prefix: str = "") -> list[str]:
    """Names of the group's cases that start with `prefix`, sorted.

    An empty list would make a parametrised test vanish in silence, so it is an error.
    """
    names = sorted(path.stem for path in (GOLDEN / group).glob(f"{prefix}*.json"))
    if not names:
        raise LookupError(f"no golden case {group}/{prefix}*")
    return names
