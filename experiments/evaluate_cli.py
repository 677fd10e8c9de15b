"""The options of `loss-balance evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments import evaluate_command
from loss_balance.experiments.engine import FRAMEWORKS


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    backend: Annotated[
        str | None,
        typer.Option(
            help=f"Framework to compute in: {', '.join(FRAMEWORKS)}.", show_default="the run's"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="float32 or bfloat16.", show_default="the run's")
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option(help="Where the data are now.", show_default="where they were"),
    ] = None,
) -> None:
    """Evaluate a trained run in any framework, beside what it recorded itself.

    Exit status 1 if the two disagree.
    """
    if not evaluate_command.evaluate(run, backend, device, precision, path):
        raise typer.Exit(1)
