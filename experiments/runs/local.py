"""Runs side by side on this machine: one process and one thread each, stoppable at any step."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path
from queue import Empty
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.watching import Done, Report, Tell
from loss_balance.experiments.runs.worker import train_run
from loss_balance.experiments.runs.working import belong_to_parent
from loss_balance.experiments.training.loop import Run

_channel: tuple[Queue[Report], StopEvent] | None = None  # a worker's line to its parent


def train_here(
    runs: Sequence[Run], folder: Path, workers: int, tell: Tell
) -> dict[str, dict[str, Any]]:
    """`execution.execute` by a pool of processes."""
    context = get_context("spawn")  # a fork would copy the parent's threads and locks
    reports: Queue[Report] = context.Queue()
    stop = context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(reports, stop)
    )
    names: dict[Future[dict[str, Any]], str] = {}
    try:
        for run in runs:
            names[pool.submit(_work, run, folder / run.name)] = run.name
        results = {}
        pending = set(names)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(reports, tell)
            for future in done:
                results[names[future]] = future.result()
                tell(Done(names[future]))
        return results
    except BrokenProcessPool as error:
        raise UserError(
            "a training process died (out of memory?): --resume goes on, fewer --jobs need less"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        _drain(reports, tell)
        reports.close()


def _drain(reports: Queue[Report], tell: Tell) -> None:
    with contextlib.suppress(Empty):
        while True:
            tell(reports.get_nowait())


def _start_worker(reports: Queue[Report], stop: StopEvent) -> None:
    global _channel  # a pool hands its workers nothing else
    _channel = (reports, stop)
    belong_to_parent()


def _work(run: Run, folder: Path) -> dict[str, Any]:
    if _channel is None:
        raise RuntimeError("a worker must be started with _start_worker")
    reports, stop = _channel
    return train_run(run, folder, reports.put, stop.is_set)
