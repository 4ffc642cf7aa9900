"""Update rules: the original's whole trajectories of a tiny net, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from golden import Case, cases, load
from tolerance import assert_close

from port import schema
from port.errors import SolverError
from port.prototxt import read_net, read_solver
from port.solver.log import Log
from port.solver.solver import Solver
from port.solver.updates import UpdateRule

ROUNDING = 1e-6
REASON = "12 steps of float32 sums taken in another order; measured at most 4e-7"


class TinyRun:
    """A Solver fed with the inputs of a golden case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        param = read_solver(case.meta["solver"])
        param.net_param.CopyFrom(read_net(case.meta["net"]))
        param.ClearField("net")
        self.solver = Solver(param, log=Log(lambda line: None))
        for name, blob in zip(("W0", "b0"), self.solver.net.params["ip"], strict=True):
            blob.data.copy_(torch.from_numpy(case.arrays[name]))
        for layer, key in (("x", "x"), ("t", "t")):
            batches = iter(torch.from_numpy(case.arrays[key]))
            self.solver.net.layer(layer).next_batch = lambda batches=batches: (next(batches),)


@pytest.mark.parametrize("name", cases("solver", "tiny_"))
def test_trajectory_updates_and_history(name: str) -> None:
    case = load("solver", name)
    run = TinyRun(case)
    weight, bias = run.solver.net.params["ip"]
    for i in range(len(case.arrays["W"])):
        run.solver.step(1)
        for what, blob, place in (("W", weight, i), ("b", bias, i)):
            theirs = case.arrays[what][place]
            assert_close(blob, theirs, ROUNDING, REASON, f"{what} after {i + 1} updates")
            update = torch.zeros_like(blob) if blob.grad is None else blob.grad
            theirs = case.arrays[f"upd_{what}"][place]
            assert_close(update, theirs, 4 * ROUNDING, REASON, f"update {i} of {what}")
    histories = run.solver.updates.history
    assert len(histories) == case.meta["state"]["n_history"]
    for i, history in enumerate(histories):
        assert_close(history, case.arrays[f"history_{i}"], ROUNDING, REASON, f"history {i}")
    assert run.solver.rate.current_step == case.meta["state"]["current_step"]


def updated(layout: torch.memory_format, kind: str) -> torch.Tensor:
    """A convolution's weight after three updates with gradients in NCHW order."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, 3, 3, generator=generator).contiguous(memory_format=layout)
    weight = torch.nn.Parameter(weight)
    momentum = 0.0 if kind in ("AdaGrad", "RMSProp") else 0.9
    rule = UpdateRule(schema.SolverParameter(type=kind, momentum=momentum), [weight])
    for i in range(3):
        weight.grad = torch.randn(4, 3, 3, 3, generator=generator)
        rule.apply([weight], [0.01], [0.1], 1.0, i)
    return weight


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_memory_layout_does_not_matter(kind: str) -> None:
    plain = updated(torch.contiguous_format, kind)
    last = updated(torch.channels_last, kind)
    assert_close(last, plain, 1e-7, "the same arithmetic on the same values")


def test_a_parameter_without_gradient_still_decays() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    rule = UpdateRule(schema.SolverParameter(momentum=0.5), [weight])
    rule.apply([weight], [0.1], [0.5], 1.0, 0)
    assert_close(weight, np.full(3, 0.95), 1e-6, "1 - 0.1 * 0.5 * 1 in float32")


def test_a_frozen_parameter_keeps_its_history_entry_and_value() -> None:
    moving, frozen = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    frozen.requires_grad_(False)
    rule = UpdateRule(schema.SolverParameter(momentum=0.5), [moving, frozen])
    moving.grad = torch.ones(2)
    rule.apply([moving, frozen], [0.1, 0.0], [0.5, 0.5], 1.0, 0)
    assert len(rule.history) == 2
    assert frozen.tolist() == [1, 1]
    assert rule.history[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "Adagrad"}, r"unknown solver type 'Adagrad' \(did you mean 'AdaGrad'"),
        ({"type": "AdaGrad", "momentum": 0.9}, "AdaGrad takes no momentum, found 0.9"),
        ({"type": "RMSProp", "momentum": 0.9}, "RMSProp takes no momentum, found 0.9"),
        ({"type": "RMSProp", "rms_decay": 1.0}, r"needs rms_decay in \[0, 1\), found 1"),
    ],
)
def test_refused_settings(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        UpdateRule(schema.SolverParameter(**fields), [])


def test_unknown_regularisation() -> None:
    param = schema.SolverParameter(regularization_type="L3")
    weight = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(SolverError, match="unknown regularization_type 'L3'"):
        UpdateRule(param, [weight]).apply([weight], [0.1], [0.1], 1.0, 0)
