"""`loss-balance paper fig5b` on made-up outcomes, against a plain replay of the networks."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

from support.experiments.untrained import MadeUp, exhibit, rows_of

from loss_balance.experiments.errors import UserError
from loss_balance.experiments.paper.settings import SETTINGS
from loss_balance.reference_models import families

NETWORKS = (
    "resann-2-4:resann-1-4:resann-4-4",
    "resann-1-4:resann-2-4:resann-3-4",
    "denseann-1-2:denseann-2-2:denseann-3-2",
    "resann-5-2-every-3",
)
EANN, ALONE, RESNETS, DENSENETS, RIVAL = (
    "EANN, adaloss",
    "resann-2-4, adaloss",
    "linear, ResNets",
    "linear, DenseNets",
    "resann-5-2-every-3, const",
)


@pytest.fixture(scope="module")
def made():
    return exhibit("fig5b", NETWORKS, seeds="3")


def chosen(trained, line, seed):
    """The runs of a line in the order that they run."""
    names = {
        EANN: [("resann-1-4", "AdaLoss"), ("resann-2-4", "AdaLoss"), ("resann-4-4", "AdaLoss")],
        ALONE: [("resann-2-4", "AdaLoss")],
        RESNETS: [(f"resann-{n}-4.exit{3 * n - 1}", "Single") for n in (1, 2, 3)],
        DENSENETS: [(f"denseann-{n}-2.exit{3 * n + 1}", "Single") for n in (1, 2, 3)],
        RIVAL: [("resann-5-2-every-3", "Constant")],
    }[line]
    found = {(r.spec.name, type(r.scheme).__name__, r.seed): MadeUp(r) for r in trained}
    return [found[network, scheme, seed] for network, scheme in names]


def replay(runs):
    """(cost, answer), one network after the other; kept if better on what was held out."""
    spent, best, kept = 0, 2.0, []
    for run in runs:
        costs = [cost.multiply_adds for cost in run.run.spec.costs()]
        for cost, held_out, test in zip(costs, run.test_error, run.errors(), strict=True):
            if held_out < best:
                best = held_out
                kept.append((spent + cost, 100 * test))
        spent += costs[-1]
    return kept


def at(budget, kept):
    return ([np.nan] + [answer for cost, answer in kept if cost <= budget])[-1]


def total(trained, line):
    return sum(r.run.spec.costs()[-1].multiply_adds for r in chosen(trained, line, 0))


def test_each_cell_is_what_a_replay_answers_at_that_budget(made):
    _, trained, shown = made
    rows = rows_of(shown)
    assert list(rows) == [EANN, ALONE, RESNETS, DENSENETS, RIVAL]
    for line, cells in rows.items():
        for cell, share in zip(cells, (1 / 8, 1 / 4, 1 / 2, 3 / 4, 1), strict=True):
            budget = share * total(trained, EANN)
            expected = np.mean([at(budget, replay(chosen(trained, line, s))) for s in range(3)])
            assert cell == (f"{expected:.1f}" if np.isfinite(expected) else "n/a")


def test_the_findings_compare_over_all_budgets_of_the_ensemble(made):
    _, trained, shown = made
    budgets = np.linspace(0, total(trained, EANN), 1001)
    answers = {}
    for line in rows_of(shown):
        kept = [replay(chosen(trained, line, seed)) for seed in range(3)]
        answers[line] = np.array([[at(budget, each) for budget in budgets] for each in kept])
    for line in (ALONE, RESNETS, DENSENETS, RIVAL):
        gap = answers[EANN] - answers[line]
        gap = gap[:, np.isfinite(gap).all(axis=0)]
        (text,) = (t for t in shown.findings if t.startswith(f"{EANN} less {line}: "))
        points, _, rest = text.partition(": ")[2].partition(" ±")
        assert float(points) == pytest.approx(gap.mean(), abs=0.2)
        assert float(rest.partition(" points")[0]) == pytest.approx(
            gap.mean(axis=1).std(ddof=1), abs=0.2
        )
        ahead = 100 * (gap.mean(axis=0) < 0).mean()
        assert float(text.split("errs less at ")[1].split(" %")[0]) == pytest.approx(ahead, abs=1)


def test_every_network_holds_images_out_and_ordinary_ones_have_one_exit(made):
    _, trained, _ = made
    assert len(trained) == 3 * (3 + 3 + 3 + 1)  # the network alone is of the ensemble
    for run in trained:
        assert run.source.validation
        assert (type(run.scheme).__name__ == "Single") == (len(run.spec.exits) == 1)


def test_schemes_beyond_the_paper_make_ensembles_of_their_own():
    _, _, shown = exhibit("fig5b", NETWORKS[:2], beyond=True, seeds="1")
    assert list(rows_of(shown)) == [
        EANN, "EANN, equilibrium", "EANN, guided", ALONE, RESNETS
    ]  # fmt: skip


def test_a_rival_that_comes_too_late_is_said_to_have_no_answer():
    _, _, shown = exhibit("fig5b", ("resann-1-2:resann-2-2", "msdnet-6"), seeds="1")
    assert rows_of(shown)["msdnet-6, const"] == ["n/a"] * 5
    assert "msdnet-6, const, within the ensemble's cost: no answer yet." in shown.findings


@pytest.mark.parametrize("scale", ["digits", "small", "paper"])
def test_ordinary_networks_grow_by_addition_and_the_ensemble_by_a_factor(scale):
    members, resnets, densenets, rival = SETTINGS["fig5b"][scale].networks
    assert ":" not in rival

    def costs(group):
        specs = [families.get(name, 100) for name in group.split(":")]
        return np.array([spec.costs()[-1].multiply_adds for spec in specs])

    steps = np.diff(costs(resnets))
    assert steps.max() < 1.2 * steps.min()
    assert (np.diff(costs(densenets)) > 0).all()
    ratios = costs(members)[1:] / costs(members)[:-1]
    assert ((ratios > 1.7) & (ratios < 2.3)).all()


@pytest.mark.parametrize(
    ("networks", "message"),
    [
        (("resann-1-4", "resann-1-4:resann-2-4"), "must begin with the ensemble's"),
        ((*NETWORKS[:2], NETWORKS[1]), "takes each line once, got EANN, adaloss"),
        ((), "must be names, those of an ensemble as small:large, got none"),
    ],
)
def test_networks_that_make_no_figure_are_refused(networks, message):
    with pytest.raises(UserError, match=message):
        exhibit("fig5b", networks)
