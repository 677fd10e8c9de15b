"""What a comparison leaves behind: summary.json, curves.png and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import loss_balance
from loss_balance.experiments.pages import comparison_plot
from loss_balance.experiments.pages.page import embedded, render
from loss_balance.experiments.studies.comparison import AT, FRACTIONS, Outcome
from loss_balance.experiments.training.run_folder import write_atomically, write_json
from loss_balance.experiments.training.schemes import OPT

TITLES = {"train_loss": "training loss", "test_error": "test error"}


def write(folder: Path, measured: Outcome, config: dict[str, Any]) -> None:
    """Writes the three files into `folder`, which holds the runs."""
    write_json(folder / "summary.json", summary(measured, config))
    picture = comparison_plot.draw(folder, measured)
    write_atomically(folder / "curves.png", picture)
    write_atomically(folder / "report.html", _page(measured, config, picture))


def summary(measured: Outcome, config: dict[str, Any]) -> dict[str, Any]:
    """Everything measured, as JSON holds it: the same runs give the same summary."""
    return {
        "version": loss_balance.__version__,
        "config": config,
        "fractions": list(FRACTIONS),
        "exit_at_fraction": exit_numbers(measured),
        "schemes": {name: curve.summary() for name, curve in measured.curves.items()},
        "findings": findings(measured),
    }


def table(measured: Outcome, metric: str) -> list[list[str]]:
    """Rows of text for `train_loss` or `test_error`: the scheme, then a cell per fraction.

    A cell is the seeds' mean, their standard deviation if there are several, and the relative
    increase over OPT if it was trained.
    """
    return [[name, *_cells(measured, name, metric)] for name in measured.curves]


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


def exit_numbers(measured: Outcome) -> list[int]:
    """The exits at FRACTIONS of the cost, counted from 1 as people do."""
    return [index + 1 for index in measured.comparison.exits]


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


def _page(measured: Outcome, config: dict[str, Any], picture: bytes) -> bytes:
    return render(
        "comparison.html.j2",
        title=f"{measured.comparison.spec.name} on {config['data']}",
        findings=findings(measured),
        tables=[(heading(measured, metric), table(measured, metric)) for metric in TITLES],
        fractions=AT,
        exits=exit_numbers(measured),
        picture=embedded(picture),
        config=config,
        has_opt=OPT in measured.curves,
        seeds=len(measured.comparison.seeds),
        zip=zip,
    )
