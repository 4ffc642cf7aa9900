"""Image lists against the original's rules (golden/behaviour, golden/imagedata/list_odd.txt)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest

from port import schema
from port.data.image_data import ImageBatches
from port.data.image_list import atoi, read_image_list, split_line
from port.errors import DataError

REFUSALS = json.loads((golden.GOLDEN / "behaviour" / "refusals.json").read_text())

# The golden cases name their list files without holding them: these are such lists.
LISTS = {
    "normal": "a.png 0\nb.png 1\n",
    "crlf": "a.png 0\r\nb.png 1\r\n",
    "negative": "a.png -1\nb.png 1\n",
    "label_garbage": "a.png 4x\nb.png x\n",
    "no_final_newline": "a.png 0\nb.png 1",
    "double_space": "a.png  3\n",
    "tab": "a.png\t3\n",
    "blank_line_end": "a.png 3\n\n",
    "float_label": "a.png 2.9\n",
    "missing_file": "nowhere.png 3\n",
    "empty": "",
}
LABELS = {
    "normal": [0, 1],
    "crlf": [0, 1],
    "negative": [-1, 1],
    "label_garbage": [4, 0],
    "no_final_newline": [0, 1],
    "float_label": [2],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((4, 4, 3), 7, np.uint8))
    return tmp_path


def open_list(folder: Path, text: str) -> ImageBatches:
    source = folder / "list.txt"
    source.write_bytes(text.encode())
    spec = schema.ImageDataParameter(
        source=str(source), root_folder=f"{folder}/", batch_size=len(text.splitlines()) or 1
    )
    return ImageBatches(spec, schema.TransformationParameter(), "TEST", workers=1, prefetch=1)


def test_every_golden_list_case_is_here():
    assert {f"list_{name}" for name in LISTS} == {n for n in REFUSALS if n.startswith("list_")}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_refused_where_the_original_refuses_it(folder, name):
    if REFUSALS[f"list_{name}"]["refused"]:
        with pytest.raises(DataError, match=r"list\.txt"):
            open_list(folder, LISTS[name])
        return
    with open_list(folder, LISTS[name]) as batches:
        _, label = next(batches)
    assert label.tolist() == LABELS[name]


def test_the_odd_list_reads_as_the_original_reads_it():
    images = read_image_list(golden.GOLDEN / "imagedata" / "list_odd.txt")
    assert images.labels.tolist() == [3, 12, -1, 4]
    # The second line has three spaces: the last one parts, the others stay with the name.
    assert images.names[1] == "images/001.png  "
    assert images.suspects() == [1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png  3", r"list\.txt:2: no image '.*a\.png ' .*more than one space before the label"),
        ("a.png\t3", r"list\.txt:2: no image .*the line has a tab: put one space"),
        ("", r"list\.txt:2: no image path, found ''; .*remove blank lines"),
        (" 7", r"list\.txt:2: no image path, found ' 7'"),
        ("nowhere.png 3", r"list\.txt:2: no image .*\(1 of 3 files.*check the list and root_f"),
    ],
)
def test_a_refusal_names_the_line_and_the_remedy(folder, line, message):
    with pytest.raises(DataError, match=message):
        open_list(folder, f"a.png 0\n{line}\nb.png 1\n")


def test_missing_and_empty_lists(tmp_path):
    with pytest.raises(DataError, match=r"nolist\.txt: No such file .*give the right 'source'"):
        read_image_list(tmp_path / "nolist.txt")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt is empty: it needs one '<path> <label>'"):
        read_image_list(tmp_path / "empty.txt")


@pytest.mark.parametrize(
    ("text", "value"),
    [("12", 12), (" \t+7", 7), ("-3", -3), ("4x", 4), ("2.9", 2), ("x", 0), ("", 0), ("- 3", 0),
     ("4294967299", 3), ("2147483648", -(2**31)), ("99999999999999999999", -1)],
)  # fmt: skip
def test_atoi(text, value):
    """The last three: glibc's strtol, cut to int."""
    assert atoi(text) == value


def test_paths_keep_their_spaces_and_bytes(tmp_path):
    assert split_line("my faces/a  b.jpg 12") == ("my faces/a  b.jpg", 12)
    name = b"caf\xe9.png"
    (tmp_path / "list.txt").write_bytes(name + b" 3\n")
    images = read_image_list(tmp_path / "list.txt")
    assert images.names[0].encode("utf-8", "surrogateescape") == name


def test_a_line_without_a_space_is_a_name_with_atoi_of_itself(folder):
    """Caffe's find_last_of finds nothing, and the whole line serves as both."""
    assert split_line("a.png") == ("a.png", 0)
    assert split_line("12.png") == ("12.png", 12)
    with open_list(folder, "a.png\nb.png\n") as batches:
        assert next(batches)[1].tolist() == [0, 0]


def test_num_classes_is_the_largest_label_plus_one(tmp_path):
    (tmp_path / "list.txt").write_text("a 4\nb 11\nc 0\n")
    images = read_image_list(tmp_path / "list.txt")
    assert (len(images), images.num_classes) == (3, 12)
