"""From folders of photographs to aligned faces: detection and alignment over worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from port.errors import DataError, PortError
from port.preprocess import manifest
from port.preprocess.face_list import CASIA_IDENTITIES_IN_LFW, ListSummary, write_face_list
from port.preprocess.job import CHUNK, CROPS, ENCODINGS, Job
from port.preprocess.manifest import Manifest, Record
from port.preprocess.worker import Task, Worker

if TYPE_CHECKING:
    from port.preprocess.landmarks import Landmarks


class Progress(NamedTuple):
    """How far a run is: images done, images in all, images by status."""

    done: int
    total: int
    counts: Counter[str]


class Summary(NamedTuple):
    """What a run did: images by status, how many an earlier run had done, where the results are."""

    counts: Counter[str]
    resumed: int
    seconds: float
    manifest: Path
    crops: Path | None

    @property
    def total(self) -> int:
        """Images in all."""
        return self.counts.total()


class Prepared(NamedTuple):
    """What prepare made: the run, the list, and where list and report are."""

    summary: Summary
    faces: ListSummary
    list_file: Path
    report: Path


def run(
    job: Job,
    workers: int | None = None,
    restart: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Detects and aligns every photograph of a job; takes up an interrupted run where it stopped.

    Writes ``out/manifest.jsonl``, ``out/settings.json`` and, with crops, ``out/crops/identity/…``;
    the result does not depend on `workers` (processes; by default one per core, four on a GPU) nor
    on whether the run was interrupted. `progress` is called at the start and after every chunk.
    Raises DataError for folders and WeightsError for the detector; a photograph that cannot be
    used is a record of the manifest and never stops the run.
    """
    from port.preprocess.images import find_images

    started = time.monotonic()
    files = find_images(job.images)
    tasks = _tasks(job, files)
    book = Manifest(job.out, job.described(), restart)
    done = book.take_up(files, CHUNK)
    counts, resumed = manifest.count(done), len(done)
    report = progress or (lambda _: None)
    report(Progress(resumed, len(files), counts))
    chunks = [tasks[i : i + CHUNK] for i in range(resumed, len(tasks), CHUNK)]
    finished = resumed
    for records in _work(job, chunks, workers or _default_workers(job.device)):
        book.append(records)
        counts = counts + manifest.count(records)  # a new one: progress may keep the last
        finished += len(records)
        report(Progress(finished, len(files), counts))
    crops = job.out / CROPS if job.crops else None
    return Summary(counts, resumed, time.monotonic() - started, book.path, crops)


def prepare(
    job: Job,
    workers: int | None = None,
    restart: bool = False,
    progress: Callable[[Progress], None] | None = None,
    exclude: Iterable[str] = CASIA_IDENTITIES_IN_LFW,
) -> Prepared:
    """The whole way: run(job), then ``out/list.txt`` of the crops and ``out/report.html``.

    Raises what run and write_face_list raise, and DataError when no image gave a face (the report
    is written first).
    """
    from port.preprocess.report import write_report

    summary = run(job, workers, restart, progress)
    page = write_report(summary.manifest, job.images, job.out / "report.html", job.as_stored)
    if not summary.counts[manifest.OK]:
        raise DataError(f"{job.images}: no face in any of {summary.total} images; see {page}")
    suffixes = (ENCODINGS[job.encoding].suffix,)
    faces = write_face_list(job.out / CROPS, job.out / "list.txt", exclude, suffixes)
    return Prepared(summary, faces, job.out / "list.txt", page)


def _tasks(job: Job, files: list[str]) -> list[Task]:
    names = _crop_names(files, ENCODINGS[job.encoding].suffix) if job.crops else {}
    found = _landmarks(job)
    return [Task(file, names.get(file), found.get(file) if found else None) for file in files]


def _landmarks(job: Job) -> Landmarks | None:
    if job.landmarks is None:
        return None
    from port.preprocess.landmarks import read_landmarks

    return read_landmarks(job.landmarks)


def _crop_names(files: list[str], suffix: str) -> dict[str, str]:
    """Crop of each file: its own suffix is replaced, or kept where two files would meet."""
    stems = Counter(str(PurePosixPath(file).with_suffix("")) for file in files)
    names = {}
    for file in files:
        stem = str(PurePosixPath(file).with_suffix(""))
        names[file] = (stem if stems[stem] == 1 else file) + suffix
    return names


# -- worker processes --------------------------------------------------------------------------


def _default_workers(device: str) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # Every process that computes on a GPU holds half a gigabyte of it for itself.
    return (cores or 1) if device == "cpu" else min(4, cores or 1)


def _work(job: Job, chunks: list[list[Task]], workers: int) -> Iterator[list[Record]]:
    """The records of each chunk, in order."""
    workers = min(workers, len(chunks))
    if workers <= 1:
        with _one_thread():
            worker = Worker(job)
            yield from (worker(chunk) for chunk in chunks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (job,))
    try:
        yield from _in_order(pool, chunks, ahead=4 * workers)
    except BrokenProcessPool as error:
        raise PortError(
            "a worker process died (out of memory?); what is done is kept: run again to go on, "
            "with fewer workers (--workers)"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: Executor, chunks: list[list[Task]], ahead: int) -> Iterator[list[Record]]:
    waiting: list[Future[list[Record]]] = []
    for chunk in chunks:
        with _no_ctrl_c():
            waiting.append(pool.submit(_run_chunk, chunk))
        if len(waiting) > ahead:
            yield waiting.pop(0).result()
    for future in waiting:
        yield future.result()


@contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Holds Ctrl-C back: a process started meanwhile never sees it, so only the parent acts."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: Worker | None = None


def _start_worker(job: Job) -> None:
    global _worker
    # The parent decides on Ctrl-C; a worker whose parent was killed must not live on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _limit_threads(1, 1)
    _worker = Worker(job)
    _silence_decoders()


def _silence_decoders() -> None:
    """libjpeg and libpng write to stderr, across the progress bar; the manifest has the reasons."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_chunk(chunk: list[Task]) -> list[Record]:
    assert _worker is not None
    return _worker(chunk)


def _limit_threads(torch_threads: int, cv2_threads: int) -> tuple[int, int]:
    """Threads of torch and of OpenCV in this process; returns the earlier numbers.

    One thread per process is quickest when every core has a process, and it makes results
    independent of the number of workers.
    """
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(torch_threads)
    cv2.setNumThreads(cv2_threads)
    return before


@contextmanager
def _one_thread() -> Iterator[None]:
    before = _limit_threads(1, 1)
    try:
        yield
    finally:
        _limit_threads(*before)
