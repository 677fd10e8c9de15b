"""Tables 3a and 3b of the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from loss_balance.experiments.pages.comparison_plot import draw_mean
from loss_balance.experiments.pages.exhibit import Exhibit
from loss_balance.experiments.pages.look import SPARE, Look, look_of
from loss_balance.experiments.pages.style import legend_below
from loss_balance.experiments.paper.common import Values, change, number, panel, subject
from loss_balance.experiments.paper.exhibit import exhibit
from loss_balance.experiments.paper.numbers import TABLE_3A, TABLE_3B
from loss_balance.experiments.runs.pool import TrainedRuns
from loss_balance.experiments.studies.comparison import AT, Comparison, Outcome, outcome
from loss_balance.experiments.training.loop import Run
from loss_balance.experiments.training.schemes import OPT

STYLES = ("--", "-", ":", "-.")  # of const, adaloss, and what is beyond the paper


def all_runs(comparisons: Sequence[Comparison]) -> list[Run]:
    """The runs of each comparison."""
    return [run for comparison in comparisons for run in comparison.runs()]


def measured(comparison: Comparison, trained: TrainedRuns) -> Outcome:
    """The comparison's own outcome, from runs in the pool."""
    return outcome(comparison, {run.name: trained[run].result for run in comparison.runs()})


def table3a(comparisons: Sequence[Comparison], trained: TrainedRuns) -> Exhibit:
    """The average over networks and data sets of each scheme's error relative to OPT's, %."""
    outcomes = [measured(comparison, trained) for comparison in comparisons]
    every = {
        name: np.array([100 * o.increase(name, "test_error", OPT) for o in outcomes])
        for name in outcomes[0].curves
    }
    defined = np.isfinite(np.array(list(every.values()))).all(axis=(0, 2))
    mean = {name: _mean(values[defined]) for name, values in every.items()}
    opt = [o.at_fractions(OPT, "test_error").mean(axis=0) for o in outcomes]
    with np.errstate(divide="ignore", invalid="ignore"):
        every_seed = {
            name: [
                100 * (o.at_fractions(name, "test_error") / bar - 1)
                for o, bar in zip(outcomes, opt, strict=True)
            ]
            for name in mean
        }
    seeds = {n: np.atleast_2d(_mean(np.array(v)[defined])) for n, v in every_seed.items()}
    columns = ["scheme", *(text for at in AT for text in (at, "paper"))]
    rows = [
        (name, *(c for pair in zip(values, _paper_3a(name), strict=True) for c in _texts(pair)))
        for name, values in mean.items()
    ]
    return exhibit(
        f"Test error over OPT's, %, average over {subject(comparisons)}",
        columns,
        rows,
        paper="Table 3a, beside each column: 12 ResANNs on CIFAR10, CIFAR100 and SVHN.",
        findings=(
            f"Exits compared: {_exits(outcomes)}.",
            *_findings_3a(mean, defined),
            f"Test error, AdaLoss against const: {_changes(outcomes)} points.",
        ),
        figure=_figure_3a(seeds),
    )


def _exits(outcomes: Sequence[Outcome]) -> str:
    """The exits of each network at the four fractions, counted from 1."""
    exits = {o.comparison.spec.name: [k + 1 for k in o.comparison.exits] for o in outcomes}
    return "; ".join(f"{name} {', '.join(map(str, these))}" for name, these in exits.items())


def _points(o: Outcome, scheme: str = "adaloss") -> Values:
    """A scheme's test error less that of constant weights, (seeds, fractions), %."""
    ours, const = (o.at_fractions(name, "test_error") for name in (scheme, "const"))
    return 100 * (ours - const)


def _changes(outcomes: Sequence[Outcome]) -> str:
    average = np.mean([_points(o) for o in outcomes], axis=0)
    return ", ".join(f"{change(x)} at {at}" for at, x in zip(AT, average.T, strict=True))


def _paper_3a(name: str) -> tuple[float, ...]:
    """The paper's row, of a scheme that it does not have no numbers."""
    return TABLE_3A.get(name, (np.nan,) * len(AT))


def _mean(values: Values) -> Values:
    return values.mean(axis=0) if len(values) else np.full(len(AT), np.nan)


def _findings_3a(mean: dict[str, Values], defined: NDArray[np.bool_]) -> list[str]:
    lines = []
    if not defined.all():
        lines.append(
            f"{(~defined).sum()} of {defined.size} networks are left out: OPT's error is zero "
            "there, nothing is relative to that."
        )
    if not defined.any():
        return lines
    rivals = [name for name in mean if name != OPT]
    for k, at in enumerate(AT):
        here = min(rivals, key=lambda name: mean[name][k])
        paper = min(set(TABLE_3A) - {OPT}, key=lambda name: TABLE_3A[name][k])
        known = f", in the paper {paper}'s{'' if here == paper else ': it differs'}"
        lines.append(
            f"At {at} of the cost the least increase is {here}'s"
            f"{known if here in TABLE_3A else ', which the paper does not have'}."
        )
    return lines


def _figure_3a(seeds: dict[str, Values]) -> Figure:
    """The paper has no plot of it: here beside the table's own numbers, dashed."""
    title = "Table 3a: here solid, the paper's numbers dashed"
    figure, axes = panel(title, "fraction of the total cost", "test error over OPT's, %")
    for name, values in seeds.items():
        draw_mean(axes, np.arange(float(len(AT))), values, look_of(name), name)
        axes.plot(range(len(AT)), _paper_3a(name), "--", color=look_of(name).color, linewidth=1)
    axes.set_xticks(range(len(AT)), AT)
    legend_below(axes)
    return figure


def table3b(comparisons: Sequence[Comparison], trained: TrainedRuns) -> Exhibit:
    """The test error of each network with constant weights, with AdaLoss and what is beyond, %."""
    outcomes = [measured(comparison, trained) for comparison in comparisons]
    rows, findings = [], []
    for o in outcomes:
        name, data = o.comparison.spec.name, o.comparison.source.name
        errors = {
            scheme: 100 * o.at_fractions(scheme, "test_error").mean(axis=0)
            for scheme in o.comparison.shared
        }
        label = name if len({c.source for c in comparisons}) == 1 else f"{name} {data}"
        for scheme, values in errors.items():
            theirs = TABLE_3B.get((_paper_row(name), scheme))
            cells = zip(values, theirs or (np.nan,) * len(AT), strict=True)
            rows.append((f"{label} {scheme}", *(c for pair in cells for c in _texts(pair))))
        exits = ", ".join(str(index + 1) for index in o.comparison.exits)
        for scheme in o.comparison.shared[1:]:
            changes = ", ".join(map(change, _points(o, scheme).T))
            title = "AdaLoss" if scheme == "adaloss" else scheme
            findings.append(f"{label} (exits {exits}): {title} against const {changes} points.")
    factor = comparisons[0].adaloss.final_weight
    findings.append(f"AdaLoss's final weight is multiplied by {factor:g}; on ILSVRC the paper's 2.")
    columns = ("network, scheme", *(text for at in AT for text in (at, "paper")))
    return exhibit(
        f"Test error, %: {subject(comparisons)}",
        columns,
        rows,
        paper=(
            "Table 3b, beside each column: ResANN50, DenseANN169 and MSDNet38 on ILSVRC, the same "
            "family in the same row. MSDNet38 with const is Huang et al.'s (2017a)."
        ),
        findings=findings,
        figure=_figure_4f(outcomes),
    )


def _texts(pair: tuple[float, float]) -> tuple[str, str]:
    return number(pair[0]), number(pair[1])


def _paper_row(network: str) -> str:
    """The paper's network of the same family, or none of them."""
    families = {"resann": "resann50", "denseann": "denseann169", "msdnet": "msdnet38"}
    return next((row for start, row in families.items() if network.startswith(start)), "")


def _figure_4f(outcomes: Sequence[Outcome]) -> Figure:
    """The paper's Fig. 4f: the error of each exit against the cost, a line per network."""
    title, across = "Table 3b, as in Fig. 4f", "FLOPs, two per multiply-add"
    figure, axes = panel(title, across, "test error, %", size=(6.2, 4.2))
    for k, o in enumerate(outcomes):
        for scheme, style in zip(o.comparison.shared, STYLES, strict=False):
            curve = o.curves[scheme]
            flops = 2 * np.array(curve.multiply_adds)
            label = f"{o.comparison.spec.name}, {scheme}"
            look = Look(SPARE[k % len(SPARE)].color, look_of(scheme).marker)
            draw_mean(axes, flops, 100 * curve.test_error, look, label, style)
    legend_below(axes)
    return figure
