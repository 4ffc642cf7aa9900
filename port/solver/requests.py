"""What signals ask of a running solver."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ACTIONS = {"SIGINT": "stop", "SIGHUP": "snapshot"}


class Requests:
    """Remembers the action that a signal asked for until the solver takes it.

    Source: BVLC Caffe 1.0, src/caffe/util/signal_handler.cpp; a snapshot is part of stopping here.
    """

    def __init__(self) -> None:
        self._wanted = ""

    def take(self) -> str:
        """The action asked for since the last call: "stop", "snapshot" or ""."""
        wanted, self._wanted = self._wanted, ""
        return wanted

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle SIGINT and SIGHUP inside the block; a second SIGINT interrupts at once.

        Outside the main thread, where Python allows no handlers, nothing is changed.
        """
        known = {
            getattr(signal, name): act for name, act in ACTIONS.items() if hasattr(signal, name)
        }

        def handle(number: int, frame: Any) -> None:
            if self._wanted == "stop" and known[number] == "stop":
                raise KeyboardInterrupt
            self._wanted = known[number]

        if threading.current_thread() is not threading.main_thread():
            known = {}
        before = {number: signal.signal(number, handle) for number in known}
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)
