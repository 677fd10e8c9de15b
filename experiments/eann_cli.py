"""The options of `loss-balance eann`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments import eann_command
from loss_balance.experiments import options as opts
from loss_balance.experiments.compare import Options
from loss_balance.experiments.comparison import SCHEMES
from loss_balance.experiments.data import Source
from loss_balance.experiments.engine import engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.execution import cores
from loss_balance.experiments.recipes import RECIPES

FOR_ALL = ("runs", "out", "repeats")  # the rest is for training


def eann(
    context: typer.Context,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders of finished runs, trained with --validation."),
    ] = None,
    networks: Annotated[
        str,
        typer.Option(
            help="Networks of growing cost, about twofold; with commas.",
            rich_help_panel=opts.TRAINING,
        ),
    ] = "resann-1-8,resann-2-8,resann-4-8",
    schemes: Annotated[
        str,
        typer.Option(
            help=f"Any of {', '.join(SCHEMES)}; with commas. An ensemble each; opt is of the "
            "largest network.",
            rich_help_panel=opts.TRAINING,
        ),
    ] = "adaloss,const,opt",
    data: opts.Data = "digit-pairs",
    path: opts.DataPath = None,
    download: opts.Download = False,
    augment: opts.Augment = None,
    backend: opts.Backend = "torch",
    device: opts.Device = "cpu",
    epochs: opts.Epochs = None,
    learning_rate: opts.LearningRate = None,
    batch_size: opts.BatchSize = None,
    gamma: opts.Gamma = 0.05,
    decay: opts.Decay = 0.99,
    jobs: opts.Jobs = None,
    resume: opts.Resume = False,
    overwrite: opts.Overwrite = False,
    repeats: Annotated[int, typer.Option(help="How often each network is timed.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the report, and the runs trained here.")] = (
        Path("runs/eann")
    ),
) -> None:
    """Combine networks of growing cost into an anytime ensemble (EANN), and measure it.

    Without RUN it trains the networks first, with each scheme; the other options are for that.

    A tenth of the training images, 5,000 at most, chooses which answers are used.

    RUNs are combined as they are; those of one exit are ordinary networks to compare with.

    Prints order, used exits and costs; writes summary.json, eann.png and eann.html to --out.
    """
    if repeats < 1:
        raise UserError(f"--repeats must be a whole number of at least 1, got {repeats}")
    if runs:
        _check_no_training(context)
        eann_command.check_free(out)
        eann_command.combine_runs(runs, out, repeats)
        return
    options = Options(
        engine=engine(backend, device),
        source=Source(data, path, validation=True, augment=augment),
        network="",
        schemes=opts.names(schemes),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size or (RECIPES[data].batch_size if data in RECIPES else 1),
        seeds=1,
        gamma=gamma,
        decay=decay,
        final_weight=1.0,
    )
    trained = eann_command.train(
        eann_command.Training(options, opts.names(networks)),
        out,
        cores() if jobs is None else jobs,
        resume=resume,
        overwrite=overwrite,
        download=download,
    )
    if trained is None:
        raise typer.Exit(130)
    eann_command.combine_runs(trained, out, repeats)


def _check_no_training(context: typer.Context) -> None:
    """An option that would be ignored is an error."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in FOR_ALL and source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for training: leave it out, or leave out RUN")
