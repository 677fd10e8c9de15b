"""A picture of a network, from its spec: one column per unit, one row per size of map."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from loss_balance.reference_models.description.layers import Shape
from loss_balance.reference_models.description.multiscale import (
    MultiScaleTransition,
    MultiScaleUnit,
)
from loss_balance.reference_models.description.parts import Features, Part
from loss_balance.reference_models.description.spec import AnytimeSpec
from loss_balance.reference_models.description.units import DenseTransition

BOX, ARROW, EXIT = "#d6e4f0", "#7a8a99", "#c0504d"
TRANSITION = "#f2e3c6"
HALF = 0.34  # of a box's sides, in columns and rows


def draw(spec: AnytimeSpec, path: Path) -> None:
    """Writes the picture of `spec` to `path`, in the format that its suffix says."""
    picture(spec).savefig(path, dpi=120)


def picture(spec: AnytimeSpec) -> Figure:
    """Units, scales and exits.

    Numbers in the boxes are channels; an exit tells its share of all multiply-adds.
    """
    features = spec.features()
    rows = sorted({shape[:2] for maps in features for shape in maps}, reverse=True)
    width = max(6.0, 0.48 * (len(spec.units) + 3))
    figure = Figure(figsize=(width, 1.6 + 0.75 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    row_of = {sides: -float(i) for i, sides in enumerate(rows)}
    for column, maps in enumerate(features):
        part = spec.units[column - 1] if column else spec.stem
        for shape in maps:
            _box(axes, column, row_of[shape[:2]], shape[2], part)
        if column:
            for source, target in _arrows(part, features[column - 1], maps):
                _arrow(axes, column, row_of[source[:2]], row_of[target[:2]])
    _draw_exits(axes, spec, [row_of[maps[-1][:2]] for maps in features], -len(rows) + 0.1)
    axes.set_xlim(-1.0, len(features) - 0.4)
    axes.set_ylim(-len(rows) - 0.55, 0.6)
    axes.set_yticks([row_of[sides] for sides in rows], [f"{h}x{w}" for h, w in rows])
    axes.set_xticks(
        range(len(features)), ["stem", *map(str, range(len(spec.units)))], fontsize="small"
    )
    axes.set_xlabel("unit")
    axes.set_ylabel("size of the map")
    axes.set_title(f"{spec.name}, {spec.num_classes} classes", loc="left")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _box(axes: Axes, column: int, row: float, channels: int, part: Part) -> None:
    color = TRANSITION if isinstance(part, (DenseTransition, MultiScaleTransition)) else BOX
    style = "round,pad=0,rounding_size=0.08"
    corner = (column - HALF, row - HALF)
    axes.add_patch(
        FancyBboxPatch(
            corner, 2 * HALF, 2 * HALF, boxstyle=style, facecolor=color, edgecolor="none"
        )
    )
    axes.text(column, row, str(channels), ha="center", va="center", fontsize=7)


def _arrows(part: Part, before: Features, after: Features) -> list[tuple[Shape, Shape]]:
    """Which maps of `before` each map of `after` is made from."""
    if isinstance(part, MultiScaleUnit):
        return [(before[edge.source], after[edge.target]) for edge in part.edges()]
    return list(zip(before, after, strict=True))


def _arrow(axes: Axes, column: int, source: float, target: float) -> None:
    axes.annotate(
        "",
        (column - HALF, target),
        (column - 1 + HALF, source),
        arrowprops={"arrowstyle": "-|>", "color": ARROW, "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
    )


def _draw_exits(axes: Axes, spec: AnytimeSpec, coarsest: list[float], line: float) -> None:
    total = spec.costs()[-1].multiply_adds
    for unit, cost in zip(spec.exits, spec.costs(), strict=True):
        column = unit + 1
        axes.plot([column] * 2, [coarsest[column] - HALF, line], color=EXIT, lw=0.9)
        axes.plot([column], [line], marker="v", color=EXIT, markersize=5)
        share = f"{100 * cost.multiply_adds / total:.0f} %"
        axes.text(column, line - 0.18, share, ha="center", va="top", fontsize=6.5, color=EXIT)
    axes.text(-0.95, line, "exits", ha="left", va="center", fontsize=8, color=EXIT)
