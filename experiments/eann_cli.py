"""The options of `loss-balance eann`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments import eann_command
from loss_balance.experiments.augment import AUGMENTATIONS
from loss_balance.experiments.compare import Options
from loss_balance.experiments.comparison import SCHEMES
from loss_balance.experiments.data import NAMES, Source
from loss_balance.experiments.engine import FRAMEWORKS, engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.execution import cores
from loss_balance.experiments.recipes import RECIPES

TRAINING = "Training, where no RUN is given"
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
            help="Networks of growing cost, about twofold; with commas.", rich_help_panel=TRAINING
        ),
    ] = "resann-1-8,resann-2-8,resann-4-8",
    schemes: Annotated[
        str,
        typer.Option(
            help=f"Any of {', '.join(SCHEMES)}; with commas. An ensemble each; opt is of the "
            "largest network.",
            rich_help_panel=TRAINING,
        ),
    ] = "adaloss,const,opt",
    data: Annotated[
        str, typer.Option(help=f"Data set: {', '.join(NAMES)}.", rich_help_panel=TRAINING)
    ] = "digit-pairs",
    path: Annotated[
        Path | None,
        typer.Option(help="Where its files are.", show_default=False, rich_help_panel=TRAINING),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download", help="Fetch what is missing at --path.", rich_help_panel=TRAINING
        ),
    ] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            help=f"What happens to training images: {', '.join(AUGMENTATIONS)}.",
            show_default="the data set's own way",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help=f"Framework to train in: {', '.join(FRAMEWORKS)}.", rich_help_panel=TRAINING
        ),
    ] = "torch",
    device: Annotated[str, typer.Option(help="cpu or cuda.", rich_help_panel=TRAINING)] = "cpu",
    epochs: Annotated[
        int | None,
        typer.Option(show_default="the data set's", rich_help_panel=TRAINING),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(show_default="the data set's", rich_help_panel=TRAINING),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(show_default="the data set's", rich_help_panel=TRAINING),
    ] = None,
    gamma: Annotated[
        float, typer.Option(help="Of AdaLoss: share of constant weights.", rich_help_panel=TRAINING)
    ] = 0.05,
    decay: Annotated[
        float,
        typer.Option(help="Of AdaLoss' running means, below 1.", rich_help_panel=TRAINING),
    ] = 0.99,
    jobs: Annotated[
        int | None,
        typer.Option(
            help="Runs side by side, one thread each.",
            show_default="one per core",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue what an interrupted training left in --out.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Discard what is in --out.", rich_help_panel=TRAINING),
    ] = False,
    repeats: Annotated[int, typer.Option(help="How often each network is timed.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder for the report, and the runs trained here.")] = (
        Path("runs/eann")
    ),
) -> None:
    """Combine networks of growing cost into an anytime ensemble (EANN), and measure it.

    Without RUN it trains the networks first, with each scheme.

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
        schemes=_listed(schemes),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size or (RECIPES[data].batch_size if data in RECIPES else 1),
        seeds=1,
        gamma=gamma,
        decay=decay,
        final_weight=1.0,
    )
    trained = eann_command.train(
        eann_command.Training(options, _listed(networks)),
        out,
        cores() if jobs is None else jobs,
        resume=resume,
        overwrite=overwrite,
        download=download,
    )
    if trained is None:
        raise typer.Exit(130)
    eann_command.combine_runs(trained, out, repeats)


def _listed(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_no_training(context: typer.Context) -> None:
    """An option that would be ignored is an error."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in FOR_ALL and source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for training: leave it out, or leave out RUN")
