"""The promises of AdaLoss, each test named after the one it checks."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from support.balancers.strategies import (
    any_losses,
    as_arrays,
    decays,
    fractions,
    hyperparameters,
    positive,
    runs,
)

from loss_balance import AdaLoss, Constant, LinearSchedule, State
from loss_balance.experiments.verification.oracle import Oracle
from loss_balance.schemes.base import recently_bad


def run(scheme, steps, dtype=np.float64):
    """The state after `steps`, a list of losses each, and all states on the way."""
    state = scheme.init(np, dtype)
    states = []
    for losses in steps:
        values, present = as_arrays(losses, dtype)
        state = scheme.update(state, values, np, present)
        states.append(state)
    return states


def weights(scheme, *steps):
    return run(scheme, steps)[-1].weights


sequences = st.integers(1, 8).flatmap(
    lambda n: st.tuples(
        hyperparameters().map(lambda options: AdaLoss(n, **options)),
        st.lists(positive(n), min_size=1, max_size=10),
    )
)


@given(runs())
@example((AdaLoss(2), {"n": 2}, [[1.0, 1.0], [math.nan, 1.0]]))
@example((AdaLoss(2), {"n": 2}, [[0.0, 1.0], [3.0, 1.0]]))  # a first value of 0 is none
def test_equal_to_the_oracle(drawn):
    scheme, arguments, steps = drawn
    oracle = Oracle(**arguments)
    for losses, state in zip(steps, run(scheme, steps), strict=True):
        np.testing.assert_allclose(state.weights, oracle.update(losses), rtol=1e-12, atol=0)
        assert state.skipped.tolist() == oracle.skipped
        assert state.step == oracle.step
        for ours, theirs in zip(state.average, oracle.average, strict=True):
            assert ours == -1.0 if theirs is None else math.isclose(ours, theirs, rel_tol=1e-12)


@given(runs(steps=20))
def test_float32_is_close_to_float64(drawn):
    scheme, _, steps = drawn
    # Where rounding decides whether an average is above the floor, the two may differ by a lot.
    near = [a for s in run(scheme, steps) for a in s.average if a > 0]
    assume(all(abs(a / scheme.floor - 1) > 1e-4 for a in near if scheme.floor))
    rounded = [[None if x is None else float(np.float32(x)) for x in losses] for losses in steps]
    for narrow, wide in zip(run(scheme, rounded, np.float32), run(scheme, rounded), strict=True):
        assert narrow.weights.dtype == narrow.average.dtype == np.float32
        np.testing.assert_allclose(narrow.weights, wide.weights, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(sequences)
def test_largest_weight_is_exactly_1_and_none_is_below_gamma(dtype, drawn):
    scheme, steps = drawn
    low = 0.0 if callable(scheme.gamma) else scheme.gamma
    for state in run(scheme, steps, dtype):
        assert state.weights.max() == 1.0
        assert state.weights.min() >= low * (1 - np.finfo(dtype).eps)  # the last digit may round


@given(sequences, st.floats(1e-3, 1e3))
def test_the_unit_of_the_losses_does_not_matter(drawn, unit):
    scheme, steps = drawn
    assume(all(min(losses) * min(1.0, unit) > 2 * scheme.floor for losses in steps))
    scaled = [[unit * x for x in losses] for losses in steps]
    np.testing.assert_allclose(weights(scheme, *scaled), weights(scheme, *steps), rtol=1e-9)


@given(sequences, st.randoms(use_true_random=False))
def test_permuting_the_losses_permutes_the_weights(drawn, random):
    scheme, steps = drawn
    scheme = replace(scheme, final_weight=1.0)
    order = list(range(scheme.num_losses))
    random.shuffle(order)
    permuted = [[losses[i] for i in order] for losses in steps]
    np.testing.assert_array_equal(weights(scheme, *permuted), weights(scheme, *steps)[order])


@given(sequences)
def test_a_smaller_average_never_weighs_less(drawn):
    scheme, steps = drawn
    scheme = AdaLoss(scheme.num_losses, scheme.gamma, scheme.decay)
    state = run(scheme, steps)[-1]
    by_average = state.weights[np.argsort(state.average, kind="stable")]
    assert (np.diff(by_average) <= 4 * np.finfo(float).eps).all()


@given(sequences)
def test_gamma_1_is_constant(drawn):
    scheme, steps = drawn
    scheme = AdaLoss(scheme.num_losses, gamma=1.0, decay=scheme.decay)
    constant = weights(Constant(scheme.num_losses), *steps)
    np.testing.assert_array_equal(weights(scheme, *steps), constant)


@given(sequences, st.sampled_from([1.0, 2.0, 0.3]))
def test_with_gamma_0_all_weighted_averages_are_equal(drawn, final_weight):
    scheme, steps = drawn
    n = scheme.num_losses
    scheme = AdaLoss(n, gamma=0.0, decay=scheme.decay, final_weight=final_weight)
    state = run(scheme, steps)[-1]
    p = np.array([1.0] * (n - 1) + [final_weight])
    above = state.average > scheme.floor
    balanced = (state.weights * state.average / p)[above]
    np.testing.assert_allclose(balanced, balanced[0], rtol=1e-12)


@given(st.integers(1, 8).flatmap(positive))
def test_with_gamma_0_and_decay_0_it_follows_the_gradient_of_the_sum_of_logs(losses):
    w = weights(AdaLoss(len(losses), gamma=0.0, decay=0.0), [1.0] * len(losses), losses)
    gradient_of_logs = np.array([1.0 / x for x in losses])  # Eq. 3
    np.testing.assert_allclose(w, min(losses) * gradient_of_logs, rtol=1e-12)


@given(st.integers(2, 6).flatmap(lambda n: positive(n, 1e-2, 1e2)), st.floats(0.1, 10.0))
def test_inverse_losses_minimise_equation_2(losses, lam):
    def equation_2(b):
        return np.sum(b * np.array(losses) - lam * np.log(b))

    w = weights(AdaLoss(len(losses), gamma=0.0, decay=0.0), losses)
    best = w * lam / min(losses)  # alpha scales the largest weight to 1, undo it
    for factor in (0.9, 0.999, 1.001, 1.1):
        for i in range(len(losses)):
            moved = best.copy()
            moved[i] *= factor
            assert equation_2(moved) > equation_2(best)


@given(st.integers(2, 6).flatmap(lambda n: positive(n, 1e-2, 1e2)))
def test_the_mean_squared_error_as_variance_maximises_equation_1(errors):
    def equation_1(variances):
        return np.sum(-np.array(errors) / variances - np.log(variances))

    w = weights(AdaLoss(len(errors), gamma=0.0, decay=0.0), errors)
    best = min(errors) / w  # sigma_i^2 = alpha / w_i
    np.testing.assert_allclose(best, errors, rtol=1e-12)
    for factor in (0.9, 0.999, 1.001, 1.1):
        for i in range(len(errors)):
            moved = best.copy()
            moved[i] *= factor
            assert equation_1(moved) < equation_1(best)


@given(sequences, st.sampled_from([math.nan, math.inf, -math.inf, -1.0]), st.data())
def test_one_bad_value_never_poisons_the_state(drawn, bad, data):
    scheme, steps = drawn
    i = data.draw(st.integers(0, scheme.num_losses - 1))
    before = run(scheme, steps)[-1]
    spoilt = list(steps[-1])
    spoilt[i] = bad
    after = scheme.update(before, np.array(spoilt), np)
    assert after.average[i] == before.average[i]
    assert after.weights[i] == before.weights[i]
    assert after.skipped[i] == 1
    assert after.skipped.sum() == 1
    assert np.isfinite(after.average).all()
    assert np.isfinite(after.weights).all()


@given(sequences, st.data())
def test_an_absent_loss_neither_counts_nor_moves(drawn, data):
    scheme, steps = drawn
    i = data.draw(st.integers(0, scheme.num_losses - 1))
    before = run(scheme, steps)[-1]
    present = np.arange(scheme.num_losses) != i
    values = np.where(present, steps[0], math.nan)
    after = scheme.update(before, values, np, present)
    assert after.average[i] == before.average[i]
    assert after.skipped.sum() == 0


@given(st.integers(1, 6).flatmap(lambda n: st.lists(any_losses(n), max_size=6)), fractions)
def test_update_leaves_its_arguments_alone(steps, gamma):
    n = len(steps[0]) if steps else 1
    scheme = AdaLoss(n, gamma=gamma)
    for losses in steps:
        state = scheme.init(np)
        values, present = as_arrays(losses)
        copies = [np.copy(a) for a in (*state, values)]
        scheme.update(state, values, np, present)
        for array, copy in zip((*state, values), copies, strict=True):
            np.testing.assert_array_equal(array, copy)


@given(sequences, st.floats(0.0, 1.0), st.data())
def test_a_loss_at_or_below_floor_is_as_if_absent(drawn, share, data):
    scheme, steps = drawn
    present = np.array(
        data.draw(st.lists(st.booleans(), min_size=scheme.num_losses, max_size=scheme.num_losses))
    )
    before = run(scheme, steps)[-1]
    off = scheme.update(before, np.where(present, steps[0], share * scheme.floor), np)
    absent = scheme.update(before, np.array(steps[0]), np, present)
    for ours, theirs in zip(off, absent, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(sequences, st.floats(1.5, 100.0), st.floats(1.0, 1e30))
def test_clip_bounds_what_one_value_moves(drawn, clip, factor):
    scheme, steps = drawn
    clipped = replace(scheme, clip=clip, warmup=0)
    before = run(clipped, steps)[-1]
    seen = before.average > 0
    spike = np.where(seen, before.average * clip * factor, 1.0)
    at_most = np.where(seen, before.average * clip, 1.0)
    after, expected = (clipped.update(before, x, np) for x in (spike, at_most))
    np.testing.assert_allclose(after.average, expected.average, rtol=1e-12)
    np.testing.assert_allclose(after.weights, expected.weights, rtol=1e-12)


@given(sequences)
def test_clip_leaves_values_within_it_alone(drawn):
    scheme, steps = drawn
    for ours, theirs in zip(
        run(replace(scheme, clip=1e20), steps), run(replace(scheme, clip=None), steps), strict=True
    ):
        np.testing.assert_array_equal(ours.average, theirs.average)


def test_with_clip_one_spike_is_forgotten_in_a_few_hundred_steps():
    steps = [[1.0, 1.0]] * 10 + [[1e30, 1.0]] + [[1.0, 1.0]] * 300
    assert weights(AdaLoss(2), *steps)[0] == pytest.approx(0.05)  # what it cures
    assert weights(AdaLoss(2, clip=10.0), *steps)[0] > 0.98


@given(sequences, st.integers(2, 12))
def test_the_mean_of_the_first_warmup_values_is_plain(drawn, warmup):
    scheme, steps = drawn
    state = run(replace(scheme, warmup=warmup, clip=None), steps[:warmup])[-1]
    live = np.where(np.array(steps[:warmup]) > scheme.floor, steps[:warmup], np.nan)
    for column, average in zip(live.T, state.average, strict=True):
        there = column[np.isfinite(column)]
        assert average == pytest.approx(there.mean() if there.size else -1.0, rel=1e-12)


def test_warmup_counts_the_values_of_each_loss():
    scheme = AdaLoss(2, decay=0.9, warmup=3)
    states = run(scheme, [[1.0, None]] * 5 + [[1.0, 2.0], [1.0, 4.0], [1.0, 9.0], [1.0, 0.0]])
    assert states[-1].average.tolist() == [1.0, 5.0]
    assert states[-1].count.tolist() == [4.0, 3.0]


def test_a_loss_at_zero_weighs_1_and_starves_nobody():
    np.testing.assert_allclose(weights(AdaLoss(3, gamma=0.05), [2.0, 0.0, 1.0]), [0.525, 1.0, 1.0])


def test_nothing_seen_yet_means_all_weights_are_1():
    scheme = AdaLoss(2)
    assert scheme.init(np).weights.tolist() == [1.0, 1.0]
    assert weights(scheme, [math.nan, math.nan]).tolist() == [1.0, 1.0]
    assert weights(scheme, [0.0, 0.0]).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("average", "expected"), [((2.0, 1.0, 0.5), (0.2875, 0.525, 1.0)), ((4.0, 1.0), (0.2875, 1.0))]
)
def test_weights_of_appendix_b(average, expected):
    """Gamma 0.05; the first row also stands in the authors' code."""
    np.testing.assert_allclose(weights(AdaLoss(len(average)), average), expected, rtol=1e-15)


def test_the_running_mean_starts_at_the_first_value():
    states = run(AdaLoss(1, decay=0.9), [[1.0], [2.0], [4.0]])
    np.testing.assert_allclose([s.average[0] for s in states], [1.0, 1.1, 1.39], rtol=1e-15)


def test_final_weight_doubles_the_last_weight():
    """Where the last loss is the largest, so that alpha scales neither."""
    once = weights(AdaLoss(3, gamma=0.0), [1.0, 2.0, 8.0])
    twice = weights(AdaLoss(3, gamma=0.0, final_weight=2.0), [1.0, 2.0, 8.0])
    np.testing.assert_allclose(twice, once * [1, 1, 2])


def test_weights_change_only_at_every_fifth_update():
    scheme = AdaLoss(2, gamma=0.0, decay=0.0, update_every=5)
    states = run(scheme, [[1.0, float(k)] for k in range(1, 13)])
    assert [s.weights[1] for s in states] == [1.0] * 4 + [1 / 5] * 5 + [1 / 10] * 3
    assert states[2].average[1] == 3.0


@given(decays)
def test_gamma_may_fall_from_1_to_0_as_appendix_b_suggests(decay):
    scheme = AdaLoss(2, gamma=LinearSchedule(1.0, 0.0, 4), decay=decay)
    states = run(scheme, [[1.0, 2.0]] * 6)
    np.testing.assert_allclose(
        [s.weights[1] for s in states], [1.0, 0.875, 0.75, 0.625, 0.5, 0.5], rtol=1e-12
    )


def test_numpys_numbers_become_pythons():
    scheme = AdaLoss(np.int64(3), gamma=np.float32(0.5), warmup=np.int8(4))
    assert repr(scheme) == repr(AdaLoss(3, gamma=0.5, warmup=4))


@pytest.mark.parametrize(("good", "bad", "expected"), [(1000, 51, True), (1000, 49, False)])
def test_a_burst_of_bad_values_counts_as_in_a_window_of_100(good, bad, expected):
    states = run(AdaLoss(2), [[1.0, 1.0]] * good + [[math.nan, 1.0]] * bad)
    assert recently_bad(states[-1].recent).tolist() == [expected, False]
    states = run(AdaLoss(2), [[-1.0, 1.0]] * good + [[1.0, 1.0]] * bad)
    assert recently_bad(states[-1].recent).tolist() == [not expected, False]


def test_schemes_are_hashable_values():
    assert AdaLoss(3, gamma=LinearSchedule(1, 0, 9)) == AdaLoss(3, gamma=LinearSchedule(1, 0, 9))
    assert len({AdaLoss(3), AdaLoss(3), AdaLoss(3, gamma=0.1)}) == 2


def test_state_is_a_named_tuple_of_small_arrays():
    state = AdaLoss(3).init(np)
    assert State._fields == ("average", "weights", "step", "skipped", "recent", "pending")
    assert [a.shape for a in state] == [(3,), (3,), (), (3,), (3,), (2, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_losses": 0}, "num_losses must be a whole number of at least 1, got 0"),
        ({"num_losses": 2.0}, "num_losses must be a whole number of at least 1, got 2.0"),
        ({"gamma": 1.5}, r"gamma must be a number in \[0, 1\], got 1.5"),
        ({"gamma": math.nan}, r"gamma must be a number in \[0, 1\], got nan"),
        ({"gamma": "0.5"}, r"gamma must be a number in \[0, 1\], got '0.5'"),
        ({"decay": 1.0}, r"decay must be a number in \[0, 1\), got 1.0"),
        ({"decay": -0.1}, r"decay must be a number in \[0, 1\), got -0.1"),
        ({"final_weight": 0.0}, r"final_weight must be a number in \(0, inf\), got 0.0"),
        ({"final_weight": math.inf}, r"final_weight must be a number in \(0, inf\), got inf"),
        ({"update_every": 0}, "update_every must be a whole number of at least 1, got 0"),
        ({"floor": -1e-9}, r"floor must be a number in \[0, inf\), got -1e-09"),
        ({"clip": 1.0}, r"clip must be a number in \(1, inf\), got 1.0"),
        ({"warmup": -1}, "warmup must be a whole number of at least 0, got -1"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        AdaLoss(**{"num_losses": 3} | arguments)


@pytest.mark.parametrize("arguments", [(2.0, 0.0, 5), (1.0, -0.1, 5), (1.0, 0.0, 0)])
def test_a_schedule_out_of_range_is_refused(arguments):
    with pytest.raises(ValueError, match="must be a"):
        LinearSchedule(*arguments)
