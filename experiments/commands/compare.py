"""`loss-balance compare`: one network, several weight schemes, each exit against OPT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.data.sources import Source
from loss_balance.experiments.pages import comparison_page
from loss_balance.experiments.runs.execution import cores
from loss_balance.experiments.runs.output_folder import claim_output
from loss_balance.experiments.runs.progress import check_jobs, execute_with_bars
from loss_balance.experiments.studies.comparison import AT, Outcome, outcome
from loss_balance.experiments.studies.plan import Options, config_of, plan
from loss_balance.experiments.training.engine import engine
from loss_balance.experiments.training.schemes import OPT


def compare(
    backend: opts.Backend = "torch",
    data: opts.Data = "digit-pairs",
    path: opts.DataPath = None,
    download: opts.Download = False,
    validation: opts.Validation = False,
    augment: opts.Augment = None,
    network: opts.Network = "resann-3-8",
    schemes: opts.Schemes = "const,linear,adaloss,opt",
    epochs: opts.Epochs = None,
    learning_rate: opts.LearningRate = None,
    batch_size: opts.BatchSize = None,
    seeds: opts.Seeds = 1,
    jobs: opts.Jobs = None,
    device: opts.Device = "cpu",
    precision: opts.Precision = None,
    compiled: opts.Compiled = None,
    gamma: opts.Gamma = 0.05,
    decay: opts.Decay = 0.99,
    final_weight: opts.FinalWeight = 1.0,
    out: Annotated[
        Path, typer.Option(help="Folder for runs and comparison_page.", rich_help_panel=opts.OUTPUT)
    ] = Path("runs/compare"),
    resume: opts.Resume = False,
    overwrite: opts.Overwrite = False,
) -> None:
    """Train one network with several weight schemes and show each exit against OPT.

    OPT is one network per depth, trained for that exit alone.

    Prints a table and writes summary.json, curves.png and comparison_page.html to --out.

    Ctrl-C is safe: the same command with --resume goes on from there.
    """
    options = Options(
        engine=engine(backend, device, precision, compiled),
        source=Source(data, path, validation, augment),
        network=network,
        schemes=opts.names(schemes),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seeds=seeds,
        gamma=gamma,
        decay=decay,
        final_weight=final_weight,
    )
    workers = cores() if jobs is None else jobs
    finished = train_and_report(
        options, out, workers, resume=resume, overwrite=overwrite, download=download
    )
    if not finished:
        raise typer.Exit(130)


console = Console()


def train_and_report(
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
    check_jobs(workers)
    data = options.source.load(download=download)
    comparison = plan(options, data)
    config = config_of(options, comparison)
    claim_output(folder, config, ["runs"], resume=resume, overwrite=overwrite)
    images = {options.source: len(data.y_train)}
    try:
        results = execute_with_bars(comparison.runs(), folder / "runs", workers, images, console)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {folder} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return False
    measured = outcome(comparison, results)
    comparison_page.write(folder, measured, config)
    show(measured, folder)
    return True


def show(measured: Outcome, folder: Path) -> None:
    """The tables and findings, on the terminal."""
    columns = list(zip(AT, comparison_page.exit_numbers(measured), strict=True))
    for metric in comparison_page.TITLES:
        table = Table(title=comparison_page.heading(measured, metric), title_justify="left")
        table.add_column("scheme")
        for fraction, number in columns:
            table.add_column(f"{fraction} of cost\nexit {number}", justify="right")
        for row in comparison_page.table(measured, metric):
            table.add_row(*row, style="bold" if row[0] == "adaloss" else None)
        console.print(table)
    if OPT in measured.curves:
        console.print("opt: one network per column, trained for that exit alone.")
    for line in comparison_page.findings(measured):
        console.print(f"• {line}", highlight=False)
    console.print(f"Report: {folder / 'comparison_page.html'}   Curves: {folder / 'curves.png'}")
