"""What one process does for a run: `ranks` and `execution` start it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from functools import lru_cache
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from loss_balance.experiments.data.sources import Dataset, Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.watching import Epoch, Step, Tell
from loss_balance.experiments.training.crew import Crew
from loss_balance.experiments.training.learners.by_framework import learner
from loss_balance.experiments.training.loop import Record, Run, train


def train_as(
    crew: Crew, run: Run, folder: Path, tell: Tell, stopped: Callable[[], bool]
) -> dict[str, Any]:
    """Trains the run in its folder, from its last checkpoint on; the result of `training.train`.

    Args:
        crew: whose part this process does.
        run: what to train.
        folder: absolute; only this crew is in it.
        tell: gets a Step every few steps and an Epoch after each.
        stopped: asked as often; true ends the run at its last checkpoint.

    Raises:
        Interruption: `stopped` came true.
        UserError: as `training.train`; or the data are not those that the run was planned with.
    """

    def progress(epoch: int, step: int, loss: float) -> bool:
        tell(Step(run.name, epoch, step, loss))
        return not stopped()

    def on_epoch(record: Record) -> None:
        tell(Epoch(run.name, record))

    data = _load(run.source)
    _check(run, data)
    made = learner(run, data, crew)
    return train(run, made, data, folder, progress, _readers(data, crew), on_epoch)


def belong_to_parent() -> None:
    """Makes this process deaf to signals that its parent hears too, and end when that does."""
    for asked in (signal.SIGINT, signal.SIGTERM):
        signal.signal(asked, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@lru_cache(maxsize=1)
def _load(source: Source) -> Dataset:
    return source.load()


def _check(run: Run, data: Dataset) -> None:
    """UserError unless the data are those that the command began with."""
    found = _fingerprint(run.source)
    if found != run.fingerprint:
        raise UserError(
            f"{run.name}: the data must be those that the command began with, here {data.name} has "
            f"the checksum {found[:12]} in place of {run.fingerprint[:12]}"
        )


@lru_cache(maxsize=1)
def _fingerprint(source: Source) -> str:
    return _load(source).fingerprint()


def _readers(data: Dataset, crew: Crew) -> int:
    """Processes that read a streamed set, which is trained alone on its machine."""
    return max(1, ((os.cpu_count() or 1) - 1) // crew.size) if data.streamed else 0
