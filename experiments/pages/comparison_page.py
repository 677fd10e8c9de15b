"""What a comparison leaves behind: summary.json, curves.png and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import loss_balance
from loss_balance.experiments.pages import comparison_plot
from loss_balance.experiments.pages.exhibit import Exhibit, TextTable
from loss_balance.experiments.pages.page import render
from loss_balance.experiments.studies.comparison import AT, FRACTIONS, Outcome
from loss_balance.experiments.training.run_folder import write_atomically, write_json
from loss_balance.experiments.training.schemes import OPT

TITLES = {"train_loss": "training loss", "test_error": "test error"}


def exhibit(folder: Path, measured: Outcome) -> Exhibit:
    """The tables, findings and curves of the comparison whose runs are in `folder`."""
    exits = [index + 1 for index in measured.comparison.exits]  # from 1, as people count
    columns = ("scheme", *(f"{at} of cost\nexit {k}" for at, k in zip(AT, exits, strict=True)))
    notes = []
    if OPT in measured.curves:
        notes.append(
            "OPT is one network per column, cut after that exit and trained for it alone: the bar, "
            "not a rival."
        )
    return Exhibit(
        title=f"{measured.comparison.spec.name} on {measured.comparison.source.name}",
        tables=tuple(
            TextTable(heading(measured, metric), columns, table(measured, metric), "adaloss")
            for metric in TITLES
        ),
        notes=tuple(notes),
        findings=tuple(findings(measured)),
        picture=comparison_plot.draw(folder, measured),
    )


def write(folder: Path, measured: Outcome, shown: Exhibit, config: dict[str, Any]) -> None:
    """Writes summary.json, curves.png and report.html into `folder`."""
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


def table(measured: Outcome, metric: str) -> tuple[tuple[str, ...], ...]:
    """Rows of text for `train_loss` or `test_error`: the scheme, then a cell per fraction.

    A cell is the seeds' mean, their standard deviation if there are several, and the relative
    increase over OPT if it was trained.
    """
    return tuple((name, *_cells(measured, name, metric)) for name in measured.curves)


def _cells(measured: Outcome, name: str, metric: str) -> list[str]:
    values = measured.at_fractions(name, metric) * (100 if metric == "test_error" else 1)
    digits = 1 if metric == "test_error" else 3
    several = len(values) > 1
    cells = [f"{mean:.{digits}f}" for mean in values.mean(axis=0)]
    if several:
        spread = values.std(axis=0, ddof=1)
        cells = [f"{cell} ±{sd:.{digits}f}" for cell, sd in zip(cells, spread, strict=True)]
    if OPT in measured.curves and name != OPT:
        over = measured.increase(name, metric, OPT)
        gap = "\n" if several else " "  # on one line four such cells are too wide for a terminal
        cells = [f"{cell}{gap}({_percent(x)})" for cell, x in zip(cells, over, strict=True)]
    return cells


def heading(measured: Outcome, metric: str) -> str:
    """The title of a table, with what its cells mean."""
    unit = "% of the test images" if metric == "test_error" else "cross-entropy"
    brackets = "; in brackets: relative to OPT" if OPT in measured.curves else ""
    return f"{TITLES[metric].capitalize()} ({unit}{brackets})"


def findings(measured: Outcome) -> list[str]:
    """What AdaLoss gained and paid against each other scheme, in words, from the numbers alone."""
    if "adaloss" not in measured.curves:
        return []
    rivals = [name for name in measured.curves if name not in ("adaloss", OPT)]
    lines = [_trade(measured)] if "const" in rivals else []
    lines += [_finding(measured, rival, metric) for rival in rivals for metric in TITLES]
    seeds = len(measured.comparison.seeds)
    lines.append(
        "One seed: how much of this is chance is not known."
        if seeds == 1
        else f"Means over {seeds} seeds; the ± in the tables is their standard deviation."
    )
    return lines


def _trade(measured: Outcome) -> str:
    """The paper's claim in one sentence, and whether it showed."""
    change = measured.increase("adaloss", "train_loss", "const")
    verdict = "traded" if change[0] > 0 > change[-1] else "did not trade"
    return (
        f"Against constant weights AdaLoss {verdict} early exits for late ones here: training loss "
        f"{_percent(change[0])} at 1/4 of the cost, "
        f"{_percent(change[-1])} at the end."
    )


def _finding(measured: Outcome, rival: str, metric: str) -> str:
    """One line: changes as they are printed, and where they are below or above zero."""
    if metric == "test_error":
        changes = [f"{100 * x:+.1f}" for x in measured.difference("adaloss", metric, rival)]
        unit = " points"
    else:
        changes = [f"{100 * x:+.0f}" for x in measured.increase("adaloss", metric, rival)]
        unit = " %"
    gains = [at for change, at in zip(changes, AT, strict=True) if float(change) < 0]
    pays = [at for change, at in zip(changes, AT, strict=True) if float(change) > 0]
    verdicts = [f"gains at {_and(gains)}"] * bool(gains) + [f"pays at {_and(pays)}"] * bool(pays)
    listed = ", ".join(f"{change}{unit} at {at}" for change, at in zip(changes, AT, strict=True))
    return (
        f"{TITLES[metric].capitalize()}, AdaLoss against {rival}: {listed} of the cost; "
        f"{', '.join(verdicts) or 'no difference'}."
    )


def _percent(x: float) -> str:
    return f"{100 * x:+.0f} %" if np.isfinite(x) else "n/a"


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
