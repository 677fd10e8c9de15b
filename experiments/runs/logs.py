"""Writers that users already look at runs with; each is its maker's own and optional."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.watching import Epoch, Watch
from loss_balance.experiments.training.loop import Record, Run

PER_EXIT = ("train_loss", "test_loss", "test_error", "loss_weight")


def scalars(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers of a line of metrics.jsonl by name, those of an exit as `train_loss/exit3`."""
    for name in PER_EXIT:
        for number, value in enumerate(record.get(name, ()), 1):
            yield f"{name}/exit{number}", value
    for name in ("seconds", "images_per_second"):
        yield name, record[name]


class CsvLog(Watch):
    """`epochs.csv` in the run's folder: a row per epoch, written anew from this command's first."""

    def __init__(self, runs: Sequence[Run], folder: Path) -> None:  # noqa: ARG002 (as all logs)
        self.folder = folder
        self.rows: dict[str, list[dict[str, float]]] = {}

    def on_epoch(self, epoch: Epoch) -> None:
        rows = self.rows.setdefault(epoch.run, [])
        rows.append({"epoch": epoch.record["epoch"], **dict(scalars(epoch.record))})
        names = dict.fromkeys(name for row in rows for name in row)
        with (self.folder / epoch.run / "epochs.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(rows)


class TensorBoardLog(Watch):
    """Event files in the run's folder."""

    def __init__(self, runs: Sequence[Run], folder: Path) -> None:  # noqa: ARG002
        try:
            from tensorboard.summary import Writer
        except ModuleNotFoundError as error:
            raise UserError(
                "--log tensorboard needs tensorboard: pip install tensorboard"
            ) from error
        self.folder = folder
        self.open: Callable[[str], Any] = Writer
        self.writers: dict[str, Any] = {}

    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.run not in self.writers:
            self.writers[epoch.run] = self.open(str(self.folder / epoch.run))
        writer = self.writers[epoch.run]
        for name, value in scalars(epoch.record):
            writer.add_scalar(name, value, epoch.record["epoch"])
        writer.flush()

    def on_done(self, run: str) -> None:
        if run in self.writers:
            self.writers.pop(run).close()


class WandbLog(Watch):
    """A Weights & Biases run each, as its environment variables say (WANDB_MODE, WANDB_PROJECT)."""

    def __init__(self, runs: Sequence[Run], folder: Path) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise UserError("--log wandb needs wandb: pip install wandb") from error
        self.init: Callable[..., Any] = wandb.init
        self.folder = folder
        self.runs: dict[str, Run] = {run.name: run for run in runs}
        self.open: dict[str, Any] = {}

    def on_epoch(self, epoch: Epoch) -> None:
        if epoch.run not in self.open:
            self.open[epoch.run] = self.init(
                name=epoch.run,
                dir=self.folder / epoch.run,
                config=self.runs[epoch.run].config(),
                reinit="create_new",
            )
        values = dict(scalars(epoch.record))
        self.open[epoch.run].log(values, step=epoch.record["epoch"])

    def on_done(self, run: str) -> None:
        if run in self.open:
            self.open.pop(run).finish()


LOGS: dict[str, Callable[[Sequence[Run], Path], Watch]] = {
    "csv": CsvLog,
    "tensorboard": TensorBoardLog,
    "wandb": WandbLog,
}


def check_logs(names: Sequence[str]) -> None:
    """UserError for a name that is none of LOGS."""
    unknown = [name for name in names if name not in LOGS]
    if unknown:
        raise UserError(f"--log must be of {', '.join(LOGS)}, got {', '.join(unknown)}")


def log_of(name: str, runs: Sequence[Run], folder: Path) -> Watch:
    """The log of that name; UserError if what it needs is not installed."""
    return LOGS[name](runs, folder)
