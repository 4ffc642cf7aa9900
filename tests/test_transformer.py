"""The transformer: exact arithmetic, and what Caffe refuses. Golden images: test_image_data."""

from __future__ import annotations

import numpy as np
import pytest

from port import schema
from port.data.mean_file import read_mean, write_mean
from port.data.pixels import PixelTable
from port.data.transformer import Draw, Transformer
from port.errors import DataError

RNG = np.random.default_rng(3)
IMAGE = RNG.integers(0, 256, (11, 9, 3), dtype=np.uint8)
MEAN = RNG.uniform(0, 255, (3, 11, 9)).astype(np.float32)


def make(phase="TEST", mean=None, **fields) -> Transformer:
    return Transformer(schema.TransformationParameter(**fields), phase, mean)


def caffe_loop(image, top, left, size, mirror, mean, scale):
    """The original's loop over h, w, c, one pixel at a time, in float32."""
    out = np.empty((image.shape[2], *size), np.float32)
    for c, h, w in np.ndindex(*out.shape):
        pixel = np.float32(image[top + h, left + w, c])
        offset = np.float32(mean(c, top + h, left + w))
        out[c, h, size[1] - 1 - w if mirror else w] = (pixel - offset) * np.float32(scale)
    return out


MEANS = {
    "none": ({}, lambda c, h, w: 0.0),
    "one": ({"mean_value": [100.5]}, lambda c, h, w: 100.5),
    "three": ({"mean_value": [104.01, 117.3, 123.68]}, lambda c, h, w: (104.01, 117.3, 123.68)[c]),
    "same": ({"mean_value": [127.5] * 3}, lambda c, h, w: 127.5),
    "file": ({"mean_file": "m"}, lambda c, h, w: MEAN[c, h, w]),
}


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("crop", [0, 6])
@pytest.mark.parametrize("scale", [1.0, 0.0078125, 0.017, -0.5])
@pytest.mark.parametrize("means", MEANS)
def test_the_arithmetic_is_the_originals_loop(means, scale, crop, mirror):
    fields, mean = MEANS[means]
    ours = make("TRAIN", MEAN if means == "file" else None, scale=scale, crop_size=crop, **fields)
    draw = Draw(mirror, 0.9, 0.3)
    size = (crop, crop) if crop else (11, 9)
    top, left = (int(0.9 * 6), int(0.3 * 4)) if crop else (0, 0)
    theirs = caffe_loop(IMAGE, top, left, size, mirror, mean, scale)
    for source, transform in ((IMAGE, ours.image), (IMAGE.transpose(2, 0, 1), ours.planes)):
        out = np.full((3, *size), np.nan, np.float32)
        transform(source, out, draw)
        np.testing.assert_array_equal(out, theirs)


@pytest.mark.parametrize("mean", [0, 127.5, 104, 100.5, 123.68, -3])
@pytest.mark.parametrize("scale", [1, 0.0078125, 0.00390625, 0.01, 1 / 255, 2, 1e-30])
def test_a_pixel_table_gives_the_exact_value_of_every_byte(mean, scale):
    """Both ways through OpenCV; 0 and 255 are in the corners too, which the fast way borrows."""
    plane = np.concatenate([np.arange(256), RNG.integers(0, 256, 19 * 16 - 256)])
    plane = RNG.permutation(plane).astype(np.uint8).reshape(19, 16)
    expected = (plane.astype(np.float32) - np.float32(mean)) * np.float32(scale)
    out = np.empty((19, 16), np.float32)
    PixelTable(mean, scale).apply(plane.copy(), out)
    np.testing.assert_array_equal(out, expected)


def test_spherefaces_numbers_take_the_fast_way():
    assert PixelTable(127.5, 0.0078125)._linear
    assert not PixelTable(123.68, 0.017)._linear


def test_a_single_pixel_image():
    out = np.empty((3, 1, 1), np.float32)
    make(mean_value=[127.5], scale=0.0078125).image(np.full((1, 1, 3), 7, np.uint8), out)
    assert (out == (7 - 127.5) / 128).all()


def test_grey_images_have_one_channel():
    out = np.empty((1, 11, 9), np.float32)
    make().image(np.ascontiguousarray(IMAGE[..., 0]), out)
    np.testing.assert_array_equal(out[0], IMAGE[..., 0])


def test_float_records_are_transformed_like_bytes():
    out = np.empty((3, 11, 9), np.float32)
    make(mean_value=[1.5], scale=2).planes(MEAN, out)
    np.testing.assert_array_equal(out, (MEAN - np.float32(1.5)) * np.float32(2))


def test_crops_cover_every_place_in_train_and_the_centre_in_test():
    draws = make("TRAIN", crop_size=8).draws(np.random.default_rng(1), 500)
    windows = {str(make("TRAIN", crop_size=8)._window(11, 9, draw)) for draw in draws}
    assert len(windows) == 4 * 2
    assert make("TEST", crop_size=8)._window(11, 9, draws[0]) == (slice(1, 9), slice(0, 8))
    assert make("TEST", crop_size=8).draws(np.random.default_rng(1), 2) == [Draw(), Draw()]


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_half_of_the_records_are_mirrored_in_both_phases(phase):
    draws = make(phase, mirror=True).draws(np.random.default_rng(1), 4000)
    assert 1880 < sum(draw.mirror for draw in draws) < 2120  # 3.8 standard deviations


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mean_file": "m", "mean_value": [1]}, "mean_file and mean_value exclude each other"),
        ({"crop_size": 10}, "crop_size 10 does not fit into an image of 11x9"),
        ({"mean_value": [1, 2]}, r"2 mean_value for images of 3 channel\(s\); give 1 or 3"),
    ],
)
def test_what_caffe_refuses(fields, message):
    with pytest.raises(DataError, match=message):
        make(mean=MEAN, **fields).shape(3, 11, 9)


def test_a_mean_image_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"mean_file holds 3x11x9 .* the image has 3x12x9"):
        make(mean=MEAN, mean_file="m").shape(3, 12, 9)


def test_images_of_different_sizes_do_not_fit_one_batch():
    with pytest.raises(DataError, match=r"gives 3x11x9 .* the batch has 3x11x10; all images of"):
        make().image(IMAGE, np.empty((3, 11, 10), np.float32))


def test_images_of_16_bits_are_refused():
    with pytest.raises(DataError, match="uint16 values; 8-bit images"):
        make().image(IMAGE.astype(np.uint16), np.empty((3, 11, 9), np.float32))


def test_mean_files_round_trip_and_damage_is_named(tmp_path):
    path = tmp_path / "mean.binaryproto"
    write_mean(path, MEAN)
    np.testing.assert_array_equal(read_mean(path), MEAN)
    stored = schema.BlobProto.FromString(path.read_bytes())
    assert (stored.num, stored.channels, stored.height, stored.width) == (1, 3, 11, 9)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"mean\.binaryproto is damaged"):
        read_mean(path)
    path.write_bytes(schema.BlobProto(num=1, channels=2, height=1, width=1).SerializeToString())
    with pytest.raises(DataError, match=r"0 values for the shape \(1, 2, 1, 1\)"):
        read_mean(path)
    with pytest.raises(DataError, match="No such file"):
        read_mean(tmp_path / "none")
