"""The report of a verification: one self-contained HTML page, and JSON for machines."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from port.errors import DataError
from verify import metrics
from verify.accuracy import Verification
from verify.page import PAGE

MISTAKES = 12
"""Most confident mistakes of each kind that the page shows."""
_PACKAGES = (
    "sphereface-port",
    "torch",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
)
_SAME, _OTHER = "#1b6ca8", "#c8553d"


def as_dict(found: Verification, files: Mapping[str, str | Path] | None = None) -> dict[str, Any]:
    """Everything the page tells, as plain values; `files` are named and hashed (SHA-256)."""
    result = found.result
    scores, same = result.scores, found.same
    return {
        "accuracy": {"mean": result.mean, "std": result.std, "threshold": result.threshold},
        "folds": [
            {"fold": int(fold), "accuracy": float(accuracy), "threshold": float(threshold)}
            for fold, accuracy, threshold in zip(
                result.folds, result.accuracies, result.thresholds, strict=True
            )
        ],
        "tar_at_far": [asdict(point) for point in found.points],
        "equal_error_rate": found.equal_error_rate,
        "area_under_curve": found.area_under_curve,
        "pairs": {"same": int(same.sum()), "different": int((~same).sum())},
        "undefined_scores": int(np.isnan(scores).sum()),
        "variants": list(found.variants),
        "expected": _expected(found),
        "environment": environment(),
        "files": {name: file_hash(path) for name, path in (files or {}).items()},
    }


def _expected(found: Verification) -> dict[str, Any] | None:
    if found.expected is None:
        return None
    accuracy, tolerance = found.expected
    return {"accuracy": accuracy, "tolerance": tolerance, "passed": found.passed}


def write_json(
    found: Verification, path: str | Path, files: Mapping[str, str | Path] | None = None
) -> None:
    """Write `as_dict`, whole or not at all. A folder that cannot be written is a DataError.

    A threshold above every score is infinite; JSON has no such number, so it becomes null.
    """
    data = as_dict(found, files)
    for point in data["tar_at_far"]:
        point["threshold"] = point["threshold"] if np.isfinite(point["threshold"]) else None
    _write(Path(path), json.dumps(data, indent=1, allow_nan=False) + "\n")


def write_html(
    found: Verification,
    path: str | Path,
    files: Mapping[str, str | Path] | None = None,
    title: str = "Face verification",
) -> None:
    """Write the page, whole or not at all: pictures and style are inside, nothing is fetched.

    The faces of the most confident mistakes are shown where the verification knows their files.

    Raises:
        DataError: a folder that cannot be written, or a picture that has gone since.
    """
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    text = page.render(
        title=title,
        data=as_dict(found, files),
        roc=roc_svg(found),
        histogram=histogram_svg(found),
        mistakes=[
            ("Same person, scored as different", _cards(found, most_confident(found, same=True))),
            ("Different people, scored as same", _cards(found, most_confident(found, same=False))),
        ],
    )
    _write(Path(path), text)


def most_confident(found: Verification, same: bool, count: int = MISTAKES) -> list[int]:
    """Indices of the wrong pairs of one kind, the farthest from their fold's threshold first.

    An undefined score (NaN) is wrong for both kinds and comes first.
    """
    margin = found.result.scores - _own_thresholds(found)
    margin = np.where(np.isnan(margin), -np.inf, margin if same else -margin)
    wrong = np.flatnonzero((found.same == same) & (margin <= 0))
    order: list[int] = wrong[np.argsort(margin[wrong], kind="stable")][:count].tolist()
    return order


def _own_thresholds(found: Verification) -> npt.NDArray[np.float64]:
    """(N,) the threshold of each pair's fold; the mean threshold for folds not tested."""
    by_fold = dict(zip(found.result.folds.tolist(), found.result.thresholds.tolist(), strict=True))
    return np.array([by_fold.get(pair.fold, found.result.threshold) for pair in found.pairs])


def roc_svg(found: Verification) -> str:
    """The ROC with a logarithmic FAR, as an SVG element."""
    curve = metrics.roc(found.result.scores, found.same)
    floor = 1.0 / max(1, int((~found.same).sum()))
    figure, axes = _figure()
    axes.step(np.maximum(curve.far, floor / 3), curve.tar, where="post", color=_SAME)
    axes.set_xscale("log")
    axes.set_xlim(floor / 2, 1)
    axes.set_ylim(max(0.0, min(0.9, float(found.points[-1].tar) - 0.05)), 1.002)
    axes.set_xlabel("false accept rate")
    axes.set_ylabel("true accept rate")
    axes.grid(True, which="both", alpha=0.25)
    return _svg(figure, "ROC: true accept rate against the logarithm of the false accept rate")


def histogram_svg(found: Verification) -> str:
    """Histograms of the scores of same and of different pairs, as an SVG element."""
    figure, axes = _figure()
    bins = np.linspace(-1, 1, 101)
    for kind, label, colour in ((True, "same", _SAME), (False, "different", _OTHER)):
        scores = found.result.scores[found.same == kind]
        axes.hist(scores[~np.isnan(scores)], bins.tolist(), color=colour, alpha=0.65, label=label)
    axes.axvline(found.result.threshold, color="#333", linestyle="--", label="mean threshold")
    axes.set_xlabel("score (cosine)")
    axes.set_ylabel("pairs")
    axes.legend(frameon=False)
    return _svg(figure, "histograms of the scores of same and of different pairs")


def environment() -> dict[str, str]:
    """Versions that can change the last digit."""
    found = {"python": platform.python_version(), "system": platform.system()}
    found["processor"] = platform.machine()
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. An unreadable one is a DataError."""
    digest = hashlib.sha256()
    path = Path(path) / "data.mdb" if Path(path).is_dir() else path  # of an LMDB
    try:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path}: cannot read it: {error.strerror or error}") from error
    return digest.hexdigest()


def _figure() -> tuple[Any, Any]:
    # The object interface: no backend is chosen, no window system and no global state touched.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Any, label: str) -> str:
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": label, "svg.fonttype": "none"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return text[text.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _cards(found: Verification, indices: Sequence[int]) -> list[dict[str, Any]]:
    thresholds = _own_thresholds(found)
    return [
        {
            "line": found.pairs[k].line,
            "score": float(found.result.scores[k]),
            "threshold": float(thresholds[k]),
            "faces": [
                {"name": Path(name).stem, "source": _picture(found, name)}
                for name in (found.pairs[k].left, found.pairs[k].right)
            ],
        }
        for k in indices
    ]


def _picture(found: Verification, name: str) -> str:
    """A picture as a data address (JPEG); empty where the verification has no files."""
    import cv2

    if name not in found.images:
        return ""
    image = found.read(str(found.images[name]), True)
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot write the report: {error.strerror or error}") from error
