"""Freed memory is used again instead of being mapped and zeroed anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COUNT = """
import resource, sys
import numpy as np
from port.solver.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def fill():
    np.empty(1 << 24, np.float32).fill(1)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Page faults of filling a block of 64 MiB four more times."""
    run = subprocess.run(
        [sys.executable, "-c", COUNT, mode],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMPY_MADVISE_HUGEPAGE": "0"},
    )
    return int(run.stdout)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"),
    reason="only glibc's malloc is told",
)
def test_large_blocks_are_not_faulted_in_again() -> None:
    assert faults("keep") < faults("default") / 4
