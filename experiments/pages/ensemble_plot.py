"""Test error of an ensemble by budget, in multiply-adds and in milliseconds (paper, Fig. 5)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from loss_balance.experiments.pages.look import look_of
from loss_balance.experiments.pages.style import MILLION, Panel
from loss_balance.experiments.studies.ensemble import UNITS, Combined, Predictor, Unit
from loss_balance.experiments.training.schemes import OPT

LABELS: dict[Unit, str] = {
    "multiply_adds": "budget, million multiply-adds",
    "milliseconds": "budget, milliseconds for one image",
}

FORMAT = StrMethodFormatter("{x:g}")


def panels(seeds: Sequence[Combined]) -> list[Panel]:
    """Test error by budget in each unit; of the first seed, and thin the others' ensembles."""
    return [
        Panel(
            f"Test error by budget in {unit.replace('_', '-')}",
            partial(panel, combined=seeds[0], unit=unit, others=seeds[1:]),
        )
        for unit in UNITS
    ]


def panel(axes: Axes, combined: Combined, unit: Unit, others: Sequence[Combined] = ()) -> None:
    """Test error by budget in one unit, a line per predictor; of `others` the ensembles, thin."""
    scale = MILLION if unit == "multiply_adds" else 1.0
    for other in others:
        for curve in (*other.ensembles, other.linear):
            costs, errors = points(other, curve, unit)
            style = _style(curve)[1] | {"lw": 0.7, "alpha": 0.6}
            axes.plot([c / scale for c in costs], [100 * e for e in errors], **style)
    labelled: set[str] = set()
    for curve in reversed(combined.curves):  # ensembles last, on top
        label, style = _style(curve)
        shown = None if label in labelled else label
        labelled.add(label)
        costs, errors = points(combined, curve, unit)
        axes.plot([cost / scale for cost in costs], [100 * e for e in errors], label=shown, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FORMAT)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(LABELS[unit])
    axes.set_ylabel("test error, %")


def points(combined: Combined, curve: Predictor, unit: Unit) -> tuple[list[float], list[float]]:
    """(costs, errors): from each cost on that error, until the next; costs never fall.

    Ensembles keep their last answer up to the largest budget that is compared, if they reach it.
    """
    if curve.kind in ("single", "opt"):  # every exit, used or not
        (member,) = curve.members
        found = list(zip(member.costs(unit), member.test_error, strict=True))
    else:
        found = [(answer.cost, answer.test_error) for answer in curve.answers(unit)]
        end = combined.ensembles[0].total(unit)
        if found and end > found[-1][0]:
            found.append((end, found[-1][1]))
    return [cost for cost, _ in found], [error for _, error in found]


def _style(curve: Predictor) -> tuple[str, dict[str, Any]]:
    """The legend's text, which singles of one scheme share, and how the line is drawn."""
    scheme = curve.members[0].scheme
    look = look_of(scheme)
    if curve.kind == "single":
        style = look.options(lw=1, ls=":", markersize=4, alpha=0.8)
        return f"single networks, {scheme}: each exit", style
    if curve.kind == "opt":
        return "OPT: one network per budget", look_of(OPT).options(ls="none", markersize=10)
    steps: dict[str, Any] = {"drawstyle": "steps-post", "lw": 2}
    if curve.kind == "linear":
        return curve.name, steps | {"color": look_of("linear").color, "ls": "--"}
    return curve.name, steps | {"color": look.color}
