"""What the paper's figures and tables have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.training.loop import Run

Values = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")


Group = tuple[Comparison, ...]  # of networks that belong together, as "small:large" names them


def alone(
    function: Callable[Concatenate[Sequence[Comparison], P], R],
) -> Callable[Concatenate[Sequence[Group], P], R]:
    """What takes comparisons, for groups of one network each."""

    def of_groups(groups: Sequence[Group], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return function([comparison for (comparison,) in groups], *args, **kwargs)

    return of_groups


def flat(groups: Sequence[Group]) -> list[Comparison]:
    """The comparisons of all groups."""
    return [comparison for group in groups for comparison in group]


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


def rivals_of_const(comparison: Comparison) -> list[str]:
    """AdaLoss, and what is beyond the paper."""
    return [name for name in comparison.shared if name != "const"]


def at_budgets(costs: Values, errors: Values, budgets: Values) -> Values:
    """The error of the latest exit that each budget pays for, NaN before the first one."""
    latest = np.searchsorted(costs, budgets, side="right") - 1
    return np.where(latest >= 0, errors[np.maximum(latest, 0)], np.nan)


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
