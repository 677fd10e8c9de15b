"""The promises of AdaLoss's kin, each test named after the one it checks."""

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
    exactly,
    hyperparameters,
    positive,
    sizes,
)

from loss_balance import AdaLoss, Constant, LinearSchedule, PowerMean, RelativeAdaLoss, Static


class Oracle:
    """Both schemes in plain Python scalars, one `if` a rule; `kind` says which."""

    def __init__(
        self, kind, n, gamma, decay, final_weight, update_every, floor, clip, warmup, power=0.0
    ):
        self.kind, self.gamma, self.decay, self.power = kind, gamma, decay, power
        self.update_every, self.floor, self.clip, self.warmup = update_every, floor, clip, warmup
        self.p = [1.0] * (n - 1) + [final_weight]
        self.mean, self.unit, self.seen = [None] * n, [None] * n, [0] * n
        self.weights, self.step = [1.0] * n, 0

    def update(self, losses):
        bad = [x is not None and not (math.isfinite(x) and x >= 0) for x in losses]
        for i, x in enumerate(losses):
            if not bad[i] and x is not None and x > self.floor:
                self.observe(i, x)
        gamma = self.gamma(self.step) if callable(self.gamma) else self.gamma
        self.step += 1
        there = [i for i, m in enumerate(self.mean) if m is not None]
        if self.step % self.update_every == 0:
            new = (self.powers if self.kind is PowerMean else self.relative)(there, gamma)
            self.weights = [
                old if b else new.get(i, 1.0)
                for i, (old, b) in enumerate(zip(self.weights, bad, strict=True))
            ]
        return self.weights

    def observe(self, i, x):
        self.seen[i] += 1
        m = self.mean[i]
        if m is not None and self.clip is not None:
            x = min(x, self.clip * m)
        if m is None:
            m = x
        elif self.seen[i] <= self.warmup:
            m = (m * (self.seen[i] - 1) + x) / self.seen[i]
        else:
            m = self.decay * m + (1 - self.decay) * x
        self.mean[i] = m
        self.unit[i] = m if self.unit[i] is None else max(m, self.unit[i])

    def powers(self, there, gamma):
        # Of the means over the least: their powers need not be finite otherwise.
        least = min((self.mean[i] for i in there), default=1.0)
        pull = {i: self.p[i] * (self.mean[i] / least) ** (self.power - 1) for i in there}
        top = max(pull.values(), default=1.0)
        return {i: (1 - gamma) * x / top + gamma for i, x in pull.items()}

    def relative(self, there, gamma):
        alpha = min((self.mean[i] / self.unit[i] / self.p[i] for i in there), default=1.0)
        v = {
            i: (1 - gamma) * alpha * self.p[i] / self.mean[i] + gamma / self.unit[i] for i in there
        }
        top = max(v.values(), default=1.0)
        return {i: x / top for i, x in v.items()}


@st.composite
def schemes(draw, n):
    """A scheme, and the oracle's arguments for it."""
    options = draw(hyperparameters())
    kind = draw(st.sampled_from([PowerMean, RelativeAdaLoss]))
    if kind is PowerMean:
        options["power"] = draw(st.sampled_from([1.0, 0.5, 0.0, -1.0, -2.5]))
    gamma = options["gamma"]
    told = {"gamma": exactly(gamma)} if isinstance(gamma, LinearSchedule) else {}
    return kind(n, **options), {"kind": kind, "n": n} | options | told


def runs(losses, most=10):
    return sizes.flatmap(
        lambda n: st.tuples(schemes(n), st.lists(losses(n), min_size=1, max_size=most))
    )


def run(scheme, steps, dtype=np.float64):
    """The states after each of `steps`, a list of losses each."""
    state, states = scheme.init(np, dtype), []
    for losses in steps:
        values, present = as_arrays(losses, dtype)
        state = scheme.update(state, values, np, present)
        states.append(state)
    return states


def weights(scheme, *steps):
    return run(scheme, steps)[-1].weights


def relative(n, gamma=0.05, decay=0.5, **options):
    return RelativeAdaLoss(n, gamma=gamma, decay=decay, **options)


@given(runs(any_losses))
def test_equal_to_the_oracle(drawn):
    (scheme, arguments), steps = drawn
    oracle = Oracle(**arguments)
    for losses, state in zip(steps, run(scheme, steps), strict=True):
        np.testing.assert_allclose(state.weights, oracle.update(losses), rtol=1e-10, atol=0)


@given(runs(positive))
def test_float32_is_close_to_float64(drawn):
    (scheme, _), steps = drawn
    near = [a for s in run(scheme, steps) for a in s.average if a > 0]
    assume(all(abs(a / scheme.floor - 1) > 1e-4 for a in near if scheme.floor))
    rounded = [[float(np.float32(x)) for x in losses] for losses in steps]
    steep = max(1.0, 1.0 - getattr(scheme, "power", 0.0))  # a power multiplies what is rounded
    tiny = float(np.finfo(np.float32).tiny)
    for narrow, wide in zip(run(scheme, rounded, np.float32), run(scheme, rounded), strict=True):
        assert narrow.weights.dtype == np.float32
        np.testing.assert_allclose(narrow.weights, wide.weights, rtol=1e-6 * steep, atol=tiny)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(runs(positive))
def test_the_largest_weight_is_exactly_1(dtype, drawn):
    (scheme, _), steps = drawn
    for state in run(scheme, steps, dtype):
        assert state.weights.max() == 1.0
        assert state.weights.min() >= 0.0


@given(runs(positive), st.floats(1e-3, 1e3))
def test_one_unit_for_all_does_not_matter(drawn, unit):
    (scheme, _), steps = drawn
    assume(all(min(losses) * min(1.0, unit) > 2 * scheme.floor for losses in steps))
    scaled = [[unit * x for x in losses] for losses in steps]
    np.testing.assert_allclose(weights(scheme, *scaled), weights(scheme, *steps), rtol=1e-9)


@given(runs(positive), st.randoms(use_true_random=False))
def test_permuting_the_losses_permutes_the_weights(drawn, random):
    (scheme, _), steps = drawn
    scheme = replace(scheme, final_weight=1.0)
    order = list(range(scheme.num_losses))
    random.shuffle(order)
    permuted = [[losses[i] for i in order] for losses in steps]
    np.testing.assert_array_equal(weights(scheme, *permuted), weights(scheme, *steps)[order])


@given(runs(positive), st.sampled_from([math.nan, math.inf, -1.0, 0.0, None]), st.data())
def test_a_loss_that_is_no_value_moves_nothing_of_its_own(drawn, bad, data):
    (scheme, _), steps = drawn
    i = data.draw(st.integers(0, scheme.num_losses - 1))
    before = run(scheme, steps)[-1]
    values, present = as_arrays([bad if k == i else x for k, x in enumerate(steps[-1])])
    after = scheme.update(before, values, np, present)
    for name in set(after._fields) - {"weights", "step", "skipped", "recent", "pending"}:
        assert getattr(after, name)[i] == getattr(before, name)[i], name
    is_bad = bad is not None and bad != 0.0
    assert after.skipped[i] == is_bad
    assert after.weights[i] == before.weights[i] or not is_bad
    assert np.isfinite(after.weights).all()


# What a power mean is


@given(
    st.integers(1, 6).flatmap(lambda n: positive(n, 1e-2, 1e2)),
    st.sampled_from([1.0, 0.5, -1.0, -2.0]),
    st.sampled_from([1.0, 2.0]),
)
def test_it_follows_the_gradient_of_the_power_mean(losses, power, final):
    p, values = np.array([1.0] * (len(losses) - 1) + [final]), np.array(losses)

    def mean(x):
        return (np.sum(p * x**power) / p.sum()) ** (1 / power)

    steps = 1e-6 * values * np.eye(len(losses))
    slopes = [(mean(values + h) - mean(values - h)) / (2 * h.sum()) for h in steps]
    w = weights(PowerMean(len(losses), power, decay=0.0, final_weight=final), losses)
    np.testing.assert_allclose(w, np.array(slopes) / max(slopes), rtol=1e-4, atol=1e-9)


@given(runs(positive))
def test_its_power_0_is_adaloss(drawn):
    (scheme, _), steps = drawn
    options = {f: getattr(scheme, f) for f in ("gamma", "decay", "final_weight", "floor", "clip")}
    ours = PowerMean(scheme.num_losses, 0.0, **options)
    theirs = AdaLoss(scheme.num_losses, **options)
    np.testing.assert_allclose(weights(ours, *steps), weights(theirs, *steps), rtol=1e-12)


@given(sizes.flatmap(lambda n: st.lists(positive(n), min_size=1, max_size=4)))
def test_its_power_1_is_constant(steps):
    n = len(steps[0])
    constant = weights(Constant(n), *steps)
    np.testing.assert_array_equal(weights(PowerMean(n, 1.0), *steps), constant)
    last = weights(PowerMean(n, 1.0, final_weight=2.0), *steps)
    np.testing.assert_array_equal(last, [0.5] * (n - 1) + [1.0])


@given(st.integers(2, 6).flatmap(positive), st.floats(-2.0, 0.9), st.floats(0.01, 1.0))
def test_the_smaller_the_power_the_less_a_larger_loss_weighs(losses, power, less):
    steeper, flatter = (weights(PowerMean(len(losses), q), losses) for q in (power - less, power))
    assert (steeper <= flatter * (1 + 1e-12)).all()


# What units are to a loss

units = st.floats(-4.0, 4.0).map(lambda e: 10.0**e)


@given(
    st.integers(2, 6).flatmap(
        lambda n: st.tuples(
            st.lists(positive(n, 1e-2, 1e2), min_size=1, max_size=8),
            st.lists(units, min_size=n, max_size=n),
        )
    ),
    st.floats(0.0, 1.0),
    st.sampled_from([0, 3]),
)
@example(([[1.0, 1.0], [0.5, 1.0]], [1e4, 1e-2]), 0.05, 0)
def test_another_unit_for_one_loss_only_changes_its_weight_by_it(drawn, gamma, warmup):
    steps, c = drawn
    scheme = relative(len(c), gamma, warmup=warmup)
    other = weights(scheme, *[[x * unit for x, unit in zip(s, c, strict=True)] for s in steps])
    pull = other * np.array(c)  # what the network gets of each
    np.testing.assert_allclose(pull / pull.max(), _over_max(weights(scheme, *steps)), rtol=1e-9)


def _over_max(x):
    return x / x.max()


def test_adaloss_lacks_that():
    """What RelativeAdaLoss is for: the large unit takes all but everything."""
    steps = [[1e4, 1e-2], [1e4, 0.5e-2]]  # the small one falls
    pull = weights(AdaLoss(2, decay=0.0), *steps) * steps[0]
    assert pull[0] / pull[1] > 10_000
    pull = weights(relative(2, decay=0.0), *steps) * steps[0]
    assert pull[0] / pull[1] == pytest.approx(0.525)


@given(st.integers(2, 5).flatmap(lambda n: st.lists(positive(n), min_size=1, max_size=8)))
def test_relative_to_its_largest_mean_no_loss_weighs_less_than_gamma(steps):
    state = run(relative(len(steps[0]), 0.2), steps)[-1]
    pull = state.weights * state.reference
    assert pull.min() >= 0.2 * pull.max() * (1 - 1e-12)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(positive(n), min_size=1, max_size=8)))
def test_gamma_1_is_the_static_weights_of_the_largest_means(steps):
    states = run(relative(len(steps[0]), 1.0), steps)
    units = 1.0 / np.max([state.average for state in states], axis=0)
    expected = weights(Static(tuple(units / units.max())), *steps)
    np.testing.assert_allclose(states[-1].weights, expected, rtol=1e-12)


@given(st.integers(1, 5).flatmap(lambda n: st.lists(positive(n), min_size=1, max_size=8)))
def test_gamma_0_is_adaloss_with_gamma_0(steps):
    theirs = AdaLoss(len(steps[0]), gamma=0.0, decay=0.5)
    ours = relative(len(steps[0]), 0.0)
    np.testing.assert_allclose(weights(ours, *steps), weights(theirs, *steps), rtol=1e-9)


def test_the_unit_is_the_largest_mean_so_far():
    states = run(relative(2, warmup=3), [[1.0, None], [2.0, 4.0], [6.0, 6.0], [1.0, 2.0], [5, 9]])
    assert [s.reference[0] for s in states] == [1.0, 1.5, 3.0, 3.0, 3.5]
    assert [s.reference[1] for s in states] == [-1.0, 4.0, 5.0, 5.0, 6.5]


def test_a_loss_that_is_small_at_first_by_accident_is_not_held_to_it():
    states = run(relative(2, 1.0, decay=0.0), [[1.0, 1e-6], [0.5, 10.0], [0.1, 1.0]])
    pull = states[0].weights * [1.0, 1e-6]
    assert pull[0] == pytest.approx(pull[1])
    np.testing.assert_allclose(states[-1].weights, [1.0, 0.1])


def test_a_loss_not_seen_yet_weighs_1_and_takes_no_part():
    scheme = relative(3, decay=0.0)
    seen = weights(relative(2, decay=0.0), [8.0, 2.0], [4.0, 2.0])
    ours = weights(scheme, [8.0, 2.0, None], [4.0, 2.0, math.nan])
    np.testing.assert_allclose(ours, [*seen, 1.0])
    assert weights(scheme, [None, 0.0, math.nan]).tolist() == [1.0, 1.0, 1.0]


def test_a_loss_that_is_reset_begins_in_a_new_unit():
    scheme = relative(2)
    state = scheme.reset(run(scheme, [[1.0, 1.0]] * 3)[-1], np.array([True, False]), np)
    assert state.reference.tolist() == [-1.0, 1.0]
    state = scheme.update(state, np.array([50.0, 1.0]), np)
    assert state.reference.tolist() == [50.0, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerMean(0), "num_losses must be a whole number of at least 1, got 0"),
        (lambda: PowerMean(2, 1.5), r"power must be a number in \(-inf, 1\], got 1.5"),
        (lambda: PowerMean(2, -math.inf), r"power must be a number in \(-inf, 1\], got -inf"),
        (lambda: PowerMean(2, math.nan), r"power must be a number in \(-inf, 1\], got nan"),
        (lambda: PowerMean(2, gamma=2.0), r"gamma must be a number in \[0, 1\], got 2.0"),
        (lambda: RelativeAdaLoss(2, gamma=-1.0), r"gamma must be a number in \[0, 1\], got -1.0"),
        (lambda: RelativeAdaLoss(2, warmup=-1), "warmup must be a whole number of at least 0"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
