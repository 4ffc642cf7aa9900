"""Embedding of image files: crop, scale, mirror, order, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from port.errors import DataError, NetError
from port.net import load_net
from verify import embed

NET = """
name: "tiny"
input: "data" input_dim: 1 input_dim: 3 input_dim: 6 input_dim: 4
layer { name: "fc5" type: "InnerProduct" bottom: "data" top: "fc5"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
SHAPE = (3, 6, 4)


def flat(batch: np.ndarray) -> np.ndarray:
    """A forward whose embedding is the input itself."""
    return batch.reshape(len(batch), -1)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{k}.png" for k in range(7)]
    for path in paths:
        cv2.imwrite(str(path), rng.integers(0, 256, (6, 4, 3), dtype=np.uint8))
    return paths


def test_pixels_are_scaled_and_the_mirror_is_concatenated(images: list[Path]) -> None:
    found = embed.embed(images, flat, SHAPE, batch_size=3)
    assert found.dtype == np.float32
    for row, path in zip(found, images, strict=True):
        planes = (cv2.imread(str(path)).transpose(2, 0, 1).astype(np.float32) - 127.5) / 128
        expected = np.concatenate([planes.ravel(), planes[:, :, ::-1].ravel()])
        assert np.array_equal(row, expected)  # all powers of two: no rounding


def test_mirror_summed_or_left_out(images: list[Path]) -> None:
    both = embed.embed(images, flat, SHAPE)
    assert np.array_equal(embed.embed(images, flat, SHAPE, flip="none"), both[:, :72])
    total = embed.embed(images, flat, SHAPE, flip="sum")
    assert np.array_equal(total, both[:, :72] + both[:, 72:])
    with pytest.raises(DataError, match="flip 'both': expected one of concat, sum, none"):
        embed.embed(images, flat, SHAPE, flip="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("height", "width", "top", "left"), [(6, 4, 0, 0), (9, 7, 1, 1), (10, 8, 2, 2)]
)
def test_larger_images_are_cut_to_their_centre(
    height: int, width: int, top: int, left: int
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    cut = image[top : top + 6, left : left + 4]
    assert np.array_equal(embed.prepare(image, SHAPE), embed.prepare(cut, SHAPE))
    assert embed.prepare(image, SHAPE).shape == SHAPE


def test_other_pixels_than_spherefaces() -> None:
    image = np.random.default_rng(3).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    found = embed.prepare(image, SHAPE, pixels=embed.Pixels((1, 2, 3), 2.0, rgb=True))
    expected = (image[..., ::-1].astype(np.float32) - [1, 2, 3]) * 2  # whole numbers: no rounding
    assert np.array_equal(found, expected.transpose(2, 0, 1))
    with pytest.raises(DataError, match="2 means for 3 channels"):
        embed.prepare(image, SHAPE, pixels=embed.Pixels((1, 2)))


class RawSession:
    """Stands for an onnxruntime session of a model that scales uint8 RGB pixels itself."""

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="image", shape=["N", 6, 4, 3], type="tensor(uint8)")]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="out")]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert feeds["image"].dtype == np.uint8
        bgr = feeds["image"][..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        return [flat((bgr - 127.5) / 128)]


def test_an_onnx_model_that_takes_pixels(images: list[Path]) -> None:
    assert embed.onnx_shape(RawSession()) == SHAPE
    found = embed.embed(images, embed.onnx_forward(RawSession()), SHAPE)
    assert np.array_equal(found, embed.embed(images, flat, SHAPE))


def test_grey_images(tmp_path: Path) -> None:
    path = tmp_path / "face.pgm"
    grey = np.random.default_rng(2).integers(0, 256, (6, 4), dtype=np.uint8)
    cv2.imwrite(str(path), grey)
    plane = (grey.astype(np.float32) - 127.5) / 128
    (colour,) = embed.embed([path], flat, SHAPE, flip="none")
    assert np.array_equal(colour.reshape(SHAPE), np.stack([plane] * 3))
    (single,) = embed.embed([path], flat, (1, 6, 4), flip="none")
    assert np.array_equal(single.reshape(6, 4), plane)
    assert np.array_equal(embed.prepare(grey, SHAPE), np.stack([plane] * 3))


def test_progress_counts_images(images: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    embed.embed(images, flat, SHAPE, batch_size=3, progress=lambda *at: seen.append(at))
    assert seen == [(3, 7), (6, 7), (7, 7)]


def test_a_net_is_a_forward(images: list[Path]) -> None:
    net = load_net(NET)
    assert embed.net_shape(net) == SHAPE
    found = embed.embed(images, embed.net_forward(net), SHAPE, flip="none")
    weights, bias = (blob.detach().numpy() for blob in net.params["fc5"])
    pixels = embed.embed(images, flat, SHAPE, flip="none")
    assert found.shape == (7, 5)
    # Sums of 72 products in float32.
    assert np.allclose(found, pixels @ weights.T + bias, rtol=0, atol=1e-5)
    read = embed.embed(images, embed.net_forward(net, "data"), SHAPE, flip="none")
    assert np.array_equal(read, pixels)


class Session:
    """Stands for an onnxruntime session of a model with a fixed batch size."""

    def __init__(self, batch: int | str, outputs: int = 1) -> None:
        self.batch, self.outputs = batch, outputs

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="data", shape=[self.batch, *SHAPE], type="tensor(float)")]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=f"out{k}") for k in range(self.outputs)]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert names == ["out0"]
        batch = feeds["data"]
        assert self.batch in ("N", len(batch))
        return [batch.reshape(len(batch), -1, 1, 1)]


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_an_onnx_session_is_a_forward(images: list[Path], batch: int | str) -> None:
    session = Session(batch)
    assert embed.onnx_shape(session) == SHAPE
    found = embed.embed(images, embed.onnx_forward(session), SHAPE)
    assert np.array_equal(found, embed.embed(images, flat, SHAPE))


def test_nets_that_are_no_embedding() -> None:
    with pytest.raises(NetError, match="found outputs out0, out1"):
        embed.onnx_forward(Session("N", outputs=2))
    with pytest.raises(NetError, match="no output 'fc5'; it has out0, out1"):
        embed.onnx_forward(Session("N", outputs=2), "fc5")
    entry = SimpleNamespace(shape=["N", 3, "H", "W"], type="tensor(float)")
    session = SimpleNamespace(get_inputs=lambda: [entry])
    with pytest.raises(NetError, match="expected an input of batch x channels x height x width"):
        embed.onnx_shape(session)


def test_images_that_cannot_be_embedded(images: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0\.png: 6x4 .* is smaller than the net's input 112x96"):
        embed.embed(images, flat)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot decode image '.*broken\.png'"):
        embed.embed([*images, tmp_path / "broken.png"], flat, SHAPE)
    with pytest.raises(DataError, match="no image to embed"):
        embed.embed([], flat, SHAPE)


@pytest.mark.parametrize(
    ("value", "what"), [(np.nan, "NaN or infinity"), (0.0, "nothing but zeros")]
)
def test_embeddings_that_say_nothing_are_refused_by_name(
    images: list[Path], value: float, what: str
) -> None:
    def forward(batch: np.ndarray) -> np.ndarray:
        found = flat(batch).copy()
        found[1] *= value
        return found

    with pytest.raises(DataError, match=rf"1\.png: its embedding holds {what} \(1 of 7 images\)"):
        embed.embed(images, forward, SHAPE)


def test_a_forward_that_loses_images(images: list[Path]) -> None:
    with pytest.raises(DataError, match=r"expected embeddings \(7, D\), found shape \(6, 144\)"):
        embed.embed(images, lambda batch: flat(batch)[1:], SHAPE)
