"""How all pictures look: panels, side by side in a file and one below another on a phone.

A panel is drawn on axes that it is given, so one function makes the PNG for a paper and the SVG for
a page, which takes the page's own text colour, light or dark.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a run's name may have dollars in it
}
SVG: dict[Any, Any] = {**STYLE, "svg.fonttype": "none", "font.size": 10}
SIZE = (5.6, 4.2)  # inches of a panel
MILLION = 1e6
INK = "#000000"  # what is drawn in it takes the page's text colour


@dataclass(frozen=True)
class Panel:
    """One pair of axes: its title, and what draws on them; lines with a label get a legend."""

    title: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True)
class Drawing:
    """A panel for a page."""

    title: str
    svg: Markup


def sheet(panels: Sequence[Panel], columns: int = 2) -> bytes:
    """All panels in one PNG: the same numbers make the same file."""
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).flat
        for axes, panel in zip(grid, panels, strict=False):
            _draw(panel, axes)
        for axes in figure.axes[len(panels) :]:
            axes.set_axis_off()
        return png(figure)


def drawings(panels: Sequence[Panel], prefix: str = "p") -> tuple[Drawing, ...]:
    """Each panel as an SVG; `prefix` keeps names apart in a page with several of these."""
    return tuple(
        Drawing(panel.title, _svg(panel, f"{prefix}{k}")) for k, panel in enumerate(panels)
    )


def png(figure: Figure) -> bytes:
    """The file's content: the same numbers make the same file."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120, metadata={"Software": None})  # nor has it a date
    return data.getvalue()


def whole_numbers(axes: Axes) -> None:
    """No epoch 1.5 on the axis across."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis upwards with plain numbers: powers would be mathtext, which is off."""
    axes.set_yscale("log")
    axis = axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())


def _draw(panel: Panel, axes: Axes) -> None:
    panel.draw(axes)
    axes.set_title(panel.title, loc="left", fontsize="medium")
    legend_below(axes)


def legend_below(axes: Axes) -> None:
    """A legend where it hides nothing, if any line has a label."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 3 if max(map(len, labels)) < 22 else 1
        axes.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, -0.16),
            ncols=columns,
            fontsize="small",
        )


def _svg(panel: Panel, name: str) -> Markup:
    with mpl.rc_context({**SVG, "svg.hashsalt": name}):
        figure = Figure(figsize=SIZE, layout="constrained")
        _draw(panel, figure.subplots())
        content = io.StringIO()
        figure.savefig(
            content,
            format="svg",
            transparent=True,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = content.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    label = escape(panel.title)
    return Markup(
        text.replace("<svg", f'<svg role="img" fill="currentColor" aria-label="{label}"', 1)
    )
