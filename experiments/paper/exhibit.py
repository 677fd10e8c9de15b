"""A figure or table of the paper as measured here: as CSV and as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from loss_balance.experiments.pages.exhibit import Exhibit, TextTable, as_csv
from loss_balance.experiments.pages.style import png
from loss_balance.experiments.runs.trained import Trained
from loss_balance.experiments.training.reading import METRICS
from loss_balance.experiments.training.run_folder import write_atomically


def exhibit(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    paper: str,
    findings: Iterable[str],
    figure: Figure,
) -> Exhibit:
    """One table with what the paper has beside it, the findings and a figure."""
    return Exhibit(
        title=title,
        tables=(TextTable(title, tuple(columns), tuple(map(tuple, rows))),),
        notes=(f"Paper: {paper}",),
        findings=tuple(findings),
        picture=png(figure),
    )


def write(name: str, shown: Exhibit, runs: Iterable[Trained], folder: Path) -> list[Path]:
    """Writes NAME.csv (the table), NAME-runs.csv (each exit of each run) and NAME.png.

    Returns their paths.
    """
    (table,) = shown.tables
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{name}.csv": as_csv([table.columns, *table.rows]),
        f"{name}-runs.csv": as_csv(_run_rows(runs)),
        f"{name}.png": shown.picture,
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]


def _run_rows(runs: Iterable[Trained]) -> list[tuple[object, ...]]:
    header = ("run", "network", "data", "scheme", "seed", "exit", "multiply_adds")
    rows: list[tuple[object, ...]] = [(*header, *METRICS)]
    for _, run in sorted({run.folder: run for run in runs}.items()):
        about = (run.folder.name, run.spec.name, run.source.name, run.scheme, run.config["seed"])
        measured = zip(run.spec.costs(), *(run.result[metric] for metric in METRICS), strict=True)
        for number, (cost, *values) in enumerate(measured, 1):
            rows.append((*about, number, cost.multiply_adds, *values))
    return rows
