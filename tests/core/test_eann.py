"""Exponential ensembles on paper: the schedule, the selection rule and Proposition 4.1."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loss_balance.eann import (
    Event,
    Exit,
    answer,
    cost_inflation,
    design,
    linear,
    ordinary,
    schedule,
)

errors = st.integers(0, 20).map(lambda n: n / 20)  # few values, so that ties occur


whole = st.integers(1, 5)


@st.composite
def networks(draw, steps=whole):
    count = draw(st.integers(1, 5))
    costs = np.cumsum(draw(st.lists(steps, min_size=count, max_size=count))).tolist()
    return [Exit(cost, draw(errors)) for cost in costs]


ensembles = st.lists(networks(), min_size=1, max_size=6)
worker_counts = st.integers(1, 4)


def by_ticking(members, workers):
    """Every worker computes one unit of cost a tick; an oracle without sums or a heap."""
    waiting = list(range(len(members)))
    busy = {}  # worker: [member, cost done]
    seen = []
    for now in range(1, 1 + sum(exits[-1].cost for exits in members)):
        for worker in range(workers):
            if worker not in busy and waiting:
                busy[worker] = [waiting.pop(0), 0]
        arrived = []
        for worker, task in list(busy.items()):
            task[1] += 1
            exits = members[task[0]]
            arrived += [(task[0], k) for k in range(len(exits)) if exits[k].cost == task[1]]
            if task[1] == exits[-1].cost:
                del busy[worker]
        for m, k in sorted(arrived):
            error = members[m][k].error
            used = all(error < before.error for before in seen)
            seen.append(Event(now, m, k, error, used))
    return seen


@given(ensembles, worker_counts)
def test_a_brute_force_scheduler_agrees(members, workers):
    assert schedule(members, workers) == by_ticking(members, workers)


@given(ensembles, worker_counts, st.integers(0, 80), st.integers(0, 80))
def test_a_larger_budget_never_has_a_worse_answer(members, workers, one, other):
    events = schedule(members, workers)
    less, more = (answer(events, budget) for budget in sorted((one, other)))
    assert less is None or more.error <= less.error


@given(ensembles, worker_counts, st.integers(0, 80))
def test_the_answer_is_the_best_that_is_ready(members, workers, budget):
    events = schedule(members, workers)
    in_time = [event.error for event in events if event.time <= budget]
    found = answer(events, budget)
    assert found == answer([event for event in events if event.used], budget)
    assert (found and found.error) == (min(in_time) if in_time else None)


def test_the_answer_is_found_in_few_looks_also_behind_many_unused(monkeypatch):
    looks = []
    worse = [[Exit(k, 0.5)] for k in range(2, 10_000)]  # than the first, so that none is used
    events = schedule([[Exit(1, 0.4)], *worse])
    read = Event.time.__get__
    monkeypatch.setattr(Event, "time", property(lambda event: looks.append(event) or read(event)))
    assert answer(events, 10**9).error == 0.4
    assert 0 < len(looks) < 20


@given(ensembles, worker_counts)
def test_a_used_exit_is_a_strict_improvement(members, workers):
    used = [event.error for event in schedule(members, workers) if event.used]
    assert used == sorted(set(used), reverse=True)


@given(
    st.lists(networks(st.fractions(Fraction(1, 9), 3, max_denominator=99)), min_size=1, max_size=4)
)
def test_with_one_worker_times_are_cumulative_costs(members):
    before, expected = Fraction(0), []
    for m, exits in enumerate(members):
        expected += [(before + exit_.cost, m, k) for k, exit_ in enumerate(exits)]
        before += exits[-1].cost
    assert [event[:3] for event in schedule(members)] == expected  # exact: fractions


@given(ensembles)
def test_with_a_worker_each_all_start_at_once(members):
    for event in schedule(members, workers=len(members)):
        assert event.time == members[event.member][event.exit].cost


def test_times_do_not_overflow():
    huge = np.iinfo(np.int64).max
    events = schedule([[(huge, 0.5)], [(huge, 0.4)]])
    as_arrays = schedule([[(np.int64(huge), np.float32(0.5))], [(np.int64(huge), 0.4)]])
    assert [event.time for event in as_arrays] == [event.time for event in events]
    assert events[-1].time == 2 * int(huge)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "members must be one or more networks, got none"),
        ([[]], "costs of member 0 must have a value for each exit, got none"),
        ([[Exit(1, 0.5)], [Exit(2, 0.4), Exit(2, 0.3)]], "costs of member 1 must be above 0 and"),
        ([[Exit(0, 0.5)]], "must be above 0 and increase from exit to exit, got 0"),
        ([[Exit(1, math.nan)]], "errors of member 0 must be finite numbers, got nan"),
        ([[Exit(math.inf, 0.5)]], "costs of member 0 must be finite numbers, got inf"),
        ([[Exit("1", 0.5)]], "costs of member 0 must be finite numbers, got '1'"),
    ],
)
def test_bad_members_are_named(members, message):
    with pytest.raises(ValueError, match=message):
        schedule(members)


def test_other_bad_input_is_named():
    with pytest.raises(ValueError, match="workers must be a whole number of at least 1, got 0"):
        schedule([[Exit(1, 0.5)]], workers=0)
    with pytest.raises(ValueError, match="budget must be a number, got nan"):
        answer([], math.nan)
    with pytest.raises(ValueError, match=r"base must be a number in \(1, inf\), got 1"):
        cost_inflation(1.0)
    with pytest.raises(ValueError, match="network_costs must be above 0, got 0"):
        design([0, 1], 2)


def test_below_the_first_exit_there_is_no_answer():
    events = schedule([[Exit(2, 0.5)]])
    assert answer(events, 1.999) is None
    assert answer(events, 2) == Event(2, 0, 0, 0.5, True)
    assert answer([], 5) is None


# --- designs ---


def every_chain(costs, misfit):
    """The least sum of squared misfits over all increasing sequences, by trying them all."""
    inner = sorted(set(costs))[1:-1]
    ends = min(costs), max(costs)
    chains = [
        [ends[0], *(c for i, c in enumerate(inner) if mask >> i & 1), ends[1]]
        for mask in range(2 ** len(inner))
    ]
    return min(sum(misfit(low, high) ** 2 for low, high in pairwise(c)) for c in chains)


costs_at_hand = st.lists(st.integers(1, 200), min_size=2, max_size=9).filter(
    lambda costs: len(set(costs)) > 1
)


@given(costs_at_hand, st.floats(1.1, 6.0))
def test_a_design_has_the_costs_that_grow_most_nearly_by_the_base(costs, base):
    picked = [costs[i] for i in design(costs, base)]
    assert picked == sorted(set(picked))
    assert (picked[0], picked[-1]) == (min(costs), max(costs))

    def misfit(low, high):
        return math.log(high / low / base)

    total = sum(misfit(a, b) ** 2 for a, b in pairwise(picked))
    assert total == pytest.approx(every_chain(costs, misfit), abs=1e-9)


@given(costs_at_hand, st.floats(1.0, 100.0))
def test_a_linear_design_has_the_costs_that_grow_most_nearly_by_the_step(costs, step):
    picked = [costs[i] for i in linear(costs, step)]

    def misfit(low, high):
        return (high - low) / step - 1

    total = sum(misfit(a, b) ** 2 for a, b in pairwise(picked))
    assert total == pytest.approx(every_chain(costs, misfit), rel=1e-9, abs=1e-9)


def test_exact_designs_are_found():
    powers = [1, 2, 4, 8, 16, 32, 64]
    assert design(powers, 2) == [0, 1, 2, 3, 4, 5, 6]
    assert design(powers, 4) == [0, 2, 4, 6]
    assert design([64, 8, 1], 8) == [2, 1, 0]
    assert linear([10, 15, 20, 25, 30], 10) == [0, 2, 4]
    assert design([5], 2) == [0]
    assert design([5, 5], 2) == [0]


def test_a_linear_ensemble_costs_more_than_an_exponential_one():
    """The paper's reason (Section 4), in numbers: when does the largest network answer?"""
    costs = list(range(1, 65))
    end = {
        name: schedule([[Exit(costs[i], 1 / costs[i])] for i in picked])[-1].time
        for name, picked in (("exponential", design(costs, 2)), ("linear", linear(costs, 7)))
    }
    assert end == {"exponential": 127, "linear": 325}  # 1+2+4+...+64, 1+8+15+...+64


# --- Proposition 4.1 ---

BASES = [2.0, 1 + math.sqrt(2), 3.0, 4.0]
SPEC_H = {  # base: sup and mean, anytime; sup and mean, ordinary
    2.0: (3.0, 2.443147, 4.0, 3.0),
    1 + math.sqrt(2): (2.707107, 2.123225, 4.12132, 2.914214),
    3.0: (2.5, 1.882639, 4.5, 3.0),
    4.0: (2.333333, 1.670431, 5.333333, 3.333333),
}


def simulated(base, regular, workers=1, fine=6000):
    """Sup and mean of budget / competitive cost over budgets spread evenly up to a network's end.

    A network of depth D is competitive at z > D/b: its error there is 1/z, so that 1/error is the
    competitive cost; before that its error is too high to be used. Only the last networks, where
    the budgets are, need fine steps.
    """
    count = workers + math.ceil(math.log(2e4) / math.log(base))
    members = []
    for n in range(count):
        depth = base**n
        steps = fine if n >= count - workers - 1 else 1
        depths = depth * np.arange(1, steps + 1) / steps
        found = np.where(depths * base > depth * (1 + 1e-12), 1 / depths, 2.0)
        members.append([Exit(*pair) for pair in zip(depths, found, strict=True)])
    if regular:
        members = ordinary(members)
    used = [event for event in schedule(members, workers) if event.used]
    ends = sorted(event.time for event in used if event.exit == len(members[event.member]) - 1)
    budgets = np.linspace(ends[-2], ends[-1], 20_001)[1:-1]
    ratios = np.array([budget * answer(used, budget).error for budget in budgets])
    return ratios.max(), ratios.mean()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("regular", [False, True])
def test_simulation_gives_the_cost_inflation(base, regular):
    formula = cost_inflation(base, regular)
    np.testing.assert_allclose(simulated(base, regular), formula, atol=1e-3)
    np.testing.assert_allclose(formula, SPEC_H[base][2 * regular :][:2], atol=1e-6)


@pytest.mark.parametrize("base", [2.0, 3.0])
@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("workers", [2, 3])
def test_simulation_gives_the_cost_inflation_of_several_workers(base, regular, workers):
    np.testing.assert_allclose(
        simulated(base, regular, workers), cost_inflation(base, regular, workers), atol=1e-3
    )


@given(st.floats(1.01, 50.0), st.integers(1, 6))
def test_one_formula_holds_for_any_number_of_workers(base, workers):
    closed = 1 - 1 / (2 * base) + (1 + math.log(base)) / (base - 1)  # the paper's statement
    assert cost_inflation(base) == pytest.approx((2 + 1 / (base - 1), closed), rel=1e-9)
    plain = (base**2 / (base - 1), 1.5 + (base - 1) / 2 + 1 / (base - 1))
    assert cost_inflation(base, regular=True) == pytest.approx(plain, rel=1e-9)
    worst = 1 + base / (base**workers - 1)
    assert cost_inflation(base, workers=workers).worst == pytest.approx(worst, rel=1e-9)
    assert worst <= 2 + 1 / (base**workers - 1) + 1e-9  # the paper's b -> b^M: an upper bound


@given(st.floats(1.01, 50.0), st.booleans(), st.integers(1, 6))
def test_more_workers_and_anytime_members_never_cost_more(base, regular, workers):
    here = cost_inflation(base, regular, workers)
    assert 1.0 <= here.mean <= here.worst
    more = cost_inflation(base, regular, workers + 1)
    assert (more.worst, more.mean) <= (here.worst, here.mean)
    assert more.mean <= here.mean + 1e-12
    ann = cost_inflation(base, False, workers)
    assert ann.worst <= here.worst
    assert ann.mean <= here.mean + 1e-12


def test_many_workers_do_not_overflow():
    assert cost_inflation(2.0, workers=5000).worst == 1.0
