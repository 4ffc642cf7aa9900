"""verify, extract, compare, quality and megaface as a user runs them."""

from __future__ import annotations

import json
import os
import pickle
import pty
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from command_line import ROOT, port
from scipy.io import loadmat

from port.caffemodel import write_caffemodel
from port.net import load_net
from port.sample_faces import write_set
from verify import quality
from verify.features import read_features, write_features
from verify.pairs import read_pairs

NET = """name: "tiny"
input: "data" input_dim: 1 input_dim: 3 input_dim: 112 input_dim: 96
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 16 stride: 8 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc5" type: "InnerProduct" bottom: "conv" top: "fc5"
        inner_product_param { num_output: 24 weight_filler { type: "xavier" } } }
"""  # noqa: E501
SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".lmdb")


@dataclass(frozen=True)
class World:
    """Sample faces, their list and pairs, and a small model of random weights in both forms."""

    folder: Path
    images: Path
    pairs: Path
    list: Path

    @property
    def model(self) -> tuple[object, ...]:
        return ("--net", self.folder / "net.prototxt", "--weights", self.folder / "net.caffemodel")

    @property
    def onnx(self) -> tuple[object, ...]:
        return ("--onnx", self.folder / "net.onnx")

    @property
    def faces(self) -> tuple[object, ...]:
        return ("--pairs", self.pairs, "--images", self.images)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    faces = write_set(folder / "faces", identities=1, samples=1, held_out=20, held_out_samples=4)
    (folder / "net.prototxt").write_text(NET)
    torch.manual_seed(0)
    write_caffemodel(load_net(NET), folder / "net.caffemodel")
    names = ("net.prototxt", "net.caffemodel", "-o", "net.onnx")
    port("convert", "onnx", *names, cwd=folder)
    people = sorted(path.name for path in faces.held_out.iterdir())
    lines = [
        f"{path.relative_to(folder)} {label}\n"
        for label, name in enumerate(people)
        for path in sorted((faces.held_out / name).iterdir())
    ]
    (folder / "list.txt").write_text("".join(lines))
    return World(folder, faces.held_out, faces.pairs, folder / "list.txt")


@pytest.fixture(scope="module")
def verified(world: World) -> str:
    """What `port verify` prints for the net."""
    return port("verify", *world.model, *world.faces).stdout


# -- verify ------------------------------------------------------------------------------------


def test_verify_prints_the_originals_table_and_the_rates(verified: str) -> None:
    table, _, rest = verified.partition("\n\n")
    rule = "-" * 16
    lines = table.split("\n")
    assert lines[:2] == ["fold\tACC", rule]
    assert [line.split("\t")[0] for line in lines[2:12]] == [str(fold) for fold in range(1, 11)]
    assert lines[12] == rule
    assert re.fullmatch(r"AVE\t\d+\.\d\d%", lines[13])
    assert re.search(r"accuracy +\d+\.\d\d % ± \d+\.\d\d\n", rest)
    for far in ("0.1", "0.01", "0.001", "0.0001"):
        assert re.search(rf"TAR at FAR {far}: \d+\.\d\d %", rest)
    assert re.search(r"EER \d+\.\d\d %\nAUC 0\.\d{5}\n", rest)
    assert "variant" not in rest


def test_the_onnx_model_gives_the_same_digits(world: World, verified: str) -> None:
    assert port("verify", *world.onnx, *world.faces, "--batch-size", 5).stdout == verified


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_features_give_the_same_digits(
    world: World, verified: str, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"features{suffix}"
    said = port("extract", world.list, "-o", out, *world.onnx).stdout
    assert said == f"features of 80 pictures, 48 numbers each, written to {out}\n"
    named = () if suffix not in (".npy", ".lmdb") else ("--list", world.list)
    found = port("verify", "--features", out, *named, "--pairs", world.pairs)
    assert found.stdout == verified
    assert [entry.name for entry in tmp_path.iterdir()] == [out.name]


def test_a_bin_set_gives_the_same_digits(world: World, verified: str, tmp_path: Path) -> None:
    pairs = read_pairs(world.pairs)
    files = [(world.images / name).read_bytes() for p in pairs for name in (p.left, p.right)]
    path = tmp_path / "set.bin"
    path.write_bytes(pickle.dumps((files, [pair.same for pair in pairs])))
    assert port("verify", *world.onnx, "--bin", path).stdout == verified


def test_report_and_json_are_written_whole(world: World, tmp_path: Path, verified: str) -> None:
    files = ("--report", tmp_path / "page.html", "--json", tmp_path / "numbers.json")
    run = port("verify", *world.onnx, *world.faces, *files, "--expect", 50, "--tolerance", 50)
    assert run.stdout.startswith(verified)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["numbers.json", "page.html"]
    data = json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert f"AVE\t{100 * data['accuracy']['mean']:.2f}%" in verified
    assert data["expected"] == {"accuracy": 50.0, "tolerance": 50.0, "passed": True}
    assert set(data["files"]) == {"onnx", "pairs"}
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "PASS: expected" in page
    assert "Verification: net.onnx on pairs.txt" in page


def test_expectation_decides_the_exit_code(world: World, verified: str) -> None:
    accuracy = float(re.search(r"AVE\t(.*)%", verified)[1])  # type: ignore[index]
    common = ("verify", *world.onnx, *world.faces, "--expect")
    passed = port(*common, accuracy).stdout
    assert passed.endswith(f"PASS: {accuracy:.2f} % is within 0.10 of {accuracy:.2f} %\n")
    failed = port(*common, accuracy - 1, code=1).stdout
    assert f"FAIL: {accuracy:.2f} % is not within 0.10 of {accuracy - 1:.2f} %" in failed
    port(*common, accuracy - 1, "--tolerance", 1.01)


@pytest.mark.parametrize(
    ("options", "label"),
    [
        (("--no-flip",), "flip none"),
        (("--flip", "sum"), "flip sum"),
        (("--no-mean-subtraction",), "no mean subtraction"),
        (("--pooled-threshold",), "pooled threshold"),
    ],
)
def test_variants_are_labelled(
    world: World, verified: str, options: tuple[str, ...], label: str
) -> None:
    text = port("verify", *world.onnx, *world.faces, *options).stdout
    assert f"variant: {label} (not evaluation.m's protocol)\n" in text
    assert text != verified


def test_a_blob_and_other_pixels(world: World, verified: str) -> None:
    same = ("--blob", "fc5", "--mean", "127.5,127.5,127.5", "--scale", 1 / 128)
    assert port("verify", *world.model, *world.faces, *same).stdout == verified
    for other in (("--blob", "conv"), ("--rgb",), ("--mean", 0, "--scale", 1)):
        assert port("verify", *world.model, *world.faces, *other).stdout != verified


def broken(world: World, folder: Path) -> dict[str, Path]:
    """Files that are wrong in one way each."""
    text = world.pairs.read_text()
    lines = text.splitlines()
    stored = read_features(_extracted(world, folder))
    first = next(iter(stored))
    rows, names = np.stack(list(stored.values())), list(stored)
    good = pickle.dumps(([b"a", b"b"], [True]))
    files = {
        "missing.txt": "\n".join([*lines[:4], "Nobody_Here\t1\t2", *lines[5:]]),
        "malformed.txt": "\n".join([*lines[:6], "somebody\tone\t2", *lines[7:]]),
        "one_fold.txt": "\n".join(["1\t5", *lines[1:11]]),
        "cut.bin": good[: len(good) // 2],
        "code.bin": pickle.dumps(([b"a", b"b"], [Payload(folder / "harm")])),
        "cut.onnx": (world.folder / "net.onnx").read_bytes()[:300],
        "cut.npz": (folder / "features.npz").read_bytes()[:2000],
    }
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    for name, value in (("nan", np.nan), ("zero", 0.0)):
        wrong = rows.copy()
        wrong[names.index(first)] *= value
        write_features(folder / f"{name}.npz", wrong, names)
    write_features(folder / "short.npy", rows[1:], names[1:])
    _ragged(folder, world)
    return {path.name: path for path in folder.iterdir()}


def _extracted(world: World, folder: Path) -> Path:
    port("extract", world.list, "-o", folder / "features.npz", *world.onnx)
    return folder / "features.npz"


def _ragged(folder: Path, world: World) -> None:
    from scipy.io import savemat

    port("extract", *world.faces, "-o", folder / "ragged.mat", *world.onnx)
    pairs = loadmat(folder / "ragged.mat")["pairs"]
    pairs[0, 3]["featureR"] = pairs[0, 3]["featureR"][:-1]
    savemat(folder / "ragged.mat", {"pairs": pairs})


class Payload:
    """Unpickling this makes a folder: the harm that a real one would do."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.target,)


ERRORS = {
    "missing image": ("PAIRS", "missing.txt", r"line 5: no image .*Nobody_Here_0001\.jpg"),
    "malformed line": ("PAIRS", "malformed.txt", r"malformed\.txt, line 7: expected 'name TAB"),
    "fewer than 2 folds": ("PAIRS", "one_fold.txt", r"10 pairs in 1 fold\(s\).*at least 2"),
    "corrupt .bin": ("--bin", "cut.bin", r"cut\.bin: damaged, or no \.bin set"),
    "a .bin with code": ("--bin", "code.bin", r"code\.bin: the file asks for \w+\.mkdir.*nothing"),
    "damaged ONNX": ("--onnx", "cut.onnx", r"cut\.onnx: onnxruntime cannot load it"),
    "wrong number of features": ("LIST", "short.npy", r"short\.npy: features of shape \(79, 48\)"),
    "wrong feature size": ("--features", "ragged.mat", r"ragged\.mat: .* has 47 features, .* 48"),
    "NaN features": ("--features", "nan.npz", r"_0001.*: its embedding holds NaN"),
    "zero features": ("--features", "zero.npz", r"_0001.*: its embedding holds nothing but zeros"),
    "damaged features": ("--features", "cut.npz", r"cut\.npz: cannot read features from it"),
}


@pytest.fixture(scope="module")
def wrong(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return broken(world, tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize("case", ERRORS)
def test_a_failed_job_is_one_line_and_exit_code_1(
    case: str, world: World, wrong: dict[str, Path], tmp_path: Path
) -> None:
    kind, name, message = ERRORS[case]
    path = wrong[name]
    pairs = ("--pairs", world.pairs)
    arguments = {
        "PAIRS": (*world.onnx, "--pairs", path, "--images", world.images),
        "--bin": (*world.onnx, "--bin", path),
        "--onnx": ("--onnx", path, *world.faces),
        "LIST": ("--features", path, "--list", world.list, *pairs),
        "--features": ("--features", path, *pairs),
    }[kind]
    run = port("verify", *arguments, "--json", tmp_path / "numbers.json", code=1)
    (line,) = run.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    assert run.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert not (path.parent / "harm").exists()


def test_a_result_that_cannot_be_written_is_told_at_once(world: World, tmp_path: Path) -> None:
    gone = tmp_path / "gone" / "page.html"
    run = port("verify", *world.onnx, *world.faces, "--report", gone, code=1)
    assert "its folder does not exist or cannot be written" in run.stderr
    assert run.stdout == ""


USAGE = {
    "no model": ((), "give --net and --weights or --onnx or --features: one of them"),
    "net alone": (("--net", "net.prototxt"), "--net and --weights come together"),
    "two models": (
        ("--onnx", "net.onnx", "--net", "net.prototxt", "--weights", "net.caffemodel"),
        "one of them",
    ),
    "no pairs": (("--onnx", "net.onnx"), "give --pairs with --images, or --bin"),
    "no images": (("--onnx", "net.onnx", "--pairs", "list.txt"), "--images"),
    "flip twice": (
        ("--onnx", "net.onnx", "--bin", "list.txt", "--no-flip", "--flip", "sum"),
        "take one",
    ),
    "lonely tolerance": (
        ("--onnx", "net.onnx", "--bin", "list.txt", "--tolerance", "1"),
        "--tolerance goes with --expect",
    ),
    "no number": (("--onnx", "net.onnx", "--mean", "x"), "'x' is not numbers such as 127.5"),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_exit_code_2(case: str, world: World, tmp_path: Path) -> None:
    arguments, message = USAGE[case]
    if case == "flip twice":
        path = tmp_path / "set.bin"
        path.write_bytes(pickle.dumps(([b"a", b"b"], [True])))
        arguments = tuple(str(path) if word == "list.txt" else word for word in arguments)
    run = port("verify", *arguments, cwd=world.folder, code=2)
    assert message in " ".join(run.stderr.split())


# -- extract -----------------------------------------------------------------------------------


def test_extract_writes_pairs_mat_as_evaluation_m_does(world: World, tmp_path: Path) -> None:
    out = tmp_path / "pairs.mat"
    port("extract", *world.faces, "-o", out, *world.onnx)
    stored = loadmat(out)["pairs"].ravel()
    pairs = read_pairs(world.pairs)
    assert len(stored) == len(pairs)
    assert [int(row["fold"].item()) for row in stored] == [pair.fold for pair in pairs]
    listed = read_features(_extracted(world, tmp_path))
    by_name = {Path(name).name: row for name, row in listed.items()}
    for row, pair in zip(stored, pairs, strict=True):
        expected = by_name[Path(pair.left).name]
        # Another batch sums in another order: float32.
        assert np.allclose(row["featureL"].ravel(), expected, rtol=0, atol=1e-5)


def test_no_flip_is_the_first_half(world: World, tmp_path: Path) -> None:
    for name, more in (("both.npy", ()), ("one.npy", ("--no-flip",))):
        port("extract", world.list, "-o", tmp_path / name, *world.onnx, *more)
    both, one = (np.load(tmp_path / name) for name in ("both.npy", "one.npy"))
    assert one.shape == (80, 24)
    assert np.array_equal(both[:, :24], one)


def test_extract_refuses_what_it_cannot_do(world: World, tmp_path: Path) -> None:
    common = ("extract", world.list, *world.onnx, "-o")
    assert "expected one of .npy" in port(*common, tmp_path / "f.csv", code=1).stderr
    assert "does not exist" in port(*common, tmp_path / "no" / "f.npy", code=1).stderr
    (tmp_path / "list.txt").write_text("faces/none.jpg 0\n")
    gone = ("extract", tmp_path / "list.txt", *world.onnx, "-o", tmp_path / "f.npy")
    assert re.search(r"list\.txt:1: no image .*none\.jpg.*--root", port(*gone, code=1).stderr)
    assert "give LIST, or --pairs" in port("extract", "-o", "f.npy", *world.onnx, code=2).stderr


def test_progress_is_drawn_on_a_terminal(world: World, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = ["-m", "port", "extract", world.list, "-o", tmp_path / "f.npy", *world.onnx]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, *map(str, command)], stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    assert done.returncode == 0
    drawn = os.read(ours, 1 << 16).decode("utf-8", "replace")
    os.close(ours)
    assert "embedding" in drawn or world.list.name in drawn
    assert "80/80" in drawn


# -- compare -----------------------------------------------------------------------------------


def test_compare_aligned_crops(world: World) -> None:
    first, second = sorted(world.images.rglob("*.jpg"))[:2]
    text = port("compare", first, first, "--aligned", *world.model).stdout
    assert text == "cosine 1.0000, angle 0.0 degrees\nsame person (threshold 0.2800)\n"
    text = port("compare", first, second, "--aligned", *world.onnx, "--threshold", 1).stdout
    cosine = float(re.match(r"cosine (-?\d\.\d{4}), angle", text)[1])  # type: ignore[index]
    assert "different people (threshold 1.0000)" in text
    rows = [cv2.imread(str(path)).astype(np.float32) for path in (first, second)]
    assert cosine == pytest.approx(_cosine_by_hand(world, rows), abs=1e-4)


def _cosine_by_hand(world: World, images: list[np.ndarray]) -> float:
    net = load_net(world.folder / "net.prototxt", world.folder / "net.caffemodel")
    batch = torch.from_numpy(np.stack([(i.transpose(2, 0, 1) - 127.5) / 128 for i in images]))
    with torch.no_grad():
        both = torch.cat([net(batch)["fc5"], net(batch.flip(3))["fc5"]], 1)
    return float(torch.nn.functional.cosine_similarity(both[:1], both[1:]))


def test_compare_says_where_no_face_is(world: World, tmp_path: Path) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((120, 120, 3), 200, np.uint8))
    run = port("compare", blank, blank, *world.onnx, code=1)
    assert re.search(r"error: .*blank\.png: no face found", run.stderr)
    (tmp_path / "text.jpg").write_text("no picture")
    run = port("compare", tmp_path / "text.jpg", blank, *world.onnx, code=1)
    assert re.search(r"error: .*text\.jpg: not an image", run.stderr)


# -- quality and megaface ----------------------------------------------------------------------


def test_quality_of_a_list(world: World, tmp_path: Path) -> None:
    stored = read_features(_extracted(world, tmp_path))
    rows, labels = np.stack(list(stored.values())), np.repeat(np.arange(20), 4)
    angles = quality.mean_angles(rows, labels)
    rate = quality.identify(rows[::4], labels[::4], *_others(rows, labels))
    expected = (
        "80 pictures of 20 people, 48 dimensions\n"
        f"angular Fisher score {quality.angular_fisher_score(rows, labels):.4f}\n"
        f"mean angle within people {angles.intra:.2f} degrees\n"
        f"mean angle between people {angles.inter:.2f} degrees\n"
        f"rank-1 identification {100 * rate:.2f} % (60 probes, 20 in the gallery)\n"
    )
    assert 0 < rate < 1
    assert angles.intra < angles.inter
    assert port("quality", world.list, *world.onnx).stdout == expected
    features = ("--features", tmp_path / "features.npz")
    assert port("quality", world.list, *features).stdout == expected
    gallery = ("--gallery", world.list, "--gallery-features", tmp_path / "features.npz")
    text = port("quality", world.list, *features, *gallery).stdout
    assert "rank-1 identification 100.00 % (80 probes, 80 in the gallery)" in text


def _others(rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    kept = np.arange(len(rows)) % 4 != 0
    return rows[kept], labels[kept]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_megaface_reads_distractors_from_pictures_and_files(
    world: World, tmp_path: Path, suffix: str
) -> None:
    lines = world.list.read_text().splitlines(keepends=True)
    for name, part in (("probes", lines[:40]), ("strangers", lines[40:])):
        (tmp_path / f"{name}.txt").write_text("".join(part))
        files = ("-o", tmp_path / f"{name}{suffix}", "--root", world.folder)
        port("extract", tmp_path / f"{name}.txt", *files, *world.onnx)
    stored = read_features(tmp_path / f"probes{suffix}", [line.split()[0] for line in lines[:40]])
    strangers = read_features(
        tmp_path / f"strangers{suffix}", [line.split()[0] for line in lines[40:]]
    )
    found = quality.rank1_with_distractors(
        np.stack(list(stored.values())),
        np.repeat(np.arange(10), 4),
        [np.stack(list(strangers.values()))],
        (5, 40),
    )
    expected = "distractors\trank-1\n" + "".join(
        f"{result.distractors}\t{100 * result.rate:.2f}%\n" for result in found
    )
    assert found[0].rate > found[1].rate
    sizes = ("--sizes", "5,40,1000")
    probes = tmp_path / "probes.txt"
    features = ("--features", tmp_path / f"probes{suffix}")
    distractors = ("--distractors", tmp_path / f"strangers{suffix}")
    run = port("megaface", probes, *features, *distractors, *sizes)
    assert run.stdout == expected
    assert "too few distractors for 1000" in run.stderr
    if suffix == ".npy":
        pictures = ("--distractors", tmp_path / "strangers.txt", "--root", world.folder)
        assert port("megaface", probes, *pictures, *world.onnx, *sizes).stdout == expected
