"""Solver states in Caffe's two formats, and the check that snapshots can be written."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from port import schema
from port.caffemodel import HDF5_SIGNATURE, read_dataset, written_whole
from port.errors import SolverError, WeightsError
from port.prototxt import resolve
from port.wire import BYTES, VARINT, Array, WireFile, blob_chunks, read_blob


@dataclass
class State:
    """What a solverstate holds; ``history`` as the update rules lay it out, float32."""

    iteration: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list[Array] = field(default_factory=list)


def write_state(path: str | os.PathLike[str], state: State) -> None:
    """Write a binary solverstate, all or nothing. Raises WeightsError.

    Source: BVLC Caffe 1.0, sgd_solver.cpp, SnapshotSolverStateToBinaryProto.
    """
    head = schema.SolverState(iter=state.iteration, learned_net=state.learned_net)
    tail = schema.SolverState(current_step=state.current_step)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        file.write(head.SerializeToString())
        for history in state.history:
            file.writelines(blob_chunks(3, history))
        file.write(tail.SerializeToString())


def write_state_hdf5(path: str | os.PathLike[str], state: State) -> None:
    """Write an HDF5 solverstate, all or nothing. Raises WeightsError.

    Source: BVLC Caffe 1.0, sgd_solver.cpp, SnapshotSolverStateToHDF5.
    """
    import h5py

    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file["iter"] = np.array([state.iteration], np.int32)
        _write_c_string(file, "learned_net", state.learned_net)
        file["current_step"] = np.array([state.current_step], np.int32)
        group = file.create_group("history")
        for i, history in enumerate(state.history):
            group[str(i)] = history


def _write_c_string(file: Any, name: str, text: str) -> None:
    """A string with its final NUL inside, which Caffe's reader counts on."""
    import h5py

    data = text.encode() + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(data))
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, space)
    dataset.write(space, space, np.array(data, f"S{len(data)}"), kind)


def read_state(path: str | os.PathLike[str]) -> State:
    """Read a solverstate, binary or HDF5, told by the content. Raises WeightsError."""
    path = Path(path)
    wire = WireFile(path)
    if wire.data[: len(HDF5_SIGNATURE)] == HDF5_SIGNATURE:
        return _read_hdf5(path)
    state, position, where = State(), 0, "the solver state"
    while position < wire.size:
        entry = wire.field(position, wire.size, where)
        position = entry.stop
        if entry.number == 3:
            wire.expect(entry, BYTES, where)
            place = f"history {len(state.history)}"
            state.history.append(read_blob(wire, entry.start, entry.stop, place).values)
        elif entry.number == 2:
            state.learned_net = wire.text(entry, where)
        elif entry.number in (1, 4):
            wire.expect(entry, VARINT, where)
            name = "iteration" if entry.number == 1 else "current_step"
            setattr(state, name, entry.value)
        else:
            wire.fail(entry.tag, where, f"a solverstate has no field {entry.number}")
    return state


def _read_hdf5(path: Path) -> State:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            history = file["history"]
            named = file["learned_net"][()] if "learned_net" in file else b""
            return State(
                int(np.ravel(file["iter"][()])[0]),
                named.decode("utf-8", "replace") if isinstance(named, bytes) else str(named),
                int(np.ravel(file["current_step"][()])[0]) if "current_step" in file else 0,
                [read_dataset(path, history[str(i)]) for i in range(len(history))],
            )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, IndexError) as error:
        raise WeightsError(f"{path}: no Caffe solver state in HDF5: {error}") from None


def find_learned_net(named: str, state_path: Path) -> Path:
    """The weights that a state names: as written, else beside the state, else there by bare name.

    Raises WeightsError when there is none.
    """
    found = resolve(named, state_path)
    if not found.exists():
        raise WeightsError(
            f"{state_path}: its weights '{named}' are neither there nor beside the solverstate; "
            "put the .caffemodel beside it"
        )
    return found


def snapshot_path(prefix: str, iteration: int, suffix: str) -> str:
    """``<prefix>_iter_<N><suffix>``; the prefix counts from the working directory, as in Caffe."""
    return f"{prefix}_iter_{iteration}{suffix}"


def check_writable(param: Any) -> None:
    """Write and remove a probe file where snapshots will go; make the folder if only it is missing.

    Raises SolverError now rather than after hours of training.
    """
    if not param.snapshot and not param.snapshot_after_train:
        return
    if param.snapshot and not param.HasField("snapshot_prefix"):
        raise SolverError("snapshot is set but snapshot_prefix is not; set where snapshots go")
    probe = Path(snapshot_path(param.snapshot_prefix, 0, f".{os.getpid()}.probe"))
    try:
        if not probe.parent.exists():
            probe.parent.mkdir()
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SolverError(
            f"snapshot_prefix '{param.snapshot_prefix}': cannot write to {probe.parent}: "
            f"{error.strerror}; make the folder or set snapshot_prefix (or --out)"
        ) from None
