"""A wheel, installed outside the checkout: the data files come along and the tool runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
FOLDERS = ("port", "converters", "verify", "proto", "reference_prototxt")


def run(*command, cwd, **env):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that a wheel was installed into; built from a copy, so that no build/ is left."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(
            ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source, cwd=source)
    run(*pip, "install", "--no-deps", "--target", site, *wheels.glob("*.whl"), cwd=wheels)
    return site


def test_data_files_ship_inside_port_and_only_as_data(installed):
    for folder in ("proto", "reference_prototxt"):
        shipped = {path.name: path.read_bytes() for path in (installed / "port" / folder).iterdir()}
        ours = {path.name: path.read_bytes() for path in (ROOT / folder).iterdir()}
        assert shipped == ours
        assert shipped
    assert not (installed / "proto").exists()
    assert not (installed / "tests").exists()


def test_the_wheel_runs_outside_the_checkout(installed, tmp_path):
    script = (
        "import port, port.schema as s, port.prototxt as p\n"
        "net = s.data_folder('reference_prototxt') / 'sphereface_4_deploy.prototxt'\n"
        "print(port.__file__); print(net); print(p.read_net(net).name)"
    )
    where, net, name = run(
        sys.executable, "-c", script, cwd=tmp_path, PYTHONPATH=str(installed)
    ).splitlines()
    assert Path(where) == installed / "port" / "__init__.py"
    assert Path(net).parent == installed / "port" / "reference_prototxt"
    assert name == "SpherefaceNet-4"


def test_the_installed_command_answers(installed, tmp_path):
    command = (sys.executable, installed / "bin" / "port", "--help")
    assert "train" in run(*command, cwd=tmp_path, PYTHONPATH=str(installed))
