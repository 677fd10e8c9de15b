"""The `loss-balance` command."""

from __future__ import annotations

import sys
from collections import Counter
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
from loss_balance.experiments import verify as verifying
from loss_balance.experiments.augment import AUGMENTATIONS
from loss_balance.experiments.comparison import SCHEMES
from loss_balance.experiments.data import NAMES, Source
from loss_balance.experiments.eann_cli import eann
from loss_balance.experiments.engine import FRAMEWORKS, engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.execution import cores
from loss_balance.experiments.predict_cli import predict
from loss_balance.experiments.recipes import RECIPES

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Balance the losses of anytime networks, and measure what it buys.",
)
err = Console(stderr=True, soft_wrap=True)

TRAINING, ADALOSS, OUTPUT = "Training", "AdaLoss", "Output"


def _per_data(name: str) -> str:
    """The default of a recipe's field for each data set."""
    usual = Counter(getattr(recipe, name) for recipe in RECIPES.values()).most_common(1)[0][0]
    values = {data: getattr(recipe, name) for data, recipe in RECIPES.items()}
    each = ", ".join(f"{data} {value}" for data, value in values.items() if value != usual)
    return f"Default: {usual}; {each}."


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
    backend: Annotated[
        str, typer.Option(help=f"Framework to train in: {', '.join(FRAMEWORKS)}.")
    ] = "torch",
    data: Annotated[str, typer.Option(help=f"Data set: {', '.join(NAMES)}.")] = "digit-pairs",
    path: Annotated[
        Path | None,
        typer.Option(
            help="Where its files are. An npz has x_train, y_train, x_test, y_test; images "
            "(N, H, W, C).",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch what is missing at --path.")
    ] = False,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation", help="Test on the last tenth of the training images, 5,000 at most."
        ),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            help=f"What happens to training images: {', '.join(AUGMENTATIONS)}.",
            show_default="the data set's own way",
        ),
    ] = None,
    network: Annotated[str, typer.Option(help="A name as `loss-balance models` lists them.")] = (
        "resann-3-8"
    ),
    schemes: Annotated[
        str, typer.Option(help=f"Any of {', '.join(SCHEMES)}; with commas.")
    ] = "const,linear,adaloss,opt",
    epochs: Annotated[
        int | None, typer.Option(help=_per_data("epochs"), rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help=_per_data("learning_rate"), rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help=_per_data("batch_size"), rich_help_panel=TRAINING)
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="Runs per scheme: seeds 0, 1, ...", rich_help_panel=TRAINING)
    ] = 1,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs side by side, one thread each.",
            show_default="one per core",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=TRAINING)] = "cpu",
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32 or bfloat16.",
            show_default="bfloat16 on cuda",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile the training step (torch, and XLA for tensorflow).",
            show_default="on cuda",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    gamma: Annotated[
        float,
        typer.Option(help="Share of constant weights.", rich_help_panel=ADALOSS),
    ] = 0.05,
    decay: Annotated[
        float,
        typer.Option(help="Of the running means, below 1.", rich_help_panel=ADALOSS),
    ] = 0.99,
    final_weight: Annotated[
        float, typer.Option(help="Factor for the last exit.", rich_help_panel=ADALOSS)
    ] = 1.0,
    out: Annotated[
        Path, typer.Option(help="Folder for runs and report.", rich_help_panel=OUTPUT)
    ] = Path("runs/compare"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue what an interrupted run left in --out.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Discard what is in --out.", rich_help_panel=OUTPUT)
    ] = False,
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
        schemes=tuple(name.strip() for name in schemes.split(",") if name.strip()),
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


app.command()(eann)
app.command()(predict)


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
