"""What a comparison leaves behind: summary.json, curves.png and report.html."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loss_balance
from loss_balance.experiments.pages import comparison_plot
from loss_balance.experiments.pages.exhibit import Exhibit, TextTable, as_csv
from loss_balance.experiments.pages.findings import OURS, TITLES, cells, findings, percent
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.pages.style import drawings, sheet
from loss_balance.experiments.studies.comparison import AT, FRACTIONS, Outcome
from loss_balance.experiments.training.run_folder import write_atomically, write_json
from loss_balance.experiments.training.schemes import OPT


def exhibit(folder: Path, measured: Outcome) -> Exhibit:
    """The tables, findings and curves of the comparison whose runs are in `folder`."""
    exits = [index + 1 for index in measured.comparison.exits]  # from 1, as people count
    columns = ("scheme", *(f"{at} of cost\nexit {k}" for at, k in zip(AT, exits, strict=True)))
    strong = next((name for name in reversed(OURS) if name in measured.curves), None)
    notes = []
    if OPT in measured.curves:
        notes.append(
            "OPT is one network per column, cut after that exit and trained for it alone: the bar, "
            "not a rival."
        )
    panels = comparison_plot.panels(folder, measured)
    return Exhibit(
        title=f"{measured.comparison.spec.name} on {measured.comparison.source.name}",
        tables=tuple(
            TextTable(heading(measured, metric), columns, table(measured, metric), strong)
            for metric in TITLES
        ),
        notes=tuple(notes),
        findings=tuple(findings(measured)),
        picture=sheet(panels),
        drawings=drawings(panels),
        numbers=as_csv(numbers(measured)),
    )


def write(
    folder: Path, measured: Outcome, shown: Exhibit, config: dict[str, Any]
) -> dict[str, Any]:
    """Writes summary.json, curves.png and report.html into `folder`; returns the summary."""
    summary = {
        "version": loss_balance.__version__,
        "config": config,
        "fractions": list(FRACTIONS),
        "exit_at_fraction": [index + 1 for index in measured.comparison.exits],
        "schemes": {name: curve.summary() for name, curve in measured.curves.items()},
        "findings": list(shown.findings),
    }
    seeds = len(measured.comparison.seeds)
    page = render("comparison.html.j2", exhibit=shown, config=config, seeds=seeds)
    write_json(folder / "summary.json", summary)
    write_atomically(folder / "curves.png", shown.picture)
    write_atomically(folder / "report.html", page)
    return summary


def numbers(measured: Outcome) -> Iterator[tuple[object, ...]]:
    """A row per scheme, seed and exit."""
    yield ("scheme", "seed", "exit", "multiply_adds", "train_loss", "test_error")
    for name, curve in measured.curves.items():
        exits = measured.comparison.cuts if name == OPT else range(len(curve.multiply_adds))
        for s, seed in enumerate(measured.comparison.seeds):
            for k, (unit, cost) in enumerate(zip(exits, curve.multiply_adds, strict=True)):
                yield (
                    *(name, seed, unit + 1, cost),
                    *(curve.train_loss[s, k], curve.test_error[s, k]),
                )


def table(measured: Outcome, metric: str) -> tuple[tuple[str, ...], ...]:
    """Rows of text for `train_loss` or `test_error`: the scheme, then a cell per fraction.

    A cell is the seeds' mean, their standard deviation if there are several, and the relative
    increase over OPT if it was trained.
    """
    return tuple((name, *_cells(measured, name, metric)) for name in measured.curves)


def _cells(measured: Outcome, name: str, metric: str) -> list[str]:
    found = cells(measured, name, metric)
    if OPT in measured.curves and name != OPT:
        over = measured.increase(name, metric, OPT)
        # On one line four cells with a deviation are too wide for a terminal.
        gap = "\n" if len(measured.comparison.seeds) > 1 else " "
        found = [f"{cell}{gap}({percent(x)})" for cell, x in zip(found, over, strict=True)]
    return found


def heading(measured: Outcome, metric: str) -> str:
    """The title of a table, with what its cells mean."""
    unit = "% of the test images" if metric == "test_error" else "cross-entropy"
    brackets = "; in brackets: relative to OPT" if OPT in measured.curves else ""
    return f"{TITLES[metric].capitalize()} ({unit}{brackets})"
