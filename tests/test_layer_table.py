"""The table of layer types in the README is the one that ``port layers`` makes, and it is true."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
from command_line import ROOT, port

from port.commands import layers
from port.layers.registry import layer_types

ELSEWHERE = {
    "BatchReindex": "recorded without one: test_picked_items",
    "Filter": "recorded without one: test_picked_items",
    "InfogainLoss": "recorded without one: test_infogain_from_a_file",
    "LSTMUnit": "test_lstm_unit",
    "MarginInnerProduct": "golden group margin",
    "Parameter": "test_parameter",
    "Python": "test_python_layer",
}
"""Types with a backward but no golden gradient among the layer cases, and what tests it."""
BEGIN, END = "<!-- made by: port layers --markdown -->\n", "<!-- end of the table -->"


def rows() -> dict[str, dict[str, str]]:
    """type → column → cell."""
    heading, *found = layers.table()
    return {row[0]: dict(zip(heading, row, strict=True)) for row in found}


def test_the_readme_has_the_table_that_the_command_prints() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    shown = readme.split(BEGIN)[1].split(END)[0].strip()
    assert shown == port("layers", "--markdown").stdout.strip(), (
        "write what 'port layers --markdown' prints into README.md"
    )


def test_every_type_has_a_row() -> None:
    assert set(rows()) == set(layer_types())


def test_backward_is_where_the_original_has_one() -> None:
    """A type with a golden gradient other than 0 says yes; one that says no has none."""
    moved = set()
    for name in golden.cases("layers"):
        case = golden.load("layers", name)
        gradients = [*case.under("din").values(), *case.under("dparam").values()]
        if any(np.any(gradient) for gradient in gradients):
            moved.add(case.meta["type"])
    said = {name for name, row in rows().items() if row["backward"] == "yes"}
    assert moved <= said
    assert said - moved == set(ELSEWHERE)


def test_golden_cases_are_counted() -> None:
    table = rows()
    counted = {name: int(row["golden cases"] or 0) for name, row in table.items()}
    assert counted["Convolution"] == len(golden.cases("layers", "layer_Convolution_"))
    # BatchNorm is not counted for a type that its name starts with, nor LSTMUnit's for LSTM.
    in_layers = sum(n for name, n in counted.items() if name not in layers.GROUPS)
    assert in_layers == len(golden.cases("layers"))


def test_an_installed_copy_counts_no_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "GOLDEN", Path("nowhere"))
    assert layers.table()[0] == ["type", "forward", "backward", "ONNX"]


def test_the_plain_table_fits_a_terminal_line() -> None:
    text = port("layers").stdout
    assert "MarginInnerProduct" in text
    assert max(map(len, text.splitlines())) <= 80
