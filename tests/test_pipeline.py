"""Folders of photographs to aligned faces: order, interruption, hostile files, crops, report."""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest
from hostile_images import KINDS, encoded, write_hostile
from photographs import face, with_orientation, write_photographs

from port.errors import DataError
from port.preprocess import manifest, pipeline
from port.preprocess.align import align_face
from port.preprocess.boxes import Settings
from port.preprocess.images import find_images, read_image
from port.preprocess.job import CHUNK, Job
from port.preprocess.pipeline import Progress, prepare, run

ROOT = Path(__file__).parents[1]
RUN = """
import sys
from pathlib import Path
from port.preprocess.job import Job
from port.preprocess.pipeline import run
if __name__ == "__main__":
    run(Job(Path(sys.argv[1]), Path(sys.argv[2])), workers=int(sys.argv[3]))
"""
POINTS = [[103.2, 101.2], [150, 100], [128, 130], [108, 150], [148, 149]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("set") / "photos")


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an uninterrupted run in this process."""
    out = tmp_path_factory.mktemp("whole")
    summary = run(Job(photos, out), workers=1)
    assert summary.counts == {"ok": 36, "no face": 2, "unreadable": 2}
    return out


def assert_same_results(ours: Path, theirs: Path) -> None:
    ours_files, theirs_files = (
        sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
        for out in (ours, theirs)
    )
    assert ours_files == theirs_files
    _, different, _ = filecmp.cmpfiles(ours, theirs, ours_files, shallow=False)
    assert different == []


# -- results -----------------------------------------------------------------------------------


def test_manifest_in_the_order_of_the_files(photos: Path, whole: Path) -> None:
    records = manifest.read_manifest(whole / "manifest.jsonl")
    assert [record["file"] for record in records] == find_images(photos)
    by_file = {record["file"]: record for record in records}
    assert by_file["id1/005.png"] == {
        "file": "id1/005.png",
        "status": "unreadable",
        "reason": "the file is cut off before its end marker",
    }
    assert by_file["id2/006.png"] == {"file": "id2/006.png", "status": "no face"}
    good = by_file["id0/000.png"]
    assert (good["faces"], good["crop"]) == (1, "crops/id0/000.jpg")
    assert good["score"] > 0.9
    assert np.array(good["box"]).shape == (4,)
    assert np.array(good["points"]).shape == (5, 2)


def test_crop_follows_from_the_manifest(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(photos / "id0" / "000.png", tmp_path / "in")
    run(Job(tmp_path / "in", tmp_path / "out", encoding="png"), workers=1)
    record = manifest.read_manifest(tmp_path / "out" / "manifest.jsonl")[0]
    crop = cv2.imread(str(tmp_path / "out" / record["crop"]))[..., ::-1]
    image = read_image(photos / "id0" / "000.png")
    np.testing.assert_array_equal(crop, align_face(image, record["points"]))


def test_aligning_a_manifests_points_gives_the_same_crops(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    summary = run(Job(photos, tmp_path, landmarks=whole / "manifest.jsonl"), workers=1)
    assert summary.counts == {"ok": 36, "no landmarks": 4}
    crops = [str(p.relative_to(whole)) for p in whole.glob("crops/*/*")]
    same, *_ = filecmp.cmpfiles(whole, tmp_path, crops, shallow=False)
    assert len(same) == 36


def test_detection_alone_writes_no_crop(photos: Path, tmp_path: Path) -> None:
    summary = run(Job(photos / "id0", tmp_path, crops=False), workers=1)
    assert summary.crops is None
    assert {p.name for p in tmp_path.iterdir()} == {"manifest.jsonl", "settings.json"}


def one_image(tmp_path: Path, name: str = "a/1.png") -> Path:
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(".png", golden.load("align", "case_09").arrays["img"][..., ::-1]))
    points = "\t".join(str(v) for point in POINTS for v in point)
    with open(tmp_path / "points.txt", "a") as out:
        out.write(f"{name}\t{points}\n")
    return tmp_path / "in"


@pytest.mark.parametrize(
    ("encoding", "largest_mean"), [("png", 0.0), ("jpg", 2.0), ("matlab", 5.0)]
)
def test_encodings_cost_what_they_say(encoding: str, largest_mean: float, tmp_path: Path) -> None:
    images = one_image(tmp_path)
    job = Job(images, tmp_path, landmarks=tmp_path / "points.txt", encoding=encoding)
    run(job, workers=1)
    stored = next((tmp_path / "crops").rglob("1.*"))
    exact = align_face(read_image(images / "a" / "1.png"), POINTS)
    loss = np.abs(cv2.imread(str(stored))[..., ::-1].astype(float) - exact).mean()
    assert largest_mean / 3 <= loss <= largest_mean
    assert stored.suffix == (".png" if encoding == "png" else ".jpg")


def test_files_that_differ_only_in_suffix_keep_both_crops(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/1.bmp", "a/2.png"):
        images = one_image(tmp_path, name)
    run(Job(images, tmp_path, landmarks=tmp_path / "points.txt"), workers=1)
    crops = sorted(p.name for p in (tmp_path / "crops" / "a").iterdir())
    assert crops == ["1.bmp.jpg", "1.png.jpg", "2.jpg"]


def test_bad_landmarks_are_reported(tmp_path: Path) -> None:
    images = one_image(tmp_path)
    (tmp_path / "points.txt").write_text("a/1.png" + "\t7" * 10)
    summary = run(Job(images, tmp_path, landmarks=tmp_path / "points.txt"), workers=1)
    assert summary.counts == {"bad landmarks": 1}
    record = manifest.read_manifest(summary.manifest)[0]
    assert "on one spot" in record["reason"]


# -- images ------------------------------------------------------------------------------------


def test_exif_orientation(tmp_path: Path) -> None:
    path = tmp_path / "1.jpg"
    plain = encoded(".jpg", face(0)[..., ::-1])
    path.write_bytes(plain)
    upright = read_image(path)
    path.write_bytes(with_orientation(plain, 6))
    np.testing.assert_array_equal(read_image(path), np.rot90(upright, -1))
    np.testing.assert_array_equal(read_image(path, as_stored=True), upright)


def test_a_cut_off_jpeg_with_a_whole_thumbnail(tmp_path: Path) -> None:
    thumbnail = encoded(".jpg", face(0)[:20, :20])
    photo = encoded(".jpg", face(1))
    block = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "1.jpg"
    path.write_bytes(photo[:2] + block + photo[2:])
    assert read_image(path).shape == face(1).shape
    path.write_bytes((photo[:2] + block + photo[2:])[:-500])
    with pytest.raises(DataError, match="cut off before its end marker"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".ppm"])
def test_colours_come_red_first(suffix: str, tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 200
    (tmp_path / "1").write_bytes(encoded(suffix, image[..., ::-1]))
    assert np.abs(read_image(tmp_path / "1").astype(int) - image).max() < 4


def test_grey_images_repeat_the_channel(tmp_path: Path) -> None:
    grey = face(0)[..., 0]
    (tmp_path / "1.pgm").write_bytes(encoded(".pgm", grey))
    np.testing.assert_array_equal(read_image(tmp_path / "1.pgm"), np.dstack([grey] * 3))


def test_finds_images_in_bytewise_order(tmp_path: Path) -> None:
    names = ["B/1.jpg", "a/10.PNG", "a/9.bmp", "a/x y.jpeg", "a-b/1.pgm", "top.jpg"]
    for name in [*names, "a/.hidden.jpg", "a/notes.txt"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [
        "B/1.jpg", "a/10.PNG", "a/9.bmp", "a/x y.jpeg", "a-b/1.pgm", "top.jpg"
    ]  # fmt: skip


@pytest.mark.parametrize("made", [True, False])
def test_nothing_to_do(made: bool, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    if made:
        folder.mkdir()
    message = "no image in it; expected identity/image" if made else "no such folder"
    with pytest.raises(DataError, match=message):
        run(Job(folder, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_hostile_images_are_reported_and_none_is_fatal(tmp_path: Path) -> None:
    names = write_hostile(tmp_path / "in", 200)
    summary = run(Job(tmp_path / "in", tmp_path / "out"), workers=1)
    records = manifest.read_manifest(summary.manifest)
    assert sorted(record["file"] for record in records) == sorted(names)
    unreadable = {r["file"].split("/")[0] for r in records if r["status"] == "unreadable"}
    readable = {r["file"].split("/")[0] for r in records if r["status"] != "unreadable"}
    broken = {kind for kind in KINDS if kind.startswith("cut_")}
    broken |= {"zero", "one_byte", "text", "header_only", "random", "huge", "gif"}
    assert unreadable - {"flipped"} == broken
    assert readable >= set(KINDS) - broken - {"flipped"}
    assert all(record["reason"] for record in records if record["status"] == "unreadable")


# -- interruption ------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.03, 0.39, 0.4, 0.41, 0.83, 0.999, 1.0])
def test_takes_up_wherever_the_manifest_ends(
    share: float, photos: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    book = out / "manifest.jsonl"
    os.truncate(book, int(book.stat().st_size * share))
    seen: list[Progress] = []
    summary = run(Job(photos, out), workers=1, progress=seen.append)
    assert_same_results(out, whole)
    assert summary.resumed % CHUNK == 0 or summary.resumed == 40
    assert [p.done for p in seen] == sorted(
        {summary.resumed, *range(summary.resumed, 40, CHUNK), 40}
    )
    assert seen[-1].counts == summary.counts == {"ok": 36, "no face": 2, "unreadable": 2}


def test_killed_and_run_again(photos: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, str(script), str(photos), str(out), "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    wait_for(lambda: (out / "manifest.jsonl").exists() or process.poll() is not None)
    process.kill()
    process.wait()
    # The workers notice that their parent is gone.
    wait_for(lambda: not group_lives(process.pid))
    subprocess.run(command, env=environment, check=True)
    assert_same_results(out, whole)


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGCONT)
    except ProcessLookupError:
        return False
    return True


def test_files_added_later_are_done_and_the_rest_is_kept(photos: Path, tmp_path: Path) -> None:
    some = tmp_path / "in"
    shutil.copytree(photos / "id0", some / "id0")
    shutil.copytree(photos / "id1", some / "id1")
    run(Job(some, tmp_path / "out"), workers=1)
    shutil.copytree(photos / "id2", some / "id2")
    summary = run(Job(some, tmp_path / "out"), workers=1)
    assert (summary.resumed, summary.total) == (CHUNK, 30)
    anew = run(Job(some, tmp_path / "anew"), workers=1)
    assert anew.manifest.read_bytes() == summary.manifest.read_bytes()


def test_other_settings_need_a_restart(tmp_path: Path) -> None:
    images = one_image(tmp_path)
    job = Job(images, tmp_path / "out", landmarks=tmp_path / "points.txt")
    run(job, workers=1)
    other = Job(images, tmp_path / "out", landmarks=tmp_path / "points.txt", encoding="png")
    with pytest.raises(DataError, match=r"made with another encoding; .*--restart"):
        run(other, workers=1)
    assert run(other, workers=1, restart=True).resumed == 0
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["encoding"] == "png"


def test_restart_leaves_no_crop_of_a_face_that_is_no_longer_found(tmp_path: Path) -> None:
    images = one_image(tmp_path)
    run(Job(images, tmp_path / "out"), workers=1)
    assert (tmp_path / "out" / "crops" / "a" / "1.jpg").exists()
    strict = Job(images, tmp_path / "out", settings=Settings(thresholds=(0.6, 0.7, 1.0)))
    assert run(strict, workers=1, restart=True).counts == {"no face": 1}
    assert not (tmp_path / "out" / "crops" / "a" / "1.jpg").exists()


def test_dead_worker_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures.process import BrokenProcessPool

    def broken(*_: object, **__: object) -> object:
        raise BrokenProcessPool

    images = one_image(tmp_path)
    for i in range(CHUNK):
        one_image(tmp_path, f"a/{i + 2}.png")
    monkeypatch.setattr(pipeline, "_in_order", broken)
    job = Job(images, tmp_path / "out", landmarks=tmp_path / "points.txt")
    with pytest.raises(pipeline.PortError, match=r"a worker process died .* run again to go on"):
        run(job, workers=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "gif"}, "no encoding 'gif'; there are jpg, matlab, png"),
        ({"landmarks": Path("x"), "crops": False}, "nothing to do"),
    ],
)
def test_refuses_a_job(change: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        Job(tmp_path, tmp_path, **change)


def test_unwritable_results(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write results there"):
        run(Job(photos, tmp_path / "file" / "out"), workers=1)


def test_torn_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"file": "a", "status": "ok"}\n{"file": ')
    with pytest.raises(DataError, match=r"m.jsonl:2: not a manifest record"):
        manifest.read_manifest(tmp_path / "m.jsonl")


# -- the whole pipeline ------------------------------------------------------------------------


def test_prepare(photos: Path, tmp_path: Path) -> None:
    some = tmp_path / "in"
    shutil.copytree(photos / "id1", some / "id1")
    shutil.copytree(photos / "id2", some / "0166921")
    (some / "nobody").mkdir()
    shutil.copy(photos / "id2" / "006.png", some / "nobody" / "1.png")
    done = prepare(Job(some, tmp_path / "out"), workers=1)
    lines = done.list_file.read_text().splitlines()
    assert lines[0] == f"{tmp_path}/out/crops/id1/001.jpg 0"
    assert (done.faces.images, done.faces.identities) == (9, 1)
    assert done.faces.excluded == ["0166921"]
    page = done.report.read_text()
    assert 'src="data:image/jpeg;base64,' in page
    assert "http" not in page  # self-contained
    assert "Identities without a face (1)" in page
    assert "unreadable: the file is cut off" in page
    assert re.search(r"<figcaption><strong>id1</strong>001.png<br>score (0\.9|1\.0)", page)


def test_prepare_without_any_face(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    shutil.copy(photos / "id2" / "006.png", tmp_path / "in" / "a")
    with pytest.raises(DataError, match=r"no face in any of 1 images; see .*report.html"):
        prepare(Job(tmp_path / "in", tmp_path / "out"), workers=1)
    assert "no face" in (tmp_path / "out" / "report.html").read_text()


def test_report_escapes_names(tmp_path: Path) -> None:
    images = one_image(tmp_path, "<b>&/1.png")
    done = prepare(Job(images, tmp_path / "out", landmarks=tmp_path / "points.txt"), workers=1)
    assert "<b>" not in done.report.read_text()
    assert "&lt;b&gt;&amp;/1.png" in done.report.read_text()
