"""Pictures of any runs on the same data: their curves, and their loss weights over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from loss_balance.experiments.pages.style import MILLION, STYLE, png
from loss_balance.experiments.runs.trained import Trained
from loss_balance.experiments.terminal import readable
from loss_balance.experiments.training.schemes import color_of

LINES = ("-", "--", ":", "-.")
ACROSS = 3  # panels beside each other


def curves(runs: Sequence[Trained]) -> bytes:
    """Test error and training loss of each exit against cost, and the last loss over time."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 4.4), layout="constrained")
        error, loss, time = figure.subplots(1, 3)
        networks = list(dict.fromkeys(_network(run) for run in runs))
        labelled: set[str] = set()
        for run in runs:
            style = _style(run, networks)
            label = f"{_network(run)}, {run.scheme}"
            shown = None if label in labelled else label
            labelled.add(label)
            cost = np.array([cost.multiply_adds for cost in run.spec.costs()]) / MILLION
            error.plot(cost, 100 * np.array(run.test_error), label=shown, **style)
            loss.plot(cost, run.result["train_loss"], **style)
            epochs = [epoch["train_loss"][-1] for epoch in run.metrics]
            time.plot(range(1, len(epochs) + 1), epochs, **style | {"marker": ""})
        _finish(error, "test error of each exit, %", "million multiply-adds up to the exit")
        _finish(loss, "training loss of each exit", "million multiply-adds up to the exit")
        _finish(time, "training loss of the last exit", "epoch")
        for axes in (loss, time):
            axes.set_yscale("log")
        figure.legend(loc="outside lower center", ncols=4, fontsize=7)
        return png(figure)


def changes(run: Trained) -> bool:
    """Whether its loss weights move; those of constant schemes need no picture."""
    weights = run.loss_weights
    return bool((weights != weights[0]).any())


def weights(runs: Sequence[Trained]) -> bytes:
    """The weight of each exit's loss after each epoch, a panel per run."""
    rows = math.ceil(len(runs) / ACROSS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
        panels = figure.subplots(rows, ACROSS, squeeze=False).flat
        for axes, run in zip(panels, runs, strict=False):
            over_time = run.loss_weights
            epochs, exits = over_time.shape
            colors = mpl.colormaps["viridis"](np.linspace(0, 0.92, exits))
            for k, color in enumerate(colors):
                axes.plot(range(1, epochs + 1), over_time[:, k], color=color, label=f"exit {k + 1}")
            _finish(axes, readable(run.folder.name), "epoch")
            axes.title.set_fontsize(7)
            axes.legend(fontsize=6, ncols=1 + exits // 9)
        for axes in figure.axes[len(runs) :]:
            axes.set_axis_off()
        return png(figure)


def _network(run: Trained) -> str:
    """The name of the whole network, for one that is cut after an exit too."""
    return run.spec.name.partition(".exit")[0]


def _style(run: Trained, networks: Sequence[str]) -> dict[str, Any]:
    """Colour by scheme, line by network; seeds look alike."""
    line = LINES[networks.index(_network(run)) % len(LINES)]
    marker = "*" if len(run.spec.exits) == 1 else "."
    color = color_of(run.scheme)
    return {"color": color, "linestyle": line, "marker": marker, "alpha": 0.8, "linewidth": 1.2}


def _finish(axes: Axes, title: str, across: str) -> None:
    axes.set(title=title, xlabel=across)
    if across == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
