"""``port test``: run a net in the TEST phase and average its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from port.commands.options import (
    EXISTING,
    HELP,
    PROTOTXT,
    add,
    data_options,
    device_option,
    override_data,
    pick_device,
    progress_bar,
    python_option,
    report_bad,
)

if TYPE_CHECKING:
    from port.net import Net


@click.command(context_settings=HELP)
@click.argument("net_file", metavar="NET", type=PROTOTXT)
@click.option("--weights", type=EXISTING, required=True, help="A .caffemodel or Caffe HDF5 file.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True)
@click.option("--level", type=int, default=0, show_default=True, help="Net level, as in NetState.")
@click.option("--stage", multiple=True, help="Net stage, as in NetState; may be repeated.")
@add(data_options)
@python_option
@device_option
def test(
    net_file: Path,
    weights: Path,
    iterations: int,
    level: int,
    stage: tuple[str, ...],
    **options: Any,
) -> None:
    """Run NET in the TEST phase for some batches; print each output and the means.

    The lines are those of 'caffe test', on stderr.

    \b
    Examples:
      port test lenet_train_test.prototxt --weights lenet.caffemodel --iterations 100
      port test train_test.prototxt --weights model.caffemodel --source held_out.txt
    """
    from port.net import load_net
    from port.prototxt import read_net
    from port.solver.log import Log

    param = read_net(net_file)
    override_data(param, options, "TEST")
    net = load_net(
        param,
        weights,
        "TEST",
        pick_device(options["device"]),
        level=level,
        stages=stage,
        folder=net_file.parent,
        workers=options["workers"],
        skip_bad=options["skip_bad"],
        allow_python=options["allow_python"],
    )
    try:
        run(net, iterations, Log(lambda line: click.echo(line, err=True)))
    finally:
        net.close()
    report_bad(net)


def run(net: Net, iterations: int, log: Any) -> None:
    """Forward ``iterations`` batches; log each output value, then their means, as Caffe does."""
    import torch

    from port.solver.log import loss_note, number

    log("caffe.cpp:290", f"Running for {iterations} iterations.")
    sums: dict[str, torch.Tensor] = {}
    total = 0.0
    with torch.no_grad():
        for batch in progress_bar(range(iterations), "batches"):
            outputs = net()
            if net.output_weights:
                total += float(net.total_loss(outputs))
            for name in net.outputs:
                sums[name] = outputs[name] + sums[name] if name in sums else outputs[name]
                for value in outputs[name].flatten().tolist():
                    log("caffe.cpp:313", f"Batch {batch}, {name} = {number(value)}")
    log("caffe.cpp:318", f"Loss: {number(total / iterations)}")
    for name in net.outputs:
        for value in (sums[name] / iterations).flatten().tolist():
            note = loss_note(net.output_weights.get(name, 0.0), value)
            log("caffe.cpp:330", f"{name} = {number(value)}{note}")
