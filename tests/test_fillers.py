"""Fillers: the distributions of the original's, which drew its own numbers."""

from __future__ import annotations

import math
from typing import Any

import golden
import pytest
import torch
from tolerance import assert_close

from port import schema
from port.errors import NetError
from port.fillers import fill
from port.prototxt import parse

RECORDED: list[dict[str, Any]] = golden.load("imagedata", "fillers").meta


def make(record: dict[str, Any]) -> torch.Tensor:
    torch.manual_seed(1)
    blob = torch.empty(record["shape"])
    fill(blob, parse(record["filler"], schema.FillerParameter, "filler"))
    return blob


def name(record: dict[str, Any]) -> str:
    return f"{record['filler']} {record['shape']}"


@pytest.mark.parametrize("record", RECORDED, ids=name)
def test_statistics(record: dict[str, Any]) -> None:
    """Mean, spread, zeros and, where bounded, the ends, within five sigma of two draws."""
    blob = make(record).double()
    n = blob.numel()
    spread = blob.std(correction=0)
    kurtosis = ((blob - blob.mean()) ** 4).mean() / spread**4 if spread else 1.0
    draws = 5 * math.sqrt(2 / n)
    assert abs(blob.mean() - record["mean"]) <= draws * spread + 1e-7
    assert abs(spread - record["std"]) <= draws * spread * math.sqrt((kurtosis - 1) / 4) + 1e-7
    zeros = float((blob == 0).double().mean())
    assert abs(zeros - record["zeros"]) <= draws * math.sqrt(zeros * (1 - zeros))
    if "uniform" in record["filler"] or "xavier" in record["filler"]:
        width = record["max"] - record["min"]
        assert abs(blob.min() - record["min"]) <= 20 / n * width
        assert abs(blob.max() - record["max"]) <= 20 / n * width


@pytest.mark.parametrize("record", [r for r in RECORDED if "values" in r], ids=name)
def test_fixed_values(record: dict[str, Any]) -> None:
    assert_close(make(record).flatten(), record["values"], 2e-7, "one float32 product")


@pytest.mark.parametrize("record", [r for r in RECORDED if "row_sums" in r], ids=name)
def test_unit_ball(record: dict[str, Any]) -> None:
    blob = make(record)
    assert bool((blob >= 0).all())
    assert_close(blob.sum(1), record["row_sums"], 1e-6, "float32 sums of 50 values")


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ('type: "xaver"', (2, 2), r"unknown filler type 'xaver' \(did you mean 'xavier'"),
        ('type: "uniform" min: 2 max: 1', (2, 2), "min 2 is above max 1"),
        ('type: "gaussian" std: -1', (2, 2), "std -1 is negative"),
        ('type: "xavier" sparse: 1', (2, 2), "'sparse' works with type 'gaussian' only"),
        ('type: "bilinear"', (2, 2, 3, 4), r"needs a square 4-D kernel, found \(2, 2, 3, 4\)"),
        ('type: "gaussian" sparse: 1', (), "'sparse' needs a blob of at least 1 axis"),
    ],
)
def test_refuses(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NetError, match=message):
        fill(torch.empty(shape), parse(text, schema.FillerParameter, "filler"))


@pytest.mark.parametrize("kind", ["xavier", "msra", "positive_unitball"])
@pytest.mark.parametrize("shape", [(), (3,), (0, 3)])
def test_blobs_without_columns(kind: str, shape: tuple[int, ...]) -> None:
    """A missing axis counts as 1, as in Caffe; an empty blob stays empty."""
    blob = torch.full(shape, 9.0)
    fill(blob, schema.FillerParameter(type=kind))
    assert bool((blob.abs() < 9).all())
