"""InsightFace's .bin sets: read as they are written in the wild, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from port.data.image_data import decode_image
from port.errors import DataError
from verify import accuracy
from verify.insightface import read_bin


def encoded(count: int = 40) -> list[bytes]:
    rng = np.random.default_rng(0)
    people = rng.integers(40, 215, (count // 2, 14, 14, 3))
    images = []
    for index in range(count):
        small = people[index // 2] + rng.integers(-20, 20, (14, 14, 3))
        image = cv2.resize(small.astype(np.uint8), (112, 112))
        images.append(cv2.imencode(".jpg", image)[1].tobytes())
    return images


def shuffled(images: list[bytes], same: list[bool]) -> list[bytes]:
    """The second picture of each different pair taken from the next person."""
    right = [
        images[2 * k + 1 if flag else (2 * k + 3) % len(images)] for k, flag in enumerate(same)
    ]
    return [picture for pair in zip(images[::2], right, strict=True) for picture in pair]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("container", [tuple, list])
def test_sets_of_every_pickle_protocol(tmp_path: Path, protocol: int, container: type) -> None:
    images, same = encoded(), [True, False] * 10
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(container([[*images[:-1], b""], same]), protocol))
    found = read_bin(path)
    assert found.encoded == [*images[:-1], b""]
    assert [pair.same for pair in found.pairs] == same
    assert [pair.fold for pair in found.pairs] == [k // 2 + 1 for k in range(20)]
    assert (found.pairs[3].left, found.pairs[3].right) == ("6", "7")
    assert np.array_equal(found.read_image("5"), decode_image(images[5], True))
    with pytest.raises(DataError, match="image 39 cannot be decoded"):
        found.read_image("39")


def test_a_set_written_by_python_2(tmp_path: Path) -> None:
    # Protocol 2 of Python 2: byte strings as SHORT_BINSTRING, booleans as NEWTRUE and NEWFALSE.
    text = b"\x80\x02]q\x00(U\x03abcU\x03defU\x03ghiU\x03jkle]q\x01(\x88\x89e\x86."
    path = tmp_path / "set.bin"
    path.write_bytes(text)
    found = read_bin(path)
    assert found.encoded == [b"abc", b"def", b"ghi", b"jkl"]
    assert [pair.same for pair in found.pairs] == [True, False]


def test_a_set_is_verified_without_unpacking(tmp_path: Path) -> None:
    same = [True, False] * 10
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps((shuffled(encoded(), same), same)))
    found = read_bin(path)

    def coarse(batch: np.ndarray) -> np.ndarray:
        return batch.reshape(len(batch), 3, 14, 8, 12, 8).mean((3, 5)).reshape(len(batch), -1)

    result = accuracy.verify_pairs(found.pairs, found, coarse)
    assert result.result.mean == 1.0
    assert result.read("0", True).shape == (112, 112, 3)


class Payload:
    """Unpickling this makes a folder: the harm that a real one would do."""

    def __init__(self, call: tuple) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_set_that_tries_to_run_code(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "harm"
    path = tmp_path / "set.bin"
    payload = Payload((os.mkdir, (str(target),)))
    path.write_bytes(pickle.dumps(([b"a", b"b"], [payload]), protocol))
    with pytest.raises(DataError, match=r"asks for (posix|nt)\.mkdir, .* nothing was run"):
        read_bin(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "call",
    [(eval, ("1",)), (getattr, ("", "join")), (bytes, (10**12,)), (__import__, ("os",))],
    ids=["eval", "getattr", "bytes of a size", "import"],
)
def test_builtins_are_not_called(tmp_path: Path, call: tuple) -> None:
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps(([b"a", b"b"], [Payload(call)])))
    with pytest.raises(DataError, match=r"nothing was run|damaged, or no \.bin set"):
        read_bin(path)


def test_damaged_and_other_files(tmp_path: Path) -> None:
    good = pickle.dumps((encoded(4), [True, False]))
    path = tmp_path / "set.bin"
    for data, message in (
        (good[: len(good) // 2], r"damaged, or no \.bin set"),
        (b"", r"damaged, or no \.bin set"),
        (b"\xff\xd8 a picture", r"damaged, or no \.bin set"),
        (pickle.dumps([1, 2, 3]), r"expected \(images, same\) in it, found list"),
        (pickle.dumps((3, [True])), "expected a list of encoded images and a list of booleans"),
        (pickle.dumps(([b"a"], [True])), "1 images for 1 pairs; expected two for each"),
        (pickle.dumps(([], [])), "0 images for 0 pairs"),
        (pickle.dumps(([b"a", b"b"], ["yes"])), "expected booleans"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            read_bin(path)
    with pytest.raises(DataError, match=r"none\.bin: cannot read it"):
        read_bin(tmp_path / "none.bin")
