"""``port upgrade-net`` and ``upgrade-solver``, and what other commands say of old files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from command_line import port

from port import prototxt
from port.caffemodel import read_weights

UPGRADE = Path(__file__).parent / "golden" / "upgrade"
SMALL = Path(__file__).parent / "golden" / "train_small"


@pytest.mark.parametrize("name", ["v0", "v1", "v1_train", "sphereface_deploy"])
def test_upgrade_net_writes_what_the_original_tool_writes(name: str, tmp_path: Path) -> None:
    out = tmp_path / "new.prototxt"
    said = port("upgrade-net", UPGRADE / f"{name}.prototxt", out).stdout
    assert out.read_bytes() == (UPGRADE / f"{name}.upgraded.prototxt").read_bytes()
    assert said.endswith(f"written to {out}\n")
    again = port("upgrade-net", out, out).stdout  # over itself, and nothing is left to do
    assert again == f"nothing was old\nwritten to {out}\n"
    assert out.read_bytes() == (UPGRADE / f"{name}.upgraded.prototxt").read_bytes()


def test_upgrade_net_of_a_caffemodel_keeps_the_blobs(tmp_path: Path) -> None:
    binary, text, back = (tmp_path / name for name in ("new.caffemodel", "new.txt", "back"))
    said = port("upgrade-net", UPGRADE / "v1.caffemodel", binary).stdout
    assert said.startswith("V1 layers (2014) upgraded: 5\n")
    assert not prototxt.is_text(binary.read_bytes())
    net = prototxt.parse_binary(binary.read_bytes(), type(prototxt.read_net(binary)))
    assert [layer.type for layer in net.layer][:2] == ["Input", "Convolution"]
    theirs = read_weights(UPGRADE / "v1_resaved.caffemodel")
    ours = read_weights(binary)
    for name, blobs in theirs.items():
        for our_blob, their_blob in zip(ours[name], blobs, strict=True):
            assert our_blob.ravel().tolist() == their_blob.ravel().tolist()
    port("upgrade-net", binary, text, "--text")
    assert prototxt.is_text(text.read_bytes())
    port("upgrade-net", text, back, "--binary")
    assert back.read_bytes() == binary.read_bytes()


def test_upgrade_solver(tmp_path: Path) -> None:
    out, binary = tmp_path / "new.prototxt", tmp_path / "new.bin"
    said = port("upgrade-solver", UPGRADE / "solver_enum.prototxt", out).stdout
    assert said.startswith('solver_type: NESTEROV read as type: "Nesterov"\n')
    assert out.read_bytes() == (UPGRADE / "solver_enum.upgraded.prototxt").read_bytes()
    port("upgrade-solver", out, binary, "--binary")
    port("upgrade-solver", binary, tmp_path / "back", "--text")
    assert (tmp_path / "back").read_bytes() == out.read_bytes()


def test_a_failed_upgrade_leaves_the_file_alone(tmp_path: Path) -> None:
    out = tmp_path / "kept.prototxt"
    out.write_text("kept")
    (tmp_path / "mixed.prototxt").write_text('layers { name: "a" type: RELU } layer { name: "b" }')
    said = port("upgrade-net", tmp_path / "mixed.prototxt", out, code=1).stderr
    assert "'layers' (V1) and 'layer' in one net" in said
    port("upgrade-solver", UPGRADE / "v1.caffemodel", out, code=1)
    assert out.read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.prototxt", "mixed.prototxt"]
    away = tmp_path / "no" / "folder.prototxt"
    assert "cannot be written" in port("upgrade-net", UPGRADE / "v1.prototxt", away, code=1).stderr


def notes(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("note: ")]


@pytest.mark.parametrize("command", ["info", "time", "draw"])
def test_commands_say_once_what_they_upgraded(command: str, tmp_path: Path) -> None:
    more = {"time": ("--iterations", 1), "draw": ("-o", tmp_path / "net.svg")}.get(command, ())
    run = port(command, UPGRADE / "v1.prototxt", *more)
    assert notes(run.stderr) == [f"note: {UPGRADE / 'v1.prototxt'}: V1 layers (2014) upgraded: 5"]
    # The old input of deploy nets means the same today, and is everywhere.
    assert notes(port(command, UPGRADE / "sphereface_deploy.prototxt", *more).stderr) == []


def test_training_says_it_once_though_the_solver_is_read_twice(tmp_path: Path) -> None:
    for name in ("train.prototxt", "list.txt"):
        shutil.copy(SMALL / name, tmp_path)
    (tmp_path / "images").symlink_to(SMALL / "images")
    solver = (SMALL / "solver_base.prototxt").read_text() + "solver_type: SGD\n"
    (tmp_path / "solver.prototxt").write_text(solver.replace('type: "SGD"', ""))
    run = port("train", "train.prototxt", "--max-iter", 1, cwd=tmp_path)
    assert notes(run.stderr) == [
        'note: solver.prototxt: solver_type: SGD read as type: "SGD"',
    ]


PYTHON = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "p" type: "Python" bottom: "x" top: "y"
  python_param { module: "doubling_by_test" layer: "Doubling" } }
"""
DOUBLING = """
class Doubling:
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, down, bottom): bottom[0].diff[...] = 2 * top[0].diff
"""


@pytest.mark.parametrize("command", ["info", "time", "draw"])
def test_python_layers_run_only_when_allowed(command: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(PYTHON)
    (tmp_path / "doubling_by_test.py").write_text(DOUBLING)
    more = {"time": ("--iterations", 1), "draw": ("-o", tmp_path / "net.svg")}.get(command, ())
    said = port(command, tmp_path / "net.prototxt", *more, code=1).stderr
    assert "would run the class 'Doubling' of 'doubling_by_test'; give --allow-python" in said
    run = port(command, tmp_path / "net.prototxt", *more, "--allow-python")
    assert "Python" in run.stdout + "".join(p.read_text() for p in tmp_path.glob("*.svg"))


@pytest.mark.parametrize("command", ["train", "test"])
def test_train_and_test_take_the_permission_too(command: str) -> None:
    assert "--allow-python" in port(command, "--help").stdout
