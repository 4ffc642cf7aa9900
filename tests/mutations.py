"""Seeded damage to valid nets and weights, and one process that tries it out.

``python mutations.py FIRST COUNT`` tries the mutations FIRST … FIRST + COUNT - 1 and prints a JSON
line for each: what was tried, how it ended, seconds, and MiB that the peak of memory rose.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
SECONDS, MEBIBYTES = 5, 1024
NUMBERS = (
    "-1", "0", "1", "2", "3", "7", "-2147483648", "2147483647", "4294967295", "4294967296",
    "9223372036854775807", "1e38", "1e-45", "-1e30", "inf", "nan", "65536", "1000000",
    "1000000000", "0.5", "true", "WRONG",
)  # fmt: skip


# -- valid things to damage ----------------------------------------------------------------


def nets() -> list[str]:
    """Texts of nets: every golden layer case, nets of the reference folder, old nets."""
    found = [
        json.loads(path.read_text())["prototxt"]
        for path in sorted((GOLDEN / "layers").glob("layer_*.json"))
    ]
    whole = [ROOT / "reference_prototxt" / f"det{i}.prototxt" for i in (1, 2, 3)]
    whole += [GOLDEN / "upgrade" / f"{name}.prototxt" for name in ("v0", "v1")]
    return found + [path.read_text() for path in whole] * 6 + [TRAIN_NET] * 6


TRAIN_NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
    shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } data_filler { type: "gaussian" }
    data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 1 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 1
    weight_filler { type: "xavier" } } }
layer { name: "relu" type: "PReLU" bottom: "conv" top: "conv" }
layer { name: "skip" type: "Eltwise" bottom: "conv" bottom: "conv" top: "skip" }
layer { name: "fc" type: "MarginInnerProduct" bottom: "skip" bottom: "label" top: "fc"
  top: "lambda" margin_inner_product_param { num_output: 5 type: QUADRUPLE iteration: 0
    weight_filler { type: "xavier" } base: 1000 gamma: 0.12 power: 1 lambda_min: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""
SOLVER = """
net: "small.prototxt" base_lr: 0.01 lr_policy: "multistep" gamma: 0.1 stepvalue: 1 stepvalue: 2
momentum: 0.9 weight_decay: 0.0005 iter_size: 1 display: 1 average_loss: 1 max_iter: 2
type: "SGD" regularization_type: "L2" clip_gradients: 10 random_seed: 1 solver_mode: CPU
test_iter: 1 test_interval: 1 snapshot: 0 snapshot_prefix: "small" rms_decay: 0.5 delta: 0.1
"""
WEIGHTS = [
    (GOLDEN / "upgrade" / "v1.caffemodel", GOLDEN / "upgrade" / "v1.prototxt"),
    (GOLDEN / "upgrade" / "v1_resaved.caffemodel", GOLDEN / "upgrade" / "v1.upgraded.prototxt"),
]


# -- damage --------------------------------------------------------------------------------


def damage_text(text: str, rng: random.Random) -> tuple[str, str]:
    """(what was done, the text after it)."""
    kind = rng.choice(sorted(_TEXT))
    return kind, _TEXT[kind](text, rng)


def _replaced(pattern: str, new: Callable[[random.Random, str], str]) -> Any:
    def damage(text: str, rng: random.Random) -> str:
        found = list(re.finditer(pattern, text))
        if not found:
            return text
        match = rng.choice(found)
        return text[: match.start()] + new(rng, match[0]) + text[match.end() :]

    return damage


def _renamed(rng: random.Random, word: str) -> str:
    at = rng.randrange(len(word))
    return rng.choice([word[:at] + word[at + 1 :], word + "s", word[::-1], "name", ""])


def _cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text))]


def _bytes_flipped(text: str, rng: random.Random) -> str:
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return data.decode("utf-8", "surrogateescape")


_TEXT: dict[str, Callable[[str, random.Random], str]] = {
    "number": _replaced(r"(?<=: )-?[0-9][0-9.e+-]*", lambda rng, _: rng.choice(NUMBERS)),
    "two numbers": lambda text, rng: _TEXT["number"](_TEXT["number"](text, rng), rng),
    "word": _replaced(r"\w+", _renamed),
    "field dropped": _replaced(r"\w+ ?: ?(\"[^\"]*\"|[-\w.]+)", lambda rng, _: ""),
    "field twice": _replaced(r"\w+ ?: ?(\"[^\"]*\"|[-\w.]+)", lambda rng, word: f"{word} {word}"),
    "string": _replaced(r"\"[^\"]*\"", lambda rng, _: rng.choice(STRINGS)),
    "brace": _replaced(r"[{}]", lambda rng, _: rng.choice(["", "{", "}", "<"])),
    "shape": _replaced(r"dim: ?\d+", lambda rng, old: rng.choice(["", f"{old} {old}", "dim: 0"])),
    "cut": _cut,
    "bytes": _bytes_flipped,
}  # fmt: skip
STRINGS = (
    '""', '"x"', '"data"', '"label"', '"conv"', '"../../etc"', '"ReLU"', '"Split"', '"Softmax"',
    '"a\\000b"', '"' + "n" * 5000 + '"', '"Convolution"', '"self"', "5",
)  # fmt: skip


def damage_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """(what was done, the file after it)."""
    kind = rng.choice(["cut", "bytes", "inserted", "removed", "varint", "message"])
    at, length = rng.randrange(len(data)), rng.randint(1, 40)
    if kind == "cut":
        return kind, data[:at]
    if kind == "bytes":
        changed = bytearray(data)
        for _ in range(length):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        return kind, bytes(changed)
    if kind == "inserted":
        return kind, data[:at] + rng.randbytes(length) + data[at:]
    if kind == "removed":
        return kind, data[:at] + data[at + length :]
    if kind == "varint":
        return kind, data[:at] + b"\xff\xff\xff\xff\x7f" + data[at + 5 :]
    return kind, _damage_message(data, rng)


def _damage_message(data: bytes, rng: random.Random) -> bytes:
    """A caffemodel whose layers, names, blobs or dimensions are not those of its net."""
    from port import schema

    net = schema.NetParameter.FromString(data)
    layer = rng.choice([layer for layer in [*net.layers, *net.layer] if layer.blobs])
    blob = rng.choice(layer.blobs)
    action = rng.randrange(6)
    if action == 0:
        layer.ClearField("blobs")
    elif action == 1:
        layer.name = rng.choice(["", "other", "ip", "conv1"])
    elif action == 2:
        del blob.data[rng.randrange(len(blob.data)) :]
    elif action == 3:
        blob.shape.dim.extend(
            rng.choice([-1, 0, 1, 2**31, 2**62]) for _ in range(rng.randint(1, 9))
        )
    elif action == 4:
        blob.num, blob.channels = rng.choice([(-5, 3), (2**31 - 1, 2**31 - 1), (0, 0), (1, 4)])
    else:
        layer.blobs.add().CopyFrom(blob)
    return bytes(net.SerializeToString())


# -- trying it -----------------------------------------------------------------------------


class TooSlow(BaseException):
    """The alarm rang."""


def attempt(seed: int, texts: list[str]) -> str:
    """Damage something and use it; returns "kind: how it ended"."""
    from port.errors import PortError

    rng = random.Random(seed)
    phase = "TRAIN" if seed % 2 else "TEST"
    file, weights = Path("damaged.prototxt"), Path("damaged.caffemodel")
    if seed % 5 == 0:
        valid, net = rng.choice(WEIGHTS)
        what, data = damage_bytes(valid.read_bytes(), rng)
        weights.write_bytes(data)
        what, use = f"weights, {what}", lambda: _use(net, weights, phase)
    else:
        solver = seed % 5 == 1
        what, text = damage_text(SOLVER if solver else rng.choice(texts), rng)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        what = f"{'solver' if solver else 'net'}, {what}"
        use = _train if solver else lambda: _use(file, None, phase)
    try:
        use()
    except PortError as error:
        return f"{what}: {type(error).__name__}: {error}"
    return f"{what}: success"


def _train() -> None:
    """Two iterations with the damaged solver, of a size that is no hang by itself."""
    from port.prototxt import read_solver
    from port.solver.log import Log
    from port.solver.solver import Solver

    param = read_solver(Path("damaged.prototxt"))
    param.iter_size = min(param.iter_size, 3)
    param.test_iter[:] = [min(count, 3) for count in param.test_iter]
    solver = Solver(param, folder=Path(), log=Log(lambda line: None))
    solver.step(2)


def _use(net_file: Path, weights: Path | None, phase: str) -> None:
    """Build, load, run once, go back once, and draw."""
    import torch

    from port.drawing.diagram import diagram_of
    from port.errors import is_out_of_memory
    from port.net import load_net

    net = load_net(net_file, weights, phase=phase, open_data=False, input_shape=(3, 8, 8))
    diagram_of(net)
    fed = {}
    for layer in net.data_layers:
        if layer.type != "DummyData":
            shapes = zip(layer.spec.top, layer.top_shapes, strict=True)
            fed.update({top: torch.zeros(shape) for top, shape in shapes})
    outputs = net(**fed)
    if net.output_weights and net.total_loss(outputs).requires_grad:
        try:
            net.total_loss(outputs).backward()
        except RuntimeError as error:  # the solver's step, which the command line reports
            if not is_out_of_memory(error):
                raise


def _limit_memory() -> None:
    used = int(re.search(r"VmSize:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (used + MEBIBYTES * 2**20,) * 2)


def _peak() -> float:
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _ring(*_: object) -> None:
    raise TooSlow


def main(first: int, count: int) -> None:
    """Try the mutations, one JSON line each."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    texts = nets()
    warnings.simplefilter("error")
    signal.signal(signal.SIGALRM, _ring)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("small.prototxt").write_text(TRAIN_NET)
        _use(ROOT / "reference_prototxt" / "det1.prototxt", None, "TEST")  # imports what it takes
        _limit_memory()
        for seed in range(first, first + count):
            begin, before = time.perf_counter(), _peak()
            signal.alarm(SECONDS)
            try:
                ended = attempt(seed, texts)
            except (Exception, TooSlow) as error:
                ended = f"ESCAPED {type(error).__name__}: {error}\n{traceback.format_exc()}"
            signal.alarm(0)
            seconds, rise = time.perf_counter() - begin, _peak() - before
            line = {"seed": seed, "ended": ended, "seconds": round(seconds, 2), "mib": round(rise)}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(int(sys.argv[1]), int(sys.argv[2]))
