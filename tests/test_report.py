"""The report: what it says, that it is one file, and which mistakes it shows."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from port.errors import DataError
from port.sample_faces import write_set
from verify import accuracy, report
from verify.pairs import Pair, read_pairs
from verify.protocol import Result


def coarse(batch: np.ndarray) -> np.ndarray:
    return batch.reshape(len(batch), 3, 14, 8, 12, 8).mean((3, 5)).reshape(len(batch), -1)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> accuracy.Verification:
    folder = tmp_path_factory.mktemp("sample") / "faces"
    faces = write_set(folder, identities=1, samples=1, held_out=20, held_out_samples=4)
    return accuracy.verify_pairs(read_pairs(faces.pairs), faces.held_out, coarse, flip="sum")


class Page(HTMLParser):
    """Collects tags, text and every address the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for key, value in attrs if key in ("src", "href", "xlink:href")
        ]
        if tag not in ("meta", "br", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_everything_in_itself(found: accuracy.Verification, tmp_path: Path) -> None:
    weights = tmp_path / "weights.caffemodel"
    weights.write_bytes(b"weights")
    report.write_html(found, tmp_path / "report.html", {"weights": weights}, title="A <b> test")
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    assert page.open == []
    assert page.tags.count("svg") == 2
    assert page.tags.count("script") == page.tags.count("link") == 0
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)", source)
    assert str(tmp_path) not in source
    assert "A <b> test" in page.text
    assert f"{100 * found.result.mean:.2f}%" in page.text
    for value in found.result.accuracies:
        assert f"{100 * value:.2f}%" in page.text
    assert "Departs from the original protocol: flip sum." in page.text
    assert hashlib.sha256(b"weights").hexdigest() in page.text
    shown = sum(len(report.most_confident(found, kind)) for kind in (True, False))
    assert shown > 0
    assert page.tags.count("figure") == shown
    assert page.tags.count("img") == 2 * shown


def test_json_says_the_same(found: accuracy.Verification, tmp_path: Path) -> None:
    report.write_json(found, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["accuracy"]["mean"] == found.result.mean
    assert [row["accuracy"] for row in data["folds"]] == found.result.accuracies.tolist()
    assert [row["far"] for row in data["tar_at_far"]] == [0.1, 0.01, 0.001, 0.0001]
    assert data["variants"] == ["flip sum"]
    assert data["environment"]["numpy"] == np.__version__


def test_json_has_no_infinity(tmp_path: Path) -> None:
    pairs = [Pair("a", "b", same, fold, 1) for fold in (1, 2) for same in (True, False)]
    rows = {"a": np.array([1.0, 0.0]), "b": np.array([1.0, 1.0])}
    found = accuracy.verify_embeddings(pairs, rows, subtract_mean=False)
    assert found.points[-1].threshold == np.inf
    report.write_json(found, tmp_path / "report.json")
    data = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert data["tar_at_far"][-1]["threshold"] is None


def test_mistakes_come_worst_first_and_by_their_own_fold() -> None:
    kinds = [True, True, True, False, False, False]
    folds = [1, 1, 2, 1, 2, 2]
    pairs = [Pair("a", "b", same, fold, 1) for same, fold in zip(kinds, folds, strict=True)]
    scores = np.array([0.1, 0.4, 0.45, 0.35, 0.9, np.nan])
    result = Result(np.array([1, 2]), np.array([0.5, 0.5]), np.array([0.3, 0.5]), scores)
    found = accuracy.Verification(pairs, result, [], 0.0, 0.0)
    assert report.most_confident(found, same=True) == [0, 2]
    assert report.most_confident(found, same=False) == [5, 4, 3]
    assert report.most_confident(found, same=False, count=1) == [5]


def test_embeddings_alone_make_a_report_without_faces(
    found: accuracy.Verification, tmp_path: Path
) -> None:
    bare = accuracy.Verification(
        found.pairs, found.result, found.points, found.equal_error_rate, found.area_under_curve
    )
    report.write_html(bare, tmp_path / "report.html")
    assert "<img" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_is_written_whole_or_not_at_all(
    found: accuracy.Verification, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"report\.html: cannot write the report"):
        report.write_html(found, tmp_path / "none" / "report.html")
    with pytest.raises(DataError, match=r"weights: cannot read it"):
        report.write_json(found, tmp_path / "report.json", {"weights": tmp_path / "weights"})
    assert list(tmp_path.iterdir()) == []
