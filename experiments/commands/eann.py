"""`loss-balance eann`: networks trained or taken from their folders, measured, combined, shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.output_folder import output_folder
from loss_balance.experiments.runs.progress import train_or_tell
from loss_balance.experiments.runs.trained import read
from loss_balance.experiments.studies.ensemble import combine
from loss_balance.experiments.studies.ensemble_runs import (
    Training,
    by_seed,
    check_same_data,
    measure,
)
from loss_balance.experiments.studies.options import TRAINING, Options
from loss_balance.experiments.studies.plan import check, config_of, plan
from loss_balance.experiments.terminal import console
from loss_balance.experiments.training.schemes import SCHEMES

FOR_ALL = ("runs", "out", "repeats", "quiet", "json")  # the rest is for training


@opts.shows()
@opts.takes_options(without=["validation", "sweep"])
def eann(
    context: typer.Context,
    options: Options,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUN", help="Folders of finished runs, trained with --validation."),
    ] = None,
    networks: Annotated[
        str,
        typer.Option(
            help="Networks of growing cost, about twofold; with commas.",
            rich_help_panel=TRAINING,
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
        check_free(out)
        combine_runs(runs, out, repeats)
        return
    options = replace(options, validation=True)
    training = Training(options, opts.names(networks), opts.names(schemes))
    trained = train_networks(training, out, resume=resume, overwrite=overwrite)
    if trained is None:
        raise typer.Exit(130)
    combine_runs(trained, out, repeats)


def _check_no_training(context: typer.Context) -> None:
    """An option that would be ignored is an error."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in FOR_ALL and source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise UserError(f"--{option} is for training: leave it out, or leave out RUN")


def train_networks(
    training: Training, folder: Path, *, resume: bool, overwrite: bool
) -> list[Path] | None:
    """Trains what is missing in `folder`/runs; the folders of all runs, None after Ctrl-C.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    place = training.options.place()
    for network in training.networks:
        check(training.options, network, training.schemes)
    data = training.options.load()
    runs = [run for _, run in training.plan(data)]
    first = plan(training.options, training.networks[0], training.schemes, data)
    config = config_of(training.options, first, network=list(training.networks))
    images, logs = {first.source: first.images}, training.options.logs()
    with output_folder(folder, config, ["runs"], resume=resume, overwrite=overwrite):
        if train_or_tell(runs, folder / "runs", place, images, folder, logs) is None:
            return None
    return [folder / "runs" / run.name for run in runs]


def combine_runs(folders: Sequence[Path], out: Path, repeats: int) -> None:
    """Measures the runs, combines them, shows the ensembles and writes the report to `out`.

    Raises:
        UserError: the runs do not fit together or nothing was held out from training; `out` is
            taken by something else.
    """
    from loss_balance.experiments.pages import ensemble_page  # matplotlib: not for --help
    from loss_balance.experiments.pages.ensemble_tables import Measurement
    from loss_balance.experiments.pages.exhibit import show

    runs = [read(folder) for folder in folders]
    check_same_data(runs)
    groups = by_seed(runs)
    measured = iter(measure([run for group in groups for run in group], repeats))
    seeds = [combine([next(measured) for _ in group]) for group in groups]
    setting = Measurement(runs[0].source.name, runs[0].framework, repeats)
    out.mkdir(parents=True, exist_ok=True)
    exhibit = ensemble_page.exhibit(seeds, setting)
    summary = ensemble_page.write(out, seeds, exhibit, setting)
    show(exhibit)
    console.say(f"Report: {out / 'eann.html'}   Curves: {out / 'eann.png'}")
    console.found(summary)


def check_free(out: Path) -> None:
    """UserError if a report in `out` would mix with the runs of another command or a user's files.

    Only an empty folder or an earlier report of runs from elsewhere is free.
    """
    taken = (out / "config.json").exists() or (out.exists() and not out.is_dir())
    foreign = out.is_dir() and any(out.iterdir()) and not (out / "eann.html").exists()
    if taken or foreign:
        raise UserError(
            f"--out must be a new or empty folder or one with a report of RUNs, got {out}"
        )
