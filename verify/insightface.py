"""Reader of InsightFace's .bin verification sets (LFW, CFP-FP, AgeDB-30 …).

Such a file is a pickle of (list of 2 N encoded images, list of N booleans). A pickle can run any
code when it is loaded, so only plain values are let through here: nothing is imported or called.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from port.data.image_data import decode_image
from port.errors import DataError
from verify.pairs import Pair

FOLDS = 10


@dataclass(frozen=True)
class BinSet:
    """Pairs whose pictures are named by their place in the file: ``"0"``, ``"1"`` …"""

    pairs: list[Pair]
    encoded: list[bytes]
    where: str

    def read_image(self, name: str, color: bool = True) -> npt.NDArray[Any]:
        """Picture `name`, uint8 (H, W, 3) BGR or (H, W) grey; a damaged one is a DataError."""
        image = decode_image(self.encoded[int(name)], color)
        if image is None:
            raise DataError(f"{self.where}: image {name} cannot be decoded")
        return image


def read_bin(path: str | Path) -> BinSet:
    """The pairs of a .bin file, in ten folds of consecutive pairs as InsightFace tests them.

    Source: insightface, recognition/_evaluation_, verification.py, load_bin and KFold(10).

    Raises:
        DataError: an unreadable or damaged file, one that is no such set, or a pickle that asks for
            anything but plain values.
    """
    where = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{where}: cannot read it: {error.strerror or error}") from error
    loaded = _load(data, where)
    if not isinstance(loaded, (tuple, list)) or len(loaded) != 2:
        raise DataError(f"{where}: expected (images, same) in it, found {type(loaded).__name__}")
    images, same = (list(part) if _is_list(part) else None for part in loaded)
    if images is None or same is None or not all(isinstance(i, bytes) for i in images):
        raise DataError(f"{where}: expected a list of encoded images and a list of booleans")
    if len(images) != 2 * len(same) or not same:
        raise DataError(
            f"{where}: {len(images)} images for {len(same)} pairs; expected two for each"
        )
    if not all(isinstance(flag, (bool, int)) and flag in (0, 1) for flag in same):
        raise DataError(f"{where}: expected booleans that say whether pairs are same")
    folds = np.array_split(np.arange(len(same)), FOLDS)
    of_pair = np.repeat(np.arange(1, FOLDS + 1), [len(part) for part in folds])
    pairs = [
        Pair(str(2 * k), str(2 * k + 1), bool(flag), int(of_pair[k]), k + 1)
        for k, flag in enumerate(same)
    ]
    return BinSet(pairs, images, where)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """What Python 3 stores for bytes in the old protocols: _codecs.encode(text, 'latin1')."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in another encoding than latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Empty bytes in the old protocols: a call of bytes() without arguments."""
    return b""


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}


class _RefusedError(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise _RefusedError(f"{module}.{name}")
        return _STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise _RefusedError("a persistent object")


def _load(data: bytes, where: str) -> Any:
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except _RefusedError as error:
        raise DataError(
            f"{where}: the file asks for {error}, which a list of images and booleans does not "
            "need; nothing was run. Do not load it with other programs"
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(f"{where}: damaged, or no .bin set: {error}") from error
