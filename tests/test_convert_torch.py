"""The plain PyTorch module: alone in its own process, readable, and the same numbers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from layer_cases import CASES, Case
from seeded import fill
from test_onnx import SMALL, TRAIN, images, small_net
from tolerance import FORWARD, assert_close

from converters.deploy import load_deploy
from converters.torch_module import module_source, to_torch
from converters.torch_module.forms import FORMS
from port import load_net
from port.errors import ConversionError

REFERENCE = Path(__file__).resolve().parents[1] / "reference_prototxt"
SUMS = "float32 sums in another order"
ALONE = """
import sys, numpy as np, torch
sys.path.insert(0, sys.argv[1])
from written import load
net = load()
with torch.no_grad():
    out = net(torch.from_numpy(np.load(sys.argv[1] + "/in.npy")))
np.save(sys.argv[1] + "/out.npy", out.numpy())
ours = [name for name in sys.modules if name.split(".")[0] in ("port", "converters")]
assert not ours, ours
"""


def run_alone(folder: Path, data: np.ndarray) -> np.ndarray:
    """The module in a process that cannot see this project (-I: no paths of ours)."""
    np.save(folder / "in.npy", data)
    command = [sys.executable, "-I", "-c", ALONE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "out.npy")


def test_small_net_alone(tmp_path: Path) -> None:
    net = small_net()
    difference = to_torch(net, tmp_path / "written.py")
    assert difference is not None
    assert difference <= FORWARD
    with torch.no_grad():
        theirs = net(torch.from_numpy(images()))["fc"]
    assert_close(run_alone(tmp_path, images()), theirs, FORWARD, SUMS)


def test_sphereface_20_alone(tmp_path: Path) -> None:
    net = load_net(REFERENCE / "sphereface_deploy.prototxt")
    fill(net, 5)
    to_torch(net, tmp_path / "written.py", check=False)
    data = np.random.default_rng(0).uniform(-1, 1, (2, 3, 112, 96)).astype(np.float32)
    with torch.no_grad():
        theirs = net(torch.from_numpy(data))["fc5"]
    assert_close(run_alone(tmp_path, data), theirs, FORWARD, SUMS)
    text = (tmp_path / "written.py").read_text()
    for line in (
        "self.conv1_1 = nn.Conv2d(3, 64, 3, stride=2, padding=1)",
        "self.relu1_1 = nn.PReLU(64)",
        "self.fc5 = nn.Linear(21504, 512)",
        "conv1_1 = self.relu1_1(conv1_1)",
        "res1_3 = conv1_1 + conv1_3",
    ):
        assert f"        {line}\n" in text


def test_keys_are_the_layers_names() -> None:
    _, weights = module_source(load_net(SMALL))
    assert list(weights) == [
        *("conv.weight", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"),
        *("scale.weight", "scale.bias", "prelu.weight", "fc.weight", "fc.bias"),
    ]


def with_form() -> list[str]:
    skipped = {"layer_Dropout_train"}
    return [n for n in CASES if Case(n).layer.type in FORMS and n not in skipped]


@pytest.mark.parametrize("name", with_form())
def test_golden(name: str) -> None:
    """Each layer as plain torch against the original, or refused by its name."""
    case = Case(name)
    if name in REFUSED:
        with pytest.raises(ConversionError, match=rf"layer 'l' \({case.layer.type}\): "):
            module_source(case.net)
        return
    source, weights = module_source(case.net)
    scope: dict[str, object] = {"__file__": "written.py"}
    exec(compile(source, "written.py", "exec"), scope)
    kind = next(node for node in ast.parse(source).body[::-1] if isinstance(node, ast.ClassDef))
    module = scope[kind.name]()  # type: ignore[operator]
    module.load_state_dict(weights)
    with torch.no_grad():
        found = module.eval()(*(x.detach() for x in case.inputs().values()))
    outputs = found if isinstance(found, dict) else {case.net.outputs[0]: found}
    for blob, theirs in case.under("out").items():
        assert_close(outputs[blob], theirs, FORWARD, SUMS, blob)


REFUSED = {
    "layer_BatchNorm_batch_in_test",
    "layer_BatchNorm_train",
    "layer_BatchNorm_train_frac",
    "layer_BatchNorm_train_inplace",
    "layer_BatchNorm_train_m1",
    "layer_Bias_two",
    "layer_Convolution_axis2",
    "layer_Embed_a",
    "layer_LRN_within_k",
    "layer_Pooling_MAX_mask",
    "layer_Pooling_MAX_ties",
    "layer_Scale_two",
}
"""What plain torch modules do not compute."""


def test_train_net(tmp_path: Path) -> None:
    (tmp_path / "train.prototxt").write_text(TRAIN)
    net = load_deploy(tmp_path / "train.prototxt", None, input_shape=(3, 4, 4))
    to_torch(net, tmp_path / "written.py")
    text = (tmp_path / "written.py").read_text()
    assert "self.fc6 = nn.Linear(6, 7, bias=False)" in text
    assert "label" not in text


def test_hostile_names_do_not_become_code(tmp_path: Path) -> None:
    """The text is run; names in a prototxt may come from anyone."""
    evil = '\\"\\"\\"\\nraise SystemExit(3)\\n\\"\\"\\"'
    text = SMALL.replace('"small"', f'"{evil}"').replace('"fc"', f'"{evil}"')
    text = text.replace('"data"', '"import os"')
    net = load_net(text)
    assert '"""\nraise SystemExit(3)' in net.outputs[0]
    to_torch(net, tmp_path / "written.py")
    assert "raise SystemExit(3)\n" not in (tmp_path / "written.py").read_text()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"the name must end in \.py"):
        to_torch(small_net(), tmp_path / "model.pt")
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
    layer { name: "pyramid" type: "SPP" bottom: "x" top: "y" spp_param { pyramid_height: 2 } }
    """
    with pytest.raises(ConversionError, match=r"layer 'pyramid' \(SPP\): has no form in a plain"):
        to_torch(load_net(text), tmp_path / "model.py")
    assert not list(tmp_path.iterdir())
