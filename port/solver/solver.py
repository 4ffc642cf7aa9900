"""The training loop, as BVLC Caffe 1.0's src/caffe/solver.cpp and sgd_solver.cpp run it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from port import schema
from port.caffemodel import (
    copy_weights,
    read_values,
    read_weights,
    write_caffemodel,
    write_hdf5,
    write_values,
)
from port.errors import SolverError, WeightsError
from port.layers.margin_inner_product import MarginInnerProduct
from port.net import Net
from port.prototxt import read_solver, resolve
from port.solver.debug import logged_backward, logged_forward
from port.solver.log import Log, log_solver, loss_note, number
from port.solver.loss import SmoothedLoss
from port.solver.lr import LearningRate
from port.solver.nets import NetMaker
from port.solver.progress import Progress
from port.solver.requests import Requests
from port.solver.snapshot import (
    State,
    check_writable,
    find_learned_net,
    read_state,
    snapshot_path,
    write_state,
    write_state_hdf5,
)
from port.solver.updates import UpdateRule
from port.wire import by

Tensor = torch.Tensor
READ_LOSSES_EVERY = 20
"""Iterations after which losses are read from the device although nothing displays them."""

ADVICE = (
    "what the authors advise: a larger batch (512 in the paper's runs), PReLU, a start from "
    "weights trained with softmax (--weights), a higher lambda_min or a slower decay of lambda "
    "(smaller gamma or power), a lower base_lr"
)


class Solver:
    """Trains the net of a SolverParameter step for step as Caffe does.

    param: a solver prototxt's path, or a SolverParameter. folder: where paths in it are tried
    after the working directory (default: the solver file's). log: Caffe's lines, to stderr by
    default. on_iteration is called after each update with a Progress. edit changes each
    NetParameter before a net is made of it. restart_lambda: the margin layers' counters restart
    when training resumes, as in Caffe; they go on by default. options: as for ``load_net``.

    ``net`` is the train net, ``test_nets`` share its parameters, ``iteration`` counts updates.
    After an update each parameter's ``grad`` is what was subtracted from it (for SGD the history
    itself: do not change it).
    Raises SolverError, and what building nets raises.
    """

    def __init__(
        self,
        param: Any,
        device: str | torch.device = "cpu",
        *,
        folder: str | os.PathLike[str] | None = None,
        log: Log | None = None,
        on_iteration: Callable[[Progress], None] | None = None,
        edit: Callable[[Any], None] | None = None,
        restart_lambda: bool = False,
        **options: Any,
    ) -> None:
        if folder is None and isinstance(param, (str, os.PathLike)):
            folder = os.path.dirname(os.fspath(param))
        self.param = read_solver(param)
        if self.param.iter_size < 1:
            raise SolverError(f"iter_size must be 1 or more, found {self.param.iter_size}")
        self.folder = Path(folder or "")
        self.log = log or Log()
        self.on_iteration = on_iteration
        self.restart_lambda = restart_lambda
        log_solver(self.log, self.param, torch.device(device))
        if self.param.random_seed >= 0:
            torch.manual_seed(self.param.random_seed)
            options.setdefault("seed", self.param.random_seed)
        self.rate = LearningRate(self.param)
        maker = NetMaker(self.param, self.folder, self.log, device, edit, options)
        self.net = maker.train_net()
        self.test_nets = maker.test_nets()
        for net in self.test_nets:
            net.share_weights(self.net)
        self.parameters = [entry.parameter for entry in self.net.learnable]
        self.updates = UpdateRule(self.param, self.parameters)
        self.iteration = 0
        self.losses = SmoothedLoss(self.param.average_loss)
        self.lr = 0.0
        self._debug = False
        self._requests = Requests()
        self._stopped = False
        self._shown_iteration, self._shown_time = 0, time.perf_counter()
        self.log("solver.cpp:56", "Solver scaffolding done.")

    # -- starting points -------------------------------------------------------------------

    def load_weights(self, paths: str | os.PathLike[str]) -> None:
        """Start from the weights of a file, or of several separated by commas."""
        for path in os.fspath(paths).split(","):
            self.log("caffe.cpp:155", f"Finetuning from {path}")
            copy_weights(self.net, read_weights(resolve(path.strip(), self.folder)))

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go on from a solverstate, ours or the original Caffe's; the data list starts anew.

        Raises WeightsError when the history does not fit the net and the update rule.
        """
        self.log("caffe.cpp:242", f"Resuming from {os.fspath(path)}")
        state = read_state(path)
        if state.learned_net:
            learned_net = find_learned_net(state.learned_net, Path(path))
            copy_weights(self.net, read_weights(learned_net))
        if len(state.history) != len(self.updates.history):
            raise WeightsError(
                f"{path}: has {len(state.history)} history blobs, {self.param.type} on this net "
                f"has {len(self.updates.history)}; resume with the solver that wrote it"
            )
        self.log("sgd_solver.cpp:318", "SGDSolver: restoring history")
        for i, (ours, theirs) in enumerate(zip(self.updates.history, state.history, strict=True)):
            if tuple(ours.shape) != theirs.shape:
                raise WeightsError(
                    f"{path}: history {i} is {by(theirs.shape)}, this net's is {by(ours.shape)}"
                )
            write_values(ours, theirs)
        self.iteration, self.rate.current_step = state.iteration, state.current_step
        if not self.restart_lambda:
            self._continue_lambda()

    def _continue_lambda(self) -> None:
        """Count the margin layers' forwards as if training had never stopped."""
        param = self.param
        counts = [(self.net, self.iteration * param.iter_size)]
        if param.test_interval:
            tests = -(-self.iteration // param.test_interval)
            tests -= int(self.iteration > 0 and not param.test_initialization)
            counts += [
                (net, tests * n) for net, n in zip(self.test_nets, param.test_iter, strict=True)
            ]
        for net, forwards in counts:
            for layer in _margin_layers(net):
                layer.iteration = layer.param.iteration + forwards

    # -- training --------------------------------------------------------------------------

    def solve(self) -> bool:
        """Train to max_iter, with the tests, snapshots and signals of Caffe's `train` tool.

        Returns False when a signal stopped it early (a snapshot has been written).
        Raises SolverError for max_iter 0, an unwritable snapshot folder and a NaN loss.
        """
        param = self.param
        if param.max_iter < 1:
            raise SolverError("max_iter is 0: there is nothing to train; set max_iter")
        check_writable(param)
        self.log("caffe.cpp:248", "Starting Optimization")
        self.log("solver.cpp:272", f"Solving {self.net.param.name}")
        self.log("solver.cpp:273", f"Learning Rate Policy: {param.lr_policy}")
        self._stopped = False
        with self._requests.listening():
            self.step(param.max_iter - self.iteration)
        on_schedule = param.snapshot and self.iteration % param.snapshot == 0
        if (param.snapshot_after_train or self._stopped) and not on_schedule:
            self.snapshot()
        if self._stopped:
            self.log("solver.cpp:294", "Optimization stopped early.")
            return False
        if self._shows():
            self.losses.add(self._last_forward(), self.iteration)
            self.log("solver.cpp:310", f"Iteration {self.iteration}, loss = {number(self.loss)}")
        if param.test_interval and self.iteration % param.test_interval == 0:
            self.test_all()
        self.log("solver.cpp:315", "Optimization Done.")
        self.log("caffe.cpp:259", "Optimization Done.")
        return True

    def step(self, iterations: int) -> None:
        """Run that many iterations: tests where due, forward, backward, update, snapshots."""
        param = self.param
        self.losses = SmoothedLoss(param.average_loss, self.iteration)
        self._shown_time = time.perf_counter()
        progress = Progress(self)
        for _ in range(iterations):
            if self._test_is_due():
                self.test_all()
                if self._stopped:
                    return
            display = self._shows()
            self._debug = display and param.debug_info
            for parameter in self.parameters:
                parameter.grad = None
            loss, outputs = self._accumulate()
            self.losses.add(loss, self.iteration)
            if display:
                self._display(outputs)
            self.apply_update()
            self.iteration += 1
            if self.on_iteration is not None:
                self.on_iteration(progress)
            self._check_loss()
            request = self._requests.take()
            due = param.snapshot and self.iteration % param.snapshot == 0
            if due or request == "snapshot":
                self.snapshot()
            if request == "stop":
                self._stopped = True
                return

    @property
    def loss(self) -> float:
        """The loss of the last iterations as Caffe displays it; reading it waits for the device."""
        value = self.losses.value
        if not np.isfinite(value):
            self._refuse_loss(value)
        return value

    def apply_update(self) -> None:
        """Clip, normalise, regularise and update the parameters from their gradients."""
        param, entries = self.param, self.net.learnable
        self.lr = self.rate.at(self.iteration)
        if self.rate.moved is not None:
            text = f"MultiStep Status: Iteration {self.iteration}, step = {self.rate.moved}"
            self.log("sgd_solver.cpp:46", text)
        if self._shows():
            text = f"Iteration {self.iteration}, lr = {number(self.lr)}"
            self.log("sgd_solver.cpp:105", text)
        if param.clip_gradients >= 0 and any(p.grad is not None for p in self.parameters):
            self._clip(param.clip_gradients)
        self.updates.apply(
            self.parameters,
            [self.lr * entry.lr_mult for entry in entries],
            [param.weight_decay * entry.decay_mult for entry in entries],
            1.0 / param.iter_size,
            self.iteration,
        )

    def _accumulate(self) -> tuple[Tensor, dict[str, Tensor]]:
        """iter_size forwards and backwards: the mean loss, and the last one's outputs."""
        losses = []
        for _ in range(self.param.iter_size):
            if self._debug:
                outputs, bottoms = logged_forward(self.net, self.log)
                loss = self.net.total_loss(outputs)
                logged_backward(self.net, loss, bottoms, self.log)
            else:
                outputs = self.net()
                loss = self.net.total_loss(outputs)
                if loss.requires_grad:
                    loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        if len(losses) == 1:
            return losses[0], outputs
        return torch.stack(losses).sum() / len(losses), outputs

    @torch.no_grad()
    def _last_forward(self) -> Tensor:
        outputs = logged_forward(self.net, self.log)[0] if self._debug else self.net()
        return self.net.total_loss(outputs)

    @torch.no_grad()
    def _clip(self, limit: float) -> None:
        """Scale all gradients so that their common L2 norm is at most ``limit``."""
        grads = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        factor = (limit / norm).clamp(max=1.0)
        # Reading the norm waits for a GPU: there the line appears at displayed iterations only.
        if (norm.is_cpu or self._shows()) and factor < 1:
            text = f"scaling down gradients (L2 norm {number(float(norm))} > {number(limit)})"
            text = f"Gradient clipping: {text} by scale factor {number(float(factor))}"
            self.log("sgd_solver.cpp:92", text)
        torch._foreach_mul_(grads, factor)

    def _shows(self) -> bool:
        return bool(self.param.display) and self.iteration % self.param.display == 0

    # -- loss and display ------------------------------------------------------------------

    def _display(self, outputs: Mapping[str, Tensor]) -> None:
        loss = self.loss
        now = time.perf_counter()
        elapsed = int((now - self._shown_time) * 1000) / 1000
        speed = (self.iteration - self._shown_iteration) / (elapsed or 1)
        self._shown_iteration, self._shown_time = self.iteration, now
        self.log(
            "solver.cpp:218",
            f"Iteration {self.iteration} ({number(speed)} iter/s, {number(elapsed)}s/"
            f"{self.param.display} iters), loss = {number(loss)}",
        )
        for i, (name, value) in enumerate(_scalars(self.net, outputs)):
            note = loss_note(self.net.output_weights.get(name, 0.0), value)
            text = f"    Train net output #{i}: {name} = {number(value)}{note}"
            self.log("solver.cpp:237", text)

    def _check_loss(self) -> None:
        """Read pending losses: each on the CPU, now and then elsewhere, to stop at a NaN."""
        if self.losses.on_cpu or len(self.losses.pending) >= READ_LOSSES_EVERY:
            _ = self.loss

    def _refuse_loss(self, value: float) -> None:
        raise SolverError(
            f"iteration {self.losses.bad_iteration}: the loss is {number(value)}: training has "
            f"diverged; {ADVICE}"
        )

    # -- testing ---------------------------------------------------------------------------

    def _test_is_due(self) -> bool:
        param = self.param
        if not param.test_interval or self.iteration % param.test_interval:
            return False
        return self.iteration > 0 or param.test_initialization

    def test_all(self) -> None:
        """Run every test net for its test_iter batches and log the mean of its outputs."""
        for index in range(len(self.test_nets)):
            if not self._stopped:
                self._test(index)

    @torch.no_grad()
    def _test(self, index: int) -> None:
        net, batches = self.test_nets[index], self.param.test_iter[index]
        self.log("solver.cpp:330", f"Iteration {self.iteration}, Testing net (#{index})")
        sums: dict[str, Tensor] = {}
        loss: Tensor | None = None
        for _ in range(batches):
            request = self._requests.take()
            if request == "snapshot":
                self.snapshot()
            elif request == "stop":
                self._stopped = True
                self.log("solver.cpp:379", "Test interrupted.")
                return
            outputs = net()
            for name in net.outputs:
                sums[name] = outputs[name] + sums[name] if name in sums else outputs[name]
            if self.param.test_compute_loss:
                total = net.total_loss(outputs)
                loss = total if loss is None else loss + total
        if loss is not None:
            self.log("solver.cpp:384", f"Test loss: {number(float(loss / batches))}")
        means = {name: value / batches for name, value in sums.items()}
        for i, (name, value) in enumerate(_scalars(net, means)):
            note = loss_note(net.output_weights.get(name, 0.0), value)
            self.log("solver.cpp:397", f"    Test net output #{i}: {name} = {number(value)}{note}")

    # -- snapshots and signals -------------------------------------------------------------

    def snapshot(self) -> str:
        """Write weights and solver state of this iteration; returns the weights' path."""
        if self.losses.pending:
            _ = self.loss  # never keep weights that a NaN has spoilt
        param, diff = self.param, self.param.snapshot_diff
        hdf5 = schema.enum_name(param, "snapshot_format") == "HDF5"
        end = ".h5" if hdf5 else ""
        model, state = (
            snapshot_path(param.snapshot_prefix, self.iteration, suffix + end)
            for suffix in (".caffemodel", ".solverstate")
        )
        kind = "HDF5" if hdf5 else "binary proto"
        line = 457 if hdf5 else 447
        self.log(f"solver.cpp:{line}", f"Snapshotting to {kind} file {model}")
        (write_hdf5 if hdf5 else write_caffemodel)(self.net, model, diff)
        line = 283 if hdf5 else 273
        self.log(f"sgd_solver.cpp:{line}", f"Snapshotting solver state to {kind} file {state}")
        history = [read_values(values) for values in self.updates.history]
        content = State(self.iteration, model, self.rate.current_step, history)
        (write_state_hdf5 if hdf5 else write_state)(state, content)
        return model

    def close(self) -> None:
        """Stop the data workers of all nets."""
        for net in (self.net, *self.test_nets):
            net.close()


def _scalars(net: Net, outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    """Every number of every output, in Caffe's order; one transfer for all of them."""
    values = [outputs[name].detach().flatten().float() for name in net.outputs]
    numbers = iter(torch.cat(values).tolist() if values else [])
    for name, value in zip(net.outputs, values, strict=True):
        for _ in range(value.numel()):
            yield name, next(numbers)


def _margin_layers(net: Net) -> list[MarginInnerProduct]:
    return [layer for layer in net.layers if isinstance(layer, MarginInnerProduct)]
