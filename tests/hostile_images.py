"""Files that break image pipelines, for tests: writes them below a folder."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

Bytes = Callable[[np.random.Generator], bytes]


def encoded(suffix: str, image: np.ndarray) -> bytes:
    """The image as a file of this kind."""
    return cv2.imencode(suffix, image)[1].tobytes()


def _noise(random: np.random.Generator, *shape: int, dtype: type = np.uint8) -> np.ndarray:
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def _cut(suffix: str) -> Bytes:
    def make(random: np.random.Generator) -> bytes:
        whole = encoded(suffix, _noise(random, 60, 50, 3))
        return whole[: random.integers(1, len(whole) - 4)]

    return make


def _cmyk(random: np.random.Generator) -> bytes:
    """A JPEG whose frame header claims four components."""
    data = bytearray(encoded(".jpg", _noise(random, 40, 40, 3)))
    frame = data.find(b"\xff\xc0")
    length = struct.unpack(">H", data[frame + 2 : frame + 4])[0]
    data[frame + 2 : frame + 4] = struct.pack(">H", length + 3)
    data[frame + 9] = 4
    data[frame + 2 + length : frame + 2 + length] = bytes([4, 0x11, 0])
    return bytes(data)


def _flipped(random: np.random.Generator) -> bytes:
    data = bytearray(encoded(".jpg", _noise(random, 64, 64, 3)))
    for at in random.integers(2, len(data), 40):
        data[at] = random.integers(256)
    return bytes(data)


def _pretends_to_be_huge(random: np.random.Generator) -> bytes:
    data = bytearray(encoded(".png", _noise(random, 8, 8, 3)))
    data[16:24] = struct.pack(">II", 2_000_000, 2_000_000)
    return bytes(data)


KINDS: dict[str, tuple[str, Bytes]] = {
    "zero": (".jpg", lambda random: b""),
    "one_byte": (".png", lambda random: b"\xff"),
    "text": (".jpg", lambda random: b"not an image\n"),
    "header_only": (".jpg", lambda random: b"\xff\xd8\xff\xe0"),
    "random": (".bmp", lambda random: random.bytes(500)),
    "cut_jpg": (".jpg", _cut(".jpg")),
    "cut_png": (".png", _cut(".png")),
    "cut_bmp": (".bmp", _cut(".bmp")),
    "cut_pgm": (".pgm", _cut(".ppm")),
    "flipped": (".jpg", _flipped),
    "cmyk": (".jpg", _cmyk),
    "huge": (".png", _pretends_to_be_huge),
    "png_as_jpg": (".jpg", lambda random: encoded(".png", _noise(random, 30, 30, 3))),
    "bmp_as_png": (".png", lambda random: encoded(".bmp", _noise(random, 30, 30, 3))),
    "pixel": (".png", lambda random: encoded(".png", _noise(random, 1, 1, 3))),
    "long": (".png", lambda random: encoded(".png", _noise(random, 1, 30000, 3))),
    "tall": (".jpg", lambda random: encoded(".jpg", _noise(random, 30000, 1, 3))),
    "deep": (".png", lambda random: encoded(".png", _noise(random, 30, 30, 3, dtype=np.uint16))),
    "deep_grey": (".pgm", lambda random: encoded(".pgm", _noise(random, 25, 25, dtype=np.uint16))),
    "alpha": (".png", lambda random: encoded(".png", _noise(random, 30, 30, 4))),
    "grey": (".jpg", lambda random: encoded(".jpg", _noise(random, 30, 30))),
    "gif": (".jpg", lambda random: b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"),
}


def write_hostile(folder: Path, count: int, seed: int = 0) -> list[str]:
    """Writes `count` files in identity folders named by their kind; returns their names."""
    random = np.random.default_rng(seed)
    names = []
    for i in range(count):
        kind = list(KINDS)[i % len(KINDS)]
        suffix, make = KINDS[kind]
        path = folder / kind / f"{i:03}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(random))
        names.append(f"{kind}/{path.name}")
    return names
