"""Alignment against Matlab's cp2tform and imtransform."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
from tolerance import assert_close

from port.errors import DataError
from port.preprocess.align import TEMPLATE, align_face, fit_similarity, sample_crop

CASES = golden.cases("align")
WITH_IMAGE = [name for name in CASES if "img" in golden.load("align", name).arrays]
OF_PHOTO = [name for name in CASES if "photo" in golden.load("align", name).meta]
THIN = 13

FIT = "least squares in double precision, solved another way; the issue's bound on T"
SAMPLES = "double precision samples at coordinates equal to 1e-11; the issue's bound in grey levels"


def assert_within(ours: np.ndarray, theirs: np.ndarray, bound: float, reason: str) -> None:
    """An absolute bound, said in assert_close's relative terms."""
    assert_close(ours, theirs, bound / max(float(np.abs(theirs).max()), 1e-300), reason)


@pytest.mark.parametrize("name", CASES)
def test_transform(name: str) -> None:
    case = golden.load("align", name).arrays
    fit = fit_similarity(case["points"])
    assert fit.reflected == bool(case["reflected"])
    assert_within(fit.forward, case["T"], 1e-9, FIT)
    assert_within(fit.inverse, case["Tinv"], 1e-9, FIT)


def check_crop(image: np.ndarray, case: golden.Case) -> None:
    arrays = case.arrays
    samples = sample_crop(image, fit_similarity(arrays["points"]).inverse).ravel()
    crop = align_face(image, arrays["points"]).ravel().astype(int)
    assert_within(samples[::THIN], arrays["crop_f64_thin"], 1e-6, SAMPLES)
    # Values exactly between two grey levels round by the last bit of the fit.
    ties = 1 if case.meta["n_values_within_1e9_of_half"] else 0
    assert np.abs(crop[::THIN] - arrays["crop_thin"]).max() <= ties
    if "crop" in arrays:
        assert np.abs(crop - arrays["crop"].ravel()).max() <= ties


@pytest.mark.parametrize("name", WITH_IMAGE)
def test_crop(name: str) -> None:
    case = golden.load("align", name)
    check_crop(case.arrays["img"], case)


@pytest.mark.data("lfw-raw")
@pytest.mark.parametrize("name", OF_PHOTO)
def test_crop_of_photo(name: str, shared: Path) -> None:
    import cv2

    case = golden.load("align", name)
    image = cv2.imread(str(shared / case.meta["photo"]))[..., ::-1]
    check_crop(image, case)


def test_only_one_case_has_ties() -> None:
    ties = [n for n in CASES if golden.load("align", n).meta["n_values_within_1e9_of_half"]]
    assert ties == ["case_19"]


def test_template_points_leave_a_crop_alone() -> None:
    crop = np.random.default_rng(0).integers(0, 256, (112, 96, 3), np.uint8)
    np.testing.assert_array_equal(align_face(crop, TEMPLATE), crop)


def test_grey_image_equals_its_colour_copy() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (60, 50), np.uint8)
    points = TEMPLATE * 0.5 + 2
    colour = align_face(np.repeat(grey[..., None], 3, 2), points)
    np.testing.assert_array_equal(align_face(grey, points)[..., 0], colour[..., 1])


def test_face_wholly_outside_is_black() -> None:
    image = np.full((40, 40, 3), 255, np.uint8)
    assert not align_face(image, TEMPLATE + 500).any()
    assert not align_face(image, TEMPLATE - 500).any()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.ones((5, 2)), "on one spot"),
        (np.full((5, 2), np.nan), "5 finite points"),
        (np.ones((4, 2)), r"found shape \(4, 2\)"),
    ],
)
def test_refuses_points(points: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        fit_similarity(points)
