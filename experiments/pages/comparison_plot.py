"""The pictures of a comparison: exits against cost and against OPT, loss weights over time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from loss_balance.experiments.pages.look import LOOKS, Look, looks
from loss_balance.experiments.pages.style import INK, MILLION, Panel, logarithmic, whole_numbers
from loss_balance.experiments.studies.comparison import AT, Outcome
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.experiments.training.schemes import OPT

COST = "million multiply-adds up to the exit"


def panels(folder: Path, measured: Outcome) -> list[Panel]:
    """Of the comparison whose runs are in `folder`; bars are standard deviations over the seeds."""
    look = looks(measured.curves)
    found = [
        Panel(
            "Test error of each exit", partial(against_cost, measured, look, metric="test_error")
        ),
        Panel(
            "Training loss of each exit",
            partial(against_cost, measured, look, metric="train_loss"),
        ),
    ]
    if len(measured.curves) > 1:
        base = OPT if OPT in measured.curves else next(iter(measured.curves))
        title = f"Training loss over that of {base}"
        found.append(Panel(title, partial(relative, measured, look, base=base)))
    name = "adaloss" if "adaloss" in measured.curves else next(iter(measured.comparison.shared), "")
    if name:
        seed = measured.comparison.seeds[0]
        run = folder / "runs" / measured.comparison.run_name(name, seed)
        weights = np.array([epoch["loss_weight"] for epoch in read_metrics(run)])
        title = f"Weight of each exit's loss: {name}, seed {seed}"
        found.append(Panel(title, partial(weights_over_time, weights=weights)))
    return found


def against_cost(measured: Outcome, look: dict[str, Look], axes: Axes, metric: str) -> None:
    """A line per scheme, OPT's networks as single points."""
    for name, curve in measured.curves.items():
        values = getattr(curve, metric) * (100 if metric == "test_error" else 1)
        cost = np.array(curve.multiply_adds) / MILLION
        draw_mean(axes, cost, values, look[name], name)
    axes.set_xlabel(COST)
    if metric == "train_loss":
        logarithmic(axes)
    axes.set_ylabel("test error, %" if metric == "test_error" else "training loss, nats")


def draw_mean(
    axes: Axes,
    across: NDArray[np.float64],
    values: NDArray[np.float64],
    look: Look,
    name: str | None,
    line: str = "-",
) -> None:
    """The mean of values (seeds, points), of several with bars of a standard deviation."""
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else None
    alone = look == LOOKS[OPT]
    axes.errorbar(
        across,
        values.mean(axis=0),
        yerr=spread,
        label=name,
        linestyle="none" if alone else line,
        linewidth=1.4,
        elinewidth=0.9,
        capsize=2.0,
        **look.options(markersize=9.0 if alone else 5.0),
    )


def relative(measured: Outcome, look: dict[str, Look], axes: Axes, base: str) -> None:
    """The paper's Fig. 2a, where OPT was trained; without OPT, against the first scheme."""
    places = np.arange(len(AT), dtype=float)
    floor = measured.at_fractions(base, "train_loss")
    for name in measured.curves:
        if name != base:
            change = 100 * (measured.at_fractions(name, "train_loss") / floor - 1)
            draw_mean(axes, places, change, look[name], name)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xticks(places, AT)
    axes.set_xlabel("fraction of the cost")
    axes.set_ylabel(f"training loss over that of {base}, %")


def weights_over_time(axes: Axes, weights: NDArray[np.float64]) -> None:
    """The weight of each exit's loss after each epoch, (epochs, exits)."""
    colors = mpl.colormaps["viridis"](np.linspace(0.25, 0.88, weights.shape[1]))
    marker = "o" if len(weights) == 1 else ""
    for k, color in enumerate(colors):
        epochs = range(1, len(weights) + 1)
        axes.plot(epochs, weights[:, k], marker=marker, color=color, label=f"exit {k + 1}")
    axes.set_xlabel("epoch")
    axes.set_ylabel("weight of the loss")
    whole_numbers(axes)
    axes.set_ylim(0, 1.05 * max(1.0, weights.max()))
