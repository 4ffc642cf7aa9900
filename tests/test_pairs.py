"""Pairs lists against parseList.m's own output, and the errors of malformed ones."""

from __future__ import annotations

import hashlib
from pathlib import Path

import golden
import pytest

from port.errors import DataError
from verify import pairs

FOLDER = golden.GOLDEN / "eval"


def as_tsv(read: list[pairs.Pair], folder: str) -> str:
    """The pairs as the golden files hold them: fileL, fileR, fold, flag."""
    return "".join(
        f"{folder}/{p.left}\t{folder}/{p.right}\t{p.fold}\t{1 if p.same else -1}\n" for p in read
    )


def test_odd_lines_are_read_and_skipped_as_the_original_does() -> None:
    read = pairs.read_pairs(FOLDER / "parseList_small_input.txt", strict=False)
    expected = (FOLDER / "parseList_small_expected.tsv").read_text(encoding="utf-8")
    assert as_tsv(read, "/LFW") == expected


@pytest.mark.data("lfw")
@pytest.mark.parametrize("strict", [True, False])
def test_the_official_list(shared: Path, strict: bool) -> None:
    case = golden.load("eval", "parseList_official")
    read = pairs.read_pairs(shared / "lfw" / "pairs.txt", strict)
    text = as_tsv(read, case.meta["folder_argument"])
    assert hashlib.md5(text.encode()).hexdigest() == case.meta["tsv_md5"]


def test_strict_reading_names_the_malformed_line() -> None:
    text = "10\t300\nA\t1\t2\nB\t1\n"
    with pytest.raises(DataError, match=r"list\.txt, line 3: expected .* found 'B\\t1'; .*people"):
        pairs.parse_pairs(text, "list.txt")
    with pytest.raises(DataError, match=r"line 1: expected .* found 'A\\tone\\t2'"):
        pairs.parse_pairs("A\tone\t2\n")


def test_a_list_without_pairs_is_an_error() -> None:
    with pytest.raises(DataError, match=r"empty\.txt: no pair of faces"):
        pairs.parse_pairs("10\t300\n", "empty.txt")


def test_a_missing_or_binary_list_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the list of pairs"):
        pairs.read_pairs(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="cannot read the list of pairs"):
        pairs.read_pairs(tmp_path / "binary.txt")


@pytest.mark.parametrize(
    ("header", "folds"),
    [("2\t2", [1, 1, 1, 1, 2]), ("3", [1, 1, 1, 1, 1]), ("", [1, 1, 1, 1, 1])],
    ids=["folds and size", "size only, as pairsDevTest.txt", "none: folds of 600"],
)
def test_the_header_sets_the_size_of_a_fold(header: str, folds: list[int]) -> None:
    body = "A\t1\t2\nB\t1\t2\nA\t1\tB\t2\nB\t1\tC\t2\nC\t1\t3\n"
    read = pairs.parse_pairs(f"{header}\n{body}" if header else body)
    assert [pair.fold for pair in read] == folds
    assert [pair.same for pair in read] == [True, True, False, False, True]
    assert read[2].left == "A/A_0001.jpg"
    assert read[2].line == (4 if header else 3)


def test_spaces_separate_fields_where_there_is_no_tab() -> None:
    (pair,) = pairs.parse_pairs("Ann_Lee 3 Bob_Roy 12\n", extension=".png")
    assert (pair.left, pair.right) == ("Ann_Lee/Ann_Lee_0003.png", "Bob_Roy/Bob_Roy_0012.png")


@pytest.mark.parametrize("header", ["2\n", ""])
def test_people_lists(header: str) -> None:
    people = pairs.parse_people(header + "2\nA B\t4\nC\t1\n1\nD\t2\n")
    assert people == [
        pairs.Person("A B", 4, 1),
        pairs.Person("C", 1, 1),
        pairs.Person("D", 2, 2),
    ]


def test_people_lists_that_do_not_add_up() -> None:
    with pytest.raises(DataError, match="line 3: expected 'name TAB count'"):
        pairs.parse_people("1\nA\t1\nB\t1\n")
    with pytest.raises(DataError, match="lacks 1 of the people"):
        pairs.parse_people("2\nA\t1\n")


def test_written_pairs_read_back() -> None:
    rows = [("A", 1, "A", 2), ("A", 1, "B", 7)]
    read = pairs.parse_pairs(pairs.write_pairs(rows, folds=1, per_fold=1))
    assert [(p.left, p.right, p.same) for p in read] == [
        ("A/A_0001.jpg", "A/A_0002.jpg", True),
        ("A/A_0001.jpg", "B/B_0007.jpg", False),
    ]
