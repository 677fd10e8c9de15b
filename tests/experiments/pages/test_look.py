"""What is drawn is what the tables say, and people can tell the lines apart."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("typer")
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from support.experiments.made_up import finished, member, outcome

from loss_balance.experiments.pages import comparison_plot, ensemble_plot, runs_page, runs_plot
from loss_balance.experiments.pages.ensemble_tables import SHARES
from loss_balance.experiments.pages.look import LOOKS, MAIN, looks
from loss_balance.experiments.runs.trained import read
from loss_balance.experiments.studies.ensemble import UNITS, combine
from loss_balance.experiments.training.schemes import SCHEMES

# Machado, Oliveira and Fernandes (2009), severity 1: what people without red or green cones see.
BLINDNESS = {
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]


def lab(color, kind):
    """CIE L*a*b* (D65) of a colour as such people see it."""
    rgb = np.array(to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
    x, y, z = np.array(XYZ) @ seen / [0.9505, 1.0, 1.089]
    f = [t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_main_lines_differ_for_colour_blind_readers(kind):
    for one, other in combinations(MAIN.values(), 2):
        apart = np.linalg.norm(lab(one.color, kind) - lab(other.color, kind))
        assert apart > 18, (one, other, apart)


def test_every_scheme_has_a_marker_of_its_own_and_own_ones_get_what_is_free():
    assert set(LOOKS) == set(SCHEMES)
    assert len({look.marker for look in LOOKS.values()}) == len(LOOKS)
    found = looks(["adaloss", *(f"adaloss gamma={k}" for k in range(20))])
    assert len(set(found.values())) == 21


def ensemble(linear_costs):
    """Two networks that grow, and ordinary ones whose linear ensemble may cost more than both."""
    return combine(
        [
            member("a", "adaloss", (1, 2, 4), (0.6, 0.5, 0.4)),
            member("b", "adaloss", (2, 4, 8), (0.45, 0.35, 0.2)),
            *(
                member(f"o{k}", "opt", (cost,), (0.9 / (k + 1.5),))
                for k, cost in enumerate(linear_costs)
            ),
        ]
    )


@pytest.mark.parametrize("linear_costs", [(1, 2), (2, 4, 8), (8, 16)])
@pytest.mark.parametrize("unit", UNITS)
def test_an_ensembles_line_is_its_table(linear_costs, unit):
    combined = ensemble(linear_costs)
    total = combined.ensembles[0].total(unit)
    for curve in (*combined.ensembles, combined.linear):
        costs, errors = ensemble_plot.points(combined, curve, unit)
        assert costs == sorted(costs)
        for share in SHARES.values():
            reached = [e for c, e in zip(costs, errors, strict=True) if c <= share * total]
            said = combined.error_at(curve, share * total, unit)
            assert (reached[-1] if reached else None) == said
    axes = Figure().subplots()
    ensemble_plot.panel(axes, combined, unit)
    drawn = {line.get_label(): line for line in axes.get_lines()}
    for curve in (*combined.ensembles, combined.linear):
        line = drawn[curve.name]
        assert line.get_drawstyle() == "steps-post"
        costs, errors = ensemble_plot.points(combined, curve, unit)
        scale = 1e6 if unit == "multiply_adds" else 1
        np.testing.assert_allclose(line.get_xdata(), np.array(costs) / scale)
        np.testing.assert_allclose(line.get_ydata(), 100 * np.array(errors))


def test_seeds_make_error_bars_in_every_panel_of_schemes(tmp_path):
    rows = [[60.0, 40, 30, 20], [64.0, 42, 31, 20], [61.0, 40, 33, 21]]
    measured = outcome(3, const=rows, guided=[[x - 5 for x in row] for row in rows])
    finished(tmp_path / "runs" / "const-seed0", "const", epochs=2)
    for panel in comparison_plot.panels(tmp_path, measured)[:3]:
        axes = Figure().subplots()
        panel.draw(axes)
        lines = 1 if "over that" in panel.title else 2
        assert len(axes.containers) == lines
        assert all(container.has_yerr for container in axes.containers)
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    (container, _) = axes.containers, None
    change = np.array(rows) - 5
    relative = 100 * (change / np.array(rows) - 1)
    line = container[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), relative.mean(axis=0))
    low, high = zip(
        *(segment[:, 1] for segment in container[0].lines[2][0].get_segments()), strict=True
    )
    np.testing.assert_allclose((np.array(high) - low) / 2, relative.std(axis=0, ddof=1))


def test_a_single_epoch_is_a_point_and_even_weights_alone_are_called_so(tmp_path):
    runs = [read(finished(tmp_path / name, name)) for name in ("const", "adaloss", "linear")]
    groups = runs_page.grouped(runs)
    assert [runs_plot.even(group[0]) for group in groups.values()] == [True, False, False]
    drawn = runs_plot.weights(groups)
    assert len(drawn) == 2
    for panel in (*drawn, runs_plot.curves(groups)[2]):
        axes = Figure().subplots()
        panel.draw(axes)
        assert all(line.get_marker() not in ("", "None") for line in axes.get_lines())


def test_runs_that_differ_by_their_seeds_share_a_row(tmp_path):
    for seed, error in enumerate((0.5, 0.6, 0.7)):
        finished(tmp_path / f"a{seed}", "adaloss", seed, error=error)
    finished(tmp_path / "again", "adaloss", 1, error=0.6)
    finished(tmp_path / "b", "const", epochs=2)
    runs = [read(folder) for folder in sorted(tmp_path.iterdir())]
    groups = runs_page.grouped(runs)
    assert {label: len(group) for label, group in groups.items()} == {
        "resann-3-4, adaloss": 3,
        "resann-3-4, const": 1,
    }
    names = dict(zip((run.folder for run in runs), runs_page.short_names(runs), strict=True))
    first = runs_page.row(groups["resann-3-4, adaloss"], names)
    assert first.cells[3] == "0, 1, 2"
    last = np.array([50.0, 60, 70]) / 9
    assert first.cells[8] == f"{last.mean():.2f} ±{last.std(ddof=1):.2f}"
    assert [cells[3] for cells in first.runs] == ["0", "1", "2"]
