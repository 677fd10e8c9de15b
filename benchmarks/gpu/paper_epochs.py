"""How many epochs fit into the time there is: measured once, then kept for all later calls."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.attempts import Clock, TimeUp
from benchmarks.gpu.paper_training import Progress, train_within
from loss_balance.experiments.runs.watching import Step
from loss_balance.experiments.studies.comparison import Comparison

SHARE = 0.9  # of the time left that is planned for: rates vary, checkpoints take some
MEASURING = 0.4  # of the time left, at most, until the first steps are done
EVALUATION = 0.5  # epochs: 1.2 times the training images, forwards alone
WARM, TIMED = 20, 60  # steps of each run before its clock starts, and at least after it
STARTING = 30.0  # seconds, at most, until processes that need not compile take steps
SECONDS = 4.0  # at least, for reports come with up to 0.2 s of delay


def epochs_of(
    comparison: Comparison, folder: Path, jobs: int, clock: Clock, told: str
) -> tuple[int, float | None] | None:
    """(epochs, images per second of all runs together) as before, as told, or as measured.

    None if nothing could be measured; then nothing is kept either.
    """
    note = folder / "epochs.json"
    if note.is_file():  # a former call has begun
        known = json.loads(note.read_text())
        return int(known["epochs"]), known["images_per_second"]
    folder.mkdir(parents=True, exist_ok=True)
    found = (int(told), None) if told else measured(comparison, folder / "first-steps", jobs, clock)
    if found is not None:
        note.write_text(json.dumps(dict(zip(("epochs", "images_per_second"), found, strict=True))))
    return found


def measured(
    comparison: Comparison, folder: Path, jobs: int, clock: Clock
) -> tuple[int, float] | None:
    """How many epochs there is time for: as many runs as go side by side take their first steps.

    Raises:
        UserError: as `execute`.
    """
    runs = comparison.runs()
    side_by_side = runs[:jobs]
    steps = comparison.recipe.batches(comparison.images)
    progress = Progress(steps)
    begun, started = time.monotonic(), [0.0]

    def on_step(step: Step) -> None:
        progress.note(step)
        if not started[0] and len(progress.seen) == len(side_by_side):
            started[0] = time.monotonic() - begun
        paces = [progress.pace(run.name, WARM) for run in side_by_side]
        if all(pace.steps >= TIMED and pace.seconds >= SECONDS for pace in paces):
            raise TimeUp

    long = [replace(run, recipe=replace(run.recipe, epochs=10_000)) for run in side_by_side]
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(TimeUp):
        train_within(Clock(MEASURING * clock.left()), long, folder, jobs, on_step)
    shutil.rmtree(folder, ignore_errors=True)
    paces = [progress.pace(run.name, WARM) for run in side_by_side]
    if not started[0] or not all(pace.steps for pace in paces):
        return None
    slowest = max(pace.seconds / pace.steps for pace in paces)
    waves = -(-len(runs) // jobs)
    starting = min(started[0], STARTING)  # they start anew, what they compiled is kept
    left = SHARE * (clock.left() / waves - starting)
    rate = sum(comparison.recipe.batch_size * pace.steps / pace.seconds for pace in paces)
    return max(1, int(left / (slowest * steps) - EVALUATION)), rate
