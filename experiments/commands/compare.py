"""`loss-balance compare`: one network, several weight schemes, each exit against OPT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.pages import comparison_page
from loss_balance.experiments.pages.exhibit import show
from loss_balance.experiments.runs.output_folder import claim_output
from loss_balance.experiments.runs.progress import train_or_tell, workers_for
from loss_balance.experiments.studies.comparison import outcome
from loss_balance.experiments.studies.plan import Options, config_of, plan

console = Console()


@opts.takes_options()
def compare(
    options: Options,
    network: opts.Network = "resann-3-8",
    schemes: opts.Schemes = "const,linear,adaloss,guided,opt",
    jobs: opts.Jobs = None,
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
    workers = workers_for(jobs)
    data = options.load()
    comparison = plan(options, network, opts.names(schemes), data)
    config = config_of(options, comparison)
    claim_output(out, config, ["runs"], resume=resume, overwrite=overwrite)
    images = {comparison.source: comparison.images}
    results = train_or_tell(comparison.runs(), out / "runs", workers, images, console, out)
    if results is None:
        raise typer.Exit(130)
    measured = outcome(comparison, results)
    exhibit = comparison_page.exhibit(out, measured)
    comparison_page.write(out, measured, exhibit, config)
    show(exhibit, console)
    console.print(f"Report: {out / 'report.html'}   Curves: {out / 'curves.png'}")
