"""The options of `loss-balance train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments import options as opts
from loss_balance.experiments import train_command
from loss_balance.experiments.compare import Options
from loss_balance.experiments.comparison import SCHEMES
from loss_balance.experiments.data import Source
from loss_balance.experiments.engine import engine


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
    finished = train_command.train(
        options, seed, out, resume=resume, overwrite=overwrite, download=download
    )
    if not finished:
        raise typer.Exit(130)
