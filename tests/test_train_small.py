"""Whole training runs against the original's: curves, parameters, snapshots, resuming, testing."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from small_runs import (
    SMALL,
    expected,
    expected_meta,
    finished,
    golden_log,
    inside,
    make_solver,
    thinned,
    under,
)
from tolerance import FORWARD, GRADIENT, assert_close

from port import load_net, schema
from port.caffemodel import read_weights, write_caffemodel
from port.prototxt import parse, parse_binary
from port.solver.snapshot import read_state

CURVE = 1e-3
CURVE_REASON = "the issue's bound; 50 updates let float32 rounding grow, measured below 2e-4"
PARAMETERS = 2e-4
PARAMETERS_REASON = (
    "float32 and float64 runs of ours agree to 2e-7 after 10 updates, the original is 8e-5 away "
    "from both in conv1_1's bias, whose gradient cancels almost to nothing"
)
HISTORY = 2e-2
HISTORY_REASON = "the history holds those gradients themselves"
PARAMS = ["avg5", "clip", "iter2", "nesterov"]
# These divide by the root of gradients near zero, or take signs, and so amplify rounding:
# tests/test_updates.py has the tight checks.
AMPLIFYING = ["adagrad", "adam", "l1", "rmsprop"]


def printed_losses(lines: list[str]) -> list[float]:
    found = [re.search(r"Iteration \d+(?: \(.*\))?, loss = (\S+)$", line) for line in lines]
    return [float(match[1]) for match in found if match]


def test_first_batch_and_gradients() -> None:
    net = load_net(SMALL / "train.prototxt", SMALL / "init.caffemodel", phase="TRAIN", workers=1)
    blobs = net(blobs=["data", "label", "fc5", "res1_3", "fc6"])
    for name, theirs in under("first_batch").items():
        ours = thinned(blobs[name].detach().numpy())
        assert_close(ours, theirs.reshape(-1), FORWARD, "another order of float32 sums", name)
    net.total_loss(blobs).backward()
    for name, theirs in under("first_grads").items():
        layer, index = name.removeprefix("grad/").split("/")
        blob = net.params[layer][int(index)]
        ours = np.zeros(blob.shape) if blob.grad is None else blob.grad.numpy()
        assert_close(thinned(ours), theirs, GRADIENT, "another order of float32 sums", name)
    net.close()


@pytest.mark.parametrize("name", ["base", *PARAMS, *AMPLIFYING])
def test_loss_and_lambda_of_every_forward(name: str) -> None:
    run, theirs = finished(name), under(f"curve_{name}")
    count = len(theirs["loss"])
    assert_close(run.losses[:count], theirs["loss"], CURVE, CURVE_REASON, "loss")
    float32 = "one float32 power, printed exactly by the original"
    assert_close(run.lambdas[:count], theirs["lambda"], 1e-7, float32, "lambda")
    printed = "6 digits of the running average"
    assert_close(printed_losses(run.lines), theirs["cli_loss"], CURVE, printed, "cli loss")


@pytest.mark.parametrize("iteration", [1, 2, 5, 10])
def test_parameters_on_the_way(iteration: int) -> None:
    ours = finished("base").weights[iteration]
    for name, theirs in under(f"curve_base/param_after_{iteration}").items():
        assert_close(thinned(ours[name]), theirs.reshape(-1), PARAMETERS, PARAMETERS_REASON, name)


@pytest.mark.parametrize("name", [*PARAMS, *AMPLIFYING])
def test_parameters_at_the_end(name: str) -> None:
    run = finished(name)
    ours = run.weights[run.solver.param.max_iter]
    for blob, theirs in under(f"curve_{name}/final_head").items():
        bound = 3e-3 if name in AMPLIFYING else PARAMETERS
        reason = PARAMETERS_REASON
        assert_close(ours[blob].reshape(-1)[:16], theirs, bound, reason, blob)


# -- snapshots -------------------------------------------------------------------------------


def stripped(message: Any) -> tuple[Any, list[tuple[int, int]]]:
    """A NetParameter without float data, and the counts of data and diff of every blob."""
    counts = []
    for layer in message.layer:
        for blob in layer.blobs:
            counts.append((len(blob.data), len(blob.diff)))
            del blob.data[:]
            del blob.diff[:]
    return message, counts


@pytest.mark.parametrize(("name", "iteration"), [("base", 50), ("diff", 1)])
def test_caffemodel_equals_field_by_field(name: str, iteration: int) -> None:
    path = finished(name).folder / f"{name}_iter_{iteration}.caffemodel"
    ours, counts = stripped(parse_binary(path.read_bytes(), schema.NetParameter))
    text = (SMALL / f"{path.name}.txt").read_text(encoding="utf-8")
    assert ours == parse(text, schema.NetParameter)
    data = [int(float(value)) for value in re.findall(r"# n_data: (\S+)", text)]
    diff = [int(float(value)) for value in re.findall(r"# n_diff: (\S+)", text)]
    assert counts == list(zip(data, diff, strict=True))


def test_the_originals_weights_are_written_with_its_bytes(tmp_path: Path) -> None:
    """Field order, phases, Split layers and packing are those of the original's writer."""
    path = tmp_path / "rewritten.caffemodel"
    net = load_net(SMALL / "train.prototxt", SMALL / "init.caffemodel", phase="TRAIN", workers=1)
    write_caffemodel(net, path)
    net.close()
    assert path.read_bytes() == (SMALL / "init.caffemodel").read_bytes()


def assert_weights(found: Any, prefix: str, bound: float = PARAMETERS) -> None:
    for name, theirs in under(prefix).items():
        layer, index = name.rsplit("/", 1)
        ours = thinned(found[layer][int(index)])
        assert_close(ours, theirs.reshape(-1), bound, PARAMETERS_REASON, f"{prefix}/{name}")


def test_caffemodel_and_solverstate_values() -> None:
    folder = finished("base").folder
    assert_weights(read_weights(folder / "base_iter_50.caffemodel"), "base_50", CURVE)
    state = read_state(folder / "base_iter_50.solverstate")
    theirs = expected_meta()["states"]["base_50"]
    assert state.iteration == theirs["iter"] == 50
    assert state.learned_net == theirs["learned_net"] == "base_iter_50.caffemodel"
    assert state.current_step == theirs["current_step"] == 3
    assert [list(values.shape) for values in state.history] == theirs["shapes"]
    for i, values in enumerate(state.history):
        golden = expected()[f"base_50_history/{i}"]
        assert_close(thinned(values), golden, HISTORY, HISTORY_REASON, f"history {i}")


def test_early_history_is_tight() -> None:
    state = read_state(finished("diff").folder / "diff_iter_1.solverstate")
    diffs = under("diff_1_diff")
    for values, (name, theirs) in zip(state.history, diffs.items(), strict=True):
        reason = "after one update the history is the update, which snapshot_diff keeps"
        assert_close(thinned(values), theirs, GRADIENT, reason, name)


def test_snapshot_diff_holds_the_last_update() -> None:
    path = finished("diff").folder / "diff_iter_1.caffemodel"
    assert_weights(read_weights(path), "diff_1")
    message = parse_binary(path.read_bytes(), schema.NetParameter)
    for layer in message.layer:
        for i, blob in enumerate(layer.blobs):
            theirs = expected()[f"diff_1_diff/{layer.name}/{i}"]
            assert_close(thinned(blob.diff), theirs, GRADIENT, "one gradient", layer.name)


@pytest.mark.parametrize("iteration", [2, 3])
@pytest.mark.parametrize("kind", ["caffemodel", "solverstate"])
def test_hdf5_snapshots(iteration: int, kind: str) -> None:
    name = f"hdf5_iter_{iteration}.{kind}.h5"
    theirs = expected_meta()["hdf5"][name]
    found: dict[str, Any] = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Group):
            found[path] = None
            return
        found[path] = [list(item.shape), str(item.dtype)]
        if item.dtype.kind != "f":
            value = item[()]
            found[path].append(value.decode() if isinstance(value, bytes) else value.tolist())
        else:
            golden = expected()[f"{name}/{path}"]
            bound, reason = PARAMETERS, PARAMETERS_REASON
            if kind == "solverstate":
                bound, reason = HISTORY, HISTORY_REASON
            assert_close(thinned(item[()]), golden, bound, reason, path)

    with h5py.File(finished("hdf5").folder / name) as file:
        file.visititems(visit)
    assert found == theirs


# -- resuming --------------------------------------------------------------------------------


def resumed(folder: Path, **options: Any) -> tuple[list[str], Any]:
    """Train from the original's snapshot at iteration 15 to 30."""
    for suffix in ("caffemodel", "solverstate"):
        shutil.copy(SMALL / f"resume_iter_15.{suffix}", folder)
    lines: list[str] = []
    with inside(folder):
        solver = make_solver("resume", lines, **options)
        solver.param.snapshot = 0  # the golden run was told so, too
        solver.param.snapshot_prefix = "resume_from15"
        solver.restore("resume_iter_15.solverstate")
        assert solver.solve()
        solver.close()
    return lines, solver


def test_resuming_the_originals_snapshot_as_the_original_does(tmp_path: Path) -> None:
    lines, _ = resumed(tmp_path, restart_lambda=True)
    theirs = printed_losses(golden_log("caffe_train_resume_from15"))
    assert_close(printed_losses(lines), theirs, CURVE, CURVE_REASON, "loss after resuming")
    weights = read_weights(tmp_path / "resume_from15_iter_30.caffemodel")
    assert_weights(weights, "resume_from15_30")


def test_lambda_goes_on_after_resuming(tmp_path: Path) -> None:
    """Unlike Caffe by default: lambda at iteration 15 is 342.466, not 892.857 again."""
    lines, solver = resumed(tmp_path)
    straight = [line for line in golden_log("caffe_train_resume_full") if "lambda =" in line]
    ours = [line.split("] ")[1] for line in lines if "lambda =" in line]
    assert ours == [line.split("] ")[1] for line in straight[15:]]
    assert solver.net.layer("fc6").iteration == 31


def test_straight_run_with_snapshots() -> None:
    run = finished("resume")
    golden = printed_losses(golden_log("caffe_train_resume_full"))
    assert_close(printed_losses(run.lines), golden, CURVE, CURVE_REASON, "loss")
    assert_weights(read_weights(run.folder / "resume_iter_30.caffemodel"), "resume_full_30")
    state = read_state(run.folder / "resume_iter_30.solverstate")
    assert state.current_step == expected_meta()["states"]["resume_full_30"]["current_step"]
    midway = read_weights(run.folder / "resume_iter_15.caffemodel")
    for name, theirs in read_weights(SMALL / "resume_iter_15.caffemodel").items():
        for ours, golden in zip(midway[name], theirs, strict=True):
            assert_close(ours, golden, PARAMETERS, PARAMETERS_REASON, name)


# -- testing ---------------------------------------------------------------------------------


def test_caffe_test_values() -> None:
    """`caffe test` with base_iter_50.caffemodel: three batches, then their mean."""
    weights = finished("base").folder / "base_iter_50.caffemodel"
    net = load_net(SMALL / "train_test.prototxt", weights, workers=1)
    golden = [line for line in golden_log("caffe_test") if "] Batch" in line]
    for batch in range(3):
        with torch.no_grad():
            outputs = net()
        for name in net.outputs:
            theirs = re.search(rf"Batch {batch}, {name} = (\S+)", "\n".join(golden))
            assert theirs is not None
            assert_close(float(outputs[name]), float(theirs[1]), CURVE, CURVE_REASON, name)
    net.close()
