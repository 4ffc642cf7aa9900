"""Markers and the folder of other people's data, which is never part of the repository."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "SPHEREFACE_DATA"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def data_folder() -> Path:
    """$SPHEREFACE_DATA, or ``../shared/data`` beside the checkout; it may not exist."""
    named = os.environ.get(VARIABLE)
    if not named:
        return ROOT.parent / "shared" / "data"
    folder = Path(named).resolve()
    if not folder.is_dir():
        raise pytest.UsageError(f"{VARIABLE} names no folder: {folder}")
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder; use it in tests marked ``data``, which are skipped where it is missing."""
    return data_folder()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips by name what this machine cannot run: ``data("lfw")`` needs <data folder>/lfw."""
    folder = data_folder()
    for item in items:
        for mark in item.iter_markers("data"):
            for part in mark.args or (".",):
                if not (folder / part).exists():
                    reason = f"no {(Path('data') / part)} in ../shared, and none by ${VARIABLE}"
                    item.add_marker(pytest.mark.skip(reason=reason))
    _skip_without_gpu([item for item in items if item.get_closest_marker("cuda")])
    if find_browser() is None:
        for item in items:
            if item.get_closest_marker("browser"):
                reason = f"none of {', '.join(BROWSERS)} on PATH"
                item.add_marker(pytest.mark.skip(reason=reason))


def find_browser() -> str | None:
    """A headless browser's path; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _skip_without_gpu(items: list[pytest.Item]) -> None:
    if not items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="torch sees no CUDA device"))
