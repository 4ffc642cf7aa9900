"""Training lists against the ones that get_list.m wrote."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from golden import GOLDEN

from port.errors import DataError
from port.preprocess.face_list import write_face_list

FOLDER = "data/CASIA-WebFace-112X96"


def plant(tree: str, root: Path) -> Path:
    """The folders and empty files that a golden tree names, made in no useful order."""
    for name in reversed(tree.splitlines()):
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if name.endswith("/") else path.touch()
    return root / FOLDER


@pytest.mark.parametrize("name", ["plain", "edge"])
def test_list(name: str, tmp_path: Path) -> None:
    folder = plant((GOLDEN / "list" / f"{name}.tree.txt").read_text(), tmp_path)
    out = tmp_path / "list.txt"
    summary = write_face_list(folder, out)
    theirs = (GOLDEN / "list" / f"{name}.expected.txt").read_text()
    assert out.read_text() == theirs.replace("{PWD}", str(tmp_path))
    assert summary.images == len(theirs.splitlines())


def test_absolute_paths_from_a_relative_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("a/\na/1.jpg\n", tmp_path)
    monkeypatch.chdir(tmp_path)
    write_face_list(Path("data") / ".." / FOLDER, "list.txt")
    assert (tmp_path / "list.txt").read_text() == f"{tmp_path}/{FOLDER}/a/1.jpg 0\n"


def test_keeps_or_excludes_whom_it_is_told(tmp_path: Path) -> None:
    folder = plant("0166921/1.jpg\nb/1.jpg\nc/1.jpg\n", tmp_path)
    everyone = write_face_list(folder, tmp_path / "all.txt", exclude=())
    assert (everyone.identities, everyone.excluded) == (3, [])
    chosen = write_face_list(folder, tmp_path / "some.txt", exclude=["b", "nobody"])
    assert (chosen.identities, chosen.excluded) == (2, ["b"])
    assert (tmp_path / "some.txt").read_text().splitlines()[-1].endswith("c/1.jpg 1")


def test_empty_folder_keeps_its_label(tmp_path: Path) -> None:
    folder = plant("a/1.jpg\nb/\nc/1.jpg\nstray.jpg\n", tmp_path)
    summary = write_face_list(folder, tmp_path / "list.txt")
    labels = [line.split()[-1] for line in (tmp_path / "list.txt").read_text().splitlines()]
    assert (labels, summary.empty, summary.identities) == (["0", "2"], ["b"], 3)


def test_other_suffixes(tmp_path: Path) -> None:
    folder = plant("a/1.jpg\na/2.png\na/3.PNG\n", tmp_path)
    assert write_face_list(folder, tmp_path / "list.txt", suffixes=(".png",)).images == 1


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    folder = plant("a/1.jpg\n", tmp_path)
    odd = os.fsencode(folder) + b"/a/\xff\xfe.jpg"
    Path(os.fsdecode(odd)).touch()
    write_face_list(folder, tmp_path / "list.txt")
    assert odd + b" 0\n" in (tmp_path / "list.txt").read_bytes()


@pytest.mark.parametrize(
    ("tree", "message"),
    [("a/1.png\n", "expected one folder per identity"), ("", "no such folder")],
)
def test_nothing_to_list(tree: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_face_list(plant(tree, tmp_path), tmp_path / "list.txt")
    assert not (tmp_path / "list.txt").exists()


def test_refuses_a_line_break_and_leaves_the_old_list(tmp_path: Path) -> None:
    folder = plant("a/1.jpg\n", tmp_path)
    (folder / "a" / "2\n.jpg").touch()
    (tmp_path / "list.txt").write_text("old")
    with pytest.raises(DataError, match="line break"):
        write_face_list(folder, tmp_path / "list.txt")
    assert (tmp_path / "list.txt").read_text() == "old"
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_unwritable_target(tmp_path: Path) -> None:
    folder = plant("a/1.jpg\n", tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the list"):
        write_face_list(folder, tmp_path / "file" / "list.txt")
