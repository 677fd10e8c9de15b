"""The `loss-balance` command."""

from __future__ import annotations

import sys
from typing import Annotated

from loss_balance.extras import require

require("experiments", "the loss-balance command")

import typer
from rich.console import Console

import loss_balance
from loss_balance.experiments.commands.compare import compare
from loss_balance.experiments.commands.eann import eann
from loss_balance.experiments.commands.evaluate import evaluate
from loss_balance.experiments.commands.models import models
from loss_balance.experiments.commands.paper import app as paper
from loss_balance.experiments.commands.predict import predict
from loss_balance.experiments.commands.report import report
from loss_balance.experiments.commands.train import train
from loss_balance.experiments.commands.verify import verify
from loss_balance.experiments.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Balance the losses of anytime networks, and measure what it buys.",
)
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


for command in (compare, train, evaluate, predict, eann, report, verify, models):
    app.command()(command)
app.add_typer(paper, name="paper")
