"""The log: line by line what the original printed, time, process and speed apart."""

from __future__ import annotations

import os
import re

import pytest
from small_runs import finished, golden_log, log_lines

from port.solver.log import Log, loss_note, number

NUMBER = re.compile(r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w.])")
RUNS = ["base", "tt", "debug", "adam", "avg5", "clip", "diff", "hdf5", "iter2", "l1", "nesterov"]
# The sum of a bias gradient over 8 images cancels almost to nothing and shows PReLU units whose
# input changed sign by rounding; everything else agrees to a few 1e-5.
TOLERANCE = {"debug": 5e-3}


def assert_same_log(ours: list[str], theirs: list[str], tolerance: float) -> None:
    assert [NUMBER.sub("#", line) for line in ours] == [NUMBER.sub("#", line) for line in theirs]
    for mine, golden in zip(ours, theirs, strict=True):
        found = [float(value) for value in NUMBER.findall(mine)]
        wanted = [float(value) for value in NUMBER.findall(golden)]
        assert found == pytest.approx(wanted, rel=tolerance), f"ours: {mine}\ntheirs: {golden}"


@pytest.mark.parametrize("name", RUNS)
def test_log_equals_the_originals(name: str) -> None:
    run = finished(name)
    theirs = golden_log(f"caffe_train_{name}")
    # That run began with the same weights from HDF5, which are not kept here.
    theirs = [line.replace("init.caffemodel.h5", "init.caffemodel") for line in theirs]
    ours = log_lines("\n".join(run.lines))
    if "Solver scaffolding done" in theirs[0]:
        ours = ours[next(i for i, line in enumerate(ours) if "Solver scaffolding done" in line) :]
    assert_same_log(ours, theirs, TOLERANCE.get(name, 1e-3))


def test_prefix_is_glogs() -> None:
    lines: list[str] = []
    Log(lines.append)("solver.cpp:218", "text")
    assert re.fullmatch(
        rf"I\d{{4}} \d\d:\d\d:\d\d\.\d{{6}} +{os.getpid()} solver\.cpp:218\] text", lines[0]
    )


def test_default_sink_is_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Log()("net.cpp:719", "text", severity="E")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("E")
    assert captured.err.endswith("net.cpp:719] text\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0003, "0.0003"),
        (3e-07, "3e-07"),
        (892.857117, "892.857"),
        (625.0, "625"),
        (1234567.0, "1.23457e+06"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_as_a_cpp_stream_prints_them(value: float, text: str) -> None:
    assert number(value) == text


def test_loss_note_only_where_the_output_counts() -> None:
    assert loss_note(0.5, 3.0) == " (* 0.5 = 1.5 loss)"
    assert loss_note(0.0, 3.0) == ""
