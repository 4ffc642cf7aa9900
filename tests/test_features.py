"""Features on disk: each format reads back, and is laid out as others expect it."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
from scipy.io import loadmat

from port import schema
from port.errors import DataError
from verify import features, quality
from verify.pairs import parse_pairs

FILES = ["root/A/A_0001.jpg", "root/A/A_0002.jpg", "root/B/B_0003 ü.jpg"]
ROWS = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5", ".hdf5", ".lmdb"])
def test_features_read_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    for rows in (ROWS[::-1], ROWS):  # the second replaces the first
        features.write_features(path, rows, FILES)
    named = suffix not in (".npy", ".lmdb")
    found = features.read_features(path, None if named else FILES)
    assert list(found) == FILES
    assert np.array_equal(np.stack(list(found.values())), ROWS)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_layouts_that_others_read(tmp_path: Path) -> None:
    for suffix in (".npy", ".mat", ".h5", ".lmdb"):
        features.write_features(tmp_path / f"f{suffix}", ROWS, FILES)
    assert np.array_equal(np.load(tmp_path / "f.npy"), ROWS)
    assert np.array_equal(loadmat(tmp_path / "f.mat")["features"], ROWS.T)
    with h5py.File(tmp_path / "f.h5") as stream:
        assert np.array_equal(stream["features"], ROWS)
    with lmdb.open(str(tmp_path / "f.lmdb"), readonly=True) as store, store.begin() as reader:
        keys = [key for key, _ in reader.cursor()]
        datum = schema.Datum.FromString(reader.get(b"0000000001"))
    assert keys == [b"0000000000", b"0000000001", b"0000000002"]
    assert (datum.channels, datum.height, datum.width, datum.data) == (5, 1, 1, b"")
    assert np.array_equal(np.array(datum.float_data, np.float32), ROWS[1])


PAIRS = parse_pairs("2\t1\nA\t1\t2\nA\t2\tB\t3\n")


def test_the_originals_pairs_mat(tmp_path: Path) -> None:
    names = ["A/A_0001.jpg", "A/A_0002.jpg", "B/B_0003.jpg"]
    by_name = dict(zip(names, ROWS, strict=True))
    path = tmp_path / "pairs.mat"
    features.write_pairs_mat(path, PAIRS, by_name)
    stored = loadmat(path)["pairs"]
    assert stored.shape == (1, 2)
    assert stored.dtype.names == ("fileL", "fileR", "fold", "flag", "featureL", "featureR")
    assert stored[0, 1]["flag"].item() == -1
    assert stored[0, 1]["featureR"].shape == (5, 1)
    found = features.for_pairs(features.read_features(path), PAIRS)
    assert sorted(found) == names
    for name in names:
        assert np.array_equal(found[name], by_name[name])


def test_features_are_matched_to_pairs_by_the_files_name() -> None:
    stored = {"x\\A_0001.png": ROWS[0], "/y/A_0002": ROWS[1], "B/B_0003.jpg": ROWS[2]}
    found = features.for_pairs(stored, PAIRS)
    assert np.array_equal(found["A/A_0001.jpg"], ROWS[0])
    assert np.array_equal(found["A/A_0002.jpg"], ROWS[1])
    with pytest.raises(DataError, match=r"line 3: no features of B/B_0003\.jpg"):
        features.for_pairs({key: stored[key] for key in list(stored)[:2]}, PAIRS)
    with pytest.raises(DataError, match=r"features of both a/A_0001\.jpg and b/A_0001\.png"):
        features.for_pairs({"a/A_0001.jpg": ROWS[0], "b/A_0001.png": ROWS[1]}, PAIRS)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected one of .* \(did you mean '\.hdf5'\?\)"):
        features.write_features(tmp_path / "f.hdf", ROWS, FILES)
    with pytest.raises(DataError, match=r"features of shape \(3, 5\) for 2 files"):
        features.write_features(tmp_path / "f.npy", ROWS, FILES[:2])
    with pytest.raises(DataError, match="cannot write it"):
        features.write_features(tmp_path / "none" / "f.npy", ROWS, FILES)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_read(tmp_path: Path) -> None:
    features.write_features(tmp_path / "f.npy", ROWS, FILES)
    with pytest.raises(DataError, match="stores no names of files; give the list"):
        features.read_features(tmp_path / "f.npy")
    with pytest.raises(DataError, match=r"features of shape \(3, 5\) for 2 files"):
        features.read_features(tmp_path / "f.npy", FILES[:2])
    for suffix in (".npy", ".npz", ".mat", ".h5", ".lmdb"):
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(b"not features")
        with pytest.raises(DataError, match=f"damaged.{suffix[1:]}: cannot read features from it"):
            features.read_features(path)
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot read features from it"):
        features.read_features(tmp_path / "objects.npy", FILES)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat", ".h5", ".hdf5", ".lmdb"])
def test_features_stream_in_blocks(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"features{suffix}"
    features.write_features(path, ROWS, FILES)
    blocks = list(features.stream_features(path, 2))
    assert [len(block) for block in blocks] == [2, 1]
    assert np.array_equal(np.concatenate(blocks), ROWS)


def test_a_stream_of_distractors_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "distractors.npy"
    rng = np.random.default_rng(0)
    np.save(path, rng.standard_normal((40_000, 128), dtype=np.float32))
    probes = rng.standard_normal((40, 128))
    tracemalloc.start()
    blocks = features.stream_features(path, quality.BLOCK)
    (found,) = quality.rank1_with_distractors(probes, np.arange(40) // 2, blocks, (40_000,))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.distractors == 40_000
    # The file has 20 MB; some blocks of 1024 x 128 doubles (1 MB each) and their cosines.
    assert peak < 6e6


def test_streams_of_damaged_files(tmp_path: Path) -> None:
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"cut\.npy: cannot read features from it"):
        list(features.stream_features(tmp_path / "cut.npy", 2))
    with lmdb.open(str(tmp_path / "ragged.lmdb")) as store, store.begin(write=True) as writer:
        for key, size in ((b"0000000000", 3), (b"0000000001", 2)):
            datum = schema.Datum(channels=size, height=1, width=1, float_data=[1.0] * size)
            writer.put(key, datum.SerializeToString())
    with pytest.raises(DataError, match="0000000001 has 2 features, 0000000000 has 3"):
        list(features.stream_features(tmp_path / "ragged.lmdb", 2))
