"""The `loss-balance` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
except ModuleNotFoundError as error:
    raise ImportError(
        "the loss-balance command needs its extra: pip install 'loss-balance[experiments]'"
    ) from error

import loss_balance
from loss_balance.experiments import compare as comparing
from loss_balance.experiments import models as listing
from loss_balance.experiments import options as opts
from loss_balance.experiments import paper_cli
from loss_balance.experiments import verify as verifying
from loss_balance.experiments.data import Source
from loss_balance.experiments.eann_cli import eann
from loss_balance.experiments.engine import engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.evaluate_cli import evaluate
from loss_balance.experiments.execution import cores
from loss_balance.experiments.predict_cli import predict
from loss_balance.experiments.report_cli import report
from loss_balance.experiments.train_cli import train

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Balance the losses of anytime networks, and measure what it buys.",
)
app.add_typer(paper_cli.app, name="paper")
err = Console(stderr=True, soft_wrap=True)


def main() -> None:
    """Runs the command; bad input is one line and exit status 2, Ctrl-C is 130."""
    try:
        status = app(standalone_mode=False)
    except (UserError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else str(error)
        if message:
            err.print(f"loss-balance: {message}", markup=False, highlight=False)
        sys.exit(2)
    sys.exit(status or 0)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"loss-balance {loss_balance.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Balance the losses of anytime networks, and measure what it buys."""


@app.command()
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
        Path, typer.Option(help="Folder for runs and report.", rich_help_panel=opts.OUTPUT)
    ] = Path("runs/compare"),
    resume: opts.Resume = False,
    overwrite: opts.Overwrite = False,
) -> None:
    """Train one network with several weight schemes and show each exit against OPT.

    OPT is one network per depth, trained for that exit alone.

    Prints a table and writes summary.json, curves.png and report.html to --out.

    Ctrl-C is safe: the same command with --resume goes on from there.
    """
    options = comparing.Options(
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
    finished = comparing.compare(
        options, out, workers, resume=resume, overwrite=overwrite, download=download
    )
    if not finished:
        raise typer.Exit(130)


app.command()(train)
app.command()(evaluate)
app.command()(predict)
app.command()(eann)
app.command()(report)


@app.command()
def verify(
    sequences: Annotated[int, typer.Option(help="Drawn sequences per framework.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    networks: Annotated[bool, typer.Option(help="Compare the networks too.")] = True,
    full_size: Annotated[
        bool, typer.Option("--full-size", help="Among them some of ILSVRC's size; minutes more.")
    ] = False,
) -> None:
    """Check that every installed framework gives the weights of an independent oracle.

    Also that a state exported half way from any of them continues in any other, and that their
    networks compute and train the same from the same weights.
    """
    agrees = verifying.show(sequences, seed)
    if networks:
        agrees = verifying.show_networks(full_size=full_size) and agrees
    if not agrees:
        raise typer.Exit(1)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="Show the exits of this network.")] = None,
    classes: Annotated[
        int | None, typer.Option(help="Logits per exit.", show_default="the network's own")
    ] = None,
    draw: Annotated[
        Path | None, typer.Option(help="Write a picture of NAME to this file.", show_default=False)
    ] = None,
) -> None:
    """List the networks with their exits, parameters and multiply-adds."""
    if name is None:
        if draw is not None:
            raise UserError("--draw needs the NAME of a network")
        listing.show_all(classes)
        return
    listing.show_one(name, classes)
    if draw is not None:
        listing.draw(name, classes, draw)
