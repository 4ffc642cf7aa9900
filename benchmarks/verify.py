"""The protocol against a direct transcription of evaluation.m's loop, same features, same run.

Claims: on 6000 pairs of 1024 dimensions the protocol takes at most a fiftieth of the loop's time,
and gives the same accuracies and thresholds; embedding files takes at most 1.25 times what the bare
forward passes of their batches take (SphereFace-4, the fastest of the reference nets, so that
reading weighs most). Exit code 1 where one fails.

    python benchmarks/verify.py [--pairs 6000] [--dimensions 1024] [--folds 10] [--images 160]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT)  # not this folder, where verify.py would hide the package

from port.data.image_data import read_image
from port.net import load_net
from port.sample_faces import write_set
from verify import embed
from verify.protocol import evaluate

RATIO = 50.0
END_TO_END = 0.8
ROUNDS = 10  # the best of many short ones: what else runs on the machine disturbs least


def matlab_accuracy(scores: np.ndarray, flags: np.ndarray, threshold: float) -> float:
    """GetAccuracy of evaluation.m, expression by expression."""
    right = np.sum(scores[flags == 1] > threshold) + np.sum(scores[flags != 1] < threshold)
    return float(right / len(scores))


def matlab_threshold(scores: np.ndarray, flags: np.ndarray, steps: int = 10000) -> float:
    """GetThreshold of evaluation.m: one pass over the scores for each of 20001 thresholds."""
    accuracies = np.zeros(2 * steps + 1)
    thresholds = np.arange(-steps, steps + 1) / steps
    for index, threshold in enumerate(thresholds):
        accuracies[index] = matlab_accuracy(scores, flags, threshold)
    return float(np.mean(thresholds[accuracies == accuracies.max()]))


def matlab_loop(
    left: np.ndarray, right: np.ndarray, flags: np.ndarray, fold: np.ndarray
) -> tuple[list[float], list[float]]:
    """The loop of evaluation.m over its ten folds: accuracies and thresholds."""
    accuracies, thresholds = [], []
    for number in np.unique(fold):
        val, test = fold != number, fold == number
        mean = np.concatenate([left[val], right[val]]).mean(0)
        a, b = left - mean, right - mean
        a = a / np.sqrt(np.sum(a**2, axis=1, keepdims=True))
        b = b / np.sqrt(np.sum(b**2, axis=1, keepdims=True))
        scores = np.sum(a * b, axis=1)
        thresholds.append(matlab_threshold(scores[val], flags[val]))
        accuracies.append(matlab_accuracy(scores[test], flags[test], thresholds[-1]))
    return accuracies, thresholds


def features(pairs: int, dimensions: int, folds: int) -> tuple[np.ndarray, ...]:
    """Seeded embeddings whose pairs overlap somewhat, half of the pairs same."""
    rng = np.random.default_rng(0)
    left = rng.standard_normal((pairs, dimensions)) + 0.5
    same = np.arange(pairs) % 2 == 0
    share = np.where(same, 0.08, 0.0)[:, None]
    right = share * left + np.sqrt(1 - share**2) * rng.standard_normal((pairs, dimensions)) + 0.3
    return left, right, np.where(same, 1, -1), np.arange(pairs) * folds // pairs + 1


def embedding(images: int) -> float:
    """Images per second from files to embeddings, divided by that of the bare forward passes."""
    net = load_net(ROOT / "reference_prototxt" / "sphereface_4_deploy.prototxt")
    forward = embed.net_forward(net)
    with tempfile.TemporaryDirectory() as folder:
        faces = write_set(Path(folder) / "faces", 1, 1, held_out=20, held_out_samples=images // 20)
        paths = sorted(faces.held_out.rglob("*.jpg"))
        ready = [embed.prepare(read_image(str(path))) for path in paths]
        batches = [np.stack(ready[at : at + embed.BATCH]) for at in range(0, images, embed.BATCH)]
        times: dict[str, list[float]] = {"whole": [], "bare": []}
        for _ in range(ROUNDS):
            start = time.perf_counter()
            embed.embed(paths, forward)
            times["whole"].append(time.perf_counter() - start)
            start = time.perf_counter()
            for batch in batches:
                forward(batch)
                forward(np.ascontiguousarray(batch[..., ::-1]))
            times["bare"].append(time.perf_counter() - start)
    whole, bare = (len(paths) / min(times[key]) for key in ("whole", "bare"))
    print(f"files to embeddings:           {whole:8.1f} images/s, mirrored too")
    print(f"bare forward passes:           {bare:8.1f} images/s   ratio {whole / bare:.2f}")
    return whole / bare


def main() -> int:
    """Time each claim, print a line for each measurement, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6000)
    parser.add_argument("--dimensions", type=int, default=1024)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--images", type=int, default=160)
    args = parser.parse_args()
    left, right, flags, fold = features(args.pairs, args.dimensions, args.folds)

    times = []
    for _ in range(10):
        start = time.perf_counter()
        result = evaluate(left, right, flags == 1, fold)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    accuracies, thresholds = matlab_loop(left, right, flags, fold)
    loop, ours = time.perf_counter() - start, min(times)

    equal = np.abs(result.accuracies - accuracies).max() <= 1e-12
    equal &= np.abs(result.thresholds - thresholds).max() <= 1e-12
    print(f"{args.pairs} pairs x {args.dimensions} dimensions, mean accuracy {result.mean:.4%}")
    print(f"loop of evaluation.m in numpy: {loop:8.3f} s")
    print(f"verify.protocol.evaluate:      {ours:8.3f} s   {loop / ours:.0f} times as fast")
    print(f"accuracies and thresholds equal to 1e-12: {bool(equal)}")
    ratio = embedding(args.images)
    return 0 if equal and loop / ours >= RATIO and ratio >= END_TO_END else 1


if __name__ == "__main__":
    sys.exit(main())
