"""The report in Chromium: faces and drawings appear, nothing overlaps the edge or is fetched."""

from __future__ import annotations

from pathlib import Path

import browser
import cv2
import numpy as np
import pytest

from port.sample_faces import write_set
from verify import accuracy, report
from verify.pairs import read_pairs

pytestmark = pytest.mark.browser


def coarse(batch: np.ndarray) -> np.ndarray:
    return batch.reshape(len(batch), 3, 14, 8, 12, 8).mean((3, 5)).reshape(len(batch), -1)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    faces = write_set(folder / "faces", identities=1, samples=1, held_out=20, held_out_samples=4)
    pairs = read_pairs(faces.pairs)
    found = accuracy.verify_pairs(pairs, faces.held_out, coarse, flip="none")
    report.write_html(found, folder / "report.html", {"pairs": faces.pairs}, "On sample faces")
    return folder / "report.html"


@pytest.mark.parametrize("width", [1100, 500])
def test_the_report_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    seen = browser.look(page, tmp_path, width)
    assert seen["title"] == "On sample faces"
    assert seen["scrolled"] <= seen["width"] <= width, "wider than the window"
    assert set(seen["loaded"]) <= {"data:"}
    for words in ("Mean accuracy over 10 folds", "TAR at FAR 0.0001", "flip none", "SHA-256"):
        assert words in seen["text"]
    assert len(seen["images"]) >= 4
    for own_width, own_height, x, _, shown, high in seen["images"]:
        assert (own_width, own_height) == (96, 112)  # decoded
        assert shown > 80
        assert high / shown == pytest.approx(112 / 96, rel=0.02)
        assert x >= 0
        assert x + shown <= width
    roc, histogram = seen["drawings"]
    for drawing in (roc, histogram):
        assert drawing[2] > 300
        assert drawing[3] > 180
    apart = histogram[0] >= roc[0] + roc[2] or histogram[1] >= roc[1] + roc[3]
    assert apart, "the drawings overlap"


def test_the_drawings_have_ink(page: Path, tmp_path: Path) -> None:
    seen = browser.look(page, tmp_path)
    shot = cv2.imread(str(tmp_path / "shot.png"))
    for x, y, width, height in (map(round, box) for box in seen["drawings"]):
        part = shot[y : y + height, x : x + width].astype(int)
        coloured = np.ptp(part, axis=2) > 60
        assert 0.002 < coloured.mean() < 0.5
