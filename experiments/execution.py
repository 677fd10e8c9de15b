"""Training runs side by side: one process and one thread each, stoppable at any step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path
from queue import Empty
from typing import Any

from loss_balance.experiments.data import Dataset, load
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training import Interruption, Learner, Run, train

BACKENDS = ("torch",)
DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Source:
    """Where a worker finds its data and its framework."""

    data: str
    path: Path | None
    backend: str
    device: str = "cpu"


@dataclass(frozen=True)
class Step:
    """What a running worker reports."""

    run: str
    epoch: int
    step: int
    loss: float  # of the last exit


Results = dict[str, dict[str, Any]]  # result of `training.train` by the run's name
_channel: tuple[Queue[Step], StopEvent] | None = None  # a worker's line to its parent


def execute(
    runs: Sequence[Run],
    folder: Path,
    source: Source,
    workers: int,
    on_step: Callable[[Step], None],
    on_done: Callable[[str], None],
) -> Results:
    """Trains all runs, `workers` at a time, each in `folder / run.name`.

    Raises:
        UserError: what a run raised; the others stop at their next step.
        KeyboardInterrupt: likewise; everything continues from the last checkpoints.
    """
    context = get_context("spawn")  # a fork would copy the parent's threads and locks
    steps: Queue[Step] = context.Queue()
    stop = context.Event()
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(steps, stop)
    )
    names: dict[Future[dict[str, Any]], str] = {}
    try:
        for run in runs:
            names[pool.submit(_work, run, folder / run.name, source)] = run.name
        results = {}
        pending = set(names)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
            _drain(steps, on_step)
            for future in done:
                results[names[future]] = future.result()
                on_done(names[future])
        return results
    except BrokenProcessPool as error:
        raise UserError(
            "a training process died (out of memory?): --resume goes on, fewer --jobs need less"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        _drain(steps, on_step)
        steps.close()


def check_source(source: Source) -> None:
    """UserError unless the backend has a learner and is installed, and the device is known."""
    if source.backend not in BACKENDS:
        raise UserError(f"unknown backend {source.backend!r}: choose from {', '.join(BACKENDS)}")
    if find_spec(source.backend) is None:
        raise UserError(
            f"{source.backend} is not installed: pip install 'loss-balance[{source.backend}]'"
        )
    if source.device not in DEVICES:
        raise UserError(f"unknown device {source.device!r}: choose from {', '.join(DEVICES)}")


def _drain(steps: Queue[Step], on_step: Callable[[Step], None]) -> None:
    with contextlib.suppress(Empty):
        while True:
            on_step(steps.get_nowait())


def _start_worker(steps: Queue[Step], stop: StopEvent) -> None:
    global _channel  # a pool hands its workers nothing else
    _channel = (steps, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sets `stop`
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(run: Run, folder: Path, source: Source) -> dict[str, Any]:
    if _channel is None:
        raise RuntimeError("a worker must be started with _start_worker")
    steps, stop = _channel

    def progress(epoch: int, step: int, loss: float) -> bool:
        steps.put(Step(run.name, epoch, step, loss))
        return not stop.is_set()

    if stop.is_set():
        raise Interruption
    data = _load(source.data, source.path)
    return train(run, _learner(run, data, source), data, folder, progress)


@lru_cache(maxsize=1)
def _load(name: str, path: Path | None) -> Dataset:
    return load(name, path)


def _learner(run: Run, data: Dataset, source: Source) -> Learner:
    """The one place that knows which backend has which learner."""
    import torch

    from loss_balance.experiments.torch_learner import TorchLearner

    if source.device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device is at hand: choose --device cpu")
    torch.set_num_threads(1)  # runs side by side: more threads each would only wait for each other
    return TorchLearner(run, data, source.device)
