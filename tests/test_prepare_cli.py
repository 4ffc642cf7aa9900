"""``port detect``, ``align``, ``list`` and ``prepare`` on real files, as a user runs them."""

from __future__ import annotations

import filecmp
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import port
from hostile_images import encoded, write_hostile
from photographs import face, with_orientation, write_photographs

from port.preprocess.manifest import count, read_manifest

ROOT = Path(__file__).resolve().parents[1]
ONE = ("--workers", 1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("set") / "photos")


@pytest.fixture(scope="module")
def prepared(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results of one uninterrupted ``port prepare``, and what it printed."""
    out = tmp_path_factory.mktemp("prepared") / "faces"
    run = port("prepare", photos, "-o", out, *ONE)
    return out, run.stdout + run.stderr


@pytest.mark.parametrize("command", ["detect", "align", "list", "prepare", "identify"])
def test_help_shows_an_example(command: str) -> None:
    assert f"port {command} " in port(command, "--help").stdout.split("Examples:")[1]
    assert re.search(rf"^  {command} +\w", port("--help").stdout, re.MULTILINE)


# -- the commands ------------------------------------------------------------------------------


def test_prepare_makes_everything(prepared: tuple[Path, str]) -> None:
    out, said = prepared
    assert re.search(r"^40 images: 36 ok, 2 (unreadable|no face), 2 .*; [\d.]+ s", said, re.M)
    assert "id1/005.png: unreadable: the file is cut off before its end marker" in said
    assert "id2/006.png: no face" in said
    assert "list.txt: 36 images of 4 identities" in said
    assert count(read_manifest(out / "manifest.jsonl"))["ok"] == 36
    lines = (out / "list.txt").read_text().splitlines()
    assert len(lines) == 36
    for line in lines:
        path, label = line.rsplit(" ", 1)
        assert Path(path).parent.name == f"id{label}"
        assert cv2.imread(path).shape == (112, 96, 3)
    assert "Failures (4)" in (out / "report.html").read_text()


def test_prepare_again_does_nothing_twice(
    photos: Path, prepared: tuple[Path, str], tmp_path: Path
) -> None:
    shutil.copytree(prepared[0], tmp_path / "out")
    run = port("prepare", photos, "-o", tmp_path / "out", *ONE)
    assert "40 images (40 by an earlier run): 36 ok" in run.stdout
    anew = port("prepare", photos, "-o", tmp_path / "out", *ONE, "--restart")
    assert "earlier run" not in anew.stdout


def test_detect_then_align_is_align_in_one_go(
    photos: Path, prepared: tuple[Path, str], tmp_path: Path
) -> None:
    report = tmp_path / "pages" / "found.html"
    run = port("detect", photos, "-o", tmp_path / "found", *ONE, "--report", report)
    assert f"report:   {report}" in run.stdout
    assert report.read_text().count('src="data:image/jpeg;base64,') >= 36
    found = tmp_path / "found" / "manifest.jsonl"
    run = port("align", photos, "-o", tmp_path / "faces", "--landmarks", found, *ONE)
    assert "36 ok, 4 no landmarks" in run.stdout
    crops = [str(path.relative_to(prepared[0])) for path in prepared[0].glob("crops/*/*")]
    same, *_ = filecmp.cmpfiles(prepared[0], tmp_path / "faces", crops, shallow=False)
    assert len(same) == 36


def test_align_detects_where_it_has_no_landmarks(photos: Path, tmp_path: Path) -> None:
    port("align", photos / "id0", "-o", tmp_path / "f", "--encoding", "png", *ONE)
    assert len(list((tmp_path / "f" / "crops").glob("*.png"))) == 10


def test_settings_reach_the_detector(photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "in"
    few.mkdir()
    shutil.copy(photos / "id0" / "000.png", few)
    port("detect", few, "-o", tmp_path / "a", *ONE)
    large = ("--min-size", 120)
    run = port("detect", few, "-o", tmp_path / "b", *ONE, *large, code=1)
    assert "error: no face in any of 1 images" in run.stderr
    strict = ("--thresholds", "0.6,0.7,1.0")
    port("detect", few, "-o", tmp_path / "c", *ONE, *strict, code=1)
    run = port("detect", few, "-o", tmp_path / "a", *ONE, *strict, code=1)
    assert re.search(r"made with another settings; .*--restart", run.stderr)


@pytest.mark.data("mtcnn")
def test_original_weights_find_the_same(photos: Path, shared: Path, tmp_path: Path) -> None:
    few = photos / "id3"
    port("detect", few, "-o", tmp_path / "ours", *ONE)
    port("detect", few, "-o", tmp_path / "theirs", *ONE, "--mtcnn", shared / "mtcnn")
    ours, theirs = ((tmp_path / side / "manifest.jsonl").read_text() for side in ("ours", "theirs"))
    assert ours == theirs


def test_exif_orientation_unless_as_stored(tmp_path: Path) -> None:
    upright = face(0)[..., ::-1]
    lying = np.rot90(upright)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.jpg").write_bytes(with_orientation(encoded(".jpg", lying), 6))
    port("detect", tmp_path / "in", "-o", tmp_path / "a", *ONE)
    port("detect", tmp_path / "in", "-o", tmp_path / "b", *ONE, "--as-stored", code=1)
    assert read_manifest(tmp_path / "b" / "manifest.jsonl")[0]["status"] == "no face"


def test_list_excludes_and_counts(tmp_path: Path) -> None:
    for name in ("0166921", "0000045", "odd", "empty"):
        (tmp_path / "crops" / name).mkdir(parents=True)
    for name in ("0166921/1.jpg", "0000045/1.jpg", "odd/1.jpg", "odd/2.png"):
        (tmp_path / "crops" / name).touch()

    def listed(*options: object) -> tuple[list[str], str]:
        run = port("list", tmp_path / "crops", "-o", tmp_path / "l.txt", *options)
        lines = (tmp_path / "l.txt").read_text().splitlines()
        return [line.removeprefix(f"{tmp_path}/crops/") for line in lines], run.stdout + run.stderr

    lines, said = listed()
    assert lines == ["0000045/1.jpg 0", "odd/1.jpg 2"]
    assert "2 images of 3 identities" in said
    assert "left out: 0166921" in said
    assert "numbered, but without an image (1): empty" in said
    assert listed("--no-exclude", "--exclude", "empty")[0] == [
        "0000045/1.jpg 0", "0166921/1.jpg 1", "odd/1.jpg 2"
    ]  # fmt: skip
    assert listed("--exclude", "odd", "--exclude", "empty")[0] == ["0000045/1.jpg 0"]
    assert listed("--suffix", "png")[0] == ["odd/2.png 2"]


def test_prepare_excludes(photos: Path, tmp_path: Path) -> None:
    for name in ("1056413", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
        shutil.copy(photos / "id0" / "000.png", tmp_path / "in" / name)
    run = port("prepare", tmp_path / "in", "-o", tmp_path / "out", *ONE)
    assert "list.txt: 1 images of 1 identities" in run.stdout
    run = port("prepare", tmp_path / "in", "-o", tmp_path / "out", *ONE, "--no-exclude")
    assert "list.txt: 2 images of 2 identities" in run.stdout


def test_hostile_images_are_reported_by_worker_processes(tmp_path: Path, photos: Path) -> None:
    names = write_hostile(tmp_path / "in", 66)
    shutil.copy(photos / "id0" / "000.png", tmp_path / "in" / "zero" / "good.png")
    run = port("prepare", tmp_path / "in", "-o", tmp_path / "out", "--workers", 2)
    assert re.search(r"^67 images: .*1 ok", run.stdout, re.M)
    assert re.search(r"… and \d+ more, all in .*manifest.jsonl", run.stderr)
    records = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert {record["file"] for record in records} == {*names, "zero/good.png"}
    assert {record["status"] for record in records} == {"ok", "no face", "unreadable"}


# -- interruption ------------------------------------------------------------------------------


def start(photos: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "port", "prepare", str(photos), "-o", str(out)]
    return subprocess.Popen(
        [*command, "--workers", "2"], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_manifest(out: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not (out / "manifest.jsonl").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def finish(photos: Path, out: Path, whole: Path) -> None:
    """Runs the command again in this process and compares everything but the list's folder."""
    port("prepare", photos, "-o", out, *ONE)
    names = sorted(str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file())
    assert names == sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    names.remove("list.txt")
    _, different, _ = filecmp.cmpfiles(out, whole, names, shallow=False)
    assert different == []
    theirs = (whole / "list.txt").read_text().replace(str(whole), str(out))
    assert (out / "list.txt").read_text() == theirs


def test_ctrl_c_says_how_to_go_on(photos: Path, prepared: tuple[Path, str], tmp_path: Path) -> None:
    process = start(photos, tmp_path / "faces")
    wait_for_manifest(tmp_path / "faces", process)
    os.killpg(process.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the workers too
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    message = r"stopped after \d+ of 40 images; the same command goes on from there\n"
    assert re.fullmatch(message, said), said
    finish(photos, tmp_path / "faces", prepared[0])


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4))
def test_killed_at_a_random_moment(
    moment: int, photos: Path, prepared: tuple[Path, str], tmp_path: Path
) -> None:
    process = start(photos, tmp_path / "faces")
    time.sleep(random.Random(moment).uniform(1, 14))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finish(photos, tmp_path / "faces", prepared[0])


# -- errors ------------------------------------------------------------------------------------

NO_WEIGHTS = r"det1.caffemodel: no such file; MTCNN needs det1.caffemodel, det2.caffemodel"
FAILED = {
    "no image": (("prepare", "empty", "-o", "out"), r"empty: no image in it; expected identity"),
    "no weights": (("detect", "in", "-o", "out", "--mtcnn", "empty"), NO_WEIGHTS),
    "no such name": (("align", "in", "-o", "out", "--landmarks", "p.txt"), r"no face in any of 1 "),
    "bad landmarks": (("align", "in", "-o", "out", "--landmarks", "b.txt"), r"b.txt:1: expected 5"),
    "out is a file": (("detect", "in", "-o", "p.txt/out"), r"p.txt/out: cannot write results"),
    "nothing to list": (("list", "in", "-o", "l.txt"), r"no identity/image.jpg .*--suffix .png"),
}
WRONG = {
    "no folder": (("detect", "nothing", "-o", "out"), r"'nothing' does not exist"),
    "no out": (("detect", "in"), r"Missing option '-o'"),
    "thresholds": (("detect", "in", "-o", "out", "--thresholds", "1,2"), r"not three scores"),
    "factor": (("detect", "in", "-o", "out", "--factor", "1"), r"0<x<1"),
    "encoding": (("align", "in", "-o", "out", "--encoding", "gif"), r"'gif' is not one of"),
    "workers": (("align", "in", "-o", "out", "--workers", "0"), r"x>=1"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "in" / "a" / "1.png").write_bytes(encoded(".png", face(0)))
    (tmp_path / "p.txt").write_text("elsewhere/1.png" + "\t7\t8" * 5 + "\n")
    (tmp_path / "b.txt").write_text("a/1.png 1 2 3\n")
    return tmp_path


@pytest.mark.parametrize("case", FAILED)
def test_failed_job_is_one_line_and_exit_code_1(case: str, folder: Path) -> None:
    arguments, message = FAILED[case]
    workers = () if arguments[0] == "list" else ONE
    last = port(*arguments, *workers, cwd=folder, code=1).stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last), last


@pytest.mark.parametrize("case", WRONG)
def test_wrong_usage_is_exit_code_2(case: str, folder: Path) -> None:
    arguments, message = WRONG[case]
    assert re.search(message, port(*arguments, cwd=folder, code=2).stderr)
