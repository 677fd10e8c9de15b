"""`loss-balance train`: one network, one scheme, one run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loss_balance.checks import check_range
from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.output_folder import output_folder
from loss_balance.experiments.runs.progress import train_or_tell
from loss_balance.experiments.runs.trained import Trained, read
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.options import TRAINING, Options
from loss_balance.experiments.studies.plan import check, plan
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.run_folder import RUN_FILES
from loss_balance.experiments.training.schemes import OPT, SCHEMES


@opts.shows()
@opts.takes_options(without=["seeds", "sweep", "jobs"])
def train(
    options: Options,
    network: opts.Network = "resann-3-8",
    scheme: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(SCHEMES)}, or your own package.module:Class; opt trains for "
            "the last exit alone."
        ),
    ] = "adaloss",
    seed: Annotated[
        int, typer.Option(help="Of weights and data order.", rich_help_panel=TRAINING)
    ] = 0,
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
    try:
        check_range("seed", seed, 0)
    except ValueError as error:
        raise UserError(str(error)) from error
    place = options.place()
    check(options, network, (scheme,))
    data = options.load()
    folder = out.absolute()
    run = _run(plan(options, network, (scheme,), data), seed, folder.name)
    images = {run.source: len(data.y_train)}
    with output_folder(folder, run.config(), RUN_FILES, resume=resume, overwrite=overwrite):
        if train_or_tell([run], folder.parent, place, images, folder, options.logs()) is None:
            raise typer.Exit(130)
    show(read(folder))


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
    console.say(f"Run: {run.folder}")
    console.found({"run": str(run.folder), **run.summary()})
