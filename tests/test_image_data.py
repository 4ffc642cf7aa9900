"""ImageData batches: the original's outputs bit for bit, order, seeds, faults, threads."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import golden
import numpy as np
import pytest

from port import schema
from port.data.image_data import ImageBatches, read_bytes, read_image
from port.data.image_list import read_image_list
from port.data.prefetch import Prefetcher
from port.errors import DataError
from port.prototxt import read_net

FOLDER = golden.GOLDEN / "imagedata"
# (sha256 of the golden bytes of imagedata_jpeg and imagedata_jpeg_resize, shape): the photo is
# somebody's, so neither it nor its pixels are in the repository.
PHOTO = {
    (0, 0): "86e32a54bb5b571a477018c90008ccee0c51c509298707362454432b580974e8",
    (112, 96): "d2459be60c43525321604ee43c7280452818c2766e231b9887d69a540b0973cc",
}


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Folder with a list of 10 images 12x10; image i is filled with 20 i and has label i."""
    for i in range(10):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((12, 10, 3), 20 * i, np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{i}.png {i}\n" for i in range(10)))
    return tmp_path


def batches(folder: Path, transform=None, phase="TRAIN", **settings) -> ImageBatches:
    options = {
        name: settings.pop(name)
        for name in ("seed", "workers", "prefetch", "skip_bad")
        if name in settings
    }
    spec = schema.ImageDataParameter(
        **{"source": str(folder / "list.txt"), "root_folder": f"{folder}/", **settings}
    )
    parameter = schema.TransformationParameter(**(transform or {}))
    return ImageBatches(spec, parameter, phase, **options)


def labels(source: ImageBatches, count: int) -> list[list[int]]:
    with source:
        return [next(source)[1].astype(int).tolist() for _ in range(count)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", golden.cases("imagedata", "imagedata_"))
def test_golden_batches_bit_for_bit(name, workers, monkeypatch):
    """Equality, resizing too: OpenCV 4.6's and today's bilinear uint8 are the same."""
    monkeypatch.chdir(FOLDER)
    case = golden.load("imagedata", name)
    layer = read_net(case.meta["prototxt"]).layer[0]
    with ImageBatches(
        layer.image_data_param, layer.transform_param, case.meta["phase"], workers=workers
    ) as source:
        for suffix in ("", "2") if "data2" in case.arrays else ("",):
            data, label = next(source)
            assert data.dtype == label.dtype == np.float32
            np.testing.assert_array_equal(data, case.arrays["data" + suffix])
            np.testing.assert_array_equal(label, case.arrays["label" + suffix])


@pytest.mark.data("mtcnn/test1.jpg")
@pytest.mark.parametrize("size", PHOTO)
def test_golden_jpeg_decoding(shared, size):
    image = read_image(str(shared / "mtcnn" / "test1.jpg"), True, *size)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    assert hashlib.sha256(planes.tobytes()).hexdigest() == PHOTO[size]


def test_batches_wrap_over_the_end_of_the_list(faces):
    found = labels(batches(faces, batch_size=4), 5)
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1], [2, 3, 4, 5], [6, 7, 8, 9]]
    assert labels(batches(faces, batch_size=23), 1)[0] == [*range(10), *range(10), 0, 1, 2]


def test_data_and_label_belong_together(faces):
    with batches(faces, batch_size=7, shuffle=True, seed=5, workers=3) as source:
        for _ in range(6):
            data, label = next(source)
            assert data.shape == source.shape == (7, 3, 12, 10)
            assert (data == 20 * label[:, None, None, None]).all()


def test_shuffle_takes_a_new_order_every_epoch(faces):
    epochs = labels(batches(faces, batch_size=10, shuffle=True, seed=5), 4)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert labels(batches(faces, batch_size=10, shuffle=True, seed=6), 4) != epochs


def test_the_same_seed_gives_the_same_batches_for_any_number_of_threads(faces):
    def run(seed, workers, prefetch):
        settings = {"batch_size": 6, "shuffle": True, "rand_skip": 9}
        options = {"seed": seed, "workers": workers, "prefetch": prefetch}
        with batches(faces, {"crop_size": 5, "mirror": True}, **settings, **options) as source:
            return [next(source) for _ in range(6)]

    # A gradient in place of the plain image, so that crops and mirrors show.
    row = np.arange(10, dtype=np.uint8) * 3
    for i in range(10):
        image = (row + np.arange(12, dtype=np.uint8)[:, None] * 17 + i)[..., None]
        cv2.imwrite(str(faces / f"{i}.png"), image.repeat(3, 2))
    reference = run(11, 1, 1)
    for workers, prefetch in ((2, 3), (5, 2), (16, 4)):
        for ours, theirs in zip(run(11, workers, prefetch), reference, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])
    assert any((a[0] != b[0]).any() for a, b in zip(run(12, 1, 1), reference, strict=True))


def test_without_a_seed_every_run_differs(faces):
    first, second = (labels(batches(faces, batch_size=10, shuffle=True), 3) for _ in range(2))
    assert first != second


def test_rand_skip_starts_within_the_list_and_wraps_to_its_start(faces):
    starts = set()
    for seed in range(40):
        found = labels(batches(faces, batch_size=10, rand_skip=4, seed=seed), 2)
        starts.add(found[0][0])
        assert (found[0] + found[1])[: 10 - found[0][0]] == list(range(found[0][0], 10))
    assert starts == {0, 1, 2, 3}


def test_rand_skip_beyond_the_list_is_refused(faces):
    (faces / "list.txt").write_text("0.png 0\n")
    with pytest.raises(DataError, match=r"rand_skip asks to skip \d+ images, .* has 1; lower"):
        batches(faces, rand_skip=10**6, seed=1)


def test_kept_batches_stay_as_they_are(faces):
    """Arrays are filled again, but only those that nobody holds: neither whole nor in part."""
    with batches(faces, batch_size=5, prefetch=1) as source:
        kept = [next(source) for _ in range(8)]
        corner = next(source)[0][2:, 1]
        for number, (data, label) in enumerate(kept):
            assert label.tolist() == [(5 * number + i) % 10 for i in range(5)]
            assert (data == 20 * label[:, None, None, None]).all()
        next(source), next(source), next(source)
        assert (corner[0] == 20 * 2).all()


def test_arrays_that_nobody_holds_are_filled_again(faces):
    with batches(faces, batch_size=5, prefetch=2) as source:
        assert len({next(source)[0].ctypes.data for _ in range(30)}) <= 4


def test_a_tensor_keeps_its_batch(faces):
    torch = pytest.importorskip("torch")
    with batches(faces, batch_size=5, prefetch=1) as source:
        tensor = torch.from_numpy(next(source)[0])[:, :1]
        for _ in range(6):
            next(source)
        assert tensor[3].unique().tolist() == [60]


@pytest.mark.parametrize("color", [True, False])
def test_grey_pgm(tmp_path, color):
    image = np.random.default_rng(1).integers(0, 256, (6, 5), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a b.pgm"), image)
    (tmp_path / "list.txt").write_text("a b.pgm 3\n")
    with batches(tmp_path, is_color=color) as source:
        data, label = next(source)
    assert data.shape == (1, 3 if color else 1, 6, 5)
    np.testing.assert_array_equal(data[0], np.broadcast_to(image, data.shape[1:]))
    assert label.tolist() == [3]


def test_16_bits_and_alpha_are_reduced_as_imread_does_it(tmp_path):
    rng = np.random.default_rng(1)
    wide = rng.integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    alpha = rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "wide.png"), wide)
    cv2.imwrite(str(tmp_path / "alpha.png"), alpha)
    np.testing.assert_array_equal(read_image(str(tmp_path / "wide.png")), wide >> 8)
    np.testing.assert_array_equal(read_image(str(tmp_path / "alpha.png")), alpha[..., :3])


def test_an_exif_orientation_is_applied(tmp_path):
    """As imread of the original's OpenCV 4.6 does it: orientation 6 stands on its side."""
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = 255
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    block = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block
    (tmp_path / "turned.jpg").write_bytes(jpeg[:2] + segment + jpeg[2:])
    turned = read_image(str(tmp_path / "turned.jpg"))
    assert turned.shape == (16, 8, 3)
    assert turned[:8].mean() < 5 < 250 < turned[8:].mean()


def test_a_jpeg_that_ends_early_is_filled_up_as_imread_does_it(faces):
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    path = faces / "cut.jpg"
    path.write_bytes(jpeg[:-2])
    np.testing.assert_array_equal(read_image(str(path)), cv2.imdecode(np.frombuffer(jpeg, "u1"), 1))
    path.write_bytes(jpeg[: len(jpeg) // 2])
    np.testing.assert_array_equal(read_image(str(path)), cv2.imread(str(path)))


def test_large_files_are_read_whole(tmp_path):
    content = np.random.default_rng(1).bytes(3 * 2**16 + 5)
    for size in (0, 5, 2**16, len(content)):
        (tmp_path / "file").write_bytes(content[:size])
        assert read_bytes(str(tmp_path / "file")) == content[:size]


def test_with_a_batch_of_one_every_image_has_its_own_size(faces):
    cv2.imwrite(str(faces / "1.png"), np.full((6, 7, 3), 20, np.uint8))
    with batches(faces) as source:
        assert [next(source)[0].shape[2:] for _ in range(3)] == [(12, 10), (6, 7), (12, 10)]


def test_a_crop_takes_images_of_all_sizes(faces):
    cv2.imwrite(str(faces / "1.png"), np.full((6, 7, 3), 20, np.uint8))
    with batches(faces, {"crop_size": 6}, batch_size=10) as source:
        data, label = next(source)
    assert data.shape == (10, 3, 6, 6)
    assert (data == 20 * label[:, None, None, None]).all()


def test_images_are_found_beside_the_list_when_not_from_here(faces):
    with batches(faces, root_folder="") as source:
        assert next(source)[0].shape == (1, 3, 12, 10)


BROKEN = {
    "missing": (lambda path: path.unlink(), r"no image '.*3\.png'|cannot read image"),
    "empty": (lambda path: path.write_bytes(b""), r"cannot decode image .* an empty file"),
    "garbage": (lambda path: path.write_bytes(b"no image" * 9), r"found 72 bytes that are no im"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:60]), r"found 60 bytes"),
    "other size": (
        lambda path: cv2.imwrite(str(path), np.zeros((9, 10, 3), np.uint8)),
        r"the image gives 3x9x10 .* the batch has 3x12x10; all images of a batch .*resize them",
    ),
}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_image_is_an_error_that_names_the_line(faces, kind, workers):
    damage, message = BROKEN[kind]
    damage(faces / "3.png")
    with pytest.raises(DataError, match=rf"list\.txt:4: .*({message})"):  # noqa: SIM117
        with batches(faces, batch_size=8, workers=workers) as source:
            next(source)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("kind", BROKEN)
def test_skip_bad_takes_the_next_line_and_reports(faces, kind, workers):
    damage, message = BROKEN[kind]
    damage(faces / "3.png")
    with batches(faces, batch_size=8, skip_bad=True, workers=workers) as source:
        data, label = next(source)
        assert label.tolist() == [0, 1, 2, 4, 4, 5, 6, 7]
        assert (data == 20 * label[:, None, None, None]).all()
        next(source), next(source)
        assert len(source.bad) == 1
    with pytest.raises(DataError, match=rf"list\.txt:4: .*({message})"):
        raise DataError(source.bad[0])


def test_skip_bad_at_the_first_line_and_with_nothing_left(faces):
    (faces / "0.png").write_bytes(b"")
    with batches(faces, batch_size=2, skip_bad=True) as source:
        assert next(source)[1].tolist() == [1, 1]
    for path in faces.glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"list\.txt: none of its 10 images can be used; the first: .*txt:1: "
    ):
        batches(faces, skip_bad=True)


def test_a_missing_root_folder_shows_at_once(faces):
    with pytest.raises(DataError, match=r"list\.txt:1: no image .*\(10 of 10 files looked for"):
        batches(faces, root_folder="/nowhere/")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"new_height": 5}, "new_height is 5 and new_width 0; set both or neither"),
    ],
)
def test_settings_that_caffe_refuses(faces, settings, message):
    with pytest.raises(DataError, match=message):
        batches(faces, **settings)


def test_a_crop_larger_than_the_images_names_the_line(faces):
    with pytest.raises(DataError, match=r"list\.txt:1: crop_size 11 does not fit .* 12x10"):
        batches(faces, {"crop_size": 11})


def test_num_classes_and_length(faces):
    with batches(faces) as source:
        assert (len(source), source.num_classes) == (10, 10)


def test_close_joins_the_threads_and_ends_the_iteration(faces):
    def alive():
        return [t for t in threading.enumerate() if t.name.startswith("port-data")]

    before = len(alive())
    source = batches(faces, batch_size=5, workers=3, prefetch=4)
    next(source)
    assert len(alive()) > before
    source.close()
    source.close()
    assert len(alive()) == before
    assert list(source) == []


@pytest.mark.parametrize("how", ["interrupt", "end"])
def test_a_process_ends_without_close(faces, how):
    """Neither Ctrl-C nor the end of the script waits for threads, full queues or batches."""
    code = f"""
from port import schema
from port.data.image_data import ImageBatches
spec = schema.ImageDataParameter(source="{faces}/list.txt", batch_size=64)
source = ImageBatches(spec, schema.TransformationParameter(), "TRAIN", workers=3, prefetch=5)
next(source)
print("ready", flush=True)
while {how == "interrupt"}:
    next(source)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    ) as process:
        assert process.stdout.readline() == "ready\n"
        if how == "interrupt":
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert ("KeyboardInterrupt" in errors, process.returncode == 0) == (
        how == "interrupt",
        how == "end",
    )


def test_batches_come_in_order_when_the_first_is_the_slowest():
    def fill(jobs, part):
        time.sleep(0.05 if jobs[0] == 0 else 0)
        part.data[:, 0] = part.label[:] = jobs
        return part.data

    plan = iter([range(i, i + 3) for i in range(0, 60, 3)])
    with Prefetcher(plan, fill, (3, 1), workers=4, depth=6) as source:
        found = [next(source)[1].tolist() for _ in range(10)]
    assert found == [list(range(i, i + 3)) for i in range(0, 30, 3)]


def test_an_error_of_the_plan_comes_after_the_batches_before_it():
    def plan():
        yield [1]
        yield [2]
        raise DataError("the third batch is broken")

    def fill(jobs, part):
        part.label[:] = jobs
        return part.data

    with Prefetcher(plan(), fill, (1, 1), depth=8) as source:
        assert [next(source)[1][0], next(source)[1][0]] == [1, 2]
        with pytest.raises(DataError, match="third batch"):
            next(source)


@pytest.mark.data("orl")
def test_orl_faces_resized_by_the_layer(shared, tmp_path):
    lines = [f"s{p}/{i}.pgm {p - 1}\n" for p in range(1, 41) for i in range(1, 11)]
    (tmp_path / "list.txt").write_text("".join(lines))
    settings = {"batch_size": 64, "new_height": 112, "new_width": 96, "shuffle": True, "seed": 1}
    with batches(tmp_path, root_folder=f"{shared}/orl/", **settings) as source:
        data, _ = next(source)
        assert (source.shape, source.num_classes) == ((64, 3, 112, 96), 40)
    assert (data[:, 0] == data[:, 2]).all()
    assert 50 < data.mean() < 200


def test_a_list_of_half_a_million_lines_reads_in_seconds(tmp_path):
    path = tmp_path / "casia.txt"
    path.write_text("".join(f"id {i // 45}/{i}.jpg {i // 45}\n" for i in range(450_000)))
    start = time.process_time()
    images = read_image_list(path)
    assert (len(images), images.num_classes) == (450_000, 10_000)
    assert time.process_time() - start < 8  # 0.7 s on a quiet core
