"""What the paper's figures and tables have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.loop import Run

Values = NDArray[np.float64]


def of_all_seeds(comparison: Comparison, name: str) -> list[Run]:
    """The runs of one scheme, one per seed."""
    return [comparison.run(name, seed) for seed in comparison.seeds]


def results_of(runs: Sequence[Run], metric: str, trained: TrainedRuns) -> Values:
    """Shape (runs, exits)."""
    return np.array([trained[run].result[metric] for run in runs])


def mean_of(runs: Sequence[Run], metric: str, trained: TrainedRuns) -> Values:
    """The mean of a metric over the runs, per exit."""
    mean: NDArray[np.float64] = results_of(runs, metric, trained).mean(axis=0)
    return mean


def subject(comparisons: Sequence[Comparison]) -> str:
    """Which networks on which data, of how many epochs and seeds, for a title."""
    networks = ", ".join(dict.fromkeys(c.spec.name for c in comparisons))
    data = ", ".join(dict.fromkeys(c.source.name for c in comparisons))
    lengths = dict.fromkeys(c.recipe.epochs for c in comparisons)
    epochs = f"{', '.join(map(str, lengths))} epoch{'s' * (list(lengths) != [1])}"
    seeds = len(comparisons[0].seeds)
    return f"{networks} on {data}; {epochs}, {seeds} seed{'s' * (seeds > 1)}"


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """A number as text, n/a for what is undefined, such as a ratio to an error of zero."""
    return f"{value:{'+' * sign}.{digits}f}" if np.isfinite(value) else "n/a"


def change(per_seed: Values, digits: int = 2) -> str:
    """The mean over the seeds with its sign and, of more than one, their standard deviation."""
    text = number(per_seed.mean(), digits, sign=True)
    return f"{text} ±{number(per_seed.std(ddof=1), digits)}" if len(per_seed) > 1 else text


def panel(
    title: str, across: str, up: str, size: tuple[float, float] = (5.2, 3.8)
) -> tuple[Figure, Axes]:
    """An empty figure with its one pair of axes."""
    figure = Figure(figsize=size, layout="constrained")
    axes: Axes = figure.subplots()
    axes.set(title=title, xlabel=across, ylabel=up)
    return figure, axes
