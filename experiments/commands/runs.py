"""`loss-balance runs`: finished runs, a row each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from loss_balance.experiments.commands import options as opts
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.runs.output_folder import flattened
from loss_balance.experiments.runs.trained import Trained, find
from loss_balance.experiments.terminal import console

COLUMNS = ("network", "data", "scheme", "seed", "epochs", "training loss", "test error, %", "run")


@opts.shows(progress=False)
def runs(
    places: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUNS", help="Folders of finished runs, or folders with such."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only those with this in their configuration, as scheme=adaloss, seed=0, "
            "'recipe learning_rate=0.1'; once for each.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """List finished runs, all or some of them.

    Loss and error are the last exit's; --json has all exits, and the configuration.
    """
    wanted = [_condition(text) for text in where or ()]
    every = find(places or [Path("runs")])
    known = sorted({name for run in every for name in facts(run)})
    unknown = [name for name, _ in wanted if name not in known]
    if unknown:
        raise UserError(f"--where must be of {', '.join(known)}, got {', '.join(unknown)}")
    found = [run for run in every if matches(run, wanted)]
    summaries = [
        {"run": str(run.folder), **run.summary(), "config": dict(facts(run))} for run in found
    ]
    table = Table(title=f"{len(found)} run{'s' * (len(found) != 1)}", title_justify="left")
    for column in COLUMNS:
        table.add_column(column, no_wrap=column in ("run", "network"))
    for run in found:
        table.add_row(
            run.spec.name,
            f"{run.source.name}{', held out' * run.source.validation}",
            run.scheme,
            str(run.config["seed"]),
            str(run.recipe.epochs),
            f"{run.result['train_loss'][-1]:.4f}",
            f"{100 * run.test_error[-1]:.2f}",
            str(run.folder),
        )
    console.print(table)
    console.found(summaries)


def facts(run: Trained) -> dict[str, str]:
    """A run's configuration flat, the scheme by the name that commands give it."""
    flat = {key: str(value) for key, value in flattened(run.config)}
    return {**flat, "scheme": run.scheme, "data": run.source.name}


def matches(run: Trained, wanted: list[tuple[str, str]]) -> bool:
    """Whether all conditions hold; one on what the run does not have does not."""
    has = facts(run)
    return all(has.get(name) == value for name, value in wanted)


def _condition(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--where must be like scheme=adaloss, got {text!r}")
    return name.strip(), value.strip()
