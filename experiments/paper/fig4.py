"""Figure 4 of the paper: small networks with AdaLoss against large ones, constant weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.look import look_of
from loss_balance.experiments.pages.style import legend_below
from loss_balance.experiments.paper.common import (
    Group,
    Values,
    at_budgets,
    flat,
    mean_of,
    number,
    of_all_seeds,
    panel,
    results_of,
    rivals_of_const,
    subject,
)
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import FIG_4
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.loop import Run

BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of the table, in costs of the small network


def runs_4(pairs: Sequence[Group]) -> list[Run]:
    """AdaLoss for the small network of each pair, constant weights for the large one."""
    return [
        run
        for pair in pairs
        for comparison, name in _lines(pair)
        for run in of_all_seeds(comparison, name)
    ]


def fig4(name: str, pairs: Sequence[Group], trained: TrainedRuns) -> Exhibit:
    """Error over the small network's final one, %, against the cost in small networks.

    Args:
        name: of the panel.
        pairs: (small, large).
        trained: the runs of `runs_4`.
    """
    grid = np.union1d(np.linspace(0, max(map(_ratio, pairs)), 401), BUDGETS)
    lines: dict[str, list[Values]] = {}  # of a pair (seeds, budgets)
    for pair in pairs:
        small = pair[0]
        unit = small.spec.costs()[-1].multiply_adds
        final = mean_of(of_all_seeds(small, "adaloss"), "test_error", trained)[-1]
        for comparison, scheme in _lines(pair):
            errors = results_of(of_all_seeds(comparison, scheme), "test_error", trained)
            costs = np.array([cost.multiply_adds for cost in comparison.spec.costs()]) / unit
            with np.errstate(divide="ignore", invalid="ignore"):
                reached = np.array([at_budgets(costs, error, grid) for error in errors])
                lines.setdefault(scheme, []).append(100 * (reached / final - 1))
    seeds = {scheme: np.mean(values, axis=0) for scheme, values in lines.items()}
    mean = {scheme: values.mean(axis=0) for scheme, values in seeds.items()}
    rows = []
    for budget in BUDGETS:
        (k,) = np.flatnonzero(grid == budget)
        rows.append((number(budget), *(number(values[k], 1) for values in mean.values())))
    sizes = ", ".join(f"{s.spec.name} and {lg.spec.name}" for s, lg in pairs)
    return exhibit(
        f"Test error over the small network's final one, %: {subject(flat(pairs))}",
        ("cost / small network's", *(_label(scheme, ", ") for scheme in mean)),
        rows,
        paper=FIG_4[name],
        findings=(f"Pairs averaged ({len(pairs)}): {sizes}.", *_findings_4(grid, mean)),
        figure=_figure_4(name, grid, seeds),
    )


def _findings_4(grid: Values, mean: dict[str, Values]) -> list[str]:
    large, small = mean["const"], mean["adaloss"]
    both = np.isfinite(large) & np.isfinite(small) & (grid <= 1)
    ahead = float(np.mean(small[both] < large[both])) if both.any() else float("nan")
    reached = np.flatnonzero(large <= small[-1])
    there = (
        f"reaches it at {grid[reached[0]]:.2f} times the small one's cost"
        if reached.size
        else "never reaches it"
    )
    return [
        f"The small network with AdaLoss is ahead at {number(100 * ahead, 0)} % of the budgets up "
        "to its own cost at which both have an answer.",
        f"Its final error: the large network with constant weights {there}, and ends "
        f"{number(large[-1], 1, True)} % relative to it.",
    ]


def _figure_4(name: str, grid: Values, seeds: dict[str, Values]) -> Figure:
    """Cost in small networks across, relative extra error up; bands of one deviation."""
    figure, axes = panel(
        f"Fig. {name.removeprefix('fig')}",
        "cost over the small network's total",
        "error over the small network's final one, %",
    )
    for scheme, values in seeds.items():
        here = grid >= 0 if scheme == "const" else grid <= 1
        middle, color = values.mean(axis=0), look_of(scheme).color
        axes.plot(grid[here], middle[here], color=color, label=_label(scheme, " network, "))
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            low, high = (middle - spread)[here], (middle + spread)[here]
            axes.fill_between(grid[here], low, high, color=color, alpha=0.2, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    legend_below(axes)
    return figure


def _lines(pair: Group) -> list[tuple[Comparison, str]]:
    small, large = pair
    return [*((small, name) for name in rivals_of_const(small)), (large, "const")]


def _label(scheme: str, between: str) -> str:
    size = "large" if scheme == "const" else "small"
    return f"{size}{between}{'AdaLoss' if scheme == 'adaloss' else scheme}"


def _ratio(pair: Group) -> float:
    small, large = (comparison.spec.costs()[-1].multiply_adds for comparison in pair)
    return large / small
