"""How each layer type reads in plain PyTorch: a module, or an expression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from port import schema
from port.errors import ConversionError
from port.layers.layer import Layer
from port.layers.pooling import FLT_MAX, Grid, Pooling


@dataclass(frozen=True)
class Form:
    """One layer in PyTorch.

    call: the expression of the top, with ``{0}``, ``{1}``, … for the bottoms and ``{self}`` for
    the module. module: the expression that makes the module, if there is one. weights: the
    module's state_dict. classes: names of what of ``CLASSES`` it needs.
    """

    call: str = "{self}({0})"
    module: str = ""
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    classes: tuple[str, ...] = ()


CLASSES = {
    "Scale": '''\
class Scale(nn.Module):
    """x times a learnt factor, plus a learnt bias; both of shape (C, 1, ...)."""

    def __init__(self, *shape, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape)) if bias else None

    def forward(self, x):
        return x * self.weight if self.bias is None else x * self.weight + self.bias
''',
    "Bias": '''\
class Bias(nn.Module):
    """x plus a learnt summand of shape (C, 1, ...)."""

    def __init__(self, *shape):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, x):
        return x + self.bias
''',
}


def form_of(layer: Layer) -> Form:
    """The layer's form. Raises ConversionError, by the layer's name, for types without one."""
    if layer.type not in FORMS:
        refuse(layer, f"has no form in a plain module; types with one: {', '.join(sorted(FORMS))}")
    return FORMS[layer.type](layer)


def refuse(layer: Layer, why: str) -> Any:
    raise ConversionError(f"layer '{layer.name}' ({layer.type}): {why}; ONNX has all of them")


def _one(value: tuple[int, ...]) -> Any:
    """(3, 3) as 3, for reading."""
    return value[0] if len(set(value)) == 1 else value


def _arguments(*values: Any, **named: tuple[Any, Any]) -> str:
    """Arguments of a call; the named ones are (value, default) and left out when equal."""
    parts = [_number(value) for value in values]
    parts += [f"{name}={_number(x)}" for name, (x, usual) in named.items() if x != usual]
    return ", ".join(parts)


def _number(value: Any) -> str:
    """A float as short as float32 tells it, as the prototxt had it: 1e-05."""
    return repr(float(str(np.float32(value)))) if isinstance(value, float) else repr(value)


def _blobs(layer: Layer) -> dict[str, torch.Tensor]:
    return {name: getattr(layer, name) for name in layer.blob_names}


def _windows(name: str) -> Callable[[Layer], Form]:
    def form(layer: Any) -> Form:
        at = layer.windows
        if not layer.plain or len(layer.spec.bottom) > 1:
            refuse(layer, "is plain only with channels on axis 1, pixels behind and one bottom")
        channels = layer.bottom_shapes[0][1], layer.top_shapes[0][1]
        arguments = _arguments(
            *channels,
            _one(at.kernel),
            stride=(_one(at.stride), 1),
            padding=(_one(at.pad), 0),
            dilation=(_one(at.dilation), 1),
            groups=(layer.param.group, 1),
            bias=(layer.bias is not None, True),
        )
        return Form(module=f"nn.{name}{len(at.kernel)}d({arguments})", weights=_blobs(layer))

    return form


def _inner_product(layer: Any) -> Form:
    bias = layer.bias is not None
    weights = _blobs(layer)
    if layer.transposed:
        weights["weight"] = layer.weight.t()
    flat = len(layer.bottom_shapes[0]) == layer.first_axis + 1
    rows = "{0}" if flat else f"{{0}}.flatten({layer.first_axis})"
    arguments = _arguments(layer.inputs, layer.outputs, bias=(bias, True))
    return Form(f"{{self}}({rows})", f"nn.Linear({arguments})", weights)


def _prelu(layer: Layer) -> Form:
    slope = layer.blobs[0]
    return Form(module=f"nn.PReLU({slope.numel()})", weights={"weight": slope.reshape(-1)})


def _batch_norm(layer: Any) -> Form:
    rank = len(layer.bottom_shapes[0])
    if not layer.stored or rank < 2:
        refuse(layer, "is plain only with stored statistics and a channel axis")
    mean, variance = layer.statistics()
    weights = {"running_mean": mean, "running_var": variance}
    arguments = _arguments(layer.channels, eps=(layer.eps, None), affine=(False, True))
    return Form(module=f"nn.BatchNorm{max(1, rank - 2)}d({arguments})", weights=weights)


def _scale(layer: Any) -> Form:
    if len(layer.spec.bottom) == 2:
        if layer.bias is not None or layer.trailing:
            refuse(layer, "with two bottoms is plain only without bias, up to the last axis")
        return Form("{0} * {1}")
    shape = (*layer.weight.shape, *(1,) * layer.trailing)
    weights = {name: blob.reshape(shape) for name, blob in _blobs(layer).items()}
    module = f"Scale({_arguments(*shape)}, bias={layer.bias is not None})"
    return Form(module=module, weights=weights, classes=("Scale",))


def _bias(layer: Any) -> Form:
    if len(layer.spec.bottom) == 2:
        return (
            Form("{0} + {1}") if not layer.trailing else refuse(layer, "ends before the last axis")
        )
    shape = (*layer.bias.shape, *(1,) * layer.trailing)
    weights = {"bias": layer.bias.reshape(shape)}
    return Form(module=f"Bias({_arguments(*shape)})", weights=weights, classes=("Bias",))


def _pooling(layer: Layer) -> Form:
    assert isinstance(layer, Pooling)
    if layer.method == "STOCHASTIC" or layer.with_mask:
        refuse(layer, "is plain only as MAX or AVE without a mask")
    if layer.grid is None:
        over = {"MAX": "amax((2, 3), keepdim=True)", "AVE": "mean((2, 3), keepdim=True)"}
        return Form(f"{{0}}.{over[layer.method]}")
    grid = layer.grid
    name = {"MAX": "MaxPool2d", "AVE": "AvgPool2d"}[layer.method]
    if grid.torch_agrees:
        arguments = _pool_arguments(grid, True)
        return Form(module=f"nn.{name}({arguments}, ceil_mode=True)")
    if layer.method == "AVE":
        refuse(layer, "averages over windows that torch does not form")
    size = layer.bottom_shapes[0][2:]
    ends = zip(grid.reach((size[0], size[1])), size, grid.pad, strict=True)
    down, across = (max(0, reach - length - pad) for reach, length, pad in ends)
    around = (grid.pad[1], across, grid.pad[0], down)
    call = f"{{self}}(F.pad({{0}}, {around}, value={-FLT_MAX}))"
    return Form(call, f"nn.MaxPool2d({_pool_arguments(grid, False)})")


def _pool_arguments(grid: Grid, pad: bool) -> str:
    padding = (_one(grid.pad) if pad else 0, 0)
    return _arguments(_one(grid.kernel), _one(grid.stride), padding=padding)


def _eltwise(layer: Any) -> Form:
    places = [f"{{{i}}}" for i in range(len(layer.spec.bottom))]
    operation = schema.enum_name(layer.param, "operation")
    if operation == "MAX":
        call = places[0]
        for place in places[1:]:
            call = f"torch.maximum({call}, {place})"
        return Form(call)
    if layer.coeff:
        places = [f"{_number(c)} * {place}" for c, place in zip(layer.coeff, places, strict=True)]
    return Form((" + " if operation == "SUM" else " * ").join(places))


def _concat(layer: Any) -> Form:
    places = ", ".join(f"{{{i}}}" for i in range(len(layer.spec.bottom)))
    return Form(f"torch.cat(({places}), {layer.along})")


def _slice(layer: Any) -> Form:
    sizes = [shape[layer.along] for shape in layer.top_shapes]
    return Form(f"{{0}}.split({sizes}, {layer.along})")


def _reshape(layer: Any) -> Form:
    lead = [f"{{0}}.shape[{i}]" for i in range(layer.start)]
    middle = [
        str(dim) if dim else f"{{0}}.shape[{layer.start + i}]" for i, dim in enumerate(layer.dims)
    ]
    tail = [str(size) for size in layer.bottom_shapes[0][layer.stop :]]
    if not layer.start and tail and -1 not in layer.dims:
        tail[0] = "-1"
    return Form(f"{{0}}.reshape({', '.join([*lead, *middle, *tail])})")


def _flatten(layer: Any) -> Form:
    if layer.start == layer.stop:
        return Form(f"{{0}}.unsqueeze({layer.start})")
    last = layer.stop - 1
    end = -1 if last == len(layer.bottom_shapes[0]) - 1 else last
    return Form("{0}.flatten(" + _arguments(layer.start, end_dim=(end, -1)) + ")")


def _power(layer: Any) -> Form:
    if layer.power * layer.scale == 0:
        value = 1.0 if layer.power == 0 else layer.shift**layer.power
        return Form(f"torch.full_like({{0}}, {_number(value)})")
    inner = "{0}" if layer.scale == 1 else f"{{0}} * {_number(layer.scale)}"
    inner = inner if layer.shift == 0 else f"{inner} + {_number(layer.shift)}"
    return Form(inner if layer.power == 1 else f"({inner}) ** {_number(layer.power)}")


def _exp(layer: Any) -> Form:
    inner = "{0}" if layer.inner == 1 else f"{{0}} * {_number(layer.inner)}"
    return Form(f"torch.exp({inner})" + ("" if layer.outer == 1 else f" * {_number(layer.outer)}"))


def _log(layer: Any) -> Form:
    inner = "{0}" if layer.scale == 1 else f"{{0}} * {_number(layer.scale)}"
    inner = inner if layer.shift == 0 else f"{inner} + {_number(layer.shift)}"
    return Form(
        f"torch.log({inner})" + ("" if layer.factor == 1 else f" * {_number(layer.factor)}")
    )


def _lrn(layer: Any) -> Form:
    if not layer.across:
        refuse(layer, "is plain only across channels")
    arguments = _arguments(layer.size, layer.alpha, layer.beta, layer.k)
    return Form(module=f"nn.LocalResponseNorm({arguments})")


def _embed(layer: Any) -> Form:
    if layer.bias is not None:
        refuse(layer, "is plain only without bias")
    rows, columns = layer.weight.shape
    return Form("{self}({0}.long())", f"nn.Embedding({rows}, {columns})", _blobs(layer))


def _crop(layer: Any) -> Form:
    call = "{0}"
    for axis, start in enumerate(layer.offset, layer.first):
        call += f".narrow({axis}, {start}, {{1}}.shape[{axis}])"
    return Form(call)


_REDUCE = {"SUM": "{0}", "ASUM": "{0}.abs()", "SUMSQ": "{0}.square()", "MEAN": "{0}"}


def _reduction(layer: Any) -> Form:
    operation = schema.enum_name(layer.param, "operation")
    inner = _REDUCE[operation] + f".flatten({layer.first})"
    call = inner + (".mean(-1)" if operation == "MEAN" else ".sum(-1)")
    return Form(call if layer.coeff == 1 else f"{call} * {_number(layer.coeff)}")


def _relu(layer: Any) -> Form:
    return Form(module=f"nn.LeakyReLU({_number(layer.slope)})" if layer.slope else "nn.ReLU()")


FORMS: dict[str, Callable[[Any], Form]] = {
    "AbsVal": lambda layer: Form("{0}.abs()"),
    "BNLL": lambda layer: Form(module="nn.Softplus()"),
    "BatchNorm": _batch_norm,
    "Bias": _bias,
    "Concat": _concat,
    "Convolution": _windows("Conv"),
    "Crop": _crop,
    "Deconvolution": _windows("ConvTranspose"),
    "Dropout": lambda layer: Form(module=f"nn.Dropout({_number(layer.ratio)})"),
    "ELU": lambda layer: Form(module=f"nn.ELU({_arguments(alpha=(layer.alpha, 1.0))})"),
    "Eltwise": _eltwise,
    "Embed": _embed,
    "Exp": _exp,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Log": _log,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reduction": _reduction,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": lambda layer: Form(module="nn.Sigmoid()"),
    "Slice": _slice,
    "Softmax": lambda layer: Form(module=f"nn.Softmax({layer.over})"),
    "TanH": lambda layer: Form(module="nn.Tanh()"),
    "Threshold": lambda layer: Form(f"({{0}} > {_number(layer.threshold)}).to({{0}}.dtype)"),
    "Tile": lambda layer: Form(f"{{0}}.repeat({layer.repeats})"),
}
