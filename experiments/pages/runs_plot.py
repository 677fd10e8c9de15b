"""Pictures of any runs on the same data: their curves, and their loss weights over time."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes

from loss_balance.experiments.pages.comparison_plot import COST, draw_mean, weights_over_time
from loss_balance.experiments.pages.look import Look, looks
from loss_balance.experiments.pages.style import MILLION, Panel, logarithmic, whole_numbers
from loss_balance.experiments.runs.trained import Trained
from loss_balance.experiments.terminal import readable
from loss_balance.experiments.training.schemes import OPT

Groups = dict[str, list[Trained]]  # runs that differ by their seeds, by a label


def curves(groups: Groups) -> list[Panel]:
    """Test error and training loss of each exit against cost, and the last loss over time."""
    schemes = [runs[0].scheme for runs in groups.values()]
    known, spare = looks(schemes), looks(groups)
    look = {
        label: known[scheme] if scheme == OPT or scheme not in schemes[:k] else spare[label]
        for k, (label, scheme) in enumerate(zip(groups, schemes, strict=True))
    }
    return [
        Panel("Test error of each exit", partial(against_cost, groups, look, "test_error")),
        Panel("Training loss of each exit", partial(against_cost, groups, look, "train_loss")),
        Panel("Training loss of the last exit", partial(over_time, groups, look)),
    ]


def against_cost(groups: Groups, look: dict[str, Look], metric: str, axes: Axes) -> None:
    """A line per group, with bars of a standard deviation over its seeds."""
    shown = legend(groups)
    for label, runs in groups.items():
        cost = np.array([cost.multiply_adds for cost in runs[0].spec.costs()]) / MILLION
        values = np.array([run.result[metric] for run in runs])
        draw_mean(
            axes, cost, values * (100 if metric == "test_error" else 1), look[label], shown[label]
        )
    axes.set_xlabel(COST)
    axes.set_ylabel("test error, %" if metric == "test_error" else "training loss, nats")
    if metric == "train_loss":
        logarithmic(axes)


def over_time(groups: Groups, look: dict[str, Look], axes: Axes) -> None:
    """The mean over a group's seeds after each epoch; a single epoch is a point."""
    shown = legend(groups)
    for label, runs in groups.items():
        losses = np.array([[epoch["train_loss"][-1] for epoch in run.metrics] for run in runs])
        epochs = losses.shape[1]
        marker = look[label].marker if epochs == 1 else ""
        style = look[label].options(marker=marker)
        axes.plot(range(1, epochs + 1), losses.mean(axis=0), label=shown[label], **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("training loss, nats")
    logarithmic(axes)
    whole_numbers(axes)


def even(run: Trained) -> bool:
    """Whether all its exits' losses weigh the same throughout: there is nothing to draw."""
    weights = run.loss_weights
    return bool((weights == weights[0, 0]).all())


def weights(groups: Groups) -> list[Panel]:
    """The weight of each exit's loss after each epoch, of the first seed of each group."""
    first = {label: runs[0] for label, runs in groups.items()}
    return [
        Panel(
            f"{label}, seed {run.config['seed']}",
            partial(weights_over_time, weights=run.loss_weights),
        )
        for label, run in first.items()
        if not even(run)
    ]


def legend(groups: Groups) -> dict[str, str | None]:
    """What the legend calls each group: networks of OPT, one per exit, are there once."""
    shown: dict[str, str | None] = {}
    for label, runs in groups.items():
        network = runs[0].spec.name.partition(".exit")[0]
        name = f"{network}, {OPT}" if runs[0].scheme == OPT else label
        shown[label] = None if name in shown.values() else readable(name)
    return shown
