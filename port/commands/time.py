"""``port time``: where a step's time goes."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import click

from port.commands.options import (
    EXISTING,
    HELP,
    PROTOTXT,
    SHAPE_HELP,
    device_option,
    parse_shape,
    pick_device,
    print_table,
    python_option,
)

if TYPE_CHECKING:
    import torch

    from port.layers.layer import Layer
    from port.net import Net


@click.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.option("--weights", type=EXISTING, help="A .caffemodel.")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", show_default=True)
@click.option("--iterations", type=click.IntRange(1), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), help="In place of the net's own.")
@click.option("--shape", default="3,112,96", show_default=True, metavar="C,H,W", help=SHAPE_HELP)
@python_option
@device_option
def time(
    net_file: Path,
    weights: Path | None,
    phase: str,
    iterations: int,
    batch_size: int | None,
    shape: str,
    device: str,
    allow_python: bool,
) -> None:
    """Measure every layer of NET, forward and backward, on random input.

    \b
    Examples:
      port time reference_prototxt/sphereface_deploy.prototxt --phase TEST --iterations 50
      port time reference_prototxt/sphereface_model.prototxt --batch-size 16
    """
    from port.net import load_net

    net = load_net(
        net_file,
        weights,
        phase,
        pick_device(device),
        open_data=False,
        input_shape=parse_shape(shape),
        allow_python=allow_python,
    )
    inputs = random_inputs(net, batch_size)
    _run(net, inputs)
    runs = [_run(net, inputs) for _ in range(iterations)]
    _show(net, runs)


def random_inputs(net: Net, batch: int | None) -> dict[str, torch.Tensor]:
    """Uniform values for images, zeros for labels (shapes of one axis), on the net's device."""
    import torch

    inputs = {}
    for name in net.inputs:
        shape = net.blob_shapes[name]
        shape = (batch or shape[0], *shape[1:])
        make = torch.zeros if len(shape) < 2 else torch.rand
        inputs[name] = make(shape)
    return inputs


def _run(net: Net, inputs: dict[str, torch.Tensor]) -> list[tuple[float, float]]:
    """Seconds (forward, backward) of each layer, on the values that reach it."""
    from port.layers.layer import DataLayer
    from port.net import as_list

    env = {name: net.placed(value) for name, value in inputs.items()}
    seconds = []
    for layer in net.layers:
        if isinstance(layer, DataLayer):
            seconds.append((0.0, 0.0))
            continue
        bottoms = [_leaf(env[name], layer.backward_to) for name in layer.spec.bottom]
        begin = _now(net)
        tops = as_list(layer(*bottoms))
        forward = _now(net) - begin
        env.update(zip(layer.spec.top, tops, strict=True))
        seconds.append((forward, _backward(net, layer, bottoms, tops)))
    return seconds


def _leaf(value: torch.Tensor, differentiable: bool) -> torch.Tensor:
    return value.detach().requires_grad_(differentiable and value.dim() > 1)


def _backward(
    net: Net, layer: Layer, bottoms: list[torch.Tensor], tops: list[torch.Tensor]
) -> float:
    """Seconds of one layer's backward to its bottoms and parameters, from gradients of one."""
    import torch

    wanted = [value for value in (*bottoms, *layer.blobs) if value.requires_grad]
    ends = [top for top in tops if top.requires_grad]
    if not wanted or not ends:
        return 0.0
    ones = [torch.ones_like(top) for top in ends]
    begin = _now(net)
    torch.autograd.grad(ends, wanted, ones, allow_unused=True)
    return _now(net) - begin


def _now(net: Net) -> float:
    import torch

    if net.device.type == "cuda":
        torch.cuda.synchronize(net.device)
    return perf_counter()


def _show(net: Net, runs: list[list[tuple[float, float]]]) -> None:
    from rich.table import Table

    from port.layers.layer import DataLayer

    table = Table(title=f"{net.param.name or 'net'}: median of {len(runs)} runs, milliseconds")
    table.add_column("layer", no_wrap=True)
    table.add_column("type", no_wrap=True)
    for column in ("forward", "backward", "share"):
        table.add_column(column, justify="right")
    rows = []
    for i, layer in enumerate(net.layers):
        if layer.type != "Split" and not isinstance(layer, DataLayer):
            forward, backward = (1e3 * median(run[i][way] for run in runs) for way in (0, 1))
            rows.append((layer, forward, backward))
    total = sum(forward + backward for _, forward, backward in rows) or 1.0
    for layer, forward, backward in rows:
        share = f"{(forward + backward) / total:.1%}"
        table.add_row(layer.name, layer.type, f"{forward:.3f}", f"{backward:.3f}", share)
    print_table(table)
    ahead, back = sum(row[1] for row in rows), sum(row[2] for row in rows)
    click.echo(f"forward {ahead:.2f} ms, backward {back:.2f} ms, both {total:.2f} ms")
