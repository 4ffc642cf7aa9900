"""``port layers``: the layer types that the port knows."""

from __future__ import annotations

from pathlib import Path

import click

from port.commands.options import HELP, print_table

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
"""Where the cases are in a checkout; an installed package has none."""
GROUPS = {"MarginInnerProduct": "margin", "ImageData": "imagedata"}
"""Types whose golden cases have a folder of their own."""


@click.command(context_settings=HELP)
@click.option("--markdown", is_flag=True, help="Print the README's table.")
def layers(markdown: bool) -> None:
    """Table of the layer types: what is computed, and what proves it.

    backward: whether gradients flow, to bottoms or to the layer's own parameters. ONNX: whether a
    net with the layer converts. golden cases: outputs of the original Caffe that the tests compare
    with, counted in a checkout.
    """
    rows = table()
    if markdown:
        click.echo("\n".join(_markdown(rows)))
        return
    from rich.table import Table

    shown = Table(*rows[0])
    for row in rows[1:]:
        shown.add_row(*row)
    print_table(shown)


def table() -> list[list[str]]:
    """The heading, then a row for each type in alphabetical order."""
    from converters.onnx import supported_types
    from port.layers.layer import DataLayer
    from port.layers.registry import layer_types

    converts = supported_types()
    rows = [["type", "forward", "backward", "ONNX", "golden cases"]]
    for name, kind in layer_types().items():
        serves = issubclass(kind, DataLayer)
        forward = "serves data" if serves else "yes"
        onnx = "as input" if serves else _yes(name in converts)
        cases = str(golden_cases(name) or "")
        rows.append([name, forward, _yes(kind.backward_to), onnx, cases])
    return rows if GOLDEN.is_dir() else [row[:-1] for row in rows]


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def golden_cases(name: str) -> int:
    """How many golden cases a type has."""
    if name in GROUPS:
        return len(list((GOLDEN / GROUPS[name]).glob("*.npz")))
    return len(list((GOLDEN / "layers").glob(f"layer_{name}_*.json")))


def _markdown(rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(cell or ' ' for cell in row)} |" for row in rows]
    return [lines[0], "| --- | --- | --- | :-: | --: |"[:None], *lines[1:]]
