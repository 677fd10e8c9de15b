"""Figure 2a of the paper: the training loss at each depth against OPT's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.comparison_plot import draw_mean
from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.look import look_of
from loss_balance.experiments.pages.style import legend_below
from loss_balance.experiments.paper.common import (
    Values,
    change,
    mean_of,
    number,
    of_all_seeds,
    panel,
    results_of,
    subject,
)
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import FIG_2A
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.schemes import OPT


def runs_2a(comparisons: Sequence[Comparison]) -> list[Run]:
    """Each scheme, and OPT at every exit: the figure has all depths."""
    if len(comparisons) > 1:
        raise UserError("fig2a takes one network and one data set")
    (comparison,) = comparisons
    shared = [run for name in comparison.shared for run in of_all_seeds(comparison, name)]
    return shared + [run for k in _exits(comparison) for run in _opt(comparison, k)]


def fig2a(comparisons: Sequence[Comparison], trained: TrainedRuns) -> Exhibit:
    """Training loss of each scheme over OPT's at each depth, %."""
    (comparison,) = comparisons
    exits = _exits(comparison)
    opt = np.array([mean_of(_opt(comparison, k), "train_loss", trained)[0] for k in exits])
    seeds = {
        name: 100 * (results_of(of_all_seeds(comparison, name), "train_loss", trained) / opt - 1)
        for name in comparison.shared
    }
    over = {name: values.mean(axis=0) for name, values in seeds.items()}
    costs = np.array([cost.multiply_adds for cost in comparison.spec.costs()])
    share = costs / costs[-1]
    rows = [
        (
            str(k + 1),
            number(share[k]),
            *(number(over[name][k], 1) for name in over),
            number(opt[k], 4),
        )
        for k in exits
    ]
    return exhibit(
        f"Training loss over OPT's, %: {subject(comparisons)}",
        ("exit", "of cost", *over, "OPT's loss"),
        rows,
        paper=FIG_2A,
        findings=(*_findings_2a(over), _later_half(seeds)),
        figure=_figure_2a(seeds),
    )


def _findings_2a(over: dict[str, Values]) -> list[str]:
    lines = [
        f"{name}: {number(values.min(), 0, True)} to {number(values.max(), 0, True)} %, "
        f"first exit {number(values[0], 0, True)} %, last exit {number(values[-1], 0, True)} %."
        for name, values in over.items()
    ]
    spread = {name: float(values.max() - values.min()) for name, values in over.items()}
    lines.append(f"The most even of them is {min(spread, key=lambda name: spread[name])}.")
    return lines


def _later_half(seeds: dict[str, Values]) -> str:
    """What AdaLoss gains on the later exits, from values of shape (seeds, exits)."""
    gap = seeds["adaloss"] - seeds["const"]
    late = gap[:, gap.shape[1] // 2 :].mean(axis=1)
    return (
        "Over the later half of the exits AdaLoss's increase less that of constant weights is on "
        f"average {change(late, 0)} points."
    )


def _figure_2a(seeds: dict[str, Values]) -> Figure:
    """Depth across, relative increase up, a line per scheme; OPT is the zero line."""
    figure, axes = panel("Fig. 2a", "depth (exit)", "training loss over OPT's, %")
    for name, values in seeds.items():
        draw_mean(axes, np.arange(1.0, values.shape[1] + 1), values, look_of(name), name)
    axes.axhline(0, color=look_of(OPT).color, linewidth=1, label="opt")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(axes)
    return figure


def _exits(comparison: Comparison) -> range:
    return range(len(comparison.spec.exits))


def _opt(comparison: Comparison, exit_index: int) -> list[Run]:
    return [comparison.run(OPT, seed, exit_index) for seed in comparison.seeds]
