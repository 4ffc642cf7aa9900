"""Batches filled ahead of their use, by threads, in order."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from port.errors import PortError

Array = NDArray[Any]
Batch = tuple[Array, Array]
Job = TypeVar("Job")


class Part(NamedTuple):
    """A slice of a batch to be filled: data (n, C, H, W) and label (n,), float32."""

    data: Array
    label: Array


class _Pending(NamedTuple):
    batch: Part
    futures: list[Future[Array]]


class _Arrays:
    """Batch arrays, handed out again once nobody else refers to them.

    The page faults of a fresh 30 MB array cost a fifth of decoding the faces it takes. Every
    numpy view and every tensor made from an array holds a reference to the array that owns the
    memory, so that one's reference count tells whether it is free.
    """

    def __init__(self, shape: tuple[int, ...], limit: int) -> None:
        self._shape, self._limit = shape, limit
        self._held: list[Array] = []

    def take(self) -> Array:
        for place in range(len(self._held)):
            if _references(self._held, place) == _UNUSED:
                return self._held[place]
        array = np.empty(self._shape, np.float32)
        if len(self._held) < self._limit:
            self._held.append(array)
        return array

    def clear(self) -> None:
        self._held.clear()


def _references(held: list[Array], place: int) -> int:
    return sys.getrefcount(held[place])


_UNUSED = _references([np.empty(0, np.float32)], 0)


def default_workers() -> int:
    """Threads for decoding: the cores this process may use, at most 8."""
    mine = getattr(os, "sched_getaffinity", None)
    return min(8, len(mine(0)) if mine else os.cpu_count() or 1)


class Prefetcher(Generic[Job]):
    """An endless iterator of (data, label) batches whose records are filled in threads.

    plan: yields the jobs of one batch after another; it runs in the consumer's thread, so it may
    draw random numbers and move cursors without locks. fill: gets some of a batch's jobs and the
    `Part` they belong to, fills it, and returns its data (or another array when the batch is a
    single record whose size is its own). The caller may keep the arrays: only those that nobody
    refers to any more are filled again.

    There is no thread that waits to hand over a batch, so there is nothing to get stuck:
    ``next`` tops up the queue and waits for the oldest batch. An error of `fill` is raised by the
    ``next`` that would have returned the batch it broke; one of `plan` ends the iteration.
    """

    def __init__(
        self,
        plan: Iterator[Sequence[Job]],
        fill: Callable[[Sequence[Job], Part], Array],
        shape: Sequence[int],
        workers: int | None = None,
        depth: int = 3,
    ) -> None:
        self.shape = tuple(shape)
        self.workers = max(1, workers or default_workers())
        self._plan, self._fill = plan, fill
        self._depth = max(1, depth)
        self._queue: deque[_Pending] = deque()
        self._end: Exception | None = None
        self._arrays = _Arrays(self.shape, self._depth + 2)
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(self.workers, "port-data")

    def __iter__(self) -> Prefetcher[Job]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            raise StopIteration
        while self._end is None and len(self._queue) < self._depth:
            self._submit(self._pool)
        if not self._queue:
            raise self._end or StopIteration
        batch, futures = self._queue[0]
        try:
            parts = [future.result() for future in futures]
        finally:
            self._queue.popleft()
        return (parts[0] if len(parts) == 1 else batch.data), batch.label

    def close(self) -> None:
        """Drops what is queued and joins the threads; ``next`` then ends the iteration."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None
        self._queue.clear()
        self._arrays.clear()

    def __enter__(self) -> Prefetcher[Job]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, pool: ThreadPoolExecutor) -> None:
        """Plans one more batch and hands it to the threads."""
        try:
            jobs = next(self._plan)
        except (PortError, StopIteration) as error:
            self._end = error
            return
        batch = Part(self._arrays.take(), np.empty(self.shape[0], np.float32))
        step = -(-len(jobs) // self.workers)
        futures = []
        for start in range(0, len(jobs), step):
            span = slice(start, start + step)
            part = Part(batch.data[span], batch.label[span])
            futures.append(pool.submit(self._fill, jobs[span], part))
        self._queue.append(_Pending(batch, futures))
