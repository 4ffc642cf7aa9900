"""Whole verifications: sample faces through verify_pairs, the fold table, and missing things."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest

from port.errors import DataError
from port.net import load_net
from port.sample_faces import SampleSet, write_set
from verify import accuracy, embed
from verify.pairs import Pair, parse_pairs, read_pairs
from verify.protocol import Result


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    folder = tmp_path_factory.mktemp("sample") / "faces"
    return write_set(folder, identities=1, samples=1, held_out=20, held_out_samples=4)


def coarse(batch: np.ndarray) -> np.ndarray:
    """Embedding: the picture in blocks of 8x8 pixels."""
    return batch.reshape(len(batch), 3, 14, 8, 12, 8).mean((3, 5)).reshape(len(batch), -1)


def result_of(case: golden.Case) -> accuracy.Verification:
    acc, thresholds = case.arrays["ACC"], case.arrays["threshold"]
    result = Result(np.arange(1, 11), acc, thresholds, np.zeros(0))
    return accuracy.Verification([], result, [], 0.0, 0.0)


@pytest.mark.parametrize("name", ["case_04", "case_06", "case_09", "case_11", "case_13"])
def test_the_fold_table_of_the_original(name: str) -> None:
    case = golden.load("eval", name)
    assert result_of(case).fold_table() == case.meta["printed_text"].lstrip("\n")


def test_each_picture_is_embedded_once(faces: SampleSet) -> None:
    pairs = read_pairs(faces.pairs)
    seen = []

    def forward(batch: np.ndarray) -> np.ndarray:
        seen.append(len(batch))
        return coarse(batch)

    found = accuracy.verify_pairs(pairs, faces.held_out, forward, flip="none")
    assert sum(seen) == len(found.images) == len({p.left for p in pairs} | {p.right for p in pairs})
    assert 0.5 < found.result.mean < 1.0
    assert found.area_under_curve > 0.5
    assert found.variants == ("flip none",)


def test_scores_belong_to_their_pairs(faces: SampleSet) -> None:
    pairs = read_pairs(faces.pairs)
    found = accuracy.verify_pairs(pairs, faces.held_out, coarse, subtract_mean=False)
    for index in (0, 7, len(pairs) - 1):
        paths = [faces.held_out / pairs[index].left, faces.held_out / pairs[index].right]
        left, right = embed.embed(paths, coarse).astype(float)
        cosine = left @ right / np.linalg.norm(left) / np.linalg.norm(right)
        assert found.result.scores[index] == pytest.approx(cosine, abs=1e-9)
    assert found.variants == ("no mean subtraction",)


def test_order_of_images_does_not_matter(faces: SampleSet) -> None:
    pairs = read_pairs(faces.pairs)
    net = load_net(
        'input: "data" input_dim: 1 input_dim: 3 input_dim: 112 input_dim: 96 layer { name: "pool" '
        'type: "Pooling" bottom: "data" top: "pool" pooling_param '
        "{ pool: AVE kernel_size: 8 stride: 8 } }"
    )
    ours = accuracy.verify_pairs(pairs, faces.held_out, embed.net_forward(net), batch_size=7)
    plain = accuracy.verify_pairs(pairs, faces.held_out, coarse)
    assert np.allclose(ours.result.scores, plain.result.scores, atol=1e-5)
    assert ours.variants == ()


def test_a_pooled_threshold_is_labelled_and_takes_one_fold(faces: SampleSet) -> None:
    pairs = [Pair(p.left, p.right, p.same, 1, p.line) for p in read_pairs(faces.pairs)]
    with pytest.raises(DataError, match="at least 2 are needed"):
        accuracy.verify_pairs(pairs, faces.held_out, coarse)
    found = accuracy.verify_pairs(pairs, faces.held_out, coarse, pooled_threshold=True)
    assert found.variants == ("pooled threshold",)


def test_other_suffixes_are_found_and_missing_images_named(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A_0001.png").touch()
    (tmp_path / "A" / "A_0002.jpg").touch()
    pairs = parse_pairs("1\t1\nA\t1\t2\nA\t1\tB\t3\n")
    assert accuracy.find_images(pairs[:1], tmp_path) == {
        "A/A_0001.jpg": tmp_path / "A" / "A_0001.png",
        "A/A_0002.jpg": tmp_path / "A" / "A_0002.jpg",
    }
    with pytest.raises(DataError, match=r"pairs list, line 3: no image .*B_0003\.jpg"):
        accuracy.find_images(pairs, tmp_path)


def test_embeddings_that_do_not_fit() -> None:
    pairs = parse_pairs("2\t1\nA\t1\t2\nA\t1\tB\t3\nC\t1\t2\nC\t1\tD\t3\n")
    names = sorted({name for pair in pairs for name in (pair.left, pair.right)})
    good = {name: np.arange(3) + k + 1.0 for k, name in enumerate(names)}
    for wrong, message in (
        (np.ones(4), r"line 3: the embedding of B/B_0003.jpg has shape \(4,\), those before"),
        (np.array([1, np.nan, 0]), "B/B_0003.jpg: its embedding holds NaN or infinity"),
        (np.zeros(3), "B/B_0003.jpg: its embedding holds nothing but zeros"),
    ):
        with pytest.raises(DataError, match=message):
            accuracy.verify_embeddings(pairs, good | {"B/B_0003.jpg": wrong})
    del good["D/D_0003.jpg"]
    with pytest.raises(DataError, match=r"line 5: no embedding of D/D_0003\.jpg"):
        accuracy.verify_embeddings(pairs, good)


@pytest.mark.parametrize(
    ("mean", "meets"), [(0.992, True), (0.994, True), (0.9919, False), (0.9941, False)]
)
def test_expectation_and_tolerance(mean: float, meets: bool) -> None:
    result = Result(np.arange(1), np.array([mean]), np.zeros(1), np.zeros(0))
    found = accuracy.Verification([], result, [], 0.0, 0.0, expected=(99.30, 0.10))
    assert found.passed is meets
    assert ("PASS" in found.summary()) is meets
    assert accuracy.Verification([], result, [], 0.0, 0.0).passed is None
