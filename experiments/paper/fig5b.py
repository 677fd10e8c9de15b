"""Figure 5b of the paper: an exponential ensemble against linear ones and an anytime network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.pages.ensemble_plot import FORMAT
from loss_balance.experiments.pages.ensemble_tables import SHARES
from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.look import look_of
from loss_balance.experiments.pages.style import MILLION, legend_below, logarithmic
from loss_balance.experiments.paper.common import (
    Group,
    Values,
    at_budgets,
    change,
    flat,
    number,
    panel,
    rivals_of_const,
    subject,
)
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import FIG_5B
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import Comparison
from loss_balance.experiments.studies.ensemble import Measured, Predictor, PredictorKind
from loss_balance.experiments.studies.ensemble_runs import measure
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.schemes import OPT

REPEATS = 1  # of the times that a network is measured with, of which the figure shows none
ORDINARY = {"resann": "ResNets", "denseann": "DenseNets"}  # what a family is without early exits
DASHES: dict[PredictorKind, str] = {"eann": "-", "linear": "--", "single": ":"}
BEYOND_THE_END = 1.15  # how far the figure goes: the last answers stay


@dataclass(frozen=True)
class Line:
    """One line of the figure: networks of one scheme, which run one after the other."""

    name: str
    kind: PredictorKind
    networks: Group
    scheme: str  # OPT for ordinary networks, trained for their end alone

    def runs(self, seed: int) -> list[Run]:
        """Those of the networks, the cheapest first."""
        return [network.run(self.scheme, seed, self._cut(network)) for network in self.networks]

    def _cut(self, network: Comparison) -> int | None:
        return len(network.spec.exits) - 1 if self.scheme == OPT else None

    def curve(self, seed: int, measured: Mapping[Run, Measured]) -> tuple[Values, Values]:
        """(costs, test errors in %) of the answers that are used."""
        members = tuple(measured[run] for run in self.runs(seed))
        answers = Predictor(self.name, self.kind, members).answers("multiply_adds")
        return (
            np.array([answer.cost for answer in answers]),
            np.array([100 * answer.test_error for answer in answers]),
        )

    def total(self) -> int:
        """Multiply-adds of all networks."""
        runs = self.runs(self.networks[0].seeds[0])
        return sum(run.spec.costs()[-1].multiply_adds for run in runs)


def lines_5b(groups: Sequence[Group]) -> list[Line]:
    """The ensemble, its middle network alone, a linear ensemble per group, networks alone.

    Args:
        groups: the first one is the ensemble's; others of several networks are linear ensembles of
            ordinary ones, of one network anytime networks with constant weights.

    Raises:
        UserError: the first group is no ensemble, or there is more than one data set.
    """
    if len({comparison.source.name for comparison in flat(groups)}) > 1:
        raise UserError("fig5b takes one data set")
    members, *others = (tuple(sorted(group, key=_cost)) for group in groups)
    if len(members) < 2:
        raise UserError(
            "--networks of fig5b must begin with the ensemble's, as small:middle:large, got "
            f"{members[0].spec.name}"
        )
    schemes = rivals_of_const(members[0])
    middle = members[len(members) // 2]
    found = [Line(f"EANN, {scheme}", "eann", members, scheme) for scheme in schemes]
    found.append(Line(f"{middle.spec.name}, {schemes[0]}", "single", (middle,), schemes[0]))
    for group in others:
        if len(group) > 1:
            found.append(Line(_linear(group), "linear", group, OPT))
        else:
            found.append(Line(f"{group[0].spec.name}, const", "single", group, "const"))
    names = [line.name for line in found]
    if len(set(names)) < len(names):
        raise UserError(f"fig5b takes each line once, got {', '.join(names)}")
    return found


def runs_5b(groups: Sequence[Group]) -> list[Run]:
    """Of all seeds, each once."""
    lines, seeds = lines_5b(groups), groups[0][0].seeds
    return list(dict.fromkeys(run for line in lines for seed in seeds for run in line.runs(seed)))


def fig5b(groups: Sequence[Group], trained: TrainedRuns) -> Exhibit:
    """Test error by budget of each line, as held-out images choose the answers."""
    lines, runs = lines_5b(groups), runs_5b(groups)
    measured = dict(zip(runs, measure([trained[run] for run in runs], REPEATS), strict=True))
    curves = {
        line.name: [line.curve(seed, measured) for seed in groups[0][0].seeds] for line in lines
    }
    total = lines[0].total()
    shares = [share * total for share in SHARES.values()]
    ends = [float(line.total()) for line in lines]
    costs = [costs for each in curves.values() for costs, _ in each]
    grid = np.unique(np.concatenate([shares, ends, *costs]))  # between them nothing changes
    errors = {
        name: np.array([at_budgets(*curve, grid) for curve in each])
        for name, each in curves.items()
    }
    at = [int(np.flatnonzero(grid == share)[0]) for share in shares]
    means = {name: values.mean(axis=0)[at] for name, values in errors.items()}
    rows = [(name, *(number(error, 1) for error in mean)) for name, mean in means.items()]
    members = ", ".join(network.spec.name for network in lines[0].networks)
    return exhibit(
        f"Test error, %, at shares of the ensemble's {total / MILLION:.2f} million multiply-adds: "
        f"{subject(groups[0])}",
        ("predictor", *SHARES),
        rows,
        paper=FIG_5B,
        findings=(
            f"{lines[0].name}: {members}. "
            + " ".join(map(_told, (line for line in lines if line.kind == "linear"))),
            *_findings_5b(lines, grid[grid <= total], errors),
        ),
        figure=_figure_5b(lines, grid, errors),
    )


def _findings_5b(lines: Sequence[Line], grid: Values, errors: dict[str, Values]) -> list[str]:
    """What the text says, and what was measured: up to the ensemble's cost, of which is `grid`."""
    errors = {name: values[:, : len(grid)] for name, values in errors.items()}
    ours = errors[lines[0].name]
    found = []
    for line in lines[1:]:
        gap, ahead = _gap(ours, errors[line.name], grid)
        if np.isfinite(ahead):
            found.append(
                f"{lines[0].name} less {line.name}: {change(gap, 1)} points, the mean over the "
                "budgets at which both have an answer; it errs less at "
                f"{number(100 * ahead, 0)} % of them."
            )
    for line in (each for each in lines if each.scheme == "const"):
        gaps = {
            other.name: _gap(errors[other.name], errors[line.name], grid)
            for other in lines
            if other.kind in ("eann", "linear")
        }
        text = "; ".join(
            f"{name} {change(gap, 1)}" for name, (gap, ahead) in gaps.items() if np.isfinite(ahead)
        )
        within = f"from its first answer on, points over it: {text}" if text else "no answer yet"
        found.append(f"{line.name}, within the ensemble's cost: {within}.")
    return found


def _gap(ours: Values, theirs: Values, grid: Values) -> tuple[Values, float]:
    """The mean difference (seeds,), and the share of budgets at which the seeds' mean is lower.

    Over budgets spread evenly from where all seeds of both have an answer; NaN if nowhere.
    """
    both = np.isfinite(ours + theirs)[:, :-1].all(axis=0)
    widths = np.diff(grid)[both]
    if not widths.size:
        return np.full(len(ours), np.nan), float("nan")
    gap = (ours - theirs)[:, :-1][:, both]
    ahead = float(np.average(gap.mean(axis=0) < 0, weights=widths))
    return np.average(gap, axis=1, weights=widths), ahead


def _figure_5b(lines: Sequence[Line], grid: Values, errors: dict[str, Values]) -> Figure:
    """Budget across, test error up; a dot where a line has run to its end; bands of a deviation."""
    figure, axes = panel(
        "Fig. 5b", "budget, million multiply-adds", "test error, %", size=(6.2, 4.6)
    )
    linear = cycle(look_of(scheme).color for scheme in ("linear", "half-end", "uw-so"))
    across = np.append(grid, BEYOND_THE_END * grid[-1]) / MILLION
    for line in lines:
        color = next(linear) if line.kind == "linear" else look_of(line.scheme).color
        values = np.append(errors[line.name], errors[line.name][:, -1:], axis=1)
        middle, end = values.mean(axis=0), np.flatnonzero(grid == line.total())
        style = DASHES[line.kind]
        axes.step(across, middle, style, where="post", color=color, label=line.name, linewidth=1.8)
        axes.plot(across[end], middle[end], "o", color=color, markersize=4)
        if len(values) > 1:
            spread = values.std(axis=0, ddof=1)
            low, high = middle - spread, middle + spread
            axes.fill_between(across, low, high, step="post", color=color, alpha=0.12, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FORMAT)
    logarithmic(axes)  # easy data leave nothing to see otherwise
    low, high = _seen(errors)
    axes.set_ylim(low / 1.5, high * 1.1)  # of the lines: a band may reach down to nothing
    fine = high < 10 * low
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8) if fine else (1, 2, 5)))
    legend_below(axes)
    return figure


def _seen(errors: dict[str, Values]) -> tuple[float, float]:
    """The least and the largest of the seeds' means that a logarithmic axis can show."""
    means = np.concatenate([values.mean(axis=0) for values in errors.values()])
    means = means[np.isfinite(means) & (means > 0)]
    return (float(means.min()), float(means.max())) if means.size else (1.0, 100.0)


def _told(line: Line) -> str:
    networks = ", ".join(network.spec.name for network in line.networks)
    return f"{line.name}: {networks}, each of one exit."


def _linear(group: Group) -> str:
    families = {re.split(r"[\d:-]", network.spec.name)[0] for network in group}
    kinds = " and ".join(sorted(ORDINARY.get(family, family) for family in families))
    return f"linear, {kinds}"


def _cost(comparison: Comparison) -> int:
    return comparison.spec.costs()[-1].multiply_adds
