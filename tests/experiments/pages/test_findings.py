"""What a comparison says in words, from made-up numbers: the best of each quarter, the spread."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("typer")  # what the experiments need is there
from support.experiments.made_up import outcome as measured

from loss_balance.experiments.pages.findings import clearly, findings, signed


def test_exits_at_the_quarters_differ():
    assert len(set(measured(1, const=[[1, 2, 3, 4]]).comparison.exits)) == 4


def test_each_quarter_has_its_best_scheme_and_the_next():
    lines = findings(
        measured(
            2,
            const=[[60.0, 30.0, 20.0, 15.0], [62.0, 32.0, 22.0, 17.0]],
            adaloss=[[80.0, 30.0, 19.0, 10.0], [80.0, 33.0, 21.0, 10.0]],
            guided=[[50.0, 29.0, 23.0, 11.0], [52.0, 32.0, 25.0, 13.0]],
        )
    )
    (best,) = (line for line in lines if line.startswith("Least test error"))
    assert best == (
        "Least test error, %: guided 51.0 ±1.4 at 1/4 (then const 61.0 ±1.4); "
        "guided 30.5 ±2.1 at 1/2 (then const 31.0 ±1.4, which may be chance); "
        "adaloss 20.0 ±1.4 at 3/4 (then const 21.0 ±1.4); "
        "adaloss 10.0 ±0.0 at 1 (then guided 12.0 ±1.4, which may be chance)."
    )
    assert lines[-1].startswith("Means over 2 seeds ± their standard deviation")


def test_a_difference_that_may_be_chance_is_no_gain():
    lines = findings(
        measured(
            2,
            const=[[60.0, 30.0, 20.0, 15.0], [62.0, 32.0, 22.0, 17.0]],
            guided=[[50.0, 29.0, 23.0, 20.0], [52.0, 32.0, 25.0, 20.0]],
        )
    )
    (line,) = (x for x in lines if x.startswith("Test error, guided against const"))
    assert line == (
        "Test error, guided against const: -10.0 points at 1/4, -0.5 points at 1/2, +3.0 points at "
        "3/4, +4.0 points at 1 of the cost; gains at 1/4, pays at 3/4."
    )
    same = findings(measured(2, const=[[60.0] * 4, [70.0] * 4], guided=[[61.0] * 4, [68.0] * 4]))
    (line,) = (x for x in same if x.startswith("Test error, guided against const"))
    assert line.endswith("; no clear difference.")


def test_adaloss_trades_only_beyond_the_spread():
    clear = measured(2, const=[[60.0, 1, 1, 20.0]] * 2, adaloss=[[70.0, 1, 1, 15.0]] * 2)
    noisy = measured(
        2, const=[[50.0, 1, 1, 20.0], [70.0, 1, 1, 20.0]], adaloss=[[70.0, 1, 1, 15.0]] * 2
    )
    assert "AdaLoss traded early exits for late ones" in findings(clear)[0]
    assert "AdaLoss did not trade early exits for late ones" in findings(noisy)[0]


def test_of_one_seed_nothing_is_called_a_gain():
    lines = findings(
        measured(1, const=[[60.0, 30.0, 20.0, 15.0]], adaloss=[[70.0, 30.0, 19.0, 14.0]])
    )
    (line,) = (x for x in lines if x.startswith("Test error, AdaLoss against const"))
    assert line.endswith("of the cost; lower at 3/4 and 1, higher at 1/4.")
    assert lines[-1] == "One seed: how much of this is chance is not known."
    assert not any("±" in line or " gains at" in line for line in lines)


def test_pairs_of_seeds_tell_what_their_spread_hides():
    """Seeds differ by 10 points and schemes by 1 on each of them: paired, that is no chance."""
    rows = [[60.0 + 10 * k, 30.0, 20.0, 15.0] for k in range(5)]
    better = [[a - 1 + 0.1 * (k % 2), *rest] for k, (a, *rest) in enumerate(rows)]
    lines = findings(measured(5, const=rows, guided=better))
    (line,) = (x for x in lines if x.startswith("Test error, guided against const"))
    assert line.endswith("of the cost; gains at 1/4.")
    apart = np.array([[1.0, 1.0], [1.0, -1.0], [1.1, 1.0], [0.9, -1.0]])
    assert clearly(apart).tolist() == [True, False]
    assert clearly(np.zeros((3, 1))).tolist() == [False]


def test_what_rounds_to_nothing_has_no_sign():
    assert [signed(x, 0) for x in (-0.4, 0.4, -0.6, 0.0)] == ["0", "0", "-1", "0"]


@pytest.mark.parametrize("names", [("const",), ("const", "opt"), ("opt",)])
def test_of_one_scheme_there_is_nothing_to_say(names):
    comparison = SimpleNamespace(seeds=(0,))
    curves = dict.fromkeys(names)
    assert findings(SimpleNamespace(comparison=comparison, curves=curves)) == []
