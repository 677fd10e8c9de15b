"""Fig. 4's panels on made-up outcomes, and that each is the paper's."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from support.experiments.untrained import MadeUp, exhibit, rows_of

from loss_balance.experiments.paper import numbers
from loss_balance.experiments.paper.settings import SETTINGS

PAIRS = ("resann-1-4:resann-2-4", "resann-2-4:resann-4-4")
# Typed from Sections 5.2 and C a second time.
PANELS = {
    "fig4a": ("cifar10", 6, 1.0),
    "fig4b": ("cifar100", 6, 1.0),
    "fig4c": ("svhn", 6, 1.0),
    "fig4d": ("imagefolder", 1, 2.0),
    "fig4e": ("imagefolder", 1, 2.0),
}


def of_scheme(trained, scheme):
    return [run for run in trained if type(run.scheme).__name__ == scheme]


def over(trained, name, scheme, unit, final, budget):
    """An error at a budget over the small network's final one, %, mean of the seeds."""
    found = []
    for run in of_scheme(trained, scheme):
        if run.spec.name == name:
            costs = [cost.multiply_adds / unit for cost in run.spec.costs()]
            errors = MadeUp(run).errors()
            there = [e for c, e in zip(costs, errors, strict=True) if c <= budget]
            found.append(100 * (there[-1] / final - 1) if there else np.nan)
    return np.mean(found)


@pytest.mark.parametrize("name", ["fig4", *PANELS])
def test_a_panel_is_the_average_of_its_pairs(name):
    _, trained, shown = exhibit(name, PAIRS)
    assert numbers.FIG_4[name] in shown.notes[0]
    for budget, (small, large) in rows_of(shown).items():
        expected = {"AdaLoss": [], "Constant": []}
        for pair in PAIRS:
            one, two = pair.split(":")
            ours = [
                r for r in trained if (r.spec.name, type(r.scheme).__name__) == (one, "AdaLoss")
            ]
            final = np.mean([MadeUp(run).errors()[-1] for run in ours])
            unit = ours[0].spec.costs()[-1].multiply_adds
            for scheme, network in (("AdaLoss", one), ("Constant", two)):
                expected[scheme].append(over(trained, network, scheme, unit, final, float(budget)))
        for cell, values in zip((small, large), expected.values(), strict=True):
            if cell == "n/a":
                assert np.isnan(np.mean(values))
            else:
                assert float(cell) == pytest.approx(np.mean(values), abs=0.06)


def test_small_networks_beyond_the_paper_have_columns_of_their_own():
    _, trained, shown = exhibit("fig4d", PAIRS[:1], beyond=True, seeds="1")
    assert shown.tables[0].columns[1:] == (
        "small, AdaLoss", "small, equilibrium", "small, guided", "large, const"
    )  # fmt: skip
    assert sorted(run.spec.name for run in trained) == ["resann-1-4"] * 3 + ["resann-2-4"]


@pytest.mark.parametrize("name", PANELS)
def test_at_the_papers_scale_a_panel_has_the_papers_data_and_networks(name):
    data, pairs, final_weight = PANELS[name]
    chosen = SETTINGS[name]["paper"]
    assert (chosen.data, len(set(chosen.networks))) == ((data,), pairs)
    assert (chosen.final_weight, chosen.epochs) == (final_weight, None)
    assert SETTINGS["fig4e"]["paper"].networks == ("msdnet32:msdnet38",)


def test_fig4_is_fig4b_by_its_old_name():
    assert SETTINGS["fig4"] == SETTINGS["fig4b"]
    assert numbers.FIG_4["fig4"] == numbers.FIG_4["fig4b"]


def test_numbers_of_the_panels_on_ilsvrc_are_table_3bs():
    assert "125, 43, 9 % over its final error" in numbers.FIG_4["fig4d"]
    assert "40, 15, 6 % over that" in numbers.FIG_4["fig4e"]
