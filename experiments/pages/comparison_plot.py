"""curves.png: each exit against its cost, against OPT, and the loss weights over time."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loss_balance.experiments.pages.style import MILLION, STYLE, png
from loss_balance.experiments.studies.comparison import AT, Comparison, Outcome
from loss_balance.experiments.training.reading import read_metrics
from loss_balance.experiments.training.schemes import OPT, color_of


def draw(folder: Path, measured: Outcome) -> bytes:
    """The PNG, for the comparison whose runs are in `folder`."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        axes = figure.subplots(2, 2)
        _against_cost(axes[0, 0], measured, "test_error")
        _against_cost(axes[0, 1], measured, "train_loss")
        _relative(axes[1, 0], measured)
        _weights_over_time(axes[1, 1], folder, measured.comparison)
        return png(figure)


def _against_cost(axes: Axes, measured: Outcome, metric: str) -> None:
    for name, curve in measured.curves.items():
        values = getattr(curve, metric) * (100 if metric == "test_error" else 1)
        cost = np.array(curve.multiply_adds) / MILLION
        style, size = ("*", 11.0) if name == OPT else ("o-", 3.5)
        color = color_of(name)
        axes.plot(cost, values.mean(axis=0), style, markersize=size, color=color, label=name)
        if len(values) > 1 and name != OPT:
            low, high = values.min(axis=0), values.max(axis=0)
            axes.fill_between(cost, low, high, color=color, alpha=0.12, linewidth=0)
    axes.set_xlabel("million multiply-adds up to the exit")
    axes.set_yscale("log" if metric == "train_loss" else "linear")
    axes.set_title(
        "test error of each exit, %" if metric == "test_error" else "training loss of each exit"
    )
    axes.legend()


def _relative(axes: Axes, measured: Outcome) -> None:
    """The paper's Fig. 2a, where OPT was trained; without OPT, against the first scheme."""
    base = OPT if OPT in measured.curves else next(iter(measured.curves))
    for name in measured.curves:
        if name != base:
            change = 100 * measured.increase(name, "train_loss", base)
            axes.plot(range(len(AT)), change, marker="o", color=color_of(name), label=name)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(AT)), AT)
    axes.set_xlabel("fraction of the cost")
    axes.set_title(f"training loss over that of {base}, %")
    if len(measured.curves) > 1:
        axes.legend()


def _weights_over_time(axes: Axes, folder: Path, comparison: Comparison) -> None:
    name = "adaloss" if "adaloss" in comparison.shared else next(iter(comparison.shared), None)
    if name is None:
        axes.set_axis_off()
        return
    seed = comparison.seeds[0]
    epochs = read_metrics(folder / "runs" / comparison.run_name(name, seed))
    weights = np.array([epoch["loss_weight"] for epoch in epochs])
    colors = mpl.colormaps["viridis"](np.linspace(0, 0.92, weights.shape[1]))
    for k, color in enumerate(colors):
        axes.plot(range(1, len(weights) + 1), weights[:, k], color=color, label=f"exit {k + 1}")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.05)
    axes.set_title(f"{name}: weight of each exit's loss (seed {seed})")
    axes.legend(ncols=2 + weights.shape[1] // 12, fontsize=7)
