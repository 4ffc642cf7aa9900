"""One training step of SphereFace-20, and its margin head alone, against plain torch.

Both sides run in turn in this process, so that a busy machine slows them alike; the ratio of the
medians is the result. Claims: step at most 0.85, head at most 1.10 and 10 MB of extra memory.

    python benchmarks/train_step.py [--rounds 7] [--batch 16] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from port import load_net, schema
from port.prototxt import parse
from port.solver.updates import UpdateRule

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 10572
UNITS = (1, 2, 4, 1)
WIDTHS = (64, 128, 256, 512)
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 type: "SGD"'


class Unit(nn.Module):
    """x + prelu(conv(prelu(conv(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)
        self.conv2, self.relu2 = nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.relu2(self.conv2(self.relu1(self.conv1(x))))


class HandWritten(nn.Module):
    """SphereFace-20 as one writes it in torch, with a plain linear head."""

    def __init__(self) -> None:
        super().__init__()
        body: list[nn.Module] = []
        channels = 3
        for units, width in zip(UNITS, WIDTHS, strict=True):
            body += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.PReLU(width)]
            body += [Unit(width) for _ in range(units)]
            channels = width
        self.body = nn.Sequential(*body)
        self.fc5 = nn.Linear(512 * 7 * 6, 512)
        self.fc6 = nn.Linear(512, CLASSES, bias=False)

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(self.fc6(self.fc5(self.body(x).flatten(1))), label)


def our_step(batch: int) -> Callable[[], object]:
    """Forward, backward and update of the reference net with the solver's own parts."""
    text = (ROOT / "reference_prototxt" / "sphereface_model.prototxt").read_text()
    net = load_net(text, phase="TRAIN", open_data=False, input_shape=(3, 112, 96))
    data, label = torch.randn(batch, 3, 112, 96), torch.randint(0, CLASSES, (batch,)).float()
    parameters = [entry.parameter for entry in net.learnable]
    rule = UpdateRule(parse(SOLVER, schema.SolverParameter), parameters)
    rates = [1e-4 * entry.lr_mult for entry in net.learnable]
    decays = [5e-4 * entry.decay_mult for entry in net.learnable]

    def step() -> None:
        for parameter in parameters:
            parameter.grad = None
        net.total_loss(net(data=data, label=label)).backward()
        rule.apply(parameters, rates, decays, 1.0, 0)

    return step


def their_step(batch: int) -> Callable[[], object]:
    """The same with hand-written modules, torch.optim.SGD and the default memory layout."""
    net = HandWritten()
    data, label = torch.randn(batch, 3, 112, 96), torch.randint(0, CLASSES, (batch,))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        net(data, label).backward()
        optimizer.step()

    return step


def heads(rows: int = 256, inputs: int = 512) -> tuple[Callable[[], object], Callable[[], object]]:
    """(MarginInnerProduct, F.linear), forward and backward with the same gradient."""
    net = load_net(
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: {rows} '
        f'dim: {inputs} }} }} }} layer {{ name: "label" type: "Input" top: "label" input_param '
        f'{{ shape {{ dim: {rows} }} }} }} layer {{ name: "fc6" type: "MarginInnerProduct" '
        'bottom: "x" bottom: "label" top: "fc6" top: "lambda" margin_inner_product_param { '
        f'num_output: {CLASSES} type: QUADRUPLE weight_filler {{ type: "xavier" }} base: 1000 '
        "gamma: 0.12 power: 1 lambda_min: 5 } }"
    )
    ours = net.params["fc6"][0]
    theirs = nn.Parameter(ours.detach().clone())
    x = torch.randn(rows, inputs, requires_grad=True)
    label = torch.randint(0, CLASSES, (rows,)).float()
    grad = torch.randn(rows, CLASSES)

    def margin() -> None:
        x.grad = ours.grad = None
        net(x=x, label=label)["fc6"].backward(grad)

    def linear() -> None:
        x.grad = theirs.grad = None
        F.linear(x, theirs).backward(grad)

    return margin, linear


def peak_bytes(run: Callable[[], object]) -> int:
    """Largest sum of live allocations during one run, from torch's own profile."""
    from torch.profiler import ProfilerActivity, profile

    run()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    events = [event for event in profiled.profiler.kineto_results.events() if event.nbytes()]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def compare(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], rounds: int, claim: float
) -> None:
    """Run both in turn and print medians and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    for _ in range(rounds):
        for run, kept in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            run()
            kept.append(time.perf_counter() - start)
    a, b = (1e3 * statistics.median(kept) for kept in times)
    print(f"{name:24s} ours {a:8.1f} ms   torch {b:8.1f} ms   ratio {a / b:.3f}  (<= {claim})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    margin, linear = heads()
    compare("margin head, M=256", margin, linear, 5 * options.rounds, 1.10)
    extra = peak_bytes(margin) - peak_bytes(linear)
    print(f"{'margin head, memory':24s} {extra / 1e6:+.2f} MB over F.linear's peak  (<= 10)")
    step = f"SphereFace-20, batch {options.batch}"
    compare(step, our_step(options.batch), their_step(options.batch), options.rounds, 0.85)


if __name__ == "__main__":
    main()
