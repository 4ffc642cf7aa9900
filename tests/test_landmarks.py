"""Landmark files in the formats in use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from port.errors import DataError
from port.preprocess.landmarks import five_from_68, read_landmarks

FIVE = np.array([[105, 113], [146.5, 112], [126, 134], [108, 158], [145, 155]], float)
OUTLINE = np.random.default_rng(0).uniform(0, 250, (68, 2))
OUTLINE_AS_FIVE = (
    np.array(
        [
            OUTLINE[36:42].mean(0),
            OUTLINE[42:48].mean(0),
            OUTLINE[30],
            OUTLINE[48],
            OUTLINE[54],
        ]
    )
    + 1
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "points"
    path.write_text(text, "utf-8")
    return path


def numbers(points: np.ndarray, separator: str) -> str:
    return separator.join(repr(float(value)) for value in points.ravel())


@pytest.mark.parametrize("separator", ["\t", " "])
def test_table_of_five(tmp_path: Path, separator: str) -> None:
    line = f"A_B/A B_0001.jpg{separator}{numbers(FIVE, separator)}"
    found = read_landmarks(written(tmp_path, f"{line}\n\n"))
    np.testing.assert_array_equal(found.get("A_B/A B_0001.jpg"), FIVE)
    assert found.count == 1
    assert found.get("A_B/other.jpg") is None


@pytest.mark.parametrize("separator", ["\t", " "])
def test_table_of_68(tmp_path: Path, separator: str) -> None:
    found = read_landmarks(written(tmp_path, f"a/1.jpg{separator}{numbers(OUTLINE, separator)}"))
    np.testing.assert_array_equal(found.get("a/1.jpg"), OUTLINE_AS_FIVE)


def test_68_points_are_numbered_as_dlib_does() -> None:
    np.testing.assert_allclose(five_from_68(OUTLINE), OUTLINE_AS_FIVE)


def test_manifest(tmp_path: Path) -> None:
    lines = [
        {"file": "a/1.jpg", "status": "ok", "points": FIVE.tolist()},
        {"file": "a/2.jpg", "status": "no face"},
        {"file": "a/3.jpg", "points": OUTLINE.tolist()},
    ]
    found = read_landmarks(written(tmp_path, "\n".join(map(json.dumps, lines))))
    np.testing.assert_array_equal(found.get("a/1.jpg"), FIVE)
    np.testing.assert_array_equal(found.get("a/3.jpg"), OUTLINE_AS_FIVE)
    assert (found.count, found.get("a/2.jpg")) == (2, None)


def imglab(parts: str, box: str = "") -> str:
    return (
        '<?xml version="1.0"?><dataset><images><image file="a/1.jpg">'
        f"<box top='1' left='1' width='9' height='9'/>{box}<box top='1' left='1' width='9' "
        f"height='9'>{parts}</box></image><image file='a/2.jpg'/></images></dataset>"
    )


def parts(count: int) -> str:
    listed = reversed(list(enumerate(OUTLINE[:count].tolist())))
    return "".join(f"<part name='{i:02}' x='{x}' y='{y}'/>" for i, (x, y) in listed)


def test_imglab(tmp_path: Path) -> None:
    found = read_landmarks(written(tmp_path, imglab(parts(68))))
    np.testing.assert_array_equal(found.get("a/1.jpg"), OUTLINE_AS_FIVE)
    assert found.count == 1


def test_finds_by_the_last_two_parts(tmp_path: Path) -> None:
    other = FIVE + 1
    text = f"C:\\faces\\lfw\\a\\1.jpg\t{numbers(FIVE, chr(9))}\nb/1.jpg\t{numbers(other, chr(9))}\n"
    found = read_landmarks(written(tmp_path, text))
    np.testing.assert_array_equal(found.get("a/1.jpg"), FIVE)
    np.testing.assert_array_equal(found.get("set/b/1.jpg"), other)
    assert found.get("1.jpg") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no landmarks in it"),
        ("a/1.jpg\t1\t2\t3", "points:1: expected 5 points .* found 3 numbers"),
        (f"a/1.jpg\t{numbers(FIVE, chr(9))}\na/2.jpg\tx\ty", "points:2: could not convert"),
        (f"a/1.jpg\tnan\t{numbers(FIVE.ravel()[1:], chr(9))}", "points:1: .* not a finite number"),
        ('{"file": "a", "points": [[1, 2]]}', "points:1: expected 5 points .* found 2 numbers"),
        ('{"status": "ok"}', "points:1: expected"),
        ('{"file": "a", "points": [[1, 2], [3]]}', "points:1: expected"),
        ("{nonsense", "points:1: expected"),
        ("<dataset><images>", "not well-formed XML"),
        (imglab(parts(5)), "image 'a/1.jpg': expected parts 0 to 67, found 5"),
        (imglab("<part name='nose' x='1' y='2'/>"), "needs a number as name"),
        ('<!DOCTYPE d [<!ENTITY a "b">]><d>&a;</d>', "no entities"),
    ],
)
def test_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_landmarks(written(tmp_path, text))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the landmarks: No such file"):
        read_landmarks(tmp_path / "none.txt")
