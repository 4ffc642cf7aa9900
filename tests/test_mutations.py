"""Damaged nets, solvers and weights end in success or in one of our errors, never otherwise.

Within 5 s and 1 GiB each: the process that tries them has a limit on its memory, an alarm, and
turns warnings into errors.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from mutations import MEBIBYTES, SECONDS

SCRIPT = Path(__file__).with_name("mutations.py")


def tried(first: int, count: int) -> list[dict]:
    """One record for each mutation; fails when the process died on one."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(first), str(count)],
        capture_output=True,
        text=True,
        timeout=60 + SECONDS * count / 10,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"died after seed {first + len(rows) - 1}: {done.stderr[-3000:]}"
    assert [row["seed"] for row in rows] == list(range(first, first + count))
    return rows


def check(rows: list[dict]) -> None:
    escaped = [row for row in rows if row["ended"].startswith("ESCAPED")]
    assert not escaped, "\n".join(f"seed {row['seed']}: {row['ended']}" for row in escaped[:3])
    assert max(row["seconds"] for row in rows) < SECONDS
    assert max(row["mib"] for row in rows) < MEBIBYTES


def test_damage_is_survived() -> None:
    rows = tried(0, 500)
    check(rows)
    # What makes the test one: every kind of damage is there, it often hurts, and it often does not.
    kinds = {re.split(": ", row["ended"])[0] for row in rows}
    assert len(kinds) >= 22, sorted(kinds)
    survived = sum(row["ended"].endswith(": success") for row in rows)
    assert 50 < survived < 300
    messages = {re.sub(r"\W+|\d+", "", row["ended"])[:60] for row in rows}
    assert len(messages) > 100, "the damage should reach many different checks"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(500, 6500, 2000))
def test_more_damage_is_survived(first: int) -> None:
    check(tried(first, 2000))


def test_the_limits_of_the_trial_are_real() -> None:
    """Memory beyond the limit is refused to the process, so that no mutation can take it."""
    folders = [str(SCRIPT.parent), str(SCRIPT.parents[1])]
    script = (
        f"import sys; sys.path[:0] = {folders!r}; import torch, mutations\n"
        "mutations._limit_memory(); torch.zeros(2**26)\n"
        "try: torch.zeros(2**28)\n"
        "except RuntimeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "can't allocate memory" in done.stdout, done.stderr
