"""Figures 2a, 4 and 5c of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from loss_balance.experiments.comparison import OPT, Comparison
from loss_balance.experiments.errors import UserError
from loss_balance.experiments.exhibit import Exhibit
from loss_balance.experiments.paper_numbers import FIG_2A, FIG_4, FIG_5C
from loss_balance.experiments.paper_tables import Values, number, subject
from loss_balance.experiments.plots import COLORS
from loss_balance.experiments.pool import Trained
from loss_balance.experiments.training import Run

BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # of Fig. 4's table, in costs of the small network


def runs_2a(comparisons: Sequence[Comparison]) -> list[Run]:
    """Each scheme, and OPT at every exit: the figure has all depths."""
    if len(comparisons) > 1:
        raise UserError("fig2a takes one network and one data set")
    (comparison,) = comparisons
    shared = [comparison.run(name, s) for name in comparison.shared for s in comparison.seeds]
    return shared + [
        comparison.run(OPT, s, k) for k in _exits(comparison) for s in comparison.seeds
    ]


def fig2a(comparisons: Sequence[Comparison], trained: Trained) -> Exhibit:
    """Training loss of each scheme over OPT's at each depth, %."""
    (comparison,) = comparisons
    exits = _exits(comparison)
    opt = np.array([_mean([comparison.run(OPT, s, k) for s in comparison.seeds], "train_loss",
                          trained)[0] for k in exits])  # fmt: skip
    over = {
        name: 100 * (_mean(_of_all_seeds(comparison, name), "train_loss", trained) / opt - 1)
        for name in comparison.shared
    }
    costs = np.array([cost.multiply_adds for cost in comparison.spec.costs()])
    share = costs / costs[-1]
    rows = [
        (str(k + 1), number(share[k]), *(number(over[name][k], 1) for name in over))
        + (number(opt[k], 4),)
        for k in exits
    ]
    return Exhibit(
        "fig2a",
        f"Training loss over OPT's, %: {subject(comparisons)}",
        ("exit", "of cost", *over, "OPT's loss"),
        tuple(rows),
        FIG_2A,
        tuple(_findings_2a(over)),
        _figure_2a(over),
    )


def _findings_2a(over: dict[str, Values]) -> list[str]:
    lines = [
        f"{name}: {number(values.min(), 0, True)} to {number(values.max(), 0, True)} %, "
        f"first exit {number(values[0], 0, True)} %, last exit {number(values[-1], 0, True)} %."
        for name, values in over.items()
    ]
    spread = {name: float(values.max() - values.min()) for name, values in over.items()}
    lines.append(f"The most even of them is {min(spread, key=lambda name: spread[name])}.")
    late = len(over["const"]) // 2
    gain = over["adaloss"][late:].mean() - over["const"][late:].mean()
    lines.append(
        f"Over the later half of the exits AdaLoss's increase is on average "
        f"{abs(gain):.0f} points {'below' if gain < 0 else 'above'} that of constant weights."
    )
    return lines


def _figure_2a(over: dict[str, Values]) -> Figure:
    """Depth across, relative increase up, a line per scheme; OPT is the zero line."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, values in over.items():
        depth = range(1, len(values) + 1)
        axes.plot(depth, values, "o-", color=COLORS[name], markersize=4, label=name)
    axes.axhline(0, color=COLORS[OPT], linewidth=1, label="opt")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("depth (exit)")
    axes.set_ylabel("training loss over OPT's, %")
    axes.set_title("Fig. 2a")
    axes.legend()
    return figure


def runs_4(comparisons: Sequence[Comparison]) -> list[Run]:
    """AdaLoss for the small network of each pair, constant weights for the large one."""
    return [
        run
        for small, large in _pairs(comparisons)
        for run in _of_all_seeds(small, "adaloss") + _of_all_seeds(large, "const")
    ]


def fig4(comparisons: Sequence[Comparison], trained: Trained) -> Exhibit:
    """Error over the small network's final one, %, against the cost in small networks."""
    pairs = _pairs(comparisons)
    grid = np.union1d(np.linspace(0, max(map(_ratio, pairs)), 401), BUDGETS)
    lines: dict[str, list[Values]] = {"adaloss": [], "const": []}
    for small, large in pairs:
        unit = small.spec.costs()[-1].multiply_adds
        final = _mean(_of_all_seeds(small, "adaloss"), "test_error", trained)[-1]
        for name, comparison in (("adaloss", small), ("const", large)):
            error = _mean(_of_all_seeds(comparison, name), "test_error", trained)
            costs = np.array([cost.multiply_adds for cost in comparison.spec.costs()]) / unit
            with np.errstate(divide="ignore", invalid="ignore"):
                lines[name].append(100 * (at_budgets(costs, error, grid) / final - 1))
    mean = {name: np.mean(values, axis=0) for name, values in lines.items()}
    rows = []
    for budget in BUDGETS:
        (k,) = np.flatnonzero(grid == budget)
        rows.append((number(budget), *(number(mean[name][k], 1) for name in mean)))
    sizes = ", ".join(f"{s.spec.name} and {lg.spec.name}" for s, lg in pairs)
    return Exhibit(
        "fig4",
        f"Test error over the small network's final one, %: {subject(comparisons)}",
        ("cost / small network's", "small, AdaLoss", "large, const"),
        tuple(rows),
        FIG_4,
        (f"Average over {len(pairs)} pairs: {sizes}.", *_findings_4(grid, mean)),
        _figure_4(grid, mean),
    )


def at_budgets(costs: Values, errors: Values, budgets: Values) -> Values:
    """The error of the latest exit that each budget pays for, NaN before the first one."""
    latest = np.searchsorted(costs, budgets, side="right") - 1
    return np.where(latest >= 0, errors[np.maximum(latest, 0)], np.nan)


def _findings_4(grid: Values, mean: dict[str, Values]) -> list[str]:
    large, small = mean["const"], mean["adaloss"]
    both = np.isfinite(large) & np.isfinite(small) & (grid <= 1)
    ahead = float(np.mean(small[both] < large[both])) if both.any() else float("nan")
    reached = np.flatnonzero(large <= small[-1])
    when = f"at {grid[reached[0]]:.2f} times its cost" if reached.size else "at no cost"
    return [
        f"The small network with AdaLoss is ahead at {number(100 * ahead, 0)} % of the budgets up "
        "to its own cost at which both have an answer.",
        f"The large network with constant weights reaches the small one's final error {when}; its "
        f"own final error is {number(large[-1], 1, True)} % relative to that.",
    ]


def _figure_4(grid: Values, mean: dict[str, Values]) -> Figure:
    """As Fig. 4a-e: cost in small networks across, relative extra error up."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    labels = {"adaloss": "small network, AdaLoss", "const": "large network, const"}
    for name, values in mean.items():
        here = grid <= 1 if name == "adaloss" else grid >= 0
        axes.plot(grid[here], values[here], color=COLORS[name], label=labels[name])
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xlabel("cost over the small network's total")
    axes.set_ylabel("error over the small network's final one, %")
    axes.set_title("Fig. 4")
    axes.legend()
    return figure


def fig5c(comparisons: Sequence[Comparison], trained: Trained) -> Exhibit:
    """AdaLoss's weights at the end of training, of one network on several data sets."""
    exits = {len(comparison.spec.exits) for comparison in comparisons}
    if len({comparison.spec.name for comparison in comparisons}) > 1 or len(exits) > 1:
        raise UserError("fig5c takes one network, on several data sets")
    weights = {c.source.name: _final_weights(c, trained) for c in comparisons}
    final = {
        c.source.name: 100 * _mean(_of_all_seeds(c, "adaloss"), "test_error", trained)[-1]
        for c in comparisons
    }
    rows = [
        (str(k + 1), *(number(values[k], 4) for values in weights.values()))
        for k in range(exits.pop())
    ]
    return Exhibit(
        "fig5c",
        f"AdaLoss's weights at the end of training: {subject(comparisons)}",
        ("exit", *weights),
        tuple(rows),
        FIG_5C,
        tuple(_findings_5c(weights, final)),
        _figure_5c(weights),
    )


def _findings_5c(weights: dict[str, Values], final: dict[str, float]) -> list[str]:
    """From the easiest to the hardest data set, by the final error."""
    order = sorted(weights, key=lambda name: final[name])
    late = {name: float(w[len(w) // 2 :].sum() / w.sum()) for name, w in weights.items()}
    shares = ", ".join(
        f"{name} {100 * late[name]:.0f} % (final error {final[name]:.1f} %)" for name in order
    )
    rising = all(late[a] < late[b] for a, b in zip(order, order[1:], strict=False))
    lines = [f"Share of the total weight on the later half of the exits: {shares}."]
    if len(order) > 1:
        lines.append(
            "So the harder the data, the more on the late exits, as in the paper."
            if rising
            else "So here the share does not rise with the difficulty as it does in the paper."
        )
    return lines


def _figure_5c(weights: dict[str, Values]) -> Figure:
    """Exit across, weight up, a line per data set."""
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for name, values in weights.items():
        axes.plot(range(1, len(values) + 1), values, "o-", markersize=4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("exit")
    axes.set_ylabel("weight of the exit's loss")
    axes.set_title("Fig. 5c")
    axes.legend()
    return figure


def _exits(comparison: Comparison) -> range:
    return range(len(comparison.spec.exits))


def _pairs(comparisons: Sequence[Comparison]) -> list[tuple[Comparison, Comparison]]:
    return list(zip(comparisons[::2], comparisons[1::2], strict=True))


def _ratio(pair: tuple[Comparison, Comparison]) -> float:
    small, large = (comparison.spec.costs()[-1].multiply_adds for comparison in pair)
    return large / small


def _of_all_seeds(comparison: Comparison, name: str) -> list[Run]:
    return [comparison.run(name, seed) for seed in comparison.seeds]


def _mean(runs: Sequence[Run], metric: str, trained: Trained) -> Values:
    """Over the runs, per exit."""
    mean: NDArray[np.float64] = np.mean([trained[run].result[metric] for run in runs], axis=0)
    return mean


def _final_weights(comparison: Comparison, trained: Trained) -> Values:
    runs = _of_all_seeds(comparison, "adaloss")
    mean: Values = np.mean([trained[run].weights_over_time[-1] for run in runs], axis=0)
    return mean
