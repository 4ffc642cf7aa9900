"""The README's Python example of conversion is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from test_onnx import SMALL, small_net

import converters.caffe
import converters.onnx
import converters.torch_module
from port.caffemodel import write_caffemodel

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    section = README.read_text(encoding="utf-8").split("## Convert\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(code)


def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.prototxt").write_text(SMALL)
    write_caffemodel(small_net(), tmp_path / "net.caffemodel")
    monkeypatch.chdir(tmp_path)
    exec(compile(example(), "README.md", "exec"), {})
    written = {path.name for path in tmp_path.iterdir()}
    models = {"model.onnx", "model.py", "model.pt", "net.safetensors"}
    nets = {f"{name}.{kind}" for name in ("back", "block") for kind in ("prototxt", "caffemodel")}
    assert written == models | nets | {"net.prototxt", "net.caffemodel"}


@pytest.mark.parametrize(
    "module", [converters.caffe, converters.onnx, converters.torch_module], ids=lambda m: m.__name__
)
def test_names_all_functions(module: object) -> None:
    names = {name for name in module.__all__ if name[0].islower()}  # type: ignore[attr-defined]
    assert {name for name in names if name not in example()} <= {"supported_types"}
