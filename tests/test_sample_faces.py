"""The seeded renderer of sample faces and the sets it writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from port.errors import DataError
from port.sample_faces import TEMPLATE, render, write_set
from verify.pairs import read_pairs


def test_a_face_is_a_function_of_its_arguments() -> None:
    image, landmarks = render(3, 1, seed=5)
    again, again_landmarks = render(3, 1, seed=5)
    assert image.shape == (112, 96, 3)
    assert image.dtype == np.uint8
    assert landmarks.shape == (5, 2)
    assert np.array_equal(image, again)
    assert np.array_equal(landmarks, again_landmarks)
    for other in (render(4, 1, seed=5), render(3, 2, seed=5), render(3, 1, seed=6)):
        assert not np.array_equal(image, other[0])


def test_landmarks_lie_as_alignment_leaves_them() -> None:
    landmarks = np.stack([render(identity, 0)[1] for identity in range(60)])
    # A similarity cannot undo pose and build of the head: a few pixels remain, on the nose most.
    assert np.abs(landmarks.mean(0) - TEMPLATE).max() < 2
    assert np.abs(landmarks - TEMPLATE).max() < 12
    # The least-squares fit keeps the middle of the five points, but for the detector's jitter.
    assert np.abs(landmarks.mean(1) - TEMPLATE.mean(0)).max() < 2


def test_eyes_and_mouth_are_drawn_where_the_landmarks_say() -> None:
    patches = np.zeros((5, 17, 17))
    for identity in range(80):
        image, landmarks = render(identity, 3)
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)
        centres = landmarks.astype(np.float32).tolist()
        patches += [cv2.getRectSubPix(grey, (17, 17), centre) for centre in centres]
    for patch in patches[:2]:  # the mean eye is darkest at its pupil
        middle = np.unravel_index(cv2.GaussianBlur(patch, (0, 0), 1.0).argmin(), patch.shape)
        assert np.hypot(middle[0] - 8, middle[1] - 8) <= 2
    for patch, inner in ((patches[3], slice(9, 14)), (patches[4], slice(3, 8))):
        rows = patch[:, inner].mean(1)  # the lips' line is darker than the skin around it
        assert abs(int(rows.argmin()) - 8) <= 2


def test_other_sizes_scale_the_picture() -> None:
    small, landmarks = render(3, 1)
    large, large_landmarks = render(3, 1, size=(224, 192))
    assert large.shape == (224, 192, 3)
    assert np.allclose(large_landmarks, 2 * landmarks)
    shrunk = cv2.resize(large, (96, 112), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.95


def test_pictures_of_one_person_are_alike_in_spite_of_pose_and_light() -> None:
    faces = np.stack([[render(i, s)[0] for s in range(6)] for i in range(12)]).astype(float)
    grey = faces[:, :, 20:, 10:86].mean(-1).reshape(12, 6, -1)
    grey -= grey.mean(-1, keepdims=True)
    grey /= np.linalg.norm(grey, axis=-1, keepdims=True)
    cosine = np.einsum("ijk,mnk->imjn", grey, grey)
    own = np.mean([cosine[i, i][~np.eye(6, dtype=bool)].mean() for i in range(12)])
    other = np.mean([cosine[i, j].mean() for i in range(12) for j in range(12) if i != j])
    assert own > other + 0.05


def test_a_set_on_disk(tmp_path: Path) -> None:
    made = write_set(tmp_path / "faces", identities=3, samples=2, held_out=20, held_out_samples=2)
    lines = made.train_list.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "train/identity_0001/identity_0001_0001.jpg 0"
    assert [line.rsplit(" ", 1)[1] for line in lines] == list("001122")
    paths = [made.folder / line.rsplit(" ", 1)[0] for line in lines]
    paths += sorted(made.held_out.rglob("*.jpg"))
    assert len(paths) == made.images == 46
    stored, drawn = cv2.imread(str(paths[0])).astype(float), render(0, 0)[0]
    assert np.abs(stored - drawn).mean() < 6  # what JPEG at quality 95 costs on grain
    assert [entry.name for entry in tmp_path.iterdir()] == ["faces"]


def test_pairs_of_a_set_are_balanced_and_folds_share_nobody(tmp_path: Path) -> None:
    made = write_set(tmp_path / "faces", identities=1, samples=1, held_out=30, held_out_samples=4)
    pairs = read_pairs(made.pairs)
    people: dict[int, set[str]] = {fold: set() for fold in range(1, 11)}
    for pair in pairs:
        people[pair.fold] |= {Path(pair.left).parent.name, Path(pair.right).parent.name}
        assert (made.held_out / pair.left).is_file()
        assert (made.held_out / pair.right).is_file()
        assert pair.same == (Path(pair.left).parent == Path(pair.right).parent)
        assert pair.left != pair.right
    assert len(set().union(*people.values())) == sum(map(len, people.values())) == 30
    assert "identity_0001" not in set().union(*people.values())
    for fold in range(1, 11):
        flags = [pair.same for pair in pairs if pair.fold == fold]
        assert len(flags) == 2 * sum(flags) == 36


def test_a_set_is_not_written_twice_and_never_over_something_else(tmp_path: Path) -> None:
    size = {"identities": 1, "samples": 1, "held_out": 20, "held_out_samples": 2}
    made = write_set(tmp_path / "faces", **size)
    before = made.pairs.stat().st_mtime_ns
    assert write_set(tmp_path / "faces", **size) == made
    assert made.pairs.stat().st_mtime_ns == before
    with pytest.raises(DataError, match="holds something other than the sample faces asked for"):
        write_set(tmp_path / "faces", **(size | {"seed": 1}))


def test_sets_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"at least 20 held-out people .* found 10 and 8"):
        write_set(tmp_path / "faces", identities=1, samples=1, held_out=10)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the sample faces"):
        write_set(tmp_path / "file" / "faces", identities=1, samples=1, held_out=20)
