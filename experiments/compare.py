"""`loss-balance compare`, the main job: options in, trained runs, table and report out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loss_balance.adaloss import AdaLoss
from loss_balance.base import check_count
from loss_balance.experiments import report
from loss_balance.experiments.comparison import AT, OPT, Comparison, Outcome, outcome
from loss_balance.experiments.data import Dataset, Source
from loss_balance.experiments.engine import Engine
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.output_folder import claim_output
from loss_balance.experiments.progress import check_jobs, execute_with_bars
from loss_balance.experiments.recipes import RECIPES
from loss_balance.reference_models import families

console = Console()


@dataclass(frozen=True)
class Options:
    """What the user asked for, as `config.json` of the comparison keeps it."""

    engine: Engine
    source: Source
    network: str
    schemes: tuple[str, ...]
    epochs: int | None
    learning_rate: float | None
    batch_size: int | None
    seeds: int
    gamma: float
    decay: float
    final_weight: float


def compare(
    options: Options,
    folder: Path,
    workers: int,
    *,
    resume: bool,
    overwrite: bool,
    download: bool = False,
) -> bool:
    """Trains what is missing in `folder` and reports; False if Ctrl-C ended it.

    Raises:
        UserError: an option or a file is not as it must be.
    """
    check_jobs(workers)
    data = options.source.load(download=download)
    comparison = plan(options, data)
    config = config_of(options, comparison)
    claim_output(folder, config, ["runs"], resume=resume, overwrite=overwrite)
    images = {options.source: len(data.y_train)}
    try:
        results = execute_with_bars(comparison.runs(), folder / "runs", workers, images, console)
    except KeyboardInterrupt:
        console.print(
            f"Interrupted. {folder} has all that is needed to go on: the same command with "
            "--resume (in place of --overwrite)."
        )
        return False
    measured = outcome(comparison, results)
    report.write(folder, measured, config)
    show(measured, folder)
    return True


def plan(options: Options, data: Dataset) -> Comparison:
    """The comparison that the options describe; UserError where they do not fit the data."""
    changed: dict[str, Any] = {
        "batch_size": options.batch_size,
        "epochs": options.epochs,
        "learning_rate": options.learning_rate,
    }
    given = {name: value for name, value in changed.items() if value is not None}
    try:
        check_count("seeds", options.seeds)
        recipe = replace(RECIPES[options.source.name], **given)
        spec = families.get(
            options.network, num_classes=data.num_classes, input_shape=data.input_shape
        )
        adaloss = AdaLoss(
            len(spec.exits),
            gamma=options.gamma,
            decay=options.decay,
            final_weight=options.final_weight,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    return Comparison(
        spec,
        recipe,
        options.source,
        data.fingerprint(),
        options.schemes,
        tuple(range(options.seeds)),
        adaloss,
        len(data.y_train),
        options.engine,
    )


def show(measured: Outcome, folder: Path) -> None:
    """The tables and findings, on the terminal."""
    columns = list(zip(AT, report.exit_numbers(measured), strict=True))
    for metric in report.TITLES:
        table = Table(title=report.heading(measured, metric), title_justify="left")
        table.add_column("scheme")
        for fraction, number in columns:
            table.add_column(f"{fraction} of cost\nexit {number}", justify="right")
        for row in report.table(measured, metric):
            table.add_row(*row, style="bold" if row[0] == "adaloss" else None)
        console.print(table)
    if OPT in measured.curves:
        console.print("opt: one network per column, trained for that exit alone.")
    for line in report.findings(measured):
        console.print(f"• {line}", highlight=False)
    console.print(f"Report: {folder / 'report.html'}   Curves: {folder / 'curves.png'}")


def config_of(options: Options, comparison: Comparison) -> dict[str, Any]:
    """What `config.json` of the command keeps: equal ones train the same runs."""
    given = asdict(options)
    engine, source = given.pop("engine"), options.source.config()
    del given["source"]  # with its path, which JSON cannot hold
    return {
        "backend": engine.pop("framework"),
        **engine,
        "data": source.pop("name"),
        **source,
        **given,
        "schemes": list(options.schemes),
        "epochs": comparison.recipe.epochs,
        "learning_rate": comparison.recipe.learning_rate,
        "batch_size": comparison.recipe.batch_size,
        "data_fingerprint": comparison.fingerprint,
    }
