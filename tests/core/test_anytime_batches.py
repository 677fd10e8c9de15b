"""Batches whose samples stop one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from loss_balance.anytime import budgeted_thresholds, early_exit, top_probability


class Table:
    """A network whose logits are given, (exits, N, classes); x is the N sample numbers."""

    def __init__(self, logits):
        self.logits = logits
        self.rows = []  # samples computed at each exit
        self.closed = 0

    def anytime(self, x):
        try:
            for table in self.logits:
                self.rows.append(len(x))
                kept = yield table[x]
                x = x if kept is None else x[kept]
        finally:
            self.closed += 1


tables = hnp.array_shapes(min_dims=3, max_dims=3, max_side=6).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.floats(-9, 9))
)


def one_by_one(logits, confidence):
    """The same, a sample at a time."""
    exits = []
    for n in range(logits.shape[1]):
        for k in range(logits.shape[0]):
            odds = [math.exp(value) for value in logits[k, n]]
            if max(odds) / sum(odds) >= confidence:
                break
        exits.append(k)
    return exits


@given(tables, st.floats(0.0, 1.0))
def test_each_sample_leaves_at_its_first_confident_exit(logits, confidence):
    assume(np.abs(top_probability(logits) - confidence).min() > 1e-9)
    net = Table(logits)
    got = early_exit(net, np.arange(logits.shape[1]), confidence)
    expected = one_by_one(logits, confidence)
    assert got.exits.tolist() == expected
    np.testing.assert_array_equal(got.logits, [logits[k, n] for n, k in enumerate(expected)])
    still_in = [sum(left >= k for left in expected) for k in range(len(logits))]
    assert net.rows == [rows for rows in still_in if rows]  # the rest was never computed
    assert net.closed == 1


def test_each_exit_can_have_its_own_confidence():
    net = Table(np.zeros((3, 2, 2)))  # probability 0.5 everywhere
    assert early_exit(net, np.arange(2), [0.6, 0.5, math.inf]).exits.tolist() == [1, 1]


def test_a_score_that_is_no_number_is_not_confident():
    net = Table(np.array([[[math.nan, 0.0], [9.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]))
    assert early_exit(net, np.arange(2), 0.0).exits.tolist() == [1, 0]


def test_other_scores_can_decide():
    net = Table(np.array([[[0.0, 3.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]))

    def margin(logits):
        return logits[:, 1] - logits[:, 0]

    assert early_exit(net, np.arange(2), 2.0, margin).exits.tolist() == [0, 1]


def test_an_empty_batch_is_no_error():
    got = early_exit(Table(np.zeros((2, 0, 3))), np.arange(0), 0.5)
    assert (got.logits.shape, got.exits.shape) == ((0, 3), (0,))


def test_large_logits_do_not_overflow():
    assert top_probability([1e4, 0.0]) == 1.0


def test_a_network_that_keeps_other_samples_is_refused():
    closed = []

    def deaf(x):
        try:
            while True:
                yield np.array([[0.0, 0.0], [0.0, 9.0]])
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match=r"expected 1 rows, got the shape \(2, 2\)"):
        early_exit(deaf, None, 0.9)
    assert closed == [True]
    with pytest.raises(TypeError, match=r"a generator with send\(positions\), got list_iterator"):
        early_exit(lambda x: iter([np.zeros((1, 2))]), None, 0.9)


@pytest.mark.parametrize(
    ("exits", "confidence", "message"),
    [
        (2, [0.9], "confidence must be one per exit, got 1 and there are more exits"),
        (2, [0.9, 0.9, 0.9], "confidence must be one per exit, got 3 for 2 exits"),
        (2, math.nan, "confidence must be numbers, got nan"),
        (0, 0.9, "a network must have at least one exit, got none"),
    ],
)
def test_confidences_must_fit_the_network(exits, confidence, message):
    with pytest.raises(ValueError, match=message):
        early_exit(Table(np.zeros((exits, 1, 2))), np.arange(1), confidence)


# --- thresholds for a budget ---


def mean_cost(scores, thresholds, costs):
    """A sample at a time."""
    spent = 0.0
    for row in scores:
        k = next(k for k in range(len(row)) if row[k] >= thresholds[k] or k == len(row) - 1)
        spent += costs[k]
    return spent / len(scores)


scores = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
any_scores = scores.flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.sampled_from([0.1, 0.5, 0.7, 1.0]))
)
distinct = scores.flatmap(
    lambda shape: st.permutations(range(math.prod(shape))).map(
        lambda values: np.reshape(values, shape) / math.prod(shape)
    )
)
extra = st.floats(0.0, 1.2)


@given(any_scores, extra)
def test_the_mean_cost_never_exceeds_the_budget(scores, more):
    costs = np.arange(1, scores.shape[1] + 1) ** 2
    budget = costs[0] + more * (costs[-1] - costs[0])
    found = budgeted_thresholds(scores, budget, costs.tolist())
    assert found.cost <= budget
    assert found.cost == pytest.approx(mean_cost(scores, found.values, costs))
    assert sum(found.shares) == pytest.approx(1.0)
    assert found.cost == pytest.approx(np.dot(found.shares, costs))


@given(distinct, extra)
def test_with_distinct_scores_the_cost_is_within_a_sample_of_the_budget(scores, more):
    exits = scores.shape[1]
    budget = 1 + more * (exits - 1)
    found = budgeted_thresholds(scores, budget)
    assert min(budget, exits) - found.cost <= (exits - 1) / len(scores) + 1e-9


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(1.05, 3.9))
def test_shares_grow_or_shrink_by_one_factor(seed, budget):
    scores = np.random.default_rng(seed).random((20_000, 4))
    first, second, third, fourth = budgeted_thresholds(scores, budget).shares
    assert second**2 == pytest.approx(first * third, abs=2e-4)
    assert third**2 == pytest.approx(second * fourth, abs=2e-4)


@given(tables.filter(lambda logits: logits.shape[1] > 1), extra)
def test_early_exit_spends_what_the_thresholds_promise(logits, more):
    costs = np.arange(1, len(logits) + 1)
    scores = top_probability(logits).T
    found = budgeted_thresholds(scores, 1 + more * (len(logits) - 1))
    left = early_exit(Table(logits), np.arange(logits.shape[1]), found.values)
    assert np.take(costs, left.exits).mean() == pytest.approx(found.cost)


def test_the_most_confident_leave_first():
    scores = [[0.2, 0.9], [0.6, 0.9], [0.4, 0.9], [0.8, 0.9]]
    assert budgeted_thresholds(scores, 1.5).values == (0.6, -math.inf)
    assert budgeted_thresholds(scores, 1.0).values == (0.2, -math.inf)
    assert budgeted_thresholds(scores, 2.0).values == (math.inf, -math.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[0.5, 0.5]], 0.9), "budget must be at least the first exit's cost 1, got 0.9"),
        (([[0.5, 0.5]], math.nan), "budget must be at least the first exit's cost 1, got nan"),
        (([[0.5, math.nan]], 2), "validation_scores must be"),
        (([0.5, 0.5], 2), r"must be \(samples, exits\), without NaN, got the shape \(2,\)"),
        (([[0.5, 0.5]], 2, [2, 1]), "costs must be above 0 and increase"),
        (([[0.5, 0.5]], 2, [1]), "costs must be one per exit, got 1 for 2 exits"),
    ],
)
def test_bad_budgets_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        budgeted_thresholds(*arguments)
