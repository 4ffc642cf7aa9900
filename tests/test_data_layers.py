"""Data, HDF5Data and WindowData layers, and the commands that make databases."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from command_line import port

from port.data.mean_file import read_mean
from port.errors import DataError, NetError
from port.net import Net, load_net

SMALL = Path(__file__).parent / "golden" / "train_small"


def layer(kind: str, param: str, tops: str = 'top: "data" top: "label"') -> str:
    return f'layer {{ name: "d" type: "{kind}" {tops} {param} }}'


# -- Data ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An LMDB that ``port convert-imageset`` made of the small golden list."""
    folder = tmp_path_factory.mktemp("records") / "lmdb"
    said = port("convert-imageset", SMALL, SMALL / "list.txt", folder).stdout
    assert said == f"{len((SMALL / 'list.txt').read_text().splitlines())} images in {folder}\n"
    return folder


@pytest.mark.parametrize(
    "transform",
    ["", "scale: 0.0078125 mean_value: 127.5", "crop_size: 32 mean_value: 1 mean_value: 2 "
     "mean_value: 3"],
)  # fmt: skip
def test_data_serves_what_image_data_serves(database: Path, transform: str) -> None:
    """Two ways to the same numbers; ImageData's are pinned to the original."""
    images = load_net(
        layer("ImageData", f'image_data_param {{ source: "{SMALL / "list.txt"}" batch_size: 3 '
              f'root_folder: "{SMALL}/" }} transform_param {{ {transform} }}')
    )  # fmt: skip
    records = load_net(
        layer("Data", f'data_param {{ source: "{database}" batch_size: 3 backend: LMDB }} '
              f"transform_param {{ {transform} }}")
    )  # fmt: skip
    assert records.blob_shapes == images.blob_shapes
    for _ in range(14):  # 42 of 38 records: over the end and on from the start
        ours, theirs = records(), images()
        assert torch.equal(ours["data"], theirs["data"])
        assert torch.equal(ours["label"], theirs["label"])
    records.close()
    images.close()


def test_data_with_one_top_has_no_label(database: Path) -> None:
    net = load_net(
        layer("Data", f'data_param {{ source: "{database}" batch_size: 2 backend: LMDB }}',
              'top: "data"')
    )  # fmt: skip
    assert list(net()) == ["data"]
    net.close()


def test_data_unopened_has_the_size_that_is_assumed() -> None:
    text = layer("Data", 'data_param { source: "gone" batch_size: 2 }')
    net = load_net(text, open_data=False, input_shape=(1, 28, 28))
    assert net.blob_shapes == {"data": (2, 1, 28, 28), "label": (2,)}
    cropped = text.replace("data_param", "transform_param { crop_size: 20 } data_param")
    net = load_net(cropped, open_data=False, input_shape=(3, 28, 28))
    assert net.blob_shapes["data"] == (2, 3, 20, 20)
    with pytest.raises(NetError, match="the prototxt states no image size; give input_shape"):
        load_net(text, open_data=False)
    with pytest.raises(NetError, match="has no data of its own"):
        net()
    with pytest.raises(DataError, match="database gone does not exist"):
        load_net(text)


LENETS = {
    "lenet-v1/lenet_iter_10000": "accuracy = 0.991",
    "lenet-v2/lenet_iter_10000.caffemodel": "accuracy = 0.9914",
}
"""What these weights score in the original on the 10000 test images of MNIST."""


@pytest.mark.data("caffe-zoo")
@pytest.mark.parametrize("weights", LENETS)
def test_lenet_scores_what_it_did_in_2014(weights: str, shared: Path) -> None:
    zoo = shared / "caffe-zoo"
    net = zoo / "lenet-v1" / "lenet_test.prototxt"
    run = port("test", net, "--weights", zoo / weights, "--iterations", 100)
    last = run.stderr.strip().splitlines()[-1]
    assert last.endswith(f"] {LENETS[weights]}")
    notes = [line for line in run.stderr.splitlines() if line.startswith("note: ")]
    assert sum("lenet_test.prototxt: V1 layers (2014) upgraded: 10" in note for note in notes) == 1
    v1_weights = sum("weights of V1 layers (2014) read: 9" in note for note in notes)
    assert v1_weights == ("v1" in weights.split("/")[0])


# -- the tools ----------------------------------------------------------------------------------


def test_compute_mean_writes_and_prints_the_mean(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "mean.binaryproto"
    said = port("compute-mean", database, out).stdout
    names = [line.rsplit(" ", 1)[0] for line in (SMALL / "list.txt").read_text().splitlines()]
    images = [cv2.imread(str(SMALL / name)).transpose(2, 0, 1) for name in names]
    wanted = np.mean(images, 0, np.float64)
    np.testing.assert_allclose(read_mean(out), wanted, atol=1e-3, err_msg="sums in float32")
    printed = [float(value) for value in re.findall(r"channel \[\d\]: (\S+)", said)]
    np.testing.assert_allclose(printed, wanted.mean((1, 2)), rtol=1e-5, err_msg="six digits")


def test_convert_imageset_leaves_bad_images_out_and_names_them(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "good.png").write_bytes((SMALL / "images" / "000.png").read_bytes())
    (tmp_path / "list.txt").write_text("good.png 3\nbad.png 4\n")
    flags = ("--encoded", "--gray", "--resize-height", 8, "--resize-width", 6)
    run = port("convert-imageset", tmp_path, tmp_path / "list.txt", tmp_path / "db", *flags)
    assert re.search(r"left out: .*list\.txt:2: .*bad\.png", run.stderr)
    assert run.stdout.startswith("1 images")
    net = load_net(
        layer("Data", f'data_param {{ source: "{tmp_path / "db"}" batch_size: 1 backend: LMDB }}')
    )
    assert tuple(net()["data"].shape) == (1, 1, 8, 6)
    net.close()
    again = port("convert-imageset", tmp_path, tmp_path / "list.txt", tmp_path / "db", code=1)
    assert "exists already" in again.stderr


# -- HDF5Data -------------------------------------------------------------------------------


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    """A list of two HDF5 files with 3 + 2 rows."""
    for name, rows in (("a.h5", range(3)), ("b.h5", range(3, 5))):
        with h5py.File(tmp_path / name, "w") as file:
            file["x"] = np.arange(4.0)[None] + 10 * np.array(rows)[:, None]
            file["y"] = np.array(rows, np.float64)
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    return tmp_path


def hdf5_net(folder: Path, more: str = "", **options: object) -> Net:
    text = layer(
        "HDF5Data",
        f'hdf5_data_param {{ source: "list.txt" batch_size: 2 {more} }}',
        'top: "x" top: "y"',
    )
    return load_net(text, folder=folder, **options)


def test_hdf5_data_runs_over_the_ends_of_files(arrays: Path) -> None:
    net = hdf5_net(arrays)
    assert net.blob_shapes == {"x": (2, 4), "y": (2,)}
    batches = [net() for _ in range(5)]
    assert [batch["y"].tolist() for batch in batches] == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]]
    assert batches[1]["x"].tolist() == [[20, 21, 22, 23], [30, 31, 32, 33]]


def test_hdf5_data_shuffles_by_its_seed(arrays: Path) -> None:
    def order(seed: int) -> list[float]:
        net = hdf5_net(arrays, "shuffle: true", seed=seed)
        return torch.cat([net()["y"] for _ in range(5)]).tolist()

    assert order(1) == order(1)
    assert sorted(order(1)) == sorted([*range(5)] * 2)
    assert len({tuple(order(seed)) for seed in range(8)}) > 3


def test_hdf5_data_refusals(arrays: Path) -> None:
    with pytest.raises(NetError, match=r"layer 'd' .*take transform_param out"):
        load_net(layer("HDF5Data", "transform_param { scale: 2 }"))
    net = hdf5_net(arrays, open_data=False, input_shape=(3, 8, 8))
    assert net.blob_shapes == {"x": (2, 3, 8, 8), "y": (2,)}


# -- WindowData -----------------------------------------------------------------------------


def test_window_data(tmp_path: Path) -> None:
    """Background (label 0) first, then the foreground share; the window is what is served."""
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (tmp_path / "w.txt").write_text(
        f"# 0\n{tmp_path / 'a.png'}\n3\n20\n30\n2\n5 0.9 2 3 9 10\n0 0.1 10 4 17 11\n"
    )
    text = layer(
        "WindowData",
        'window_data_param { source: "w.txt" batch_size: 4 fg_fraction: 0.25 } '
        "transform_param { crop_size: 8 mean_value: 100 scale: 0.5 }",
    )
    net = load_net(text, folder=tmp_path)
    batch = net()
    assert batch["label"].tolist() == [0, 0, 0, 5]
    windows = [image[4:12, 10:18], image[3:11, 2:10]]
    for item, window in zip((0, 3), windows, strict=True):
        wanted = (window.transpose(2, 0, 1).astype(np.float32) - 100) * 0.5
        assert np.array_equal(batch["data"][item].numpy(), wanted)
    net.close()
    assert load_net(text, open_data=False).blob_shapes == {"data": (4, 3, 8, 8), "label": (4,)}
