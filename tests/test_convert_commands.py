"""``port convert``: the real commands on real files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from test_onnx import SMALL, TRAIN, small_net

from port import load_net
from port.caffemodel import read_weights, write_caffemodel
from port.commands.convert import convert
from port.errors import PortError


@pytest.fixture
def small(tmp_path: Path) -> tuple[str, str]:
    """SMALL's prototxt and caffemodel."""
    (tmp_path / "small.prototxt").write_text(SMALL)
    write_caffemodel(small_net(), tmp_path / "small.caffemodel")
    return str(tmp_path / "small.prototxt"), str(tmp_path / "small.caffemodel")


def run(*args: str | Path) -> Result:
    result = CliRunner().invoke(convert, [str(arg) for arg in args])
    if result.exception and not isinstance(result.exception, (SystemExit, PortError)):
        raise result.exception
    return result


def test_main_job_as_a_user_types_it(small: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "port", "convert", "onnx", *small, "-o", "model.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "fc " in done.stdout
    assert "wrote model.onnx, " in done.stdout
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)


def test_a_failed_check_is_exit_code_1(small: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "port", "convert", "onnx", *small, "-o", "model.onnx"]
    done = subprocess.run(
        [*command, "--fp16", "--bound", "1e-7"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: output 'fc' on input ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "model.onnx").exists()


def test_onnx_options(small: tuple[str, str], tmp_path: Path) -> None:
    target = tmp_path / "m.onnx"
    options = "--opset 13 --batch 2 --fold-bn --normalize --preprocess --mean 104,117,123 --report"
    result = run("onnx", *small, "-o", target, *options.split(), "--scale", "0.017")
    assert result.exit_code == 0, result.output
    assert "fc_normalized" in result.output
    assert "scale_factor" not in result.output
    model = onnx.load(target)
    assert model.opset_import[0].version == 13
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 8, 6, 3]
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_no_check(small: tuple[str, str], tmp_path: Path) -> None:
    result = run("onnx", *small, "-o", tmp_path / "m.onnx", "--no-check", "--output", "scaled")
    assert "difference" not in result.output
    assert [value.name for value in onnx.load(tmp_path / "m.onnx").graph.output] == ["scaled"]


def test_image_of_the_user(small: tuple[str, str], tmp_path: Path) -> None:
    import cv2

    from port.sample_faces import render

    cv2.imwrite(str(tmp_path / "me.png"), render(3, 1)[0])
    result = run("onnx", *small, "-o", tmp_path / "m.onnx", "--image", tmp_path / "me.png")
    assert result.exit_code == 0, result.output
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = run("onnx", *small, "-o", tmp_path / "n.onnx", "--image", tmp_path / "bad.png")
    assert "bad.png" in str(result.exception)
    assert not (tmp_path / "n.onnx").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--batch", "many"), "'many' is no number above 0, nor dynamic"),
        (("--preprocess", "--mean", "1,2"), "'1,2' is not one mean, nor B,G,R"),
        (("--scale", "2"), "--mean and --scale go with --preprocess"),
        (("--shape", "3,x"), "is not C,H,W"),
        (("--opset", "5"), "opset 5 is not in 13 to"),
        (("--output", "prlu"), "no blob 'prlu'"),
    ],
)
def test_wrong_usage(
    option: tuple[str, ...], message: str, small: tuple[str, str], tmp_path: Path
) -> None:
    result = run("onnx", *small, "-o", tmp_path / "m.onnx", *option)
    assert result.exit_code in (1, 2)
    assert message in result.output + str(result.exception)
    assert not (tmp_path / "m.onnx").exists()


def test_missing_blobs_are_named(small: tuple[str, str], tmp_path: Path) -> None:
    prototxt = tmp_path / "other.prototxt"
    prototxt.write_text(SMALL.replace('name: "fc" type', 'name: "fc_new" type'))
    result = run("onnx", prototxt, small[1], "-o", tmp_path / "m.onnx", "--report")
    assert result.exit_code == 0, result.output
    assert "warning: small.caffemodel has no blobs for fc_new" in result.output
    rows = [line.split() for line in result.output.splitlines()]
    assert ["│", "fc_new", "│", "0", "│", "5x24", "│", "missing", "│"] in rows
    assert ["│", "fc", "│", "0", "│", "5x24", "│", "unused", "│"] in rows


def test_train_net(tmp_path: Path) -> None:
    (tmp_path / "train.prototxt").write_text(TRAIN)
    options = {"phase": "TRAIN", "open_data": False, "input_shape": (3, 4, 4)}
    write_caffemodel(load_net(TRAIN, **options), tmp_path / "w.caffemodel")
    files = (tmp_path / "train.prototxt", tmp_path / "w.caffemodel")
    shape = ("--shape", "3,4,4")
    assert run("onnx", *files, "-o", tmp_path / "a.onnx", *shape).exit_code == 0
    assert run("torch", *files, "-o", tmp_path / "a.py", *shape, "--output", "fc5").exit_code == 0
    assert onnx.load(tmp_path / "a.onnx").graph.output[0].name == "fc6"
    assert "self.fc6" not in (tmp_path / "a.py").read_text()


def test_torch(small: tuple[str, str], tmp_path: Path) -> None:
    result = run("torch", *small, "-o", tmp_path / "m.py", "--fold-bn")
    assert result.exit_code == 0, result.output
    assert "largest difference from our net: " in result.output
    assert set(torch.load(tmp_path / "m.pt")) >= {"conv.bias", "fc.weight"}


def test_weights_there_and_back(small: tuple[str, str], tmp_path: Path) -> None:
    assert run("weights", *small, "-o", tmp_path / "w.safetensors").exit_code == 0
    back = run("weights", small[0], tmp_path / "w.safetensors", "-o", tmp_path / "w.caffemodel")
    assert back.exit_code == 0
    ours, theirs = read_weights(tmp_path / "w.caffemodel"), read_weights(small[1])
    assert Path(small[1]).read_bytes() == (tmp_path / "w.caffemodel").read_bytes()
    assert {name: len(blobs) for name, blobs in ours.items()} == {
        name: len(blobs) for name, blobs in theirs.items()
    }


def test_caffe(small: tuple[str, str], tmp_path: Path) -> None:
    run("onnx", *small, "-o", tmp_path / "m.onnx")
    result = run("caffe", tmp_path / "m.onnx", "-o", tmp_path / "back.prototxt")
    assert result.exit_code == 0, result.output
    net = load_net(tmp_path / "back.prototxt", tmp_path / "back.caffemodel")
    assert [layer.name for layer in net.layers] == [
        *("data", "conv", "bn", "scale", "prelu", "pool", "fc"),
    ]
