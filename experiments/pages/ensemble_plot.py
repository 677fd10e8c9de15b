"""eann.png: test error by budget, in multiply-adds and in measured milliseconds (paper, Fig. 5)."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from loss_balance.experiments.pages.style import MILLION, STYLE, png
from loss_balance.experiments.studies.ensemble import Combined, Predictor, Unit
from loss_balance.experiments.training.schemes import color_of

LABELS: dict[Unit, str] = {
    "multiply_adds": "budget, million multiply-adds",
    "milliseconds": "budget, milliseconds for one image",
}

FORMAT = StrMethodFormatter("{x:g}")


def draw(combined: Combined) -> bytes:
    """The PNG."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(12, 5.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        panel(left, combined, "multiply_adds")
        panel(right, combined, "milliseconds")
        left.set_ylabel("test error, %")
        handles, labels = left.get_legend_handles_labels()
        left.legend(handles[::-1], labels[::-1])
        return png(figure)


def panel(axes: Axes, combined: Combined, unit: Unit) -> None:
    """Test error by budget in one unit, a line per predictor."""
    labelled: set[str] = set()
    for curve in reversed(combined.curves):  # ensembles last, on top
        label, style = _style(curve)
        shown = None if label in labelled else label
        labelled.add(label)
        if curve.kind in ("single", "opt"):  # every exit, used or not
            member = curve.members[0]
            costs, errors = list(member.costs(unit)), list(member.test_error)
        else:
            answers = curve.answers(unit)
            costs = [answer.cost for answer in answers]
            errors = [answer.test_error for answer in answers]
        if curve.kind in ("eann", "linear"):  # the last answer stays
            costs.append(combined.ensembles[0].total(unit))
            errors.append(errors[-1])
        scale = MILLION if unit == "multiply_adds" else 1.0
        axes.plot([cost / scale for cost in costs], [100 * e for e in errors], label=shown, **style)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FORMAT)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(LABELS[unit])


def _style(curve: Predictor) -> tuple[str, dict[str, Any]]:
    """The legend's text, which singles of one scheme share, and how the line is drawn."""
    scheme = curve.members[0].scheme
    color = color_of(scheme)
    if curve.kind == "single":
        style = {"color": color, "lw": 1, "ls": ":", "marker": ".", "ms": 5, "alpha": 0.7}
        return f"single networks, {scheme}: each exit", style
    if curve.kind == "opt":
        return "OPT: one network per budget", {
            "color": "black",
            "ls": "none",
            "marker": "*",
            "ms": 11,
        }
    steps: dict[str, Any] = {"drawstyle": "steps-post", "lw": 2}
    if curve.kind == "linear":
        return curve.name, steps | {"color": "C2", "ls": "--"}
    return curve.name, steps | {"color": color}
