"""Executing runs under progress bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
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
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.execution import Results, Step, cores, execute
from loss_balance.experiments.training.loop import Run


def workers_for(jobs: int | None) -> int:
    """How many runs go side by side, by default one per core; UserError for less than one."""
    if jobs is not None and jobs < 1:
        raise UserError(f"jobs must be a whole number of at least 1, got {jobs}")
    return cores() if jobs is None else jobs


def work(run: Run, images: Mapping[Source, int]) -> int:
    """Multiply-adds of the forward passes of all epochs."""
    return run.spec.costs()[-1].multiply_adds * run.recipe.epochs * images[run.source]


def execute_with_bars(
    runs: Sequence[Run], folder: Path, jobs: int, images: Mapping[Source, int], console: Console
) -> Results:
    """Calls `execution.execute` under a bar for all and one for each run that is running.

    Args:
        runs: what to train.
        folder: each trains in `folder / run.name`.
        jobs: how many at a time.
        images: how many there are in the training split of each source.
        console: where the bars are shown.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bars = Bars(progress, runs, images)
        return execute(runs, folder, min(jobs, len(runs)), bars.on_step, bars.on_done)


def train_or_tell(
    runs: Sequence[Run],
    folder: Path,
    workers: int,
    images: Mapping[Source, int],
    console: Console,
    out: Path,
) -> Results | None:
    """`execute_with_bars`; after Ctrl-C None, and on the console how `out` is continued."""
    try:
        return execute_with_bars(runs, folder, workers, images, console)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {out} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return None


class Bars:
    """A bar for each run that is running, and one for all in units of work (multiply-adds)."""

    def __init__(
        self, progress: Progress, runs: Sequence[Run], images: Mapping[Source, int]
    ) -> None:
        self.progress = progress
        self.runs = {run.name: run for run in runs}
        self.batches = {run.name: run.recipe.batches(images[run.source]) for run in runs}
        self.work = {run.name: work(run, images) for run in runs}
        self.share = dict.fromkeys(self.work, 0.0)  # of each run, done
        self.total = progress.add_task("all runs", total=sum(self.work.values()), note="")
        self.bars: dict[str, TaskID] = {}

    def on_step(self, step: Step) -> None:
        """A worker moved on."""
        if step.run not in self.bars:
            self.bars[step.run] = self.progress.add_task(step.run, total=1.0, note="")
        epochs = self.runs[step.run].recipe.epochs
        share = (step.epoch + step.step / self.batches[step.run]) / epochs
        note = f"epoch {step.epoch + 1}/{epochs}  loss {step.loss:.3f}"
        self.progress.update(self.bars[step.run], completed=share, note=note)
        self._advance(step.run, share)

    def on_done(self, run: str) -> None:
        """A run finished, in this call or in an earlier one."""
        if run in self.bars:
            self.progress.update(self.bars[run], visible=False)
        self._advance(run, 1.0)

    def _advance(self, run: str, share: float) -> None:
        self.share[run] = share
        done = sum(self.work[name] * share for name, share in self.share.items())
        self.progress.update(self.total, completed=done)
