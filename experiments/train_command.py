"""`loss-balance train`: one network, one scheme, one run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loss_balance.base import check_range
from loss_balance.experiments.compare import Options, plan
from loss_balance.experiments.comparison import OPT, Comparison
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.output_folder import claim_output
from loss_balance.experiments.progress import execute_with_bars
from loss_balance.experiments.run_folder import FILES
from loss_balance.experiments.trained import Trained, read
from loss_balance.experiments.training import Run

console = Console()


def train(
    options: Options, seed: int, folder: Path, *, resume: bool, overwrite: bool, download: bool
) -> bool:
    """Trains the run in `folder` and shows it; False if Ctrl-C ended it.

    Args:
        options: with one scheme.
        seed: of weights and data order.
        folder: of the run, whose name it gives.
        resume: go on with what is there.
        overwrite: discard what is there.
        download: fetch missing data.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    try:
        check_range("seed", seed, 0)
    except ValueError as error:
        raise UserError(str(error)) from error
    data = options.source.load(download=download)
    folder = folder.absolute()
    run = _run(plan(options, data), seed, folder.name)
    claim_output(folder, run.config(), FILES, resume=resume, overwrite=overwrite)
    images = {options.source: len(data.y_train)}
    try:
        execute_with_bars([run], folder.parent, 1, images, console)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {folder} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return False
    show(read(folder))
    return True


def _run(comparison: Comparison, seed: int, name: str) -> Run:
    (scheme,) = comparison.schemes
    last = len(comparison.spec.exits) - 1
    return replace(comparison.run(scheme, seed, last if scheme == OPT else None), name=name)


def show(run: Trained) -> None:
    """A row per exit, on the terminal."""
    data = f"{run.source.name}{' (held-out training images)' * run.source.validation}"
    table = Table(title=f"{run.spec.name}, {run.scheme}, on {data}", title_justify="left")
    for column in ("exit", "multiply-adds", "training loss", "test loss", "test error, %"):
        table.add_column(column, justify="right")
    table.add_column("loss weight at the end", justify="right")
    last = run.loss_weights[-1]
    for k, cost in enumerate(run.spec.costs()):
        loss, test, error = (run.result[m][k] for m in ("train_loss", "test_loss", "test_error"))
        table.add_row(
            str(k + 1),
            f"{cost.multiply_adds:,}",
            f"{loss:.4f}",
            f"{test:.4f}",
            f"{100 * error:.2f}",
            f"{last[k]:.4f}",
        )
    console.print(table)
    console.print(f"Run: {run.folder}", highlight=False, soft_wrap=True)
