"""SphereFace-20 forward: our net against a hand-written module, onnxruntime and other runtimes.

Run: python benchmarks/forward.py [--threads N] [--rounds N] [--batches 1 16] [--cpu-time]

All run in one process, turn about, on the same input; a row is the median time of a forward, its
ratio to the hand-written module's and the largest difference of the embedding, relative to its
largest value. Claims: ours (eager) at most 1.02 of the hand-written channels_last module; our ONNX
at most 1.0 of torch's own export in onnxruntime; compiled at most 0.85 of eager, and faster than
onnxruntime. bfloat16 is reported with its error. OpenCV and OpenVINO are rows where they are
installed and can read the net. On a machine with other work, --cpu-time with --threads 1 counts
the CPU's seconds instead of the clock's.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import onnxruntime
import torch
from torch import nn

from converters.onnx import to_onnx
from port import load_net
from port.caffemodel import write_caffemodel
from port.net import Net

PROTOTXT = ROOT / "reference_prototxt" / "sphereface_deploy.prototxt"
Run = Callable[[], Any]


class Stage(nn.Module):
    """A stride-2 convolution and residual units of two convolutions, PReLU after each."""

    def __init__(self, inputs: int, outputs: int, units: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, 2, 1)
        self.convs = nn.ModuleList(nn.Conv2d(outputs, outputs, 3, 1, 1) for _ in range(2 * units))
        self.slopes = nn.ModuleList(nn.PReLU(outputs) for _ in range(2 * units + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.slopes[0](self.first(x))
        for i in range(0, len(self.convs), 2):
            y = self.slopes[i + 1](self.convs[i](x))
            x = x + self.slopes[i + 2](self.convs[i + 1](y))
        return x


class Sphere20(nn.Module):
    """SphereFace-20 as one writes it by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Stage(3, 64, 1), Stage(64, 128, 2), Stage(128, 256, 4), Stage(256, 512, 1)
        )
        self.fc5 = nn.Linear(512 * 7 * 6, 512)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc5(self.body(x).flatten(1))


def by_hand(net: Net) -> Sphere20:
    """The hand-written module with the net's weights, channels_last."""
    module = Sphere20().eval()
    kinds = {"Convolution": nn.Conv2d, "PReLU": nn.PReLU, "InnerProduct": nn.Linear}
    for kind, torch_kind in kinds.items():
        layers = [layer for layer in net.layers if layer.type == kind]
        ours = [m for m in module.modules() if isinstance(m, torch_kind)]
        for layer, target in zip(layers, ours, strict=True):
            for blob, parameter in zip(layer.blobs, target.parameters(), strict=True):
                parameter.data.copy_(blob.data)
    return module.to(memory_format=torch.channels_last)


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def onnx_row(path: Path, threads: int, data: np.ndarray) -> Run:
    made = session(path, threads)
    name = made.get_inputs()[0].name
    return lambda: made.run(None, {name: data})[0]


def runs(net: Net, files: Path, data: torch.Tensor, threads: int) -> dict[str, Run]:
    """What is measured, by its name in the table."""
    hand = by_hand(net)
    last = data.contiguous(memory_format=torch.channels_last)
    raw = data.numpy()
    found: dict[str, Run] = {
        "by hand, channels_last": lambda: hand(last),
        "ours, eager": lambda: net(data)["fc5"],
    }
    if not (files / "torch.onnx").exists():
        to_onnx(net, files / "ours.onnx", check=False)
        torch.onnx.export(
            hand,
            (torch.randn(2, 3, 112, 96),),
            str(files / "torch.onnx"),
            dynamic_axes={"data": {0: "batch"}},
            input_names=["data"],
            dynamo=False,
        )
    found["torch's export, onnxruntime"] = onnx_row(files / "torch.onnx", threads, raw)
    found["ours, onnxruntime"] = onnx_row(files / "ours.onnx", threads, raw)
    compiled = load_net(PROTOTXT, files / "net.caffemodel", compile=True)
    found["ours, compiled"] = lambda: compiled(data)["fc5"]
    half = load_net(PROTOTXT, files / "net.caffemodel").to(torch.bfloat16)
    short = data.to(torch.bfloat16)
    found["ours, bfloat16"] = lambda: half(short)["fc5"].float()
    found.update(others(files, raw, threads))
    return found


def others(files: Path, raw: np.ndarray, threads: int) -> dict[str, Run]:
    """Runtimes that are no dependencies of ours."""
    import cv2

    found: dict[str, Run] = {}
    if hasattr(cv2.dnn, "readNetFromCaffe"):
        cv2.setNumThreads(threads)
        caffe = cv2.dnn.readNetFromCaffe(str(PROTOTXT), str(files / "net.caffemodel"))

        def opencv() -> np.ndarray:
            caffe.setInput(raw)
            return caffe.forward().copy()

        found[f"OpenCV {cv2.__version__}, its Caffe reader"] = opencv
    try:
        import openvino
    except ImportError:
        return found
    model = openvino.Core().compile_model(
        str(files / "ours.onnx"), "CPU", {"INFERENCE_NUM_THREADS": threads}
    )
    found[f"OpenVINO {openvino.__version__[:8]}, our ONNX"] = lambda: model(raw)[0]
    return found


def measure(found: dict[str, Run], rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median seconds of each, run turn about."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for i in range(rounds + 3):
        for name, run in found.items():
            start = clock()
            run()
            if i >= 3:
                times[name].append(clock() - start)
    return {name: median(values) for name, values in times.items()}


def fill(net: Net) -> None:
    """Weights that keep the activations' size, as trained ones do."""
    from seeded import fill as seeded

    seeded(net, 5)


def report(batch: int, times: dict[str, float], outputs: dict[str, np.ndarray]) -> list[str]:
    """Print one table; return the claims that fail."""
    base, exact = times["by hand, channels_last"], outputs["by hand, channels_last"]
    print(f"\nbatch {batch:<40} ms     ratio  difference")
    for name, seconds in times.items():
        off = np.abs(outputs[name] - exact).max() / np.abs(exact).max()
        print(f"{name:42} {seconds * 1e3:8.2f} {seconds / base:8.3f}  {off:.1e}")
    eager, compiled = times["ours, eager"], times["ours, compiled"]
    ours, theirs = times["ours, onnxruntime"], times["torch's export, onnxruntime"]
    claims = {
        f"batch {batch}: eager {eager / base:.3f} of by hand, at most 1.02": eager <= 1.02 * base,
        f"batch {batch}: ONNX {ours / theirs:.3f} of torch's, at most 1.0": ours <= theirs,
        f"batch {batch}: compiled {compiled / eager:.3f} of eager, at most 0.85": compiled
        <= 0.85 * eager,
        f"batch {batch}: compiled {compiled / ours:.3f} of onnxruntime, below 1": compiled < ours,
    }
    return [claim for claim, holds in claims.items() if not holds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds; use --threads 1")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_num_threads(options.threads)
    failed = []
    with tempfile.TemporaryDirectory() as name:
        files = Path(name)
        filled = load_net(PROTOTXT)
        fill(filled)
        write_caffemodel(filled, files / "net.caffemodel")
        net = load_net(PROTOTXT, files / "net.caffemodel")
        for batch in options.batches:
            data = torch.rand(batch, 3, 112, 96) * 2 - 1
            found = runs(net, files, data, options.threads)
            with torch.inference_mode():
                outputs = {row: np.asarray(run()) for row, run in found.items()}
                times = measure(found, options.rounds, clock)
            failed += report(batch, times, outputs)
    for claim in failed:
        print(f"not met: {claim}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
