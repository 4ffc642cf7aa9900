"""The file: one module, its layers by name, a forward of one line for each layer."""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Any

import torch

from converters.onnx.check import relative_difference
from converters.torch_module.forms import CLASSES, Form, form_of
from port.caffemodel import written_whole
from port.errors import ConversionError
from port.layers.layer import DataLayer
from port.net import Net

BOUND = 1e-5
"""Largest difference relative to an output's largest value: sums in another memory order."""
HEADER = '''\
"""{name}: a plain PyTorch module. Its weights lie beside it, in {weights}.

    from {stem} import load
    net = load()
    net({call})

Inputs: {inputs}.
Outputs: {outputs}.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

'''
FOOTER = '''

def load(weights=Path(__file__).with_suffix(".pt")):
    """The net with its weights, in evaluation mode."""
    net = {name}()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return net.eval()
'''


def to_torch(net: Net, path: str | Path, *, check: bool = True) -> float | None:
    """Write a deploy net as ``model.py`` and ``model.pt``; the module needs torch alone.

    check: the written module is run on random input, batch 2, against the net. Returns the largest
    difference relative to the output's largest value. Raises ConversionError for a layer that has
    no plain form, or if the difference is above 1e-5; then no file is written.
    """
    target = Path(path)
    if target.suffix != ".py":
        raise ConversionError(f"{target}: a Python file is written, so the name must end in .py")
    source, weights = module_source(net, target.stem)
    difference = _difference(net, source, weights) if check else None
    if difference is not None and not difference <= BOUND:
        raise ConversionError(
            f"the module's output differs by {difference:.2g} of its largest value, {BOUND:.2g} "
            "is allowed; no file was written"
        )
    with written_whole(target.with_suffix(".pt")) as temporary, open(temporary, "wb") as file:
        torch.save(weights, file)
    with written_whole(target) as temporary:
        temporary.write_text(source, encoding="utf-8")
    return difference


def module_source(net: Net, stem: str = "model") -> tuple[str, dict[str, torch.Tensor]]:
    """The text of the module and its state_dict, for a file named ``<stem>.py``."""
    names = _Names()
    class_name = _class_name(net.param.name)
    variables = {top: names.variable(top) for top in net.inputs}
    made, run, weights = [], [], {}
    classes: dict[str, None] = {}
    for layer in net.layers:
        if isinstance(layer, DataLayer):
            continue
        if layer.type in ("Split", "Silence"):
            same = variables[layer.spec.bottom[0]]
            variables.update(dict.fromkeys(layer.spec.top, same))
            continue
        form = form_of(layer)
        module = names.module(layer.name)
        if form.module:
            made.append(f"        self.{module} = {form.module}")
            weights.update(_state(module, form))
        classes.update(dict.fromkeys(form.classes))
        bottoms = [variables[bottom] for bottom in layer.spec.bottom]
        for top in layer.spec.top:
            variables.setdefault(top, names.variable(top))
        tops = ", ".join(variables[top] for top in layer.spec.top)
        call = form.call.replace("{self}", f"self.{module}").format(*bottoms)
        run.append(f"        {tops} = {call}")
    run.append(f"        return {_result(net, variables)}")
    inputs = ", ".join(variables[name] for name in net.inputs)
    return _text(net, stem, class_name, classes, made, run, inputs), weights


def _state(module: str, form: Form) -> dict[str, torch.Tensor]:
    return {
        f"{module}.{name}": value.detach()
        .cpu()
        .float()
        .clone(memory_format=torch.contiguous_format)
        for name, value in form.weights.items()
    } | (
        {f"{module}.num_batches_tracked": torch.tensor(0)} if "running_mean" in form.weights else {}
    )


def _result(net: Net, variables: dict[str, str]) -> str:
    if len(net.outputs) == 1:
        return variables[net.outputs[0]]
    pairs = ", ".join(f"{_quoted(name)}: {variables[name]}" for name in net.outputs)
    return f"{{{pairs}}}"


def _text(
    net: Net,
    stem: str,
    class_name: str,
    classes: dict[str, None],
    made: list[str],
    run: list[str],
    inputs: str,
) -> str:
    first = net.blob_shapes[net.inputs[0]]
    header = HEADER.format(
        name=class_name,
        weights=f"{_plain(stem)}.pt",
        stem=_plain(stem),
        call=", ".join(f"torch.randn{net.blob_shapes[name]}" for name in net.inputs)
        if first
        else inputs,
        inputs=", ".join(f"{_plain(name)} {net.blob_shapes[name]}" for name in net.inputs),
        outputs=", ".join(f"{_plain(name)} {net.blob_shapes[name]}" for name in net.outputs),
    )
    body = [
        f"class {class_name}(nn.Module):",
        "    def __init__(self):",
        "        super().__init__()",
        *made,
        "",
        f"    def forward(self, {inputs}):",
        *run,
    ]
    if not any("F." in line for line in run):
        header = header.replace("import torch.nn.functional as F\n", "")
    parts = [f"\n{CLASSES[name]}\n" for name in classes]
    return header + "".join(parts) + "\n" + "\n".join(body) + "\n" + FOOTER.format(name=class_name)


def _difference(net: Net, source: str, weights: dict[str, torch.Tensor]) -> float:
    """Runs the text as it would be imported, and compares its outputs with the net's."""
    scope: dict[str, Any] = {"__name__": "written", "__file__": "written.py"}
    exec(compile(source, "written.py", "exec"), scope)
    module = scope[_class_name(net.param.name)]()
    module.load_state_dict(weights)
    module.eval()
    torch_seed = torch.Generator().manual_seed(0)
    fed = {}
    for name in net.inputs:
        shape = net.blob_shapes[name]
        fed[name] = torch.rand((2, *shape[1:]), generator=torch_seed) * 2 - 1
    with torch.inference_mode():
        theirs = net(**fed)
        ours = module(*fed.values())
    outputs = ours if isinstance(ours, dict) else {net.outputs[0]: ours}
    pairs = [(outputs[name].numpy(), theirs[name].numpy()) for name in net.outputs]
    return max(relative_difference(a, b) for a, b in pairs)


class _Names:
    """Python names for layers and blobs, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = {"self", "torch", "nn", "F"}
        self._modules: set[str] = set()

    def variable(self, blob: str) -> str:
        name = _free(_identifier(blob), self._taken)
        self._taken.add(name)
        return name

    def module(self, layer: str) -> str:
        name = _free(_identifier(layer), self._modules | set(dir(torch.nn.Module)))
        self._modules.add(name)
        return name


def _plain(name: str) -> str:
    """A name as a docstring can hold it: the text is run, and a prototxt may come from anyone."""
    return re.sub(r"[^\w./ -]", "_", name)


def _quoted(name: str) -> str:
    return json.dumps(name)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _identifier(name: str) -> str:
    word = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    word = f"_{word}" if word[0].isdigit() else word
    return f"{word}_" if keyword.iskeyword(word) else word


def _class_name(name: str) -> str:
    return (
        "".join(part[:1].upper() + part[1:] for part in _identifier(name or "Net").split("_"))
        or "Net"
    )
