"""The training loop beyond golden runs: nets of a solver, tests, signals, errors, progress."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import SMALL, finished, inside, make_solver
from tolerance import assert_close

from port import schema
from port.caffemodel import read_weights
from port.errors import SolverError, WeightsError
from port.layers.margin_inner_product import lambda_at
from port.prototxt import parse, read_net
from port.solver.log import Log
from port.solver.loss import SmoothedLoss
from port.solver.progress import Progress
from port.solver.snapshot import State, read_state, write_state, write_state_hdf5
from port.solver.solver import Solver
from port.wire import prefixed

NET = """
name: "tiny"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "constant" value: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""


def tiny(fields: str, net: str = NET, lines: list[str] | None = None, **options: Any) -> Solver:
    """A solver on a net whose inputs are constant."""
    param = parse(fields, schema.SolverParameter)
    if not param.HasField("net") and not param.HasField("train_net_param"):
        param.net_param.CopyFrom(read_net(net))
    solver = Solver(param, log=Log((lines if lines is not None else []).append), **options)
    for made in (solver.net, *solver.test_nets):
        for layer in made.data_layers:
            layer.next_batch = lambda layer=layer: tuple(map(torch.ones, layer.top_shapes))
    return solver


def texts(lines: list[str], source: str = "") -> list[str]:
    return [line.split("] ", 1)[1] for line in lines if source in line]


# -- nets ------------------------------------------------------------------------------------


def test_no_train_net() -> None:
    with pytest.raises(SolverError, match=r"exactly one of net, net_param, .*; found none"):
        Solver(schema.SolverParameter(lr_policy="fixed"), log=Log(lambda line: None))


def test_two_train_nets() -> None:
    param = schema.SolverParameter(lr_policy="fixed", net="a.prototxt", train_net="b.prototxt")
    with pytest.raises(SolverError, match="found net, train_net"):
        Solver(param, log=Log(lambda line: None))


def test_nets_from_files_and_messages(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "tiny.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        'train_net: "nets/tiny.prototxt" test_net: "elsewhere/tiny.prototxt" test_net_param {'
        + NET
        + "} test_iter: 1 test_iter: 2 test_interval: 5 base_lr: 0.1 lr_policy: 'fixed'"
    )
    (tmp_path / "tiny.prototxt").write_text(NET)
    lines: list[str] = []
    solver = Solver(tmp_path / "solver.prototxt", log=Log(lines.append))
    found = [text for text in texts(lines, "solver.cpp") if text.startswith("Creating")]
    assert found == [
        "Creating training net from train_net file: nets/tiny.prototxt",
        "Creating test net (#0) specified by test_net_param #0",
        "Creating test net (#1) specified by test_net file: elsewhere/tiny.prototxt",
    ]
    for net in solver.test_nets:
        assert net.phase == "TEST"
        assert net.params["ip"][0] is solver.net.params["ip"][0]


def test_test_iter_must_match_the_nets() -> None:
    nets = f"train_net_param {{ {NET} }} test_net_param {{ {NET} }}"
    with pytest.raises(SolverError, match="2 test_iter and 1 test nets"):
        tiny(f"lr_policy: 'fixed' test_iter: 1 test_iter: 1 {nets}")


def test_test_interval_is_needed() -> None:
    with pytest.raises(SolverError, match="test_iter is given but test_interval is 0"):
        tiny("test_iter: 1 lr_policy: 'fixed'")


def test_states_choose_layers() -> None:
    extra = (
        'layer { name: "extra" type: "Silence" bottom: "y" include { stage: "more" min_level: 2 } }'
    )
    fields = "lr_policy: 'fixed' test_iter: 1 test_interval: 1 %s { level: 2 stage: 'more' }"
    solver = tiny(fields % "train_state", NET + extra)
    assert [net.layers[-1].name for net in (solver.net, *solver.test_nets)] == ["extra", "loss"]
    lines: list[str] = []
    solver = tiny(fields % "test_state", NET + extra, lines)
    assert [net.layers[-1].name for net in (solver.net, *solver.test_nets)] == ["loss", "extra"]
    rule = "The NetState level (0) is above the min_level (2) specified by a rule in layer extra"
    assert texts(lines, "net.cpp:304") == [rule]


def test_edit_reaches_every_net() -> None:
    def wider(net: Any) -> None:
        net.layer[0].input_param.shape[0].dim[0] = net.layer[1].input_param.shape[0].dim[0] = 7

    solver = tiny("lr_policy: 'fixed' test_iter: 1 test_interval: 1", edit=wider)
    assert [net.blob_shapes["x"] for net in (solver.net, *solver.test_nets)] == [(7, 3), (7, 3)]


def test_random_seed_fixes_the_fillers() -> None:
    text = NET.replace('"constant" value: 0.1', '"gaussian" std: 1')
    made = [tiny(f"lr_policy: 'fixed' random_seed: {seed}", text) for seed in (3, 3, 4)]
    first, same, other = (solver.net.params["ip"][0] for solver in made)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


# -- the loop --------------------------------------------------------------------------------


def test_tests_happen_when_due_and_are_averaged(tmp_path: Path) -> None:
    lines: list[str] = []
    solver = tiny(
        "lr_policy: 'fixed' base_lr: 0.1 max_iter: 4 test_iter: 3 test_interval: 2 "
        "test_initialization: false snapshot_after_train: false",
        lines=lines,
    )
    assert solver.solve()
    tests = [text for text in texts(lines) if "Testing" in text]
    assert tests == [f"Iteration {i}, Testing net (#0)" for i in (2, 4)]
    assert len([text for text in texts(lines) if "Test net output #0: loss =" in text]) == 2


def test_smoothed_loss_is_the_running_float32_average() -> None:
    losses = np.float32([3, 1, 4, 1, 5, 9, 2, 6])
    smoothed = SmoothedLoss(3, start=10)
    found = []
    for i, loss in enumerate(losses):
        smoothed.add(torch.tensor(loss), 10 + i)
        if i != 4:  # reading late changes nothing
            found.append(smoothed.value)
    wanted = [losses[max(0, i - 2) : i + 1].mean() for i in range(8) if i != 4]
    assert_close(found, wanted, 1e-6, "incremental float32 sums of few digits")


def test_progress() -> None:
    run = finished("base")
    progress = Progress(run.solver)
    assert progress.iteration == progress.max_iter == 50
    assert progress.images_per_iteration == 8
    assert progress.lr == pytest.approx(3e-7, rel=1e-6)
    assert progress.lambda_ == lambda_at(51, 1000, 0.12, 1, 5)
    assert progress.loss == pytest.approx(0.4214, rel=1e-3)


def test_frozen_parameters_are_in_the_solverstate() -> None:
    state = read_state(finished("diff").folder / "diff_iter_1.solverstate")
    frozen = [i for i, e in enumerate(finished("diff").solver.net.learnable) if not e.lr_mult]
    assert len(frozen) == 2
    assert all(not state.history[i].any() for i in frozen)


def test_step_goes_on_without_solve() -> None:
    solver = tiny("lr_policy: 'fixed' base_lr: 0.1")
    solver.step(3)
    solver.step(2)
    assert solver.iteration == 5
    assert solver.loss < 0.7


# -- snapshots and signals -------------------------------------------------------------------


def test_resuming_our_snapshot_continues_bit_for_bit(tmp_path: Path) -> None:
    fields = "lr_policy: 'step' stepsize: 2 gamma: 0.5 base_lr: 0.1 momentum: 0.9 max_iter: 6 "
    for kind, end in (("BINARYPROTO", ""), ("HDF5", ".h5")):
        place = f"snapshot_prefix: '{tmp_path}/t' snapshot: 3 snapshot_format: {kind}"
        straight = tiny(fields + place)
        straight.solve()
        again = tiny(fields + place)
        again.restore(tmp_path / f"t_iter_3.solverstate{end}")
        assert again.iteration == 3
        assert again.rate.current_step == 1
        again.solve()
        for ours, theirs in zip(again.parameters, straight.parameters, strict=True):
            assert torch.equal(ours, theirs)


def test_the_learned_net_is_found_beside_a_moved_solverstate(tmp_path: Path) -> None:
    solver = tiny(f"lr_policy: 'fixed' base_lr: 0.1 snapshot_prefix: '{tmp_path}/t'")
    solver.step(2)
    solver.snapshot()
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("t_iter_2.caffemodel", "t_iter_2.solverstate"):
        (tmp_path / name).rename(moved / name)
    again = tiny("lr_policy: 'fixed' base_lr: 0.1")
    again.restore(moved / "t_iter_2.solverstate")
    assert torch.equal(again.parameters[0], solver.parameters[0])
    (moved / "t_iter_2.caffemodel").unlink()
    with pytest.raises(WeightsError, match=r"t_iter_2\.solverstate: its weights .* are neither"):
        again.restore(moved / "t_iter_2.solverstate")


def test_a_state_of_another_rule_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path / "s", State(3, "", 0, [np.zeros((2, 3), np.float32)]))
    solver = tiny("lr_policy: 'fixed'")
    with pytest.raises(WeightsError, match="s: has 1 history blobs, SGD on this net has 2"):
        solver.restore(tmp_path / "s")
    write_state_hdf5(tmp_path / "s", State(3, "", 0, [np.zeros(2, np.float32)] * 2))
    with pytest.raises(WeightsError, match="history 0 is 2, this net's is 2x3"):
        solver.restore(tmp_path / "s")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (prefixed(3, 100) + b"\0" * 10, "in the solver state: field 3 has 100 bytes, 10 are left"),
        (prefixed(100, 2) + b"\0\0", "a solverstate has no field 100"),
        (b"\x89HDF\r\n\x1a\n", "no Caffe solver state in HDF5"),
    ],
)
def test_damaged_solverstates(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_state(tmp_path / "s")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_signals(tmp_path: Path) -> None:
    lines: list[str] = []
    at = {2: signal.SIGHUP, 4: signal.SIGINT}

    def interrupt(progress: Progress) -> None:
        if progress.iteration in at:
            os.kill(os.getpid(), at[progress.iteration])

    solver = tiny(
        f"lr_policy: 'fixed' base_lr: 0.1 max_iter: 9 snapshot_prefix: '{tmp_path}/t' "
        "snapshot_after_train: false",
        lines=lines,
        on_iteration=interrupt,
    )
    before = signal.getsignal(signal.SIGINT)
    assert not solver.solve()
    assert solver.iteration == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"t_iter_{i}.{kind}" for i in (2, 4) for kind in ("caffemodel", "solverstate")
    ]
    assert texts(lines)[-1] == "Optimization stopped early."
    assert signal.getsignal(signal.SIGINT) == before
    at.clear()
    assert solver.solve()
    assert solver.iteration == 9


# -- lambda ----------------------------------------------------------------------------------


def test_lambda_counters_of_train_and_test_nets_go_on(tmp_path: Path) -> None:
    with inside(tmp_path):
        first = make_solver("tt")
        first.param.iter_size = 2
        first.param.test_interval = 2
        first.step(3)
        first.snapshot()
        again, restarted = make_solver("tt"), make_solver("tt", restart_lambda=True)
        for solver in (again, restarted):
            solver.param.iter_size, solver.param.test_interval = 2, 2
            solver.restore("tt_iter_3.solverstate")
    counters = [
        [net.layer("fc6").iteration for net in (solver.net, *solver.test_nets)]
        for solver in (first, again, restarted)
    ]
    assert counters == [[6, 6], [6, 6], [0, 0]]
    for solver in (first, again, restarted):
        solver.close()


# -- errors ----------------------------------------------------------------------------------


def test_max_iter_zero() -> None:
    with pytest.raises(SolverError, match="max_iter is 0: there is nothing to train; set max_iter"):
        tiny("lr_policy: 'fixed'").solve()


def test_unwritable_snapshot_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("file", "missing/deeper"):
        solver = tiny(f"lr_policy: 'fixed' max_iter: 9 snapshot_prefix: '{tmp_path}/{folder}/t'")
        with pytest.raises(SolverError, match=f"cannot write to .*{folder}: .*; make the folder"):
            solver.solve()
        assert solver.iteration == 0


def test_a_missing_last_folder_is_made(tmp_path: Path) -> None:
    tiny(f"lr_policy: 'fixed' max_iter: 1 snapshot_prefix: '{tmp_path}/result/t'").solve()
    assert len(read_weights(tmp_path / "result" / "t_iter_1.caffemodel")) > 0


def test_snapshot_without_prefix() -> None:
    with pytest.raises(SolverError, match="snapshot is set but snapshot_prefix is not"):
        tiny("lr_policy: 'fixed' max_iter: 1 snapshot: 1").solve()


@pytest.mark.parametrize("display", [0, 1])
def test_nan_loss_says_what_to_try(tmp_path: Path, display: int) -> None:
    solver = tiny(
        f"lr_policy: 'fixed' base_lr: 1e30 max_iter: 50 display: {display} "
        f"snapshot: 1 snapshot_prefix: '{tmp_path}/t'"
    )
    advice = "the loss is (nan|inf): training has diverged; .*larger batch .*lambda_min .*base_lr"
    with pytest.raises(SolverError, match=f"iteration [12]: {advice}"):
        solver.solve()
    last = read_weights(sorted(tmp_path.glob("*.caffemodel"))[-1])
    assert np.isfinite(last["ip"][0]).all()


def test_weights_of_the_wrong_shape(tmp_path: Path) -> None:
    with inside(tmp_path):
        solver = make_solver("base", edit=lambda net: narrower(net))
    message = r"init.caffemodel: layer 'fc5' \(InnerProduct\): weights are 32x2688, .* has 64x2688"
    with pytest.raises(WeightsError, match=message):
        solver.load_weights(SMALL / "init.caffemodel")
    solver.close()


def narrower(net: Any) -> None:
    next(layer for layer in net.layer if layer.name == "fc5").inner_product_param.num_output = 32
