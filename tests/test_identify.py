"""``port identify``: tracks, galleries, and videos from end to end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from command_line import port
from hostile_images import encoded
from photographs import face

from port.commands.identify import GREY, TOGETHER, person_colours
from port.errors import DataError
from port.preprocess.mtcnn import Detector
from port.preprocess.tracks import Tracker, intersection_over_union
from port.preprocess.video import Label, Source, annotate
from verify.embed import net_forward, net_shape
from verify.gallery import Embed, Gallery, embedder, read_gallery

ROOT = Path(__file__).resolve().parents[1]
NET = ROOT / "reference_prototxt" / "sphereface_4_deploy.prototxt"
QUICK = ("--min-size", 40, "--factor", 0.7)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other make small nets slow on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- tracks ------------------------------------------------------------------------------------


def box(x: float, y: float = 0, side: float = 10) -> list[float]:
    return [x, y, x + side, y + side, 0.99]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 5)


def test_overlap_by_hand() -> None:
    found = intersection_over_union(boxes(box(0), box(5)), boxes(box(0), box(20), box(0, 0, 0)))
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 0, 0]], atol=1e-12)


def test_a_track_follows_its_face_whatever_the_order() -> None:
    tracker = Tracker()
    assert tracker(0, boxes(box(0), box(100))) == [0, 1]
    assert tracker(1, boxes(box(102), box(2), box(50))) == [1, 0, 2]
    assert tracker(2, boxes(box(4))) == [0]


def test_one_track_goes_to_the_better_of_two_boxes() -> None:
    tracker = Tracker()
    tracker(0, boxes(box(0)))
    assert tracker(1, boxes(box(4), box(1))) == [1, 0]


def test_a_track_outlives_a_gap_but_not_a_long_one() -> None:
    tracker = Tracker(patience=3)
    assert tracker(0, boxes(box(0))) == [0]
    for frame in (1, 2, 3):
        assert tracker(frame, boxes()) == []
    assert tracker(4, boxes(box(1))) == [0]
    assert tracker(9, boxes(box(1))) == [1]


# -- gallery -----------------------------------------------------------------------------------


def test_score_is_the_best_pictures() -> None:
    pictures = np.array([[1, 0], [0.6, 0.8], [0, 1]])
    gallery = Gallery(pictures, [0, 1, 0], ["a", "b"], [])
    np.testing.assert_allclose(gallery.scores(np.array([[0, 1.0]])), [[1.0, 0.8]])


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of an untrained net: the same face has cosine 1, another picture less."""
    import torch

    import port as package
    from port.caffemodel import write_caffemodel

    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("net") / "untrained.caffemodel"
    write_caffemodel(package.load_net(NET), path)
    return path


def embed_with(weights: Path) -> Embed:
    import port as package

    net = package.load_net(NET, weights)
    return embedder(net_forward(net), net_shape(net))


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (112, 96, 3), np.uint8)


def write_gallery(folder: Path) -> Path:
    """The astronaut by two photographs, and an aligned "face" of noise."""
    (folder / "Eileen").mkdir(parents=True)
    for i in (0, 1):
        (folder / "Eileen" / f"{i}.png").write_bytes(encoded(".png", face(i)[..., ::-1]))
    (folder / "Noise.png").write_bytes(encoded(".png", noise(0)))
    return folder


def test_gallery_of_folders_and_single_pictures(
    detector: Detector, weights: Path, tmp_path: Path
) -> None:
    folder = write_gallery(tmp_path / "people")
    (folder / "Eileen" / "2.png").write_bytes(encoded(".png", np.zeros((90, 90, 3), np.uint8)))
    gallery = read_gallery(folder, detector, embed_with(weights))
    assert gallery.people == ["Eileen", "Noise"]
    assert gallery.owners == [0, 0, 1]
    assert gallery.unused == ["Eileen/2.png"]
    np.testing.assert_allclose(np.linalg.norm(gallery.embeddings, axis=1), 1)
    own = gallery.scores(gallery.embeddings)
    assert own.argmax(1).tolist() == gallery.owners
    np.testing.assert_allclose(own.max(1), 1)


def test_embedding_holds_the_mirror_image(weights: Path) -> None:
    one, two = embed_with(weights)([noise(1), noise(1)[:, ::-1]])
    # Both halves change places; single precision sums over differently batched images.
    np.testing.assert_allclose(one, np.roll(two, len(two) // 2), atol=1e-6)


def test_person_without_a_face_is_an_error(
    detector: Detector, weights: Path, tmp_path: Path
) -> None:
    folder = write_gallery(tmp_path / "people")
    (folder / "Nobody.png").write_bytes(encoded(".png", np.zeros((90, 90, 3), np.uint8)))
    with pytest.raises(DataError, match="no face found in any picture of Nobody; give another"):
        read_gallery(folder, detector, embed_with(weights))


# -- drawing -----------------------------------------------------------------------------------


def test_colours_are_all_different_and_none_is_the_outliers() -> None:
    colours = person_colours([str(i) for i in range(12)])
    assert len({*colours.values(), GREY}) == 13


@pytest.mark.parametrize("place", [(1, 1, 40, 40), (150, 60, 220, 110), (-20, -20, 300, 300)])
def test_labels_stay_in_the_frame(place: Sequence[float]) -> None:
    frame = np.zeros((120, 200, 3), np.uint8)
    annotate(frame, [Label(place, "Zoë 0.73", (10, 200, 30))])
    drawn = (frame == (10, 200, 30)).all(2)
    assert drawn.any()
    if place[0] > 0:
        assert drawn[int(place[1]) + 12 : int(place[3]) - 2, int(place[0]) - 1].all()
    assert drawn[:, :60].any() == (place[0] < 60)


# -- the command -------------------------------------------------------------------------------


def write_video(path: Path, frames: Iterator[np.ndarray], rate: float = 10) -> Path:
    writer = None
    for frame in frames:
        if writer is None:
            code = cv2.VideoWriter.fourcc(*"mp4v")
            writer = cv2.VideoWriter(str(path), code, rate, frame.shape[1::-1])
            assert writer.isOpened()
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    assert writer is not None
    writer.release()
    return path


def wandering(count: int) -> Iterator[np.ndarray]:
    """The astronaut's head on a grey wall, a little further in each frame; gone in the third."""
    for i in range(count):
        frame = np.full((160, 240, 3), 120, np.uint8)
        if i != 2:
            frame[20 + i : 130 + i, 30 + 3 * i : 130 + 3 * i] = face(0)
        yield frame


def records(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Lines of faces, lines of tracks."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [r for r in lines if "frame" in r], [r for r in lines if "first" in r]


def frames_of(path: Path) -> list[np.ndarray]:
    source = Source(str(path))
    try:
        return list(source)
    finally:
        source.close()


@pytest.fixture(scope="module")
def scene(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scene")
    write_gallery(folder / "people")
    write_video(folder / "in.mp4", wandering(10))
    shutil.copy(weights, folder / "net.caffemodel")
    return folder


ARGUMENTS = ("--gallery", "people", "--net", NET, "--weights", "net.caffemodel", *QUICK)


def test_video_from_end_to_end(scene: Path) -> None:
    run = port("identify", "in.mp4", *ARGUMENTS, "-o", "a/out.mp4", cwd=scene)
    assert "10 frames, 9 faces in 1 tracks" in run.stdout
    assert "Eileen: 9 faces in 1 tracks" in run.stdout
    faces, tracks = records(scene / "a" / "out.jsonl")
    assert [record["frame"] for record in faces] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    assert faces[3]["time"] == pytest.approx(0.4)
    assert {record["name"] for record in faces} == {"Eileen"}
    steps = np.diff([record["box"][0] for record in faces])
    assert steps.mean() == pytest.approx(27 / 8, abs=1)
    (track,) = tracks
    assert (track["track"], track["first"], track["last"], track["faces"]) == (0, 0, 9, 9)
    mean = np.mean([record["similarity"] for record in faces])
    assert (track["name"], track["similarity"]) == ("Eileen", pytest.approx(mean, abs=1e-4))
    before, after = frames_of(scene / "in.mp4"), frames_of(scene / "a" / "out.mp4")
    assert len(after) == 10
    assert after[0].shape == before[0].shape
    changed = [np.abs(a.astype(int) - b).max() > 100 for a, b in zip(before, after, strict=True)]
    assert changed == [i != 2 for i in range(10)]


def test_below_the_threshold_is_an_outlier(scene: Path) -> None:
    arguments = (*ARGUMENTS, "--threshold", 1, "-o", "b.mp4")
    run = port("identify", "in.mp4", *arguments, cwd=scene)
    assert "outliers: 9 faces" in run.stdout
    faces, tracks = records(scene / "b.jsonl")
    assert {(record["name"], record["nearest"]) for record in faces} == {(None, "Eileen")}
    assert tracks[0]["name"] is None


def test_default_name_of_the_results(scene: Path) -> None:
    port("identify", "in.mp4", *ARGUMENTS, cwd=scene)
    assert {path.name for path in scene.glob("in_*")} == {
        "in_identified.mp4", "in_identified.jsonl"
    }  # fmt: skip


def test_ctrl_c_finishes_the_files(scene: Path) -> None:
    long = write_video(scene / "long.mp4", (frame for _ in range(60) for frame in wandering(10)))
    command = [sys.executable, "-m", "port", "identify", str(long), *map(str, ARGUMENTS)]
    process = subprocess.Popen(
        [*command, "-o", "c.mp4"], cwd=scene, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not ((scene / "c.jsonl").exists() and (scene / "c.jsonl").stat().st_size):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    done = int(re.search(r"stopped after (\d+) frames; what was done is kept", said)[1])
    faces, tracks = records(scene / "c.jsonl")
    assert 0 < done < 600
    assert done % TOGETHER == 0
    assert len(frames_of(scene / "c.mp4")) == done
    assert 0 < len(faces) == sum(track["faces"] for track in tracks)


@pytest.mark.data("lfw-raw", "mobilefacenet")
def test_real_people(shared: Path, tmp_path: Path) -> None:
    def photo(name: str, number: int) -> Path:
        return shared / "lfw-raw" / name / f"{name}_{number:04}.jpg"

    def film() -> Iterator[np.ndarray]:
        shown = [photo("Tony_Blair", 2), photo("Colin_Powell", 5), photo("Hugo_Chavez", 4)]
        pictures = [cv2.imread(str(path))[..., ::-1] for path in shown]
        for i in range(8):
            frame = np.full((270, 820, 3), 90, np.uint8)
            for place, picture in enumerate(pictures):
                frame[i : 250 + i, 260 * place + i : 260 * place + i + 250] = picture
            yield frame

    people = tmp_path / "people"
    (people / "Tony_Blair").mkdir(parents=True)
    for number in (1, 3):
        shutil.copy(photo("Tony_Blair", number), people / "Tony_Blair")
    shutil.copy(photo("Colin_Powell", 2), people / "Colin_Powell.jpg")
    write_video(tmp_path / "in.mp4", film())
    net = shared / "mobilefacenet" / "mobilefacenet_deploy.prototxt"
    weights = net.parent / "mobilefacenet.caffemodel"
    arguments = ("--gallery", people, "--net", net, "--weights", weights)
    run = port("identify", tmp_path / "in.mp4", *arguments, *QUICK, cwd=tmp_path)
    assert "8 frames, 24 faces in 3 tracks" in run.stdout
    faces, tracks = records(tmp_path / "in_identified.jsonl")
    left_to_right = sorted(faces[:3], key=lambda record: record["box"][0])
    assert [r["name"] for r in left_to_right] == ["Tony_Blair", "Colin_Powell", None]
    assert sorted(str(track["name"]) for track in tracks) == ["Colin_Powell", "None", "Tony_Blair"]


FAILED = {
    "no video": (("gone.mp4",), r"gone.mp4: no such file; name a video, or a camera"),
    "no camera": (("77",), r"77: no such camera"),
    "not a video": (("people/../net.caffemodel",), r"not a video that OpenCV can read"),
    "empty gallery": (("in.mp4", "--gallery", "empty"), r"empty: no image in it"),
    "other weights": (("in.mp4", "--weights", "in.mp4"), r"in\.mp4"),
    "no such blob": (("in.mp4", "--blob", "fc9"), r"fc9"),
    "out is no video": (("in.mp4", "-o", "x.txt"), r"x.txt: cannot write a video there"),
}


@pytest.mark.parametrize("case", FAILED)
def test_failed_job_is_one_line_and_exit_code_1(case: str, scene: Path) -> None:
    (scene / "empty").mkdir(exist_ok=True)
    (video, *more), message = FAILED[case]
    run = port("identify", video, *ARGUMENTS, *more, cwd=scene, code=1)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last), last


def test_the_video_itself_is_never_written_over(scene: Path) -> None:
    run = port("identify", "in.mp4", *ARGUMENTS, "-o", "./in.mp4", cwd=scene, code=2)
    assert "in.mp4 is the video itself" in run.stderr
    run = port("identify", "in.mp4", "--gallery", "people", "--net", NET, cwd=scene, code=2)
    assert "--net and --weights come together" in run.stderr
