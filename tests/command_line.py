"""Runs the ``port`` command as a user does, in this process."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from port.cli import main

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Run:
    """What one call of the command printed."""

    stdout: str
    stderr: str


def port(*args: object, cwd: Path = ROOT, code: int = 0) -> Run:
    """Run the command in this process; fail unless it exits with ``code``.

    An exception other than the exit itself, which a user would see as a traceback, fails the test.
    """
    out, err = io.StringIO(), io.StringIO()
    before, argv = Path.cwd(), sys.argv
    os.chdir(cwd)
    sys.argv = ["port", *map(str, args)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
    finally:
        os.chdir(before)
        sys.argv = argv
    assert ended.value.code == code, err.getvalue()[-2000:]
    return Run(out.getvalue(), err.getvalue())
