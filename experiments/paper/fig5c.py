"""Figure 5c of the paper: what AdaLoss's weights are at the end, by data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.comparison_plot import draw_mean
from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.look import looks
from loss_balance.experiments.pages.style import legend_below
from loss_balance.experiments.paper.common import (
    Values,
    mean_of,
    number,
    of_all_seeds,
    panel,
    subject,
)
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import FIG_5C
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.loop import Run


def runs_5c(comparisons: Sequence[Comparison]) -> list[Run]:
    """AdaLoss on each data set."""
    if len({comparison.spec.name for comparison in comparisons}) > 1:
        raise UserError("fig5c takes one network, on several data sets")
    return [run for comparison in comparisons for run in of_all_seeds(comparison, "adaloss")]


def fig5c(comparisons: Sequence[Comparison], trained: TrainedRuns) -> Exhibit:
    """AdaLoss's weights at the end of training, of one network on several data sets."""
    seeds = {c.source.name: _final_weights(c, trained) for c in comparisons}
    weights = {name: values.mean(axis=0) for name, values in seeds.items()}
    final = {
        c.source.name: 100 * mean_of(of_all_seeds(c, "adaloss"), "test_error", trained)[-1]
        for c in comparisons
    }
    rows = [
        (str(k + 1), *(number(values[k], 4) for values in weights.values()))
        for k in range(len(comparisons[0].spec.exits))
    ]
    return exhibit(
        f"AdaLoss's weights at the end of training: {subject(comparisons)}",
        ("exit", *weights),
        rows,
        paper=FIG_5C,
        findings=_findings_5c(weights, final),
        figure=_figure_5c(seeds),
    )


def _findings_5c(weights: dict[str, Values], final: dict[str, float]) -> list[str]:
    """Shares from the easiest to the hardest data set, by the final error; compared as printed."""
    order = sorted(weights, key=lambda name: final[name])
    late = {name: round(100 * w[len(w) // 2 :].sum() / w.sum()) for name, w in weights.items()}
    shares = ", ".join(f"{name} {late[name]} % (final error {final[name]:.1f} %)" for name in order)
    lines = [f"Share of the total weight on the later half of the exits: {shares}."]
    if len(order) > 1:
        rising = all(late[easy] < late[hard] for easy, hard in pairwise(order))
        lines.append(
            "So the harder the data, the more on the late exits, as in the paper."
            if rising
            else "So here the share does not rise with the difficulty as it does in the paper."
        )
    return lines


def _figure_5c(seeds: dict[str, Values]) -> Figure:
    """Exit across, weight up, a line per data set."""
    figure, axes = panel("Fig. 5c", "exit", "weight of the exit's loss")
    look = looks(f"weights on {name}" for name in seeds)  # no scheme's own
    for name, values in seeds.items():
        across = np.arange(1.0, values.shape[1] + 1)
        draw_mean(axes, across, values, look[f"weights on {name}"], name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.05)
    legend_below(axes)
    return figure


def _final_weights(comparison: Comparison, trained: TrainedRuns) -> Values:
    """Shape (seeds, exits)."""
    runs = of_all_seeds(comparison, "adaloss")
    return np.array([trained[run].loss_weights[-1] for run in runs])
