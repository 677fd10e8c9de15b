"""Training that ends in time: how many epochs fit, and stopping where the time is over."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu.attempts import Clock
from loss_balance.experiments.comparison import Comparison
from loss_balance.experiments.execution import Step, execute
from loss_balance.experiments.training import Run

ENDING = 6.0  # seconds in which workers stop and figures are written
SHARE = 0.85  # of the time left: evaluations and checkpoints take some, and rates vary
WARM, TIMED = 20, 60  # steps of each run before the clock starts, and after it


def measured_epochs(
    comparison: Comparison, folder: Path, jobs: int, clock: Clock
) -> tuple[int, float]:
    """(epochs that fit into what is left, images per second of all runs together).

    Every run takes its first steps, side by side as later, and the slowest says how many.
    """
    runs = comparison.runs()
    steps = comparison.recipe.batches(comparison.images)
    seen: dict[str, list[float]] = {run.name: [] for run in runs}

    def on_step(step: Step) -> None:
        times = seen[step.run]
        times.append(time.monotonic())
        enough = all(len(each) >= WARM + TIMED for each in seen.values())
        if enough or clock.left() < ENDING:
            raise KeyboardInterrupt

    long = [replace(run, recipe=replace(run.recipe, epochs=10_000)) for run in runs]
    begun = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt):
        execute(long, folder, jobs, on_step, lambda _: None)
    shutil.rmtree(folder, ignore_errors=True)
    starting = time.monotonic() - begun
    paces = [_pace(times) for times in seen.values() if len(times) > WARM + 1]
    if not paces:
        return 1, 0.0
    waves = -(-len(runs) // jobs)
    epoch = max(paces) * steps * waves
    left = SHARE * (clock.left() - ENDING) - min(starting, 30.0)  # they start anew
    rate = sum(comparison.recipe.batch_size / pace for pace in paces) / waves
    return max(1, int(left / epoch)), rate


def _pace(times: Sequence[float]) -> float:
    """Seconds a step, without the first ones."""
    return (times[-1] - times[WARM]) / (len(times) - 1 - WARM)


def train_until(
    clock: Clock, runs: Sequence[Run], folder: Path, jobs: int
) -> dict[str, dict[str, Any]]:
    """Results, by name, of the runs that are finished when the time is over; others can go on."""

    def on_step(_: Step) -> None:
        if clock.left() < ENDING:
            raise KeyboardInterrupt

    files = {run.name: folder / run.name / "result.json" for run in runs}
    missing = [run for run in runs if not files[run.name].is_file()]
    with contextlib.suppress(KeyboardInterrupt):
        if missing:
            execute(missing, folder, jobs, on_step, lambda _: None)
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}
