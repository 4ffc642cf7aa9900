"""The nets that a SolverParameter asks for: one to train, any number to test."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from port import schema
from port.errors import SolverError
from port.graph import filter_net
from port.net import Net, load_net
from port.prototxt import read_net, resolve
from port.solver.log import Log, log_net, log_rules

TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


class Source(NamedTuple):
    """Where a net comes from: ``described`` as Caffe's log does, on ``line`` of solver.cpp."""

    described: str
    line: int
    net: Any
    folder: Path


class NetMaker:
    """Builds the nets of one SolverParameter, and logs it.

    folder: of the solver's file; edit: changes each NetParameter before it is used; options: as
    for ``load_net``. Raises SolverError for contradictory fields.
    """

    def __init__(
        self,
        param: Any,
        folder: Path,
        log: Log,
        device: Any,
        edit: Callable[[Any], None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.param, self.folder, self.log, self.device = param, folder, log, device
        self.edit, self.options = edit, options or {}

    def train_net(self) -> Net:
        """The net to train. Source: BVLC Caffe 1.0, src/caffe/solver.cpp, InitTrainNet."""
        param = self.param
        given = [field for field in TRAIN_FIELDS if param.HasField(field)]
        if len(given) != 1:
            raise SolverError(
                f"the solver must name its train net by exactly one of {', '.join(TRAIN_FIELDS)}; "
                f"found {', '.join(given) or 'none'}"
            )
        source = {
            "train_net_param": lambda: self._inside(
                "specified in train_net_param.", 73, param.train_net_param
            ),
            "train_net": lambda: self._file("from train_net file:", 77, param.train_net),
            "net_param": lambda: self._inside("specified in net_param.", 82, param.net_param),
            "net": lambda: self._file("from net file:", 87, param.net),
        }[given[0]]()
        self.log(f"solver.cpp:{source.line}", f"Creating training net {source.described}")
        return self._build(source, "TRAIN", param.train_state)

    def test_nets(self) -> list[Net]:
        """One net for each test_iter. Source: BVLC Caffe 1.0, solver.cpp, InitTestNets."""
        param = self.param
        sources = [
            self._inside(f"test_net_param #{i}", 172, net)
            for i, net in enumerate(param.test_net_param)
        ]
        sources += [self._file("test_net file:", 172, path) for path in param.test_net]
        wanted = len(param.test_iter)
        if wanted < len(sources) or (wanted > len(sources) and not self._generic()):
            raise SolverError(
                f"the solver has {wanted} test_iter and {len(sources)} test nets of its own; "
                "give one test_iter for each test net"
            )
        sources += [self._generic()[0]] * (wanted - len(sources)) if wanted > len(sources) else []
        states = list(param.test_state)
        if states and len(states) != len(sources):
            raise SolverError(f"the solver has {len(states)} test_state for {len(sources)} nets")
        if sources and param.test_interval < 1:
            raise SolverError("test_iter is given but test_interval is 0; set test_interval")
        if min(param.test_iter, default=1) < 1:
            raise SolverError(f"test_iter must be 1 or more, found {min(param.test_iter)}")
        nets = []
        for i, source in enumerate(sources):
            self.log("solver.cpp:172", f"Creating test net (#{i}) specified by {source.described}")
            nets.append(self._build(source, "TEST", *states[i : i + 1]))
        return nets

    def _generic(self) -> list[Source]:
        """The net that train and test share, if there is one."""
        if self.param.HasField("net_param"):
            return [self._inside("net_param", 172, self.param.net_param)]
        return [self._file("net file:", 172, self.param.net)] if self.param.HasField("net") else []

    def _inside(self, described: str, line: int, net: Any) -> Source:
        return Source(described, line, net, self.folder)

    def _file(self, described: str, line: int, path: str) -> Source:
        found = resolve(path, self.folder)
        return Source(f"{described} {path}", line, found, Path(os.path.dirname(found)))

    def _build(self, source: Source, phase: str, *states: Any) -> Net:
        net = read_net(source.net)
        if self.edit is not None:
            self.edit(net)
        state = schema.NetState(phase=schema.enum("Phase", phase))
        for other in (net.state, *states):
            state.MergeFrom(other)
        state.phase = schema.enum("Phase", phase)
        log_rules(self.log, net, state)
        stages = tuple(state.stage)
        made = load_net(
            net,
            phase=phase,
            device=self.device,
            level=state.level,
            stages=stages,
            folder=source.folder,
            **self.options,
        )
        shown = filter_net(net, phase, state.level, stages)
        shown.state.CopyFrom(state)
        log_net(self.log, made, shown)
        return made


def set_train_state(param: Any, level: int = 0, stages: str = "") -> None:
    """Write a level and comma separated stages into train_state, as the tool `caffe train` does.

    An empty string adds one empty stage, as it does there.
    """
    param.train_state.level = level
    param.train_state.stage.extend(stages.split(","))
