"""Every error that a user of the port can meet.

One base class, so that the command line turns any of them into one line and exit code 1.
A message says where, what was expected, what was found, and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PortError(Exception):
    """Base of every error this project raises on purpose."""


class PrototxtError(PortError):
    """A prototxt cannot be parsed, or names a field or value that does not exist."""


class NetError(PortError):
    """A net cannot be built: unknown layer, wrong bottoms, shapes that do not fit."""


class WeightsError(PortError):
    """A caffemodel, solverstate or HDF5 file is damaged or does not fit the net."""


class DataError(PortError):
    """A list, image or record cannot be read."""


class SolverError(PortError):
    """Training cannot start or go on."""


class ConversionError(PortError):
    """A net or model has no faithful form on the other side, or its check failed."""


OUT_OF_MEMORY = "out of memory; use a smaller batch, smaller blobs or another device"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, in numpy, on torch's CPU or on a GPU."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    said = any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and said)


def close_matches(word: str, candidates: Iterable[str]) -> str:
    """A hint such as ``" (did you mean 'ReLU' or 'ELU'?)"``; empty when nothing is close."""
    by_lower = {name.lower(): name for name in candidates}
    found = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=0.6)
    if not found:
        return ""
    return " (did you mean " + " or ".join(f"'{by_lower[name]}'" for name in found) + "?)"
