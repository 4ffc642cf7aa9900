"""``port time``: where a step's time goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from port.commands.info import _shape
from port.commands.shared import HELP, device_option, pick_device, print_table

if TYPE_CHECKING:
    import torch

    from port.net import Net


@click.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--weights", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A .caffemodel.")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", show_default=True)
@click.option("--iterations", type=click.IntRange(1), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(1), help="In place of the net's own.")
@click.option("--shape", default="3,112,96", show_default=True, metavar="C,H,W", help="Image size where the prototxt has none.")
@device_option
def time(
    net_file: Path, weights: Path | None, phase: str, iterations: int,
    batch_size: int | None, shape: str, device: str,
) -> None:
    """Measure every layer of NET, forward and backward, on random input.

    \b
    Examples:
      port time reference_prototxt/sphereface_deploy.prototxt --phase TEST --iterations 50
      port time reference_prototxt/sphereface_model.prototxt --batch-size 16
    """
    from port.net import load_net

    net = load_net(
        net_file, weights, phase, pick_device(device, wants_gpu=True),
        open_data=False, input_shape=_shape(shape),
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
    import torch

    env = {name: net.placed(value) for name, value in inputs.items()}
    seconds = []
    for layer in net.layers:
        if set(layer.spec.top) <= set(inputs):
            seconds.append((0.0, 0.0))
            continue
        bottoms = [env[name].detach() for name in layer.spec.bottom]
        for bottom in bottoms:
            bottom.requires_grad_(layer.backward_to and bottom.is_floating_point())
        start = _now()
        tops = layer(*bottoms)
        forward = _now() - start
        tops = [tops] if isinstance(tops, torch.Tensor) else list(tops or ())
        env.update(zip(layer.spec.top, tops, strict=True))
        seconds.append((forward, _backward(layer, bottoms, tops)))
    return seconds
