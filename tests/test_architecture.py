"""The rooms of ARCHITECTURE.md: who may import whom, what is imported when, what ships."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("port", "converters", "verify")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}

# Rooms, from the ground up: a room may import its own row and the rows above it, never below.
ROWS = [
    {"port", "port.errors", "port.tokens", "port.proto_file", "port.schema"},
    {"port.prototxt", "port.prototxt_text", "port.upgrade", "port.wire", "port.caffemodel"},
    {"port.data"},
    {"port.fillers", "port.sample_faces"},
    {"port.layers"},
    {"port.learnable", "port.graph", "port.net"},
    {"port.solver", "port.preprocess", "port.drawing"},
    {"converters"},
    {"verify"},
    {"port.commands", "port.cli", "port.__main__"},
]
ROW_OF = {name: row for row, rooms in enumerate(ROWS) for name in rooms}


def room(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "port" else parts[0]


def imports(path: Path) -> set[str]:
    """Names of the modules that a file imports anywhere, lazily or not, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in set(ast.walk(tree)) - unseen:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {_module(node.module, alias.name) for alias in node.names}
    return found


def _module(module: str, name: str) -> str:
    inner = f"{module}.{name}"
    is_module = inner in MODULES or any(key.startswith(inner + ".") for key in MODULES)
    return inner if is_module else module


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_one_way(module):
    assert room(module) in ROW_OF, f"{room(module)} is a new room: place it in ARCHITECTURE.md too"
    ours = {name for name in imports(MODULES[module]) if name.split(".")[0] in PACKAGES}
    assert {name for name in ours if ROW_OF.get(room(name), 0) > ROW_OF[room(module)]} == set()


def test_imports_are_absolute():
    relative = [
        module
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_data_path_knows_no_torch():
    """Decoding workers start fast and small: port.data is numpy and cv2 code."""
    data = [path for module, path in MODULES.items() if room(module) == "port.data"]
    imported = {name.split(".")[0] for path in data for name in imports(path)}
    assert "numpy" in imported
    assert "torch" not in imported


def test_no_module_is_a_drawer_for_anything():
    drawers = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
    names = {path.stem for path in MODULES.values()} | {p.parent.name for p in MODULES.values()}
    assert names & drawers == set()


def test_data_folders_are_no_packages():
    """``import proto`` is Google's proto-plus; these folders ship as data inside port."""
    for folder in ("proto", "reference_prototxt"):
        assert list((ROOT / folder).rglob("*.py")) == []


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split()) - {"port.proto", "port.reference_prototxt"}
    on_disk = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == on_disk


HEAVY = ("torch", "cv2", "google.protobuf", "h5py", "onnx", "onnxruntime", "scipy", "matplotlib")
TELL = "import sys; print(*sorted(name for name in {names!r} if name in sys.modules))"


def loaded_after(code: str, names: tuple[str, ...]) -> list[str]:
    script = f"{code}\n{TELL.format(names=names)}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_import_port_is_cheap():
    assert loaded_after("import port", (*HEAVY, "numpy", "click")) == []


def test_help_loads_nothing_heavy():
    show_help = (
        "import sys; sys.argv = ['port', '--help']\n"
        "from port.cli import main\ntry: main()\nexcept SystemExit: pass"
    )
    assert loaded_after(show_help, (*HEAVY, "numpy", "rich")) == []
    assert loaded_after("import numpy", ("numpy",)) == ["numpy"], "the probe itself must see"
