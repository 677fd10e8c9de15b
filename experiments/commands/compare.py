"""`loss-balance compare`: one network, several weight schemes, each exit against OPT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.runs.output_folder import output_folder
from loss_balance.experiments.runs.progress import train_or_tell
from loss_balance.experiments.studies.comparison import outcome
from loss_balance.experiments.studies.options import Options
from loss_balance.experiments.studies.plan import check, config_of, plan
from loss_balance.experiments.terminal import console


@opts.shows()
@opts.takes_options()
def compare(
    options: Options,
    network: opts.Network = "resann-3-8",
    schemes: opts.Schemes = "const,linear,adaloss,guided,opt",
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
    from loss_balance.experiments.pages import comparison_page  # matplotlib: not for --help
    from loss_balance.experiments.pages.exhibit import show

    place = options.place()
    check(options, network, opts.names(schemes))
    data = options.load()
    comparison = plan(options, network, opts.names(schemes), data)
    config = config_of(options, comparison)
    images, runs = {comparison.source: comparison.images}, out / "runs"
    with output_folder(out, config, ["runs"], resume=resume, overwrite=overwrite):
        results = train_or_tell(comparison.runs(), runs, place, images, out, options.logs())
        if results is None:
            raise typer.Exit(130)
        measured = outcome(comparison, results)
        exhibit = comparison_page.exhibit(out, measured)
        summary = comparison_page.write(out, measured, exhibit, config)
    show(exhibit)
    console.say(f"Report: {out / 'report.html'}   Curves: {out / 'curves.png'}")
    console.found(summary)
