"""`loss-balance train`: one network, one scheme, one run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loss_balance.checks import check_range
from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.output_folder import claim_output
from loss_balance.experiments.runs.progress import execute_with_bars
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.plan import Options, plan
from loss_balance.experiments.training.engine import engine
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.run_folder import FILES
from loss_balance.experiments.training.schemes import OPT, SCHEMES


def train(
    backend: opts.Backend = "torch",
    data: opts.Data = "digit-pairs",
    path: opts.DataPath = None,
    download: opts.Download = False,
    validation: opts.Validation = False,
    augment: opts.Augment = None,
    network: opts.Network = "resann-3-8",
    scheme: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(SCHEMES)}; opt trains for the last exit alone."),
    ] = "adaloss",
    epochs: opts.Epochs = None,
    learning_rate: opts.LearningRate = None,
    batch_size: opts.BatchSize = None,
    seed: Annotated[
        int, typer.Option(help="Of weights and data order.", rich_help_panel=opts.TRAINING)
    ] = 0,
    device: opts.Device = "cpu",
    precision: opts.Precision = None,
    compiled: opts.Compiled = None,
    gamma: opts.Gamma = 0.05,
    decay: opts.Decay = 0.99,
    final_weight: opts.FinalWeight = 1.0,
    out: Annotated[
        Path, typer.Option(help="Folder of the run.", rich_help_panel=opts.OUTPUT)
    ] = Path("runs/train"),
    resume: opts.Resume = False,
    overwrite: opts.Overwrite = False,
) -> None:
    """Train one network with one weight scheme.

    The run's folder then serves evaluate, predict, eann and report.

    Ctrl-C is safe: the same command with --resume goes on from there.
    """
    options = Options(
        engine=engine(backend, device, precision, compiled),
        source=Source(data, path, validation, augment),
        network=network,
        schemes=(scheme,),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seeds=1,
        gamma=gamma,
        decay=decay,
        final_weight=final_weight,
    )
    finished = train_run(options, seed, out, resume=resume, overwrite=overwrite, download=download)
    if not finished:
        raise typer.Exit(130)


console = Console()


def train_run(
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
