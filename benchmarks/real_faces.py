"""The main job on real faces: train through the public command, verify people not trained on.

lfw: people of folds 1-9 of LFW's pairs with at least 5 pictures; accuracy on fold 10, with the
threshold found on folds 1-9, before and after. orl: 30 of the 40 people, accuracy on pairs of
the other 10. The data is other people's: name the folder that holds lfw/ and orl/.

    python benchmarks/real_faces.py lfw --data ../shared/data --iterations 1500
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # before this folder, whose verify.py is a benchmark

from port import load_net
from port.data.image_data import read_image
from verify.accuracy import find_images
from verify.embed import embed, net_forward, net_shape
from verify.pairs import Pair, read_pairs
from verify.protocol import evaluate

NETS = ROOT / "reference_prototxt"
Lists = tuple[list[tuple[Path, int]], list[Pair], Path]


def lfw(data: Path) -> Lists:
    """(training pictures with labels, the official pairs, their folder)."""
    images = data / "lfw" / "images"
    pairs = read_pairs(data / "lfw" / "pairs.txt")
    people = {
        Path(p).parent.name for pair in pairs if pair.fold < 10 for p in (pair.left, pair.right)
    }
    held = {
        Path(p).parent.name for pair in pairs if pair.fold == 10 for p in (pair.left, pair.right)
    }
    kept = [sorted((images / name).glob("*.jpg")) for name in sorted(people - held)]
    return _labelled([files for files in kept if len(files) >= 5]), pairs, images


def orl(data: Path) -> Lists:
    """The first 30 people to train on; every pair among 5 pictures of the others, in 10 folds."""
    folders = sorted((data / "orl").glob("s*"), key=lambda folder: int(folder.name[1:]))
    files = [sorted(folder.glob("*.pgm")) for folder in folders]
    shown = [[f"{f.parent.name}/{f.name}" for f in person[:8]] for person in files[30:]]
    same = [pair for person in shown for pair in itertools.combinations(person, 2)]
    random = np.random.default_rng(0)
    different = []
    while len(different) < len(same):
        a, b = random.choice(len(shown), 2, replace=False)
        different.append((shown[a][random.integers(8)], shown[b][random.integers(8)]))
    pairs = [
        Pair(left, right, kind, i * 10 // len(same) + 1, i + 1)
        for kind, found in ((True, same), (False, different))
        for i, (left, right) in enumerate(found)
    ]
    return _labelled(files[:30]), pairs, data / "orl"


def fitted(file: Path, root: Path, out: Path) -> Path:
    """A copy of 112x96: the centre of LFW's 112x112 crops, ORL's 112x92 resized."""
    image = read_image(str(file))
    if image.shape[1] > 96:
        left = (image.shape[1] - 96) // 2
        image = image[:, left : left + 96]
    else:
        image = cv2.resize(image, (96, 112))
    copy = (out / file.relative_to(root)).with_suffix(".png")
    copy.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(copy), image)
    return copy


def _labelled(people: Sequence[Sequence[Path]]) -> list[tuple[Path, int]]:
    return [(file, label) for label, files in enumerate(people) for file in files]


def accuracy(weights: Path | None, pairs: Sequence[Pair], images: Path, fold: int | None) -> float:
    """Percent right of the 4-layer net on the pairs, by evaluation.m's protocol."""
    import torch

    torch.manual_seed(0)
    model = load_net(
        NETS / "sphereface_4_model.prototxt", open_data=False, input_shape=(3, 112, 96)
    )
    net = load_net(NETS / "sphereface_4_deploy.prototxt", weights)
    if weights is None:
        net.share_weights(model)  # the fillers of the train net: deploy nets state none
    paths = find_images(pairs, images)
    rows = embed(list(paths.values()), net_forward(net), net_shape(net))
    found = dict(zip(paths, rows, strict=True))
    left, right = (np.stack([found[getattr(p, side)] for p in pairs]) for side in ("left", "right"))
    same, folds = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    tested = [fold] if fold else list(range(1, 11))
    return 100 * evaluate(left, right, same, folds, tested=tested).mean


def train(listed: Path, options: argparse.Namespace, out: Path) -> tuple[Path, str]:
    """Run the public command; returns the caffemodel and the log."""
    solver = out.parent / "solver.prototxt"
    steps = "".join(f"stepvalue: {options.iterations * part // 100}\n" for part in (60, 85))
    solver.write_text(
        f'net: "sphereface_4_model.prototxt"\nbase_lr: {options.lr}\nlr_policy: "multistep"\n'
        f"gamma: 0.1\n{steps}max_iter: {options.iterations}\nmomentum: 0.9\n"
        'weight_decay: 0.0005\nsnapshot_prefix: "sphereface_4"\n'
    )
    command = [
        *(sys.executable, "-m", "port", "train", str(NETS / "sphereface_4_model.prototxt")),
        *(
            "--solver",
            str(solver),
            "--source",
            str(listed),
            "--num-classes",
            "auto",
            "--seed",
            "1",
            "--out",
            str(out),
        ),
        *("--batch-size", str(options.batch), "--resize", "112,96"),
        *("--display", str(max(1, options.iterations // 15))),
    ]
    print("$ port", " ".join(command[3:]))
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr[-2000:])
    return next(out.glob("*.caffemodel")), run.stderr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=["lfw", "orl"], nargs="?", default="orl")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.01)
    options = parser.parse_args()
    if not (options.data / options.set).is_dir():
        sys.exit(f"no folder {options.set} in {options.data}: name the folder with --data")
    sets: dict[str, Callable[[Path], Lists]] = {"lfw": lfw, "orl": orl}
    listed, pairs, images = sets[options.set](options.data.resolve())
    fold = 10 if options.set == "lfw" else None
    print(f"{len(listed)} pictures of {listed[-1][1] + 1} people; {len(pairs)} pairs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in set(find_images(pairs, images).values()):
            fitted(file, images, folder / "faces")
        if options.set == "lfw":  # Caffe crops squares only; ORL is resized by the layer
            listed = [(fitted(file, images, folder / "faces"), label) for file, label in listed]
        before = accuracy(None, pairs, folder / "faces", fold)
        source = folder / "train.txt"
        source.write_text("".join(f"{file} {label}\n" for file, label in listed))
        weights, log = train(source, options, folder / "out")
        after = accuracy(weights, pairs, folder / "faces", fold)
    shown = re.findall(r"Iteration (\d+) \(.*loss = (\S+)\n.*lambda = (\S+)", log)
    print("iteration      loss    lambda")
    for iteration, loss, lambda_ in shown:
        print(f"{iteration:>9s} {loss:>9s} {lambda_:>9s}")
    print(f"accuracy: {before:.2f}% before, {after:.2f}% after")


if __name__ == "__main__":
    main()
