"""A figure or table of the paper as measured here: on the terminal, as CSV and as a plot."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from loss_balance.experiments.pages.style import png
from loss_balance.experiments.runs.trained import METRICS, Trained
from loss_balance.experiments.training.run_folder import write_atomically


@dataclass(frozen=True)
class Exhibit:
    """Cells are text, as printed and as in the CSV."""

    name: str  # `fig2a`
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    paper: str  # what the paper has beside it, where that is not in the rows
    findings: tuple[str, ...]  # from the numbers alone
    figure: Figure


def show(exhibit: Exhibit, console: Console) -> None:
    """The table, what the paper says, and the findings."""
    table = Table(title=exhibit.title, title_justify="left")
    for number, column in enumerate(exhibit.columns):
        table.add_column(column, justify="right" if number else "left")
    for row in exhibit.rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"Paper: {exhibit.paper}", highlight=False)
    for line in exhibit.findings:
        console.print(f"• {line}", highlight=False)


def write(exhibit: Exhibit, runs: Iterable[Trained], folder: Path) -> list[Path]:
    """NAME.csv (the table), NAME-runs.csv (each exit of each run) and NAME.png, as paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{exhibit.name}.csv": as_csv([exhibit.columns, *exhibit.rows]),
        f"{exhibit.name}-runs.csv": as_csv(_run_rows(runs)),
        f"{exhibit.name}.png": png(exhibit.figure),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def as_csv(rows: Iterable[Sequence[object]]) -> bytes:
    """Lines ended as RFC 4180 has it, UTF-8."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _run_rows(runs: Iterable[Trained]) -> list[tuple[object, ...]]:
    header = ("run", "network", "data", "scheme", "seed", "exit", "multiply_adds")
    rows: list[tuple[object, ...]] = [(*header, *METRICS)]
    for _, run in sorted({run.folder: run for run in runs}.items()):
        about = (run.folder.name, run.spec.name, run.source.name, run.scheme, run.config["seed"])
        measured = zip(run.spec.costs(), *(run.result[metric] for metric in METRICS), strict=True)
        for number, (cost, *values) in enumerate(measured, 1):
            rows.append((*about, number, cost.multiply_adds, *values))
    return rows
