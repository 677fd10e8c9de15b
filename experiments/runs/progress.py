"""Executing runs while showing how they go: bars on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.runs import processes
from loss_balance.experiments.runs.execution import Results, execute
from loss_balance.experiments.runs.logs import log_of
from loss_balance.experiments.runs.places import Place
from loss_balance.experiments.runs.watching import Epoch, Step, Watch
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run

Images = Mapping[Source, int]  # how many there are in the training split of each source


def work(run: Run, images: Images) -> int:
    """Multiply-adds of the forward passes of all epochs."""
    return run.spec.costs()[-1].multiply_adds * run.recipe.epochs * images[run.source]


def execute_and_show(
    runs: Sequence[Run], folder: Path, place: Place, images: Images, logs: Sequence[str] = ()
) -> Results:
    """`execution.execute`, shown on the console as it can show it.

    Args:
        runs: what to train.
        folder: each trains in `folder / run.name`.
        place: where they are trained.
        images: how many there are to train on.
        logs: what else writes of each epoch, of `logs.LOGS`.
    """
    watches = [log_of(name, runs, folder) for name in logs]
    if not console.progress:
        return execute(runs, folder, place, watches)
    share = Share(runs, images)
    if not console.is_terminal:
        return execute(runs, folder, place, [*watches, Lines(share)])
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        return execute(runs, folder, place, [*watches, Bars(progress, share)])


def train_or_tell(
    runs: Sequence[Run],
    folder: Path,
    place: Place,
    images: Images,
    out: Path,
    logs: Sequence[str] = (),
) -> Results | None:
    """`execute_and_show`; after Ctrl-C None, and on the console how `out` is continued.

    Of several processes of one command all but the first end here: it shows what they found.
    """
    try:
        results = execute_and_show(runs, folder, place, images, logs)
        if processes.rank() > 0:
            sys.exit(0)
        return results
    except KeyboardInterrupt:
        console.say(
            f"Interrupted. {out} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return None


class Share:
    """How much of all runs is done, in units of work (multiply-adds)."""

    def __init__(self, runs: Sequence[Run], images: Images) -> None:
        self.runs: dict[str, Run] = {run.name: run for run in runs}
        self.batches: dict[str, int] = {
            run.name: run.recipe.batches(images[run.source]) for run in runs
        }
        self.work: dict[str, int] = {run.name: work(run, images) for run in runs}
        self.of_run: dict[str, float] = dict.fromkeys(self.work, 0.0)
        self.first: tuple[float, float] | None = None  # when anything was known, and what

    def move(self, run: str, share: float) -> None:
        """The run has come so far, 1 at its end."""
        self.of_run[run] = share
        if self.first is None:
            self.first = time.monotonic(), self.done

    @property
    def done(self) -> float:
        """Of the work of all."""
        return sum(self.work[name] * share for name, share in self.of_run.items()) / self.total

    @property
    def total(self) -> int:
        """The work of all."""
        return sum(self.work.values())

    def left(self) -> str:
        """The time until all are done, if they go on as they do; "?" before that can be said."""
        began, before = self.first or (0.0, 0.0)
        if self.done <= before:
            return "?"
        seconds = (time.monotonic() - began) * (1.0 - self.done) / (self.done - before)
        return str(timedelta(seconds=round(seconds)))


class Lines(Watch):
    """A plain line per epoch, for what is no terminal."""

    def __init__(self, share: Share) -> None:
        self.share = share

    def on_step(self, step: Step) -> None:
        epochs = self.share.runs[step.run].recipe.epochs
        self.share.move(step.run, (step.epoch + step.step / self.share.batches[step.run]) / epochs)

    def on_epoch(self, epoch: Epoch) -> None:
        record, epochs = epoch.record, self.share.runs[epoch.run].recipe.epochs
        self.share.move(epoch.run, record["epoch"] / epochs)
        parts = [f"loss {record['train_loss'][-1]:.4f}"]
        if "test_error" in record:
            parts.append(f"error {100 * record['test_error'][-1]:.2f} %")
        parts += [f"{record['images_per_second']:,.0f} images/s", f"{self.share.left()} left"]
        console.say(f"{epoch.run} epoch {record['epoch']}/{epochs}: {', '.join(parts)}")

    def on_done(self, run: str) -> None:
        self.share.move(run, 1.0)


class Bars(Watch):
    """A bar for each run that is running, and one for all."""

    def __init__(self, progress: Progress, share: Share) -> None:
        self.progress = progress
        self.share = share
        self.total: TaskID = progress.add_task("all runs", total=1.0, note="")
        self.bars: dict[str, TaskID] = {}

    def on_step(self, step: Step) -> None:
        if step.run not in self.bars:
            self.bars[step.run] = self.progress.add_task(step.run, total=1.0, note="")
        epochs = self.share.runs[step.run].recipe.epochs
        share = (step.epoch + step.step / self.share.batches[step.run]) / epochs
        note = f"epoch {step.epoch + 1}/{epochs}  loss {step.loss:.3f}"
        self.progress.update(self.bars[step.run], completed=share, note=note)
        self._advance(step.run, share)

    def on_done(self, run: str) -> None:
        if run in self.bars:
            self.progress.update(self.bars[run], visible=False)
        self._advance(run, 1.0)

    def _advance(self, run: str, share: float) -> None:
        self.share.move(run, share)
        self.progress.update(self.total, completed=self.share.done)
