"""Training runs side by side: one process and one thread each, stoppable at any step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event as StopEvent
from pathlib import Path
from queue import Empty
from types import ModuleType
from typing import Any

from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.training.engine import FRAMEWORKS
from loss_balance.experiments.training.learner import Learner
from loss_balance.experiments.training.loop import Record, Run, train
from loss_balance.experiments.training.run_folder import alone

LEARNERS = {"torch": "TorchLearner", "tensorflow": "TensorFlowLearner", "jax": "JaxLearner"}


@dataclass(frozen=True)
class Step:
    """What a running worker reports now and then."""

    run: str
    epoch: int
    step: int
    loss: float  # of the last exit


@dataclass(frozen=True)
class Epoch:
    """What it reports of each epoch: its line of metrics.jsonl."""

    run: str
    record: Record


class Watch:
    """What is told of runs as they go; this one looks away."""

    def on_step(self, step: Step) -> None:
        """A worker moved on."""

    def on_epoch(self, epoch: Epoch) -> None:
        """An epoch is over and kept."""

    def on_done(self, run: str) -> None:
        """A run finished, in this call or in an earlier one."""


Results = dict[str, dict[str, Any]]  # result of `training.train` by the run's name
_channel: tuple[Queue[Step | Epoch], StopEvent] | None = None  # a worker's line to its parent


def execute(runs: Sequence[Run], folder: Path, workers: int, watches: Sequence[Watch]) -> Results:
    """Trains all runs, `workers` at a time, each in `folder / run.name`.

    Raises:
        UserError: what a run raised; the others stop at their next step.
        KeyboardInterrupt: likewise; everything continues from the last checkpoints.
    """
    context = get_context("spawn")  # a fork would copy the parent's threads and locks
    reports: Queue[Step | Epoch] = context.Queue()
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
            _drain(reports, watches)
            for future in done:
                results[names[future]] = future.result()
                for watch in watches:
                    watch.on_done(names[future])
        return results
    except BrokenProcessPool as error:
        raise UserError(
            "a training process died (out of memory?): --resume goes on, fewer --jobs need less"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        _drain(reports, watches)
        reports.close()


def _drain(reports: Queue[Step | Epoch], watches: Sequence[Watch]) -> None:
    with contextlib.suppress(Empty):
        while True:
            report = reports.get_nowait()
            for watch in watches:
                if isinstance(report, Epoch):
                    watch.on_epoch(report)
                else:
                    watch.on_step(report)


def _start_worker(reports: Queue[Step | Epoch], stop: StopEvent) -> None:
    global _channel  # a pool hands its workers nothing else
    _channel = (reports, stop)
    for asked in (signal.SIGINT, signal.SIGTERM):  # both reach the parent too, which sets `stop`
        signal.signal(asked, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(run: Run, folder: Path) -> dict[str, Any]:
    if _channel is None:
        raise RuntimeError("a worker must be started with _start_worker")
    reports, stop = _channel

    def progress(epoch: int, step: int, loss: float) -> bool:
        reports.put(Step(run.name, epoch, step, loss))
        return not stop.is_set()

    def on_epoch(record: Record) -> None:
        reports.put(Epoch(run.name, record))

    with alone(folder, stop.is_set):
        data = _load(run.source)
        made = learner(run, data)
        return train(run, made, data, folder, progress, _readers(data), on_epoch)


@lru_cache(maxsize=1)
def _load(source: Source) -> Dataset:
    return source.load()


def use_one_thread(framework: str) -> None:
    """One thread for all that the framework computes in this process; call it before anything."""
    _module(framework).use_one_thread()


def cores() -> int:
    """How many cores this process may use; macOS and Windows only know how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _readers(data: Dataset) -> int:
    """Processes that read a streamed set, which is trained alone on its machine."""
    return max(1, (os.cpu_count() or 1) - 1) if data.streamed else 0


def learner(run: Run, data: Dataset) -> Learner:
    """The learner of the run's framework, which is imported here.

    Runs go side by side, so each learner keeps to one thread: more would only wait for each other.
    """
    framework = run.engine.framework
    use_one_thread(framework)
    made: Learner = getattr(_module(framework), LEARNERS[framework])(run, data)
    return made


def _module(framework: str) -> ModuleType:
    """The learner's module; whatever the user's Keras runs on elsewhere, here it is TensorFlow."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    with _silent_libraries():
        return import_module(f"loss_balance.experiments.training.{FRAMEWORKS[framework]}")


@contextlib.contextmanager
def _silent_libraries() -> Iterator[None]:
    """Drops what is written to stderr beneath Python; errors still come as exceptions.

    TensorFlow greets every process, at any log level, and would do so amid the progress bars.
    """
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
