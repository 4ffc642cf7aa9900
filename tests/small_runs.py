"""Runs our solver on the small golden training jobs, each once in a test session."""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden import GOLDEN

from port.prototxt import read_solver
from port.solver.log import Log
from port.solver.nets import set_train_state
from port.solver.solver import Solver

SMALL = GOLDEN / "train_small"
_ROOT = tempfile.TemporaryDirectory()


@dataclass
class Run:
    """A finished run: its folder of snapshots, its log, and what each iteration saw."""

    folder: Path
    solver: Solver
    lines: list[str]
    losses: list[float]
    lambdas: list[float]
    weights: dict[int, dict[str, np.ndarray]]
    """Iteration → "layer/i" → values, after iterations 1, 2, 5, 10 and the last."""


@contextmanager
def inside(folder: Path) -> Any:
    """Work in a folder, with one thread: these nets are too small for more."""
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(folder)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


def make_solver(name: str, lines: list[str] | None = None, **options: Any) -> Solver:
    """The Solver of ``solver_<name>.prototxt``, set up as the tool `caffe train` does."""
    param = read_solver(SMALL / f"solver_{name}.prototxt")
    set_train_state(param)
    log = Log((lines if lines is not None else []).append)
    return Solver(param, folder=SMALL, log=log, workers=1, **options)


@cache
def finished(name: str) -> Run:
    """Train one of the golden jobs to its end, from the original's initial weights."""
    folder = Path(_ROOT.name) / name
    folder.mkdir()
    lines: list[str] = []
    with inside(folder):
        solver = make_solver(name, lines)
        run = Run(folder, solver, lines, [], [], {})
        solver.on_iteration = lambda progress: keep_weights(run, progress.iteration)
        solver.net.register_forward_hook(lambda net, args, outputs: keep_outputs(run, outputs))
        solver.load_weights("init.caffemodel")
        assert solver.solve()
        solver.close()
    return run


def keep_outputs(run: Run, outputs: dict[str, torch.Tensor]) -> None:
    run.losses.append(outputs["softmax_loss"].item())
    run.lambdas.append(outputs["lambda"].item())


def keep_weights(run: Run, iteration: int) -> None:
    if iteration in (1, 2, 5, 10, run.solver.param.max_iter):
        run.weights[iteration] = weights_of(run.solver)


def weights_of(solver: Solver) -> dict[str, np.ndarray]:
    return {
        f"{name}/{i}": blob.detach().numpy().copy()
        for name, blobs in solver.net.params.items()
        for i, blob in enumerate(blobs)
    }


@cache
def expected() -> dict[str, np.ndarray]:
    with np.load(SMALL / "expected.npz") as stored:
        return {key: stored[key] for key in stored.files}


@cache
def expected_meta() -> Any:
    return json.loads((SMALL / "expected.json").read_text(encoding="utf-8"))


def under(prefix: str) -> dict[str, np.ndarray]:
    """The golden arrays named ``prefix/…``, by the rest of their names."""
    found = {k[len(prefix) + 1 :]: v for k, v in expected().items() if k.startswith(prefix + "/")}
    if not found:
        raise LookupError(f"no golden array {prefix}/…")
    return found


def thinned(values: Any) -> np.ndarray:
    """As the golden file keeps arrays: every 97th value of those above 4096."""
    flat = np.asarray(values, np.float32).reshape(-1)
    return flat[::97] if flat.size > 4096 else flat


_PREFIX = re.compile(r"^([IWE])\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ ")
_SPEED = re.compile(r"\(\S+ iter/s, \S+s/")
# Said by the original's data thread when it is slow, and by its HDF5 library.
_CHANCE = ("blocking_queue.cpp", "hdf5.cpp")


def log_lines(text: str) -> list[str]:
    """Log lines without time, process and speed, which no two runs share."""
    lines = [line.rstrip() for line in text.splitlines()]
    lines = [line for line in lines if not any(word in line for word in _CHANCE)]
    return [_SPEED.sub("(… iter/s, …s/", _PREFIX.sub(r"\1 ", line)) for line in lines]


def golden_log(name: str) -> list[str]:
    return log_lines((SMALL / f"{name}.log").read_text(encoding="utf-8"))
