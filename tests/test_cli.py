"""The ``port`` command on real files, as a user runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import port

ROOT = Path(__file__).resolve().parents[1]
SMALL = Path(__file__).parent / "golden" / "train_small"
REFERENCE = ROOT / "reference_prototxt"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A folder with the small golden net, its solver, lists and images."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (
        "train.prototxt",
        "train_test.prototxt",
        "solver_base.prototxt",
        "list.txt",
        "list_test.txt",
        "init.caffemodel",
    ):
        shutil.copy(SMALL / name, folder)
    (folder / "images").symlink_to(SMALL / "images")
    return folder


def losses(log: str) -> list[float]:
    return [float(value) for value in re.findall(r"Iteration \d+ \(.*loss = (\S+)", log)]


def test_help_lists_commands_and_shows_an_example() -> None:
    text = port("--help").stdout
    for word in ("train", "test", "time", "info", "layers", "demo", "Examples:"):
        assert word in text
    for command in ("train", "test", "time", "info"):
        assert f"port {command} " in port(command, "--help").stdout.split("Examples:")[1]


def test_unknown_command_names_a_close_one() -> None:
    assert "no command 'trian' (did you mean 'train'" in port("trian", code=2).stderr


def test_train_from_solver_and_from_net_are_one(small: Path) -> None:
    common = ("--weights", "init.caffemodel", "--max-iter", 3, "--out")
    one = port("train", "solver_base.prototxt", *common, "one", cwd=small)
    two = port("train", "train.prototxt", *common, "two", cwd=small)
    assert losses(one.stderr) == losses(two.stderr)
    assert len(losses(one.stderr)) == 3
    for name in ("base_iter_3.caffemodel", "base_iter_3.solverstate"):
        assert (small / "one" / name).stat().st_size == (small / "two" / name).stat().st_size
    assert sorted(path.name for path in (small / "one").iterdir()) == [
        "base_iter_3.caffemodel", "base_iter_3.solverstate",
    ]  # fmt: skip


def test_resume_goes_on_where_it_stopped(small: Path) -> None:
    start = ("--weights", "init.caffemodel")
    whole = port("train", "solver_base.prototxt", *start, "--max-iter", 6, "--out", "a", cwd=small)
    port("train", "solver_base.prototxt", *start, "--max-iter", 5, "--out", "b", cwd=small)
    state = "b/base_iter_5.solverstate"
    more = ("--snapshot", state, "--max-iter", 6, "--out", "b")
    resumed = port("train", "solver_base.prototxt", *more, cwd=small)
    lambda_ = re.compile(r"lambda = (\S+)")
    assert lambda_.findall(resumed.stderr)[0] == lambda_.findall(whole.stderr)[5]
    restarted = port("train", "solver_base.prototxt", *more, "--restart-lambda", cwd=small)
    assert lambda_.findall(restarted.stderr)[0] == "892.857"


def test_num_classes_auto_counts_the_list(small: Path) -> None:
    run = port("train", "train.prototxt", "--num-classes", "auto", "--max-iter", 1, cwd=small)
    assert "num_output: 10\n    type: QUADRUPLE" in run.stderr
    (small / "more.txt").write_text("images/000.png 11\n")
    arguments = ("--source", "more.txt", "--num-classes", "auto", "--batch-size", 1)
    run = port("train", "train.prototxt", *arguments, "--max-iter", 1, cwd=small)
    assert "num_output: 12\n    type: QUADRUPLE" in run.stderr


def test_same_seed_same_run_whatever_the_workers(small: Path) -> None:
    text = (small / "train.prototxt").read_text()
    text = text.replace("mirror: false", "mirror: true").replace("shuffle: false", "shuffle: true")
    (small / "train.prototxt").write_text(text)
    runs = [
        losses(port("train", "train.prototxt", "--seed", seed, "--workers", workers,
                    "--max-iter", 3, cwd=small).stderr)
        for seed, workers in ((7, 1), (7, 2), (8, 2))
    ]  # fmt: skip
    assert runs[0] == runs[1] != runs[2]


def test_interrupt_writes_a_snapshot_and_exits_130(small: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "port", "train", "solver_base.prototxt", "--max-iter", "100000"],
        cwd=small, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "Iteration 2 " in line:
            break
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while not list(small.glob("base_iter_*.solverstate")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "Optimization stopped early." in rest
    assert re.search(r"go on with --snapshot base_iter_\d+\.solverstate", rest)
    assert len(list(small.glob("base_iter_*.solverstate"))) == 2


def test_trained_then_tested_prints_what_caffe_did(small: Path) -> None:
    port("train", "solver_base.prototxt", "--weights", "init.caffemodel", cwd=small)
    weights = ("--weights", "base_iter_50.caffemodel", "--iterations", 3)
    ours = port("test", "train_test.prototxt", *weights, cwd=small).stderr
    theirs = (SMALL / "caffe_test.log").read_text()
    said = [re.findall(r"caffe\.cpp:(?!284)\d+\] (.*)", log) for log in (ours, theirs)]
    number = re.compile(r"-?\d+\.\d+")
    assert [number.sub("#", line) for line in said[0]] == [
        number.sub("#", line) for line in said[1]
    ]
    values = [[float(n) for line in lines for n in number.findall(line)] for lines in said]
    # After 50 iterations: the bound of the loss curves.
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_info_of_a_net_needs_no_data() -> None:
    text = port("info", REFERENCE / "sphereface_model.prototxt").stdout
    assert "conv4_3" in text
    assert "28,083,520 parameters" in text
    code = port("info", REFERENCE / "sphereface_deploy.prototxt", "--code").stdout
    assert "res1_3 = self.res1_3(relu1_1, relu1_3)" in code


def test_info_of_weights() -> None:
    text = port("info", SMALL / "init.caffemodel").stdout
    assert re.search(r"fc5\s.*64x2688, 64\s", text)


def test_time_gives_a_row_for_each_layer() -> None:
    run = port("time", REFERENCE / "sphereface_4_model.prototxt", "--batch-size", 1,
               "--iterations", 1)  # fmt: skip
    for layer in ("conv1_1", "relu4_1", "fc5", "fc6", "softmax_loss"):
        assert re.search(rf"{layer}\s.*\d\.\d+", run.stdout)


def test_layers_are_listed() -> None:
    names = port("layers").stdout.split()
    assert {"MarginInnerProduct", "Convolution", "ImageData"} <= set(names)


ERRORS = {
    "missing list": (("--source", "nothing.txt"), r"nothing\.txt"),
    "empty list": (("--source", "empty.txt"), r"empty\.txt.*(empty|no image|nothing)"),
    "corrupt image": (("--source", "corrupt.txt"), r"corrupt\.txt:2: .*bad\.png"),
    "missing image": (("--source", "missing.txt"), r"missing\.txt:1: .*gone\.png"),
    "wrongly sized image": (("--source", "sizes.txt"), r"sizes\.txt:2: .*50.*40"),
    "label out of range": (("--source", "labels.txt"), r"layer 'fc6'.*label 99 is outside 0 … 9"),
    "max_iter 0": (("--max-iter", "0"), r"max_iter is 0"),
    "unwritable snapshot folder": (("--out", "empty.txt/sub"), r"empty\.txt"),
    "truncated caffemodel": (("--weights", "cut.caffemodel"), r"cut\.caffemodel"),
    "NaN loss": (("--base-lr", "1e30"), r"loss is (nan|inf).*larger batch.*lambda_min"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_failed_job_is_one_line_and_exit_code_1(case: str, small: Path) -> None:
    import cv2
    import numpy as np

    good = "images/000.png 0\n"
    (small / "bad.png").write_bytes((SMALL / "images" / "000.png").read_bytes()[:200])
    cv2.imwrite(str(small / "small.png"), np.zeros((50, 40, 3), np.uint8))
    (small / "empty.txt").write_text("")
    (small / "corrupt.txt").write_text(good + "bad.png 1\n")
    (small / "missing.txt").write_text("gone.png 0\n")
    (small / "sizes.txt").write_text(good + "small.png 1\n")
    (small / "labels.txt").write_text(good + "images/001.png 99\n")
    (small / "cut.caffemodel").write_bytes((small / "init.caffemodel").read_bytes()[:5000])
    arguments, message = ERRORS[case]
    options = ("--max-iter", 20, "--display", 0, *arguments)
    run = port("train", "solver_base.prototxt", *options, cwd=small, code=1)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last), last


def test_wrong_usage_is_exit_code_2(small: Path) -> None:
    both = ("--weights", "init.caffemodel", "--snapshot", "init.caffemodel")
    assert "not both" in port("train", "solver_base.prototxt", *both, cwd=small, code=2).stderr
    port("train", "nothing.prototxt", cwd=small, code=2)
    port("train", "solver_base.prototxt", "--num-classes", "many", cwd=small, code=2)
    port("train", "solver_base.prototxt", "--device", "warp", cwd=small, code=2)


def test_a_net_without_a_solver_says_how_to_name_one(small: Path) -> None:
    (small / "solver_base.prototxt").unlink()
    text = port("train", "train.prototxt", cwd=small, code=1).stderr
    assert "train.prototxt: which solver?" in text
    assert "--solver" in text


def test_skip_bad_counts_and_reports(small: Path) -> None:
    (small / "bad.png").write_bytes(b"no image")
    (small / "some.txt").write_text("images/000.png 0\nbad.png 1\nimages/001.png 1\n")
    options = ("--source", "some.txt", "--skip-bad", "--max-iter", 2)
    text = port("train", "solver_base.prototxt", *options, cwd=small).stderr
    assert "left out 1 images" in text
    assert re.search(r"some\.txt:2: .*bad\.png", text)
