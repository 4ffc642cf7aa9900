"""Reading a SphereFace-20 caffemodel and writing it as ONNX, against protobuf and torch.onnx.

Run: python benchmarks/convert.py [--rounds N]

Reading: file to arrays by layer, every array touched, against protobuf's parser and a numpy copy
of each blob; each in a process of its own, which states its seconds and what its memory grew by at
the most. Claims: at least 10 times as fast, and at most 1.2 times the file.
Converting: prototxt and caffemodel to a written model without the check, against torch.onnx.export
of the same net; the libraries are imported before. Claim: below 1.0 s.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT)]
PROTOTXT = ROOT / "reference_prototxt" / "sphereface_deploy.prototxt"

READ = """
import sys, time
sys.path.insert(0, {root!r})
import numpy as np
import port.schema, port.caffemodel
port.schema.NetParameter()
def memory(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
before, start = memory("VmRSS"), time.perf_counter()
{body}
seconds = time.perf_counter() - start
total = sum(float(array[..., :1].sum()) for blobs in found.values() for array in blobs)
print(seconds, memory("VmHWM") - before, total)
"""
OURS = "found = dict(port.caffemodel.read_weights({path!r}))"
PROTOBUF = """
with open({path!r}, "rb") as file:
    net = port.schema.NetParameter.FromString(file.read())
found = {{
    layer.name: [np.array(b.data, np.float32).reshape(tuple(b.shape.dim)) for b in layer.blobs]
    for layer in net.layer
}}
"""
TOUCH = "\nfor blobs in found.values():\n    for array in blobs:\n        array.max()\n"


def read(body: str, path: Path) -> tuple[float, float]:
    """Seconds and bytes of one way of reading, in a fresh process."""
    script = READ.format(root=str(ROOT), body=body.format(path=str(path)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    seconds, memory, _ = map(float, done.stdout.split())
    return seconds, memory


def reading(path: Path, rounds: int) -> list[str]:
    """Print the reading rows; return the claims that fail."""
    size = path.stat().st_size
    ways = {
        "ours": OURS,
        "ours, every value used": OURS + TOUCH,
        "protobuf and numpy": PROTOBUF,
        "protobuf and numpy, every value used": PROTOBUF + TOUCH,
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, body in ways.items():
            times[name].append(read(body, path))
    print(f"reading {size / 1e6:.0f} MB {'':28} ms   memory grew by, files")
    result = {}
    for name, found in times.items():
        seconds, memory = (median(values) for values in zip(*found, strict=True))
        result[name] = seconds, memory / size
        print(f"{name:40} {seconds * 1e3:8.1f} {memory / size:8.2f}")
    failed = []
    for more in ("", ", every value used"):
        ratio = result[f"protobuf and numpy{more}"][0] / result[f"ours{more}"][0]
        print(f"ours{more}: {ratio:.1f} times as fast")
        if ratio < 10:
            failed.append(f"reading{more} {ratio:.1f} times as fast, at least 10")
    grew = result["ours, every value used"][1]
    return failed + ([f"memory {grew:.2f} files, at most 1.2"] if grew > 1.2 else [])


def converting(path: Path, rounds: int) -> list[str]:
    """Print the conversion rows; return the claims that fail."""
    import warnings

    import torch

    from converters.deploy import load_deploy
    from converters.onnx import to_onnx

    class Plain(torch.nn.Module):
        """The exporter can do nothing with a forward that takes names."""

        def __init__(self, net: torch.nn.Module) -> None:
            super().__init__()
            self.net = net

        def forward(self, data: torch.Tensor) -> torch.Tensor:
            return self.net(data)["fc5"]

    warnings.simplefilter("ignore")
    target = path.with_name("model.onnx")
    times: dict[str, list[float]] = {"ours": [], "torch.onnx.export": []}
    data = torch.randn(2, 3, 112, 96)
    for _ in range(rounds + 1):
        start = time.perf_counter()
        net = load_deploy(PROTOTXT, path)
        to_onnx(net, target, check=False)
        times["ours"].append(time.perf_counter() - start)
        start = time.perf_counter()
        torch.onnx.export(
            Plain(net),
            (data,),
            str(target),
            input_names=["data"],
            dynamic_axes={"data": {0: "batch"}},
            dynamo=False,
        )
        times["torch.onnx.export"].append(time.perf_counter() - start)
    print("\nto ONNX, without the check                      s")
    for name, values in times.items():
        print(f"{name:40} {median(values[1:]):8.3f}")
    ours = median(times["ours"][1:])
    return [f"conversion {ours:.2f} s, below 1.0"] if ours >= 1 else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    from port import load_net
    from port.caffemodel import write_caffemodel

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "net.caffemodel"
        write_caffemodel(load_net(PROTOTXT), path)
        failed = reading(path, options.rounds) + converting(path, options.rounds)
    for claim in failed:
        print(f"not met: {claim}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
