"""From a NetParameter to a torch.nn.Module: the interpreter."""

from __future__ import annotations

import keyword
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from port import schema
from port.errors import OUT_OF_MEMORY, NetError, PortError, is_out_of_memory
from port.graph import filter_net, insert_splits
from port.layers.layer import Context, DataLayer, Layer, Shape
from port.layers.registry import layer_class
from port.learnable import Register
from port.prototxt import read_net


class Net(nn.Module):
    """A Caffe net as a module: blobs by name, layers with their parameters in Caffe's order.

    ``net(x=…, label=…)``, or one tensor for a net with one input, returns the output blobs by
    name; ``blobs=[…]`` adds any other. Without inputs, data layers give their next batch.
    The phase is fixed when the net is built, as in Caffe: ``train()`` and ``eval()`` do not
    change what layers compute. Batch size is free; see ``load_net`` to make one.
    """

    def __init__(self, param: Any, context: Context) -> None:
        super().__init__()
        self._anchor: torch.Tensor
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        self.param = insert_splits(param)
        self.outputs: list[str] = []
        self.memory_format = torch.contiguous_format
        self.context = context
        self.phase = context.phase
        self.layers: list[Layer] = []
        self.blob_shapes: dict[str, Shape] = {}
        self.output_weights: dict[str, float] = {}
        self._register = Register()
        self.learnable = self._register.learnable
        self._runs: dict[tuple[str, ...], Any] = {}
        self._frozen = False
        for spec in self.param.layer:
            self._add_layer(spec)
        self._finish()

    # -- reading ---------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, list[nn.Parameter]]:
        """Layer name → its parameters in Caffe's blob order, for layers that have any."""
        return {layer.name: layer.blobs for layer in self.layers if layer.blob_names}

    @property
    def device(self) -> torch.device:
        """Where the net computes."""
        return self._anchor.device

    @property
    def data_layers(self) -> list[DataLayer]:
        """The layers whose tops are the net's inputs."""
        return [layer for layer in self.layers if isinstance(layer, DataLayer)]

    @property
    def inputs(self) -> list[str]:
        """Names of the blobs that a caller may feed, in the prototxt's order."""
        return [top for layer in self.data_layers for top in layer.spec.top]

    @property
    def code(self) -> str:
        """The generated Python of the forward pass."""
        return str(self._emit(()).code)

    def layer(self, name: str) -> Layer:
        """The layer of that name. Raises NetError for an unknown one."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise NetError(f"net '{self.param.name}' has no layer '{name}'")

    def total_loss(self, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Sum over the loss blobs of weight times the blob's sum. Needs them in ``outputs``."""
        terms = [weight * outputs[blob].sum() for blob, weight in self.output_weights.items()]
        if not terms:
            raise NetError(f"net '{self.param.name}' has no loss: no top with a loss weight")
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0]

    # -- running ---------------------------------------------------------------------------

    def forward(
        self, *args: torch.Tensor, blobs: Sequence[str] = (), **named: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Run the net on named inputs (or its next batch) and return blobs by name.

        Raises NetError for missing or unknown names, and whatever a layer refuses.
        """
        wanted = dict.fromkeys([*self.outputs, *self.output_weights, *blobs])
        run = self._run(tuple(blobs))
        fed: list[torch.Tensor | None] = []
        try:
            fed = self._feed(args, named)
            values = run(*fed)
        except (RuntimeError, MemoryError) as error:
            name = f"net '{self.param.name}'"
            reason = f"{name}: {OUT_OF_MEMORY}" if is_out_of_memory(error) else self._misfit(fed)
            if not reason:
                raise
            raise NetError(f"{reason}: {error}") from error
        found = zip(wanted, values, strict=True)
        return {name: value for name, value in found if value is not None}

    def walk(
        self, inputs: Mapping[str, torch.Tensor] | None = None
    ) -> Iterator[tuple[Layer, dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """Run layer by layer, yielding (layer, bottoms, tops) after each one.

        Splits hand out distinct tensors here, so that each top can keep a gradient of its own.
        """
        fed = zip(self.inputs, self._feed((), dict(inputs or {})), strict=True)
        env = {name: value for name, value in fed if value is not None}
        for layer, step in zip(self.layers, self._steps, strict=True):
            bottoms = {name: env[name] for name in layer.spec.bottom}
            if isinstance(layer, DataLayer):
                tops = [env[name] for name in layer.spec.top if name in env]
            elif layer.type == "Split":
                tops = [env[step.bottoms[0]].view_as(env[step.bottoms[0]]) for _ in step.tops]
            else:
                tops = as_list(layer(*(self._flowing(step, env))))
            env.update(zip(layer.spec.top, tops, strict=False))
            yield layer, bottoms, dict(zip(layer.spec.top, tops, strict=False))

    def share_weights(self, other: Net) -> None:
        """Use the parameters of ``other``'s layers of the same name: one tensor, two nets."""
        theirs = {layer.name: layer for layer in other.layers}
        for layer in self.layers:
            source = theirs.get(layer.name)
            if source is None or not layer.blob_names:
                continue
            if [b.shape for b in source.blobs] != [b.shape for b in layer.blobs]:
                layer.refuse("its parameters have other shapes in the net it shares them with")
            for name, blob in zip(layer.blob_names, source.blobs, strict=True):
                setattr(layer, name, blob)

    def freeze(self) -> None:
        """Compile the forward with the weights as they are; later changes have no effect.

        The first forward, and the first of another shape, compiles (up to a minute, with a C++
        compiler); outputs carry no gradient. Raises NetError for a net of the TRAIN phase.
        """
        if self.phase != "TEST":
            raise NetError(f"net '{self.param.name}': only a net of the TEST phase is compiled")
        self.requires_grad_(False)
        self._runs.clear()
        self._frozen = True

    def close(self) -> None:
        """Stop the data layers' workers."""
        for layer in self.data_layers:
            layer.close()

    # -- building --------------------------------------------------------------------------

    def _add_layer(self, spec: Any) -> None:
        if not spec.HasField("phase"):
            spec.phase = schema.enum("Phase", self.phase)
        context = replace(self.context, phase=schema.enum_name(spec, "phase"))
        bottoms = [self.blob_shapes[name] for name in spec.bottom]
        kind = layer_class(spec.type, spec.name)
        if kind.loss and not spec.top:
            spec.top.append(schema.AUTOMATIC)
        layer = kind(spec, bottoms, context)
        self._check_tops(layer)
        self.layers.append(layer)
        self.add_module(self._free_name(_identifier(spec.name)), layer)
        for i, (top, shape) in enumerate(zip(layer.spec.top, layer.top_shapes, strict=True)):
            self.blob_shapes[top] = shape
            weight = layer.spec.loss_weight[i] if i < len(layer.spec.loss_weight) else 0.0
            if weight:
                self.output_weights[top] = weight
        self._register.add(layer)

    def _free_name(self, name: str) -> str:
        """``name``, with underscores added while a layer or an attribute of Net has it."""
        while name in self._modules or name in self.__dict__ or hasattr(Net, name):
            name += "_"
        return name

    def _check_tops(self, layer: Layer) -> None:
        for i, top in enumerate(layer.spec.top):
            if top in layer.spec.bottom:
                if not layer.in_place:
                    layer.refuse(f"cannot work in place: top '{top}' is also a bottom")
            elif top in self.blob_shapes or top in layer.spec.top[:i]:
                layer.refuse(f"top '{top}' is produced by an earlier layer already; rename it")

    def _finish(self) -> None:
        self._steps = [_Step.of(layer) for layer in self.layers]
        self._read = {bottom for step in self._steps for bottom in step.bottoms}
        available: set[str] = set()
        for step in self._steps:
            available.difference_update(step.bottoms)
            available.update(step.tops)
        self.outputs = sorted(available - {schema.AUTOMATIC})
        convolves = any(layer.type in ("Convolution", "Deconvolution") for layer in self.layers)
        self.memory_format = torch.channels_last if convolves else torch.contiguous_format
        for entry in self.learnable:
            if entry.parameter.dim() == 4:
                empty = entry.layer in self.context.loaded
                _lay_out(entry.parameter, self.memory_format, empty)
        self._run(())

    def _run(self, blobs: tuple[str, ...]) -> Any:
        if blobs not in self._runs:
            for name in blobs:
                if name not in self.blob_shapes:
                    raise NetError(f"net '{self.param.name}' has no blob '{name}'")
            run = self._emit(blobs)
            self._runs[blobs] = _compiled(run) if self._frozen else run
        return self._runs[blobs]

    def _emit(self, blobs: tuple[str, ...]) -> fx.GraphModule:
        """The fx graph that returns outputs, loss blobs and ``blobs``, in that order."""
        graph = fx.Graph()
        env = {name: graph.placeholder(_identifier(name)) for name in self.inputs}
        for path, layer, step in zip(self._modules, self.layers, self._steps, strict=True):
            if isinstance(layer, DataLayer):
                continue
            if layer.type == "Split":
                env.update(dict.fromkeys(step.tops, env[step.bottoms[0]]))
                continue
            bottoms = tuple(
                env[name] if flows else graph.call_method("detach", (env[name],))
                for name, flows in zip(step.bottoms, step.flows, strict=True)
            )
            _emit_call(graph, env, path, bottoms, step.tops)
        wanted = dict.fromkeys([*self.outputs, *self.output_weights, *blobs])
        graph.output(tuple(env[name] for name in wanted))
        return fx.GraphModule(self, graph, class_name=_identifier(self.param.name) or "Net")

    def _flowing(self, step: _Step, env: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        pairs = zip(step.bottoms, step.flows, strict=True)
        return [env[name] if flows else env[name].detach() for name, flows in pairs]

    def _feed(
        self, args: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
    ) -> list[torch.Tensor | None]:
        names = self.inputs
        if args:
            if len(args) != 1 or len(names) != 1 or named:
                raise NetError(f"give the inputs by name: {', '.join(names)}")
            named = {names[0]: args[0]}
        unknown = [name for name in named if name not in names]
        if unknown:
            raise NetError(f"no input '{unknown[0]}'; the net's inputs are {', '.join(names)}")
        for layer in self.data_layers:
            if not any(top in named for top in layer.spec.top):
                named.update(zip(layer.spec.top, layer.next_batch(), strict=True))
        missing = [name for name in names if name not in named and name in self._read]
        if missing:
            raise NetError(f"input '{missing[0]}' is missing; the net's inputs are {names}")
        return [self.placed(named[name]) if name in named else None for name in names]

    def placed(self, value: torch.Tensor) -> torch.Tensor:
        """An input on the net's device, in the memory format its convolutions like best."""
        value = value.to(self.device, non_blocking=True)
        return value.contiguous(memory_format=self.memory_format) if value.dim() == 4 else value

    def _misfit(self, fed: Sequence[torch.Tensor | None]) -> str:
        """What differs, beyond the batch size, between the inputs and the prototxt's shapes."""
        found = []
        for name, value in zip(self.inputs, fed, strict=bool(fed)):
            shape = self.blob_shapes[name]
            if value is not None and shape and tuple(value.shape[1:]) != shape[1:]:
                found.append(f"input '{name}' is {tuple(value.shape)}, the net has {shape}")
        return "; ".join(found)


@dataclass(frozen=True)
class _Step:
    """What the graph needs to know of one layer."""

    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    flows: tuple[bool, ...]
    """For each bottom: may a gradient pass (propagate_down)?"""

    @staticmethod
    def of(layer: Layer) -> _Step:
        spec = layer.spec
        flows = tuple(spec.propagate_down) or (True,) * len(spec.bottom)
        if len(flows) != len(spec.bottom):
            layer.refuse(
                f"propagate_down is given {len(flows)} times for {len(spec.bottom)} bottoms"
            )
        return _Step(tuple(spec.bottom), tuple(spec.top), flows)


def _lay_out(parameter: nn.Parameter, memory_format: torch.memory_format, empty: bool) -> None:
    make: Any = torch.empty_like if empty else torch.Tensor.contiguous
    parameter.data = make(parameter.data, memory_format=memory_format)


def _identifier(name: str) -> str:
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not word or word[0].isdigit():
        return f"_{word}"
    return f"{word}_" if keyword.iskeyword(word) or word == "self" else word


def as_list(tops: Any) -> list[torch.Tensor]:
    """What a layer's forward returned, as one tensor for each top."""
    return list(tops) if isinstance(tops, (tuple, list)) else [] if tops is None else [tops]


def _emit_call(
    graph: fx.Graph,
    env: dict[str, fx.Node],
    path: str,
    bottoms: tuple[fx.Node, ...],
    tops: tuple[str, ...],
) -> None:
    """One line of the generated module, plus one for each top where there are several."""
    # In place, the variable takes the layer's name: fx would count conv1_1 up to conv1_2.
    single = path if tops and tops[0] in env else _identifier(tops[0]) if tops else path
    name = single if len(tops) == 1 else f"{path}_tops"
    node = graph.create_node("call_module", path, bottoms, {}, name=name)
    if len(tops) == 1:
        env[tops[0]] = node
    else:
        for i, top in enumerate(tops):
            env[top] = graph.create_node(
                "call_function", operator.getitem, (node, i), name=_identifier(top)
            )


def _compiled(run: fx.GraphModule) -> Any:
    from torch._inductor import config

    # Dynamo reads the setting itself, at every trace: an option of torch.compile comes too late.
    return config.patch(freezing=True)(torch.no_grad()(torch.compile(run)))


def load_net(
    prototxt: Any,
    weights: str | Path | None = None,
    phase: str = "TEST",
    device: str | torch.device = "cpu",
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    compile: bool = False,
    **options: Any,
) -> Net:
    """Build a net from a prototxt (path, text, or NetParameter) and load weights into it.

    ``phase``, ``level`` and ``stages`` choose among layers with include/exclude rules.
    ``options`` are the fields of ``port.layers.layer.Context``: ``gradient``, ``seed``,
    ``workers``, ``skip_bad``, ``open_data``, ``input_shape``, ``allow_python``, ``folder``.
    ``weights`` is a .caffemodel or a Caffe HDF5 file. ``compile``: see ``Net.freeze``.
    Raises PrototxtError, NetError, DataError or WeightsError.
    """
    if phase not in ("TRAIN", "TEST"):
        raise NetError(f"phase must be 'TRAIN' or 'TEST', found '{phase}'")
    where = _file_of(prototxt)
    if where is not None:
        options.setdefault("folder", where.parent)
    try:
        kept = filter_net(read_net(prototxt), phase, level, stages)
        if weights is None:
            net = Net(kept, Context(phase=phase, **options))
        else:
            from port.caffemodel import copy_weights, read_weights

            found = read_weights(Path(weights))
            net = Net(kept, Context(phase=phase, loaded=frozenset(found), **options))
            copy_weights(net, found)
    except PortError as error:
        if where is not None and where.name not in str(error):
            raise type(error)(f"{where.name}: {error}") from error
        raise
    net.to(device)
    if compile:
        net.freeze()
    return net


def _file_of(prototxt: Any) -> Path | None:
    """The path, when ``prototxt`` is one rather than text or a message."""
    if isinstance(prototxt, Path):
        return prototxt
    if isinstance(prototxt, str) and "\n" not in prototxt and "{" not in prototxt:
        return Path(prototxt)
    return None
