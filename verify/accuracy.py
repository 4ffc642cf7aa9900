"""A whole verification: pairs and pictures in, accuracy by fold and ROC numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from port.data.image_data import read_image
from port.errors import DataError
from verify import embed, metrics, protocol
from verify.insightface import BinSet
from verify.pairs import Pair

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".pgm", ".ppm")


@dataclass(frozen=True)
class Verification:
    """Everything that is told about one run.

    images: path of each picture by its name in the pairs; empty when only embeddings were given.
    read: gives the picture of a path, (H, W, 3) uint8 BGR.
    variants: names of what departs from evaluation.m; empty for the original's protocol.
    expected: the accuracy and the tolerance, in percent, that the result is held against.
    """

    pairs: Sequence[Pair]
    result: protocol.Result
    points: list[metrics.Operating]
    equal_error_rate: float
    area_under_curve: float
    variants: tuple[str, ...] = ()
    images: Mapping[str, Path] = field(default_factory=dict)
    read: embed.Reader = read_image
    expected: tuple[float, float] | None = None

    @property
    def same(self) -> npt.NDArray[np.bool_]:
        """(N,) whether each pair shows one person."""
        return np.array([pair.same for pair in self.pairs])

    @property
    def passed(self) -> bool | None:
        """Whether the mean accuracy is as near the expected one as it has to be; None without one.

        Compared as printed with two decimals more, so that 99.20 is within 0.10 of 99.30.
        """
        if self.expected is None:
            return None
        expected, tolerance = self.expected
        return round(abs(100 * self.result.mean - expected), 4) <= round(tolerance, 4)

    def fold_table(self) -> str:
        """The table that evaluation.m prints, tabs and rules included."""
        rule = "-" * 16
        rows = zip(self.result.folds.tolist(), self.result.accuracies.tolist(), strict=True)
        lines = [f"{fold}\t{100 * accuracy:.2f}%" for fold, accuracy in rows]
        return "\n".join(
            ["fold\tACC", rule, *lines, rule, f"AVE\t{100 * self.result.mean:.2f}%", ""]
        )

    def summary(self) -> str:
        """The other numbers, a line each: mean and deviation, TAR at FAR, EER, AUC, the verdict."""
        result = self.result
        lines = [f"variant: {name} (not evaluation.m's protocol)" for name in self.variants]
        lines.append(f"accuracy  {100 * result.mean:.2f} % ± {100 * result.std:.2f}")
        lines.append(f"threshold {result.threshold:.4f} (mean of the folds)")
        for point in self.points:
            note = "" if point.resolved else "  (too few different pairs: no false accept)"
            lines.append(f"TAR at FAR {point.far:g}: {100 * point.tar:.2f} %{note}")
        lines.append(f"EER {100 * self.equal_error_rate:.2f} %")
        lines.append(f"AUC {self.area_under_curve:.5f}")
        if self.expected is not None:
            word, how = ("PASS", "within") if self.passed else ("FAIL", "not within")
            expected, tolerance = self.expected
            lines.append(
                f"{word}: {100 * result.mean:.2f} % is {how} {tolerance:.2f} of {expected:.2f} %"
            )
        return "\n".join(lines)


def verify_pairs(
    pairs: Sequence[Pair],
    images: str | Path | BinSet,
    forward: embed.Forward,
    shape: embed.Shape = embed.SHAPE,
    *,
    flip: embed.Flip = "concat",
    subtract_mean: bool = True,
    pooled_threshold: bool = False,
    batch_size: int = embed.BATCH,
    progress: embed.Progress | None = None,
    pixels: embed.Pixels = embed.PIXELS,
) -> Verification:
    """Embed each picture of the pairs once and run the protocol.

    images: the folder that the pairs' paths are relative to (another suffix is found too), or the
        .bin set that the pairs come from.

    Raises:
        DataError: a missing picture (naming the pair's line), one that cannot be embedded, or
            pairs that the protocol refuses.
    """
    read = images.read_image if isinstance(images, BinSet) else read_image
    paths = _own_names(pairs) if isinstance(images, BinSet) else find_images(pairs, Path(images))
    rows = embed.embed(
        list(paths.values()),
        forward,
        shape,
        flip=flip,
        batch_size=batch_size,
        progress=progress,
        read=read,
        pixels=pixels,
    )
    found = dict(zip(paths, rows, strict=True))
    variants = () if flip == "concat" else (f"flip {flip}",)
    return verify_embeddings(
        pairs,
        found,
        subtract_mean=subtract_mean,
        pooled_threshold=pooled_threshold,
        variants=variants,
        images=paths,
        read=read,
    )


def verify_embeddings(
    pairs: Sequence[Pair],
    embeddings: Mapping[str, npt.NDArray[Any]],
    *,
    subtract_mean: bool = True,
    pooled_threshold: bool = False,
    variants: tuple[str, ...] = (),
    images: Mapping[str, Path] | None = None,
    read: embed.Reader = read_image,
) -> Verification:
    """Run the protocol on embeddings (D,) by the pictures' names in the pairs.

    Raises:
        DataError: a picture without embedding, sizes that differ, NaN or zero embeddings.
    """
    left, right = (_column(pairs, embeddings, side) for side in ("left", "right"))
    same, fold = np.array([p.same for p in pairs]), np.array([p.fold for p in pairs])
    result = protocol.evaluate(
        left,
        right,
        same,
        fold,
        subtract_mean=subtract_mean,
        pooled_threshold=pooled_threshold,
        tested=np.unique(fold) if pooled_threshold else protocol.TESTED,
    )
    off = {"no mean subtraction": not subtract_mean, "pooled threshold": pooled_threshold}
    return Verification(
        pairs,
        result,
        metrics.tar_at_far(result.scores, same),
        metrics.equal_error_rate(result.scores, same),
        metrics.area_under_curve(result.scores, same),
        variants + tuple(name for name, used in off.items() if used),
        images or {},
        read,
    )


def find_images(pairs: Sequence[Pair], folder: Path) -> dict[str, Path]:
    """The file of each picture that the pairs name, once each, in the order of appearance.

    Raises:
        DataError: a picture that is missing; the message names the line of the first pair.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        for name in (pair.left, pair.right):
            if name not in found:
                found[name] = _find(folder, name, pair.line)
    return found


def _own_names(pairs: Sequence[Pair]) -> dict[str, Path]:
    return {name: Path(name) for pair in pairs for name in (pair.left, pair.right)}


def _find(folder: Path, name: str, line: int) -> Path:
    path = folder / name
    for candidate in (path, *(path.with_suffix(suffix) for suffix in SUFFIXES)):
        if candidate.is_file():
            return candidate
    raise DataError(
        f"pairs list, line {line}: no image {path} (nor with {', '.join(SUFFIXES[1:])}); is this "
        "the folder that holds one folder per person?"
    )


def _column(
    pairs: Sequence[Pair], embeddings: Mapping[str, npt.NDArray[Any]], side: str
) -> npt.NDArray[np.float64]:
    """Embeddings (N, D) of the left or the right pictures."""
    names = [getattr(pair, side) for pair in pairs]
    size = None
    for pair, name in zip(pairs, names, strict=True):
        if name not in embeddings:
            raise DataError(f"pairs list, line {pair.line}: no embedding of {name}")
        size = size or embeddings[name].shape
        if embeddings[name].shape != size:
            raise DataError(
                f"pairs list, line {pair.line}: the embedding of {name} has shape "
                f"{embeddings[name].shape}, those before it {size}"
            )
    rows = np.stack([embeddings[name] for name in names]).astype(np.float64)
    embed.check_embeddings(rows, names)
    return rows
