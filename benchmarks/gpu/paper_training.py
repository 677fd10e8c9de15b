"""Training that ends in time, and how fast it went."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.attempts import Clock, TimeUp
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.execution import execute
from loss_balance.experiments.runs.places import Here
from loss_balance.experiments.runs.watching import Step, Watch
from loss_balance.experiments.training.loop import Run

GRACE = 4.0  # seconds from when workers are asked to stop until they are ended


class Pace(NamedTuple):
    """Steps that a run took, and in how many seconds."""

    steps: int
    seconds: float


class Progress:
    """When each run was where. Workers report some of their steps, so steps are not counted here.

    Args:
        steps: of an epoch.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.seen: dict[str, list[tuple[float, int]]] = {}

    def note(self, step: Step) -> None:
        """The run has taken this step by now."""
        position = step.epoch * self.steps + step.step
        self.seen.setdefault(step.run, []).append((time.monotonic(), position))

    def pace(self, run: str, warm: int = 0) -> Pace:
        """The pace from the first report after `warm` steps to the last; zeros if no two."""
        seen = self.seen.get(run, [])
        counted = [(at, position) for at, position in seen if position >= seen[0][1] + warm]
        if len(counted) < 2:
            return Pace(0, 0.0)
        (begun, first), (ended, last) = counted[0], counted[-1]
        return Pace(last - first, ended - begun)


def train_within(
    clock: Clock, runs: Sequence[Run], folder: Path, jobs: int, on_step: Callable[[Step], None]
) -> None:
    """`execute`, until the clock has run out; what is not finished then can go on.

    Workers are asked at their next step, `GRACE` seconds before. Those that come to none, for they
    compile or evaluate, are ended: a run's folder can bear it.

    Raises:
        UserError: as `execute`.
        TimeUp: not all runs were finished, or `on_step` raised it.
    """

    class Steps(Watch):
        def on_step(self, step: Step) -> None:
            on_step(step)
            if clock.left() < GRACE:
                raise TimeUp

    late = threading.Timer(max(clock.left(), 0.0), _end_workers)
    late.daemon = True
    late.start()
    try:
        execute(runs, folder, Here(jobs), [Steps()])
    except UserError:
        if clock.left() > 0:
            raise
        raise TimeUp from None  # it died of us
    finally:
        late.cancel()


def _end_workers() -> None:
    for worker in multiprocessing.active_children():
        worker.kill()
