"""Runs by the processes that torchrun or its like has started, which execute the same command."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from loss_balance.experiments.errors import Interruption
from loss_balance.experiments.runs import jax_processes, ranks
from loss_balance.experiments.runs.watching import Done, Tell
from loss_balance.experiments.runs.working import train_as
from loss_balance.experiments.training.crew import Crew
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.run_folder import alone


def train_joined(runs: Sequence[Run], folder: Path, tell: Tell) -> dict[str, dict[str, Any]]:
    """`execution.execute` by all these processes together, one run after the other.

    Raises:
        UserError: as `working.train_as`.
        KeyboardInterrupt: any of them was asked to stop; all have agreed on where.
        RuntimeError: the others are gone, or do not train the same.
    """
    results = {}
    (framework,) = {run.engine.framework for run in runs}
    meeting = jax_processes if framework == "jax" else ranks
    with _asked_to_stop() as asked:
        for run in runs:
            crew = meeting.join(run)
            crew.check_equal("runs", [float(int(run.identity()[:12], 16))])
            try:
                with _held(folder / run.name, crew, asked):
                    results[run.name] = train_as(crew, run, folder / run.name, tell, asked.is_set)
            except Interruption as error:
                raise KeyboardInterrupt from error
            tell(Done(run.name))
    meeting.leave()
    return results


@contextlib.contextmanager
def _held(folder: Path, crew: Crew, asked: threading.Event) -> Iterator[None]:
    """The first process locks for all."""
    with alone(folder, asked.is_set) if crew.rank == 0 else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Within, Ctrl-C and SIGTERM set the event: raised anywhere, they leave others waiting."""
    asked = threading.Event()
    signals = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(each, lambda *_: asked.set()) for each in signals]
    try:
        yield asked
    finally:
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)
