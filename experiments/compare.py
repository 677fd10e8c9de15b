"""`loss-balance compare`, the main job: options in, trained runs, table and report out."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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
from rich.table import Table

from loss_balance.adaloss import AdaLoss
from loss_balance.base import check_count
from loss_balance.experiments import report
from loss_balance.experiments.comparison import AT, OPT, Comparison, Outcome, outcome
from loss_balance.experiments.data import Dataset, Source
from loss_balance.experiments.engine import Engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.execution import Results, Step, execute
from loss_balance.experiments.recipes import RECIPES
from loss_balance.experiments.run_folder import write_json
from loss_balance.experiments.training import Run
from loss_balance.reference_models import families

console = Console()


@dataclass(frozen=True)
class Options:
    """What the user asked for, as `config.json` of the comparison keeps it."""

    engine: Engine
    source: Source
    network: str
    schemes: tuple[str, ...]
    epochs: int | None
    learning_rate: float | None
    batch_size: int | None
    seeds: int
    gamma: float
    decay: float
    final_weight: float


def compare(
    options: Options,
    folder: Path,
    workers: int,
    *,
    resume: bool,
    overwrite: bool,
    download: bool = False,
) -> bool:
    """Trains what is missing in `folder` and reports; False if Ctrl-C ended it.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    if workers < 1:
        raise UserError(f"jobs must be a whole number of at least 1, got {workers}")
    data = options.source.load(download=download)
    comparison = plan(options, data)
    config = config_of(options, comparison)
    claim_folder(folder, config, resume=resume, overwrite=overwrite)
    runs = comparison.runs()
    try:
        results = train_all(runs, folder, min(workers, len(runs)), data)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {folder} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return False
    measured = outcome(comparison, results)
    report.write(folder, measured, config)
    show(measured, folder)
    return True


def plan(options: Options, data: Dataset) -> Comparison:
    """The comparison that the options describe; UserError where they do not fit the data."""
    changed: dict[str, Any] = {
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
    }
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        check_count("seeds", options.seeds)
        recipe = replace(RECIPES[options.source.name], **given)
        spec = families.get(
            options.network, num_classes=data.num_classes, input_shape=data.input_shape
        )
        adaloss = AdaLoss(
            len(spec.exits),
            gamma=options.gamma,
            decay=options.decay,
            final_weight=options.final_weight,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Comparison(
        spec,
        recipe,
        options.source,
        data.fingerprint(),
        options.schemes,
        tuple(range(options.seeds)),
        adaloss,
        len(data.y_train),
        options.engine,
    )


def show(measured: Outcome, folder: Path) -> None:
    """The tables and findings, on the terminal."""
    columns = list(zip(AT, report.exit_numbers(measured), strict=True))
    for metric in report.TITLES:
        table = Table(title=report.heading(measured, metric), title_justify="left")
        table.add_column("scheme")
        for fraction, number in columns:
            table.add_column(f"{fraction} of cost\nexit {number}", justify="right")
        for row in report.table(measured, metric):
            table.add_row(*row, style="bold" if row[0] == "adaloss" else None)
        console.print(table)
    if OPT in measured.curves:
        console.print("opt: one network per column, trained for that exit alone.")
    for line in report.findings(measured):
        console.print(f"• {line}", highlight=False)
    console.print(f"Report: {folder / 'report.html'}   Curves: {folder / 'curves.png'}")


def config_of(options: Options, comparison: Comparison) -> dict[str, Any]:
    """What `config.json` of the command keeps: equal ones train the same runs."""
    given = asdict(options)
    engine, source = given.pop("engine"), options.source.config()
    del given["source"]  # with its path, which JSON cannot hold
    return {
        "backend": engine.pop("framework"),
        **engine,
        "data": source.pop("name"),
        **source,
        **given,
        "schemes": list(options.schemes),
        "epochs": comparison.recipe.epochs,
        "learning_rate": comparison.recipe.learning_rate,
        "batch_size": comparison.recipe.batch_size,
        "data_fingerprint": comparison.fingerprint,
    }


def claim_folder(folder: Path, config: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Makes `folder` that of this command, or says why it cannot be."""
    if resume and overwrite:
        raise UserError("--resume and --overwrite exclude each other: choose one")
    file = folder / "config.json"
    if file.exists():
        if overwrite:
            shutil.rmtree(folder / "runs", ignore_errors=True)
        elif not resume:
            raise UserError(
                f"{folder} holds runs already: continue it with --resume, discard it with "
                "--overwrite, or choose another --out"
            )
        else:
            _check_same(folder, json.loads(file.read_text()), config)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--out must be a new or empty folder or one of this command, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, config)


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [f"{k} {before.get(k)!r} is now {now[k]!r}" for k in now if before.get(k) != now[k]]
    if changed:
        raise UserError(
            f"--resume needs the options that {folder} began with; {'; '.join(changed)}"
        )


def train_all(runs: list[Run], folder: Path, workers: int, data: Dataset) -> Results:
    """Executes the runs in `folder`/runs under a bar for all and one for each that is running."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        bars = Bars(progress, runs, len(data.y_train))
        return execute(runs, folder / "runs", workers, bars.on_step, bars.on_done)


class Bars:
    """A bar for each run that is running, and one for all in units of work (multiply-adds)."""

    def __init__(self, progress: Progress, runs: list[Run], images: int) -> None:
        self.progress = progress
        self.epochs = runs[0].recipe.epochs
        self.batches = runs[0].recipe.batches(images)
        self.work = {run.name: run.spec.costs()[-1].multiply_adds for run in runs}
        self.share = dict.fromkeys(self.work, 0.0)  # of each run, done
        self.total = progress.add_task("all runs", total=sum(self.work.values()), note="")
        self.bars: dict[str, TaskID] = {}

    def on_step(self, step: Step) -> None:
        """A worker moved on."""
        if step.run not in self.bars:
            self.bars[step.run] = self.progress.add_task(step.run, total=1.0, note="")
        share = (step.epoch + step.step / self.batches) / self.epochs
        note = f"epoch {step.epoch + 1}/{self.epochs}  loss {step.loss:.3f}"
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
