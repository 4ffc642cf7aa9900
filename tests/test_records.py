"""LMDB, LevelDB, HDF5 and window files, and the two tools that write databases."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cv2
import golden
import h5py
import lmdb
import numpy as np
import pytest

from port import schema
from port.data.convert import Options, compute_mean, convert_imageset, raw_datum
from port.data.databases import new_database, open_database
from port.data.hdf5_data import Hdf5Batches
from port.data.leveldb import LevelDb, unsnappy
from port.data.mean_file import read_mean, write_mean
from port.data.records import RecordBatches, datum_planes, parse_datum
from port.data.window_data import Frame, Warp, Window, WindowBatches, warp
from port.errors import DataError

LEVELDB = golden.GOLDEN / "records" / "leveldb"
MNIST_SHA = "59cd19dd306b99878c72aeca2593fc486560b83bd5e484c278580da23899020a"
RNG = np.random.default_rng(2)
PLANES = RNG.integers(0, 256, (7, 3, 6, 5), dtype=np.uint8)


def write_lmdb(path: Path, datums) -> Path:
    writer = new_database(path, "lmdb")
    for number, datum in enumerate(datums):
        writer.put(f"{number:08d}".encode(), datum.SerializeToString())
    writer.close()
    return path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Seven raw records 3x6x5; record i has label i."""
    return write_lmdb(tmp_path / "db", [raw_datum(planes, i) for i, planes in enumerate(PLANES)])


def records(source: Path, transform=None, phase="TEST", backend="LMDB", **fields) -> RecordBatches:
    options = {name: fields.pop(name) for name in ("seed", "workers") if name in fields}
    number = schema.enum("DataParameter.DB", backend)
    spec = schema.DataParameter(source=str(source), backend=number, **{"batch_size": 1, **fields})
    return RecordBatches(
        spec, schema.TransformationParameter(**(transform or {})), phase, **options
    )


# LevelDB


def digest(items, between: bytes) -> str:
    sha = hashlib.sha256()
    for key, value in items:
        sha.update(key + between + value + between)
    return sha.hexdigest()


def test_leveldb_reads_what_the_library_wrote():
    """Compressed tables of two levels and a log: overwritten and deleted keys, long values."""
    expected = golden.load("records", "leveldb").meta
    items = list(LevelDb(LEVELDB).items())
    assert len(items) == expected["records"]
    assert items == sorted(items)
    assert digest(items, b"\0") == expected["sha256"]


def test_reading_a_leveldb_changes_no_file(tmp_path):
    folder = shutil.copytree(LEVELDB, tmp_path / "db")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(list(LevelDb(folder).items())) == 151
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.data("caffe-zoo/lenet-v1/mnist-test-leveldb")
def test_the_mnist_leveldb_of_2014(shared):
    path = shared / "caffe-zoo" / "lenet-v1" / "mnist-test-leveldb"
    assert digest(open_database(path, "LEVELDB").items(), b"") == MNIST_SHA
    with records(path, {"scale": 0.00390625}, backend="LEVELDB", batch_size=100) as source:
        data, label = next(source)
        counts = np.bincount(label.astype(int), minlength=10)
        for _ in range(99):
            counts += np.bincount(next(source)[1].astype(int), minlength=10)
        again, _ = next(source)
    assert data.shape == source.shape == (100, 1, 28, 28)
    assert 0.5 < data.max() <= 255 / 256
    assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(data, again)


def test_a_damaged_leveldb_is_a_data_error(tmp_path):
    """Any cut or changed byte gives other records or our error, and nothing else."""
    rng = np.random.default_rng(5)
    refused = []
    for trial in range(300):
        folder = shutil.copytree(LEVELDB, tmp_path / str(trial))
        names = ["CURRENT", "MANIFEST-000009", "000005.ldb", "000010.ldb", "000011.log"]
        path = folder / names[trial % len(names)]
        content = bytearray(path.read_bytes())
        if rng.random() < 0.3:
            content = content[: rng.integers(len(content))]
        else:
            content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        path.write_bytes(content)
        try:
            list(LevelDb(folder).items())
        except DataError as error:
            refused.append(str(error))
        shutil.rmtree(folder)
    assert len(refused) > 40
    assert all("LevelDB" in message and str(tmp_path) in message for message in refused)


def test_a_missing_table_is_named(tmp_path):
    folder = shutil.copytree(LEVELDB, tmp_path / "db")
    (folder / "000007.ldb").unlink()
    with pytest.raises(DataError, match=r"db: table 000007 is missing; copy it again"):
        list(LevelDb(folder).items())


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"\x00", b""),
        (b"\x05\x10hello", b"hello"),
        (b"\x0a\x04ab\x11\x02", b"ababababab"),  # a copy that overlaps itself
        (b"\x0b\x04ab\x22\x02\x00", b"abababababa"),
    ],
)
def test_unsnappy(packed, plain):
    assert unsnappy(packed) == plain


@pytest.mark.parametrize("packed", [b"", b"\x05", b"\x05\x10hel", b"\x04\x01\x09", b"\x02\x00a"])
def test_unsnappy_refuses_damage(packed):
    with pytest.raises(IndexError):
        unsnappy(packed)


# Records of a Data layer


def test_raw_records_wrap_and_keep_their_order(database):
    with records(database, batch_size=3) as source:
        found = [next(source) for _ in range(3)]
    assert [label.tolist() for _, label in found] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    np.testing.assert_array_equal(found[2][0], PLANES[[6, 0, 1]])
    assert found[0][0].dtype == np.float32


def test_records_are_transformed(database):
    fields = {"crop_size": 4, "mean_value": [1.5, 2.5, 3.5], "scale": 0.1}
    with records(database, fields, batch_size=7) as source:
        data, _ = next(source)
    mean = np.array([1.5, 2.5, 3.5], np.float32).reshape(-1, 1, 1)
    np.testing.assert_array_equal(data, (PLANES[:, :, 1:5, :4] - mean) * np.float32(0.1))


def test_random_crops_depend_on_the_seed_alone(database):
    def run(seed, workers):
        fields = {"crop_size": 3, "mirror": True}
        options = {"batch_size": 5, "seed": seed, "workers": workers}
        with records(database, fields, "TRAIN", **options) as source:
            return np.stack([next(source)[0] for _ in range(4)])

    np.testing.assert_array_equal(run(3, 1), run(3, 4))
    assert (run(3, 1) != run(4, 1)).any()


def test_float_records(tmp_path):
    values = RNG.normal(size=(2, 3, 2)).astype(np.float32)
    datum = schema.Datum(channels=2, height=3, width=2, label=4, float_data=values.ravel())
    with records(write_lmdb(tmp_path / "db", [datum]), {"scale": 2}) as source:
        data, label = next(source)
    np.testing.assert_array_equal(data[0], values * 2)
    assert label.tolist() == [4]


IMAGE = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
PNG = cv2.imencode(".png", IMAGE)[1]
GRAY = cv2.imdecode(PNG, cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    ("stored", "fields", "expected"),
    [
        (IMAGE, {}, IMAGE),
        (IMAGE, {"force_gray": True}, GRAY),
        (GRAY, {}, GRAY),
        (GRAY, {"force_color": True}, GRAY[..., None].repeat(3, 2)),
    ],
)
def test_encoded_records(tmp_path, stored, fields, expected):
    datum = schema.Datum(data=cv2.imencode(".png", stored)[1].tobytes(), encoded=True, label=9)
    with records(write_lmdb(tmp_path / "db", [datum] * 2), fields, batch_size=2) as source:
        data, label = next(source)
    np.testing.assert_array_equal(data[1], expected.reshape(6, 5, -1).transpose(2, 0, 1))
    assert label.tolist() == [9, 9]


def test_records_of_other_sizes(tmp_path):
    path = write_lmdb(tmp_path / "db", [raw_datum(PLANES[0], 0), raw_datum(PLANES[1, :, :4], 1)])
    with records(path) as source:
        assert [next(source)[0].shape for _ in range(3)] == [
            (1, 3, 6, 5), (1, 3, 4, 5), (1, 3, 6, 5)
        ]  # fmt: skip
    message = r"db: record '00000001': the image gives 3x4x5 .* the batch has 3x6x5"
    with records(path, batch_size=2) as source, pytest.raises(DataError, match=message):
        next(source)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff\xff", "the record is no Datum"),
        (schema.Datum(channels=3, height=2, width=2, data=b"12345").SerializeToString(),
         "it holds 5 values for 3x2x2"),
        (schema.Datum(data=b"no image", encoded=True).SerializeToString(),
         "its 8 bytes are no image"),
        (schema.Datum(encoded=True).SerializeToString(), "its 0 bytes are no image"),
        (schema.Datum(
            data=cv2.imencode(".png", IMAGE.astype(np.uint16))[1].tobytes(), encoded=True
        ).SerializeToString(), "uint16 values"),
    ],
)  # fmt: skip
def test_a_broken_record_is_named(tmp_path, record, message):
    datum = raw_datum(PLANES[0], 0)
    path = write_lmdb(tmp_path / "db", [datum, datum, datum])
    environment = lmdb.open(str(path))
    with environment.begin(write=True) as transaction:
        transaction.put(b"00000001", record)
    environment.close()
    with (
        records(path, batch_size=3) as source,
        pytest.raises(DataError, match=rf"db: record '00000001': .*{message}"),
    ):
        next(source)


def test_databases_that_cannot_be_opened(tmp_path, database):
    write_lmdb(tmp_path / "none", [])
    for path, backend, message in (
        (tmp_path / "nowhere", "LMDB", r"nowhere does not exist; give the right 'source'"),
        (tmp_path / "none", "LMDB", r"none is empty"),
        (database, "LEVELDB", r"db is a database of the kind LMDB: set backend: LMDB"),
        (LEVELDB, "LMDB", r"is a database of the kind LEVELDB: set backend: LEVELDB"),
        (tmp_path, "LMDB", r"^LMDB .*No such file"),
        (tmp_path, "LEVELDB", r"is no LevelDB: .*CURRENT"),
    ):
        with pytest.raises(DataError, match=message):
            records(path, backend=backend)
    with pytest.raises(DataError, match=r"unknown backend 'lmbd' \(did you mean 'LMDB'\?\)"):
        open_database(database, "lmbd")


def test_data_settings_that_caffe_refuses(database):
    with pytest.raises(DataError, match="batch_size is 0"):
        records(database, batch_size=0)
    with pytest.raises(DataError, match="force_color and force_gray exclude each other"):
        records(database, {"force_color": True, "force_gray": True})


# HDF5


@pytest.fixture
def hdf5_list(tmp_path: Path) -> Path:
    """Two files beside their list, of 3 and 5 rows: row i of all has data [i, -i], label i."""
    for name, rows in (("a.h5", np.arange(3)), ("b.h5", np.arange(3, 8))):
        with h5py.File(tmp_path / name, "w") as file:
            file["data"] = np.stack([rows, -rows], 1).astype(np.float64)
            file["label"] = rows
    (tmp_path / "list.txt").write_text("a.h5\nb.h5\n")
    return tmp_path / "list.txt"


def hdf5(source: Path, tops=("data", "label"), seed=1, **fields) -> Hdf5Batches:
    spec = schema.HDF5DataParameter(source=str(source), **{"batch_size": 4, **fields})
    return Hdf5Batches(spec, tops, seed=seed)


def test_hdf5_batches_run_over_the_ends_of_files(hdf5_list):
    source = hdf5(hdf5_list)
    found = [next(source) for _ in range(4)]
    assert source.shapes == [(4, 2), (4,)]
    assert [label.tolist() for _, label in found] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7]
    ]  # fmt: skip
    for data, label in found:
        assert data.dtype == label.dtype == np.float32
        np.testing.assert_array_equal(data, np.stack([label, -label], 1))


def test_hdf5_shuffles_files_and_rows(hdf5_list):
    source = hdf5(hdf5_list, shuffle=True, batch_size=8)
    passes = [next(source)[1].astype(int).tolist() for _ in range(12)]
    assert all(sorted(rows) == list(range(8)) for rows in passes)
    assert len({tuple(rows) for rows in passes}) > 8
    # A file's rows stay together, and both files come first some time.
    assert all({0, 1, 2} in (set(rows[:3]), set(rows[5:])) for rows in passes)
    assert {set(rows[:3]) == {0, 1, 2} for rows in passes} == {True, False}
    again = hdf5(hdf5_list, shuffle=True, batch_size=8)
    assert [next(again)[1].astype(int).tolist() for _ in range(12)] == passes


def test_hdf5_faults(hdf5_list, tmp_path):
    with pytest.raises(DataError, match=r"a\.h5 has no data set 'lable' \(did you mean 'label'"):
        hdf5(hdf5_list, ["lable"])
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["text"] = np.array([b"x", b"y", b"z"])
        file["short"] = np.zeros(2)
    with pytest.raises(DataError, match=r"a\.h5: 'text' is no array of numbers"):
        hdf5(hdf5_list, ["text"])
    with pytest.raises(DataError, match=r"same number of rows: 'data' has 3, 'short' has 2"):
        hdf5(hdf5_list, ["data", "short"])
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["data"] = np.zeros((2, 3))
    with pytest.raises(DataError, match=r"b\.h5: rows of 'data' are \(3,\), those of .*\(2,\)"):
        next(hdf5(hdf5_list, ["data"]))
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"cannot read HDF5 file .*b\.h5"):
        next(hdf5(hdf5_list))
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DataError, match=r"list\.txt is empty"):
        hdf5(hdf5_list)
    with pytest.raises(DataError, match=r"HDF5 list .*nolist: No such file"):
        hdf5(tmp_path / "nolist")
    with pytest.raises(DataError, match="batch_size is 0"):
        hdf5(hdf5_list, batch_size=0)


# Windows


@pytest.fixture
def windows(tmp_path: Path) -> Path:
    """A window file of two images, 40x50 and 30x30, with three foreground windows."""
    for name, size in (("0.png", (40, 50, 3)), ("1.png", (30, 30, 3))):
        cv2.imwrite(str(tmp_path / name), RNG.integers(1, 256, size, dtype=np.uint8))
    (tmp_path / "windows.txt").write_text(
        "# 0\n0.png\n3\n40\n50\n3\n5 0.9 2 3 30 20\n1 0.2 10 10 20 20\n7 0.5 0 0 49 39\n"
        "# 1\n1.png\n3\n30\n30\n2\n2 0.7 20 2 29 28\n4 0.1 0 0 9 9\n"
    )
    return tmp_path / "windows.txt"


def window_batches(file: Path, transform=None, **fields) -> WindowBatches:
    options = {name: fields.pop(name) for name in ("seed", "workers") if name in fields}
    defaults = {"source": str(file), "root_folder": f"{file.parent}/", "batch_size": 8}
    spec = schema.WindowDataParameter(**{**defaults, **fields})
    parameter = schema.TransformationParameter(**{"crop_size": 12, **(transform or {})})
    return WindowBatches(spec, parameter, **{"seed": 3, **options})


def test_background_comes_first_then_the_foregrounds_share(windows):
    with window_batches(windows, batch_size=9, fg_fraction=0.5) as source:
        labels = np.stack([next(source)[1] for _ in range(30)])
    assert (labels[:, :5] == 0).all()
    assert set(labels[:, 5:].ravel()) == {5, 7, 2}


@pytest.mark.parametrize("cached", [False, True])
def test_a_warped_window_is_cut_and_resized(windows, cached):
    fields = {"mean_value": [10, 20, 30], "scale": 0.5}
    with window_batches(windows, fields, fg_fraction=1, cache_images=cached) as source:
        data, label = next(source)
    assert source.shape == (8, 3, 12, 12)
    boxes = {5: ("0.png", 2, 3, 30, 20), 7: ("0.png", 0, 0, 49, 39), 2: ("1.png", 20, 2, 29, 28)}
    for image, kind in zip(data, label, strict=True):
        name, x1, y1, x2, y2 = boxes[int(kind)]
        cut = cv2.imread(str(windows.parent / name))[y1 : y2 + 1, x1 : x2 + 1]
        pixels = cv2.resize(cut, (12, 12)).astype(np.float32)
        expected = ((pixels - np.float32([10, 20, 30])) * np.float32(0.5)).transpose(2, 0, 1)
        np.testing.assert_array_equal(image, expected)


def test_mirroring_flips_the_warped_window(windows):
    with window_batches(windows, {"mirror": True}, fg_threshold=0.8, fg_fraction=1) as source:
        data, _ = next(source)
    cut = cv2.imread(str(windows.parent / "0.png"))[3:21, 2:31]
    plain = cv2.resize(cut, (12, 12)).transpose(2, 0, 1)
    flipped = [bool((image == plain[..., ::-1]).all()) for image in data]
    assert all(flip or (image == plain).all() for flip, image in zip(flipped, data, strict=True))
    assert {*flipped} == {True, False}


BOX = Window(0, 1, 1.0, 2, 3, 30, 20)


@pytest.mark.parametrize(
    ("frame", "mirror", "expected"),
    [
        (Frame(12), True, Warp(2, 3, 30, 20, 12, 12, 0, 0)),
        # By hand, for x: half 14.5, centre 16.5, grown by 12/8 to -5.25 … 38.25, so -5 … 38, 44
        # wide; 5 columns are blank, 5 * 12/44 rounds to 1 pixel and 39 * 12/44 to 11.
        # For y: half 9, centre 12, -1.5 … 25.5 rounds away from zero to -2 … 26, 29 high: 2 rows
        # blank, 0.83 is 1 pixel, 27 * 12/29 = 11.17 is 11.
        (Frame(12, 2), False, Warp(0, 0, 38, 26, 11, 11, 1, 1)),
        (Frame(12, 2), True, Warp(0, 0, 38, 26, 11, 11, 0, 1)),
        # Square: y takes the half width: 12 ± 14.5 is -2.5 … 26.5, so -3 … 27, 31 high;
        # x is 2 … 31, 30 wide: the original's x2 is one past the box here.
        (Frame(12, 0, True), False, Warp(2, 0, 31, 27, 12, 11, 0, 1)),
    ],
)  # fmt: skip
def test_context_and_square_windows(frame, mirror, expected):
    assert warp(BOX, (40, 50), frame, mirror) == expected


def test_margins_beyond_the_image_are_blank_after_the_mean(windows):
    with window_batches(
        windows, {"mean_value": [5]}, context_pad=2, fg_threshold=0.8, fg_fraction=1
    ) as source:
        data, _ = next(source)
    cut = cv2.imread(str(windows.parent / "0.png"))[:27, :39]
    inner = cv2.resize(cut, (11, 11)).astype(np.float32).transpose(2, 0, 1) - 5
    for image in data:
        np.testing.assert_array_equal(image[:, 1:, 1:], inner)
        assert not image[:, 0].any()
        assert not image[:, :, 0].any()


def test_the_middle_of_a_mean_file_is_subtracted(windows):
    mean = RNG.uniform(0, 200, (3, 20, 16)).astype(np.float32)
    write_mean(windows.parent / "mean", mean)
    settings = {"fg_threshold": 0.8, "fg_fraction": 1}
    with window_batches(windows, {"mean_file": f"{windows.parent}/mean"}, **settings) as source:
        ours, _ = next(source)
    with window_batches(windows, **settings) as source:
        plain, _ = next(source)
    # (16 - 12) / 2 = 2 for columns, and for rows too.
    np.testing.assert_array_equal(ours, plain - mean[:, 2:14, 2:14])


def test_windows_depend_on_the_seed_alone(windows):
    def run(seed, workers):
        options = {"context_pad": 1, "crop_mode": "square", "seed": seed, "workers": workers}
        with window_batches(windows, {"mirror": True}, **options) as source:
            return np.stack([next(source)[0] for _ in range(5)])

    np.testing.assert_array_equal(run(4, 1), run(4, 3))
    assert (run(4, 1) != run(5, 1)).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "windows.txt is empty"),
        ("1 a.png", "near word 1: expected '#', found '1'"),
        ("# 1 a.png 3 4 4 0", "images are counted from 0: expected 0, found 1"),
        ("# 0 a.png 1 4 4 0", "expected 3 channels"),
        ("# 0 a.png 3 4 4 1 1 0.5 1 2 x 4", "expected '# index path"),
        ("# 0 a.png 3 4 4 1 1 0.5", "expected '# index path"),
        ("# 0 a.png 3 4 4 1 0 0.9 0 0 1 1", "has label 0; foreground labels start at 1"),
        ("# 0 a.png 3 4 4 1 1 0.9 0 0 1 1", "has no background window, a batch needs 6"),
    ],
)
def test_window_files_that_make_no_sense(windows, text, message):
    windows.write_text(text)
    with pytest.raises(DataError, match=message):
        window_batches(windows)


@pytest.mark.parametrize(
    ("fields", "transform", "message"),
    [
        ({"batch_size": 0}, {}, "batch_size is 0"),
        ({}, {"crop_size": 0}, "needs crop_size"),
        ({"context_pad": 6}, {}, "context_pad leaves no room"),
        ({"crop_mode": "wrap"}, {}, "unknown crop_mode 'wrap'; known: warp, square"),
        ({}, {"mean_value": [1, 2]}, "2 mean_value; give 1 or 3"),
        ({"source": "nowhere"}, {}, "window file nowhere: No such file"),
    ],
)
def test_window_settings_that_cannot_work(windows, fields, transform, message):
    with pytest.raises(DataError, match=message):
        window_batches(windows, transform, **fields)


def test_a_window_outside_its_image_is_refused(windows):
    windows.write_text(windows.read_text().replace("30 20", "60 20"))
    with (
        window_batches(windows, fg_threshold=0.8, fg_fraction=1) as source,
        pytest.raises(DataError, match=r"window .*60.* of 0\.png lies outside its image of 40x50"),
    ):
        next(source)


# convert_imageset and compute_image_mean


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Folder with a.png, b.JPG (colour) and list.txt with a missing third image."""
    cv2.imwrite(str(tmp_path / "a.png"), IMAGE)
    (tmp_path / "b.JPG").write_bytes(cv2.imencode(".jpg", IMAGE[:, ::-1])[1].tobytes())
    (tmp_path / "list.txt").write_text("a.png 3\nnone.png 1\nb.JPG -1\n")
    return tmp_path


def convert(folder: Path, **options) -> list[tuple[bytes, bytes]]:
    database = folder / "db"
    shutil.rmtree(database, ignore_errors=True)
    done = convert_imageset(f"{folder}/", folder / "list.txt", database, Options(**options))
    assert (done.count, len(done.skipped)) == (2, 1)
    assert "list.txt:2: cannot read image" in done.skipped[0]
    return list(open_database(database, "lmdb").items())


def test_raw_records_are_written_byte_for_byte(images):
    """Fields 1-3 sizes, 4 BGR planes, 5 label, 7 encoded: stated though false."""
    (first, second) = convert(images)
    planes = IMAGE.transpose(2, 0, 1).tobytes()
    assert first == (b"00000000_a.png", b"\x08\x03\x10\x06\x18\x05\x22\x5a" + planes + b"(\x038\0")
    assert second[0] == b"00000002_b.JPG"  # the missing image's number is not used again
    assert second[1].endswith(b"(" + b"\xff" * 9 + b"\x018\0")  # label -1


def test_gray_and_resized_records(images):
    datum = parse_datum(convert(images, gray=True)[0][1])
    read = cv2.imread(str(images / "a.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(datum_planes(datum), read[None])
    datum = parse_datum(convert(images, resize_width=9, resize_height=4)[0][1])
    expected = cv2.resize(IMAGE, (9, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(datum_planes(datum), expected)


def test_encoded_records_hold_the_files_themselves(images):
    """Unless they are resized, or a type is given: Caffe compares '.png' with 'png' then."""
    (_, png), (_, jpg) = convert(images, encoded=True)
    for value, name, label in ((png, "a.png", 3), (jpg, "b.JPG", -1)):
        datum = schema.Datum(data=(images / name).read_bytes(), label=label, encoded=True)
        assert value == datum.SerializeToString()
    _, (_, jpg) = convert(images, encoded=True, resize_width=9, resize_height=4)
    assert datum_planes(parse_datum(jpg)).shape == (3, 4, 9)
    (_, png), (_, jpg) = convert(images, encode_type="png")
    for value in (png, jpg):
        datum = parse_datum(value)
        assert datum.encoded
        assert datum.data.startswith(b"\x89PNG")
        assert not datum.HasField("channels")
    np.testing.assert_array_equal(datum_planes(parse_datum(png)), IMAGE.transpose(2, 0, 1))


def test_shuffled_records_are_numbered_after_shuffling(tmp_path):
    for i in range(8):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((2, 2, 3), i, np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(8)))
    keys = []
    for run in range(2):
        path = tmp_path / f"db{run}"
        options = Options(shuffle=True, seed=4)
        convert_imageset(f"{tmp_path}/", tmp_path / "list.txt", path, options)
        keys.append([key.decode() for key, _ in open_database(path, "lmdb").items()])
    assert keys[0] == keys[1]
    assert [key[:9] for key in keys[0]] == [f"{i:08d}_" for i in range(8)]
    order = [key[9:] for key in keys[0]]
    assert order != sorted(order)
    assert sorted(order) == [f"{i}.png" for i in range(8)]


def test_a_database_grows_beyond_its_first_map(tmp_path):
    big = schema.Datum(data=bytes(1 << 20)).SerializeToString()
    writer = new_database(tmp_path / "db", "lmdb")
    for number in range(40):
        writer.put(f"{number:08d}".encode(), big)
    writer.close()
    assert sum(1 for _ in open_database(tmp_path / "db", "lmdb").items()) == 40


def test_a_leveldb_is_written_with_plyvel_or_refused_by_name(images):
    options = Options(backend="leveldb")
    arguments = (f"{images}/", images / "list.txt", images / "level", options)
    try:
        import plyvel  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match=r"needs the package plyvel: .*--backend lmdb"):
            convert_imageset(*arguments)
        return
    convert_imageset(*arguments)
    assert list(open_database(images / "level", "leveldb").items()) == convert(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize_width": 4}, "resize_width and resize_height go together"),
        ({"check_size": True}, r"list\.txt:3: the image is \(3, 3, 5\), the first one \(3, 6, 5\)"),
        ({"backend": "sqlite"}, "unknown backend 'sqlite'; known: LMDB, LEVELDB"),
        ({"encode_type": "xyz"}, "OpenCV cannot encode images as 'xyz'"),
    ],
)
def test_conversions_that_cannot_work_leave_no_database(images, options, message):
    cv2.imwrite(str(images / "b.JPG"), IMAGE[:3])
    with pytest.raises(DataError, match=message):
        convert_imageset(f"{images}/", images / "list.txt", images / "db", Options(**options))
    assert not (images / "db").exists()


def test_an_existing_database_is_not_touched(images, database):
    with pytest.raises(DataError, match=r"db exists already; remove it or choose another name"):
        convert_imageset(f"{images}/", images / "list.txt", database)
    assert sum(1 for _ in open_database(database, "lmdb").items()) == 7


def test_no_image_at_all_is_an_error(images):
    (images / "list.txt").write_text("none.png 1\n")
    with pytest.raises(DataError, match=r"list\.txt: no image could be read; the first: .*:1: "):
        convert_imageset(f"{images}/", images / "list.txt", images / "db")
    assert not (images / "db").exists()


def test_the_mean_is_a_float32_sum_in_key_order(database, tmp_path):
    total = np.zeros((3, 6, 5), np.float32)
    for planes in PLANES:
        total += planes
    mean = compute_mean(database)
    np.testing.assert_array_equal(mean, total / np.float32(7))
    write_mean(tmp_path / "mean", mean)
    np.testing.assert_array_equal(read_mean(tmp_path / "mean"), mean)


def test_a_mean_needs_records_of_one_size(tmp_path):
    path = write_lmdb(tmp_path / "db", [raw_datum(PLANES[0], 0), raw_datum(PLANES[0, :1], 0)])
    with pytest.raises(DataError, match=r"record '00000001' is \(1, 6, 5\), the first one"):
        compute_mean(path)
    with pytest.raises(DataError, match="none is empty"):
        compute_mean(write_lmdb(tmp_path / "none", []))
