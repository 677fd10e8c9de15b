"""The adaptive baselines, each against its publication in plain Python scalars."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.balancers.strategies import any_losses, as_arrays, positive

from loss_balance import (
    AdaLoss,
    DynamicWeightAverage,
    LogLoss,
    SoftmaxInverse,
    UncertaintyWeighting,
)

FLOOR = 1e-8


def good(x):
    return x is not None and math.isfinite(x) and x >= 0


class Oracle:
    """Keeps the last weight of a bad value; `weigh` has the method."""

    good = staticmethod(good)

    def __init__(self, n, **options):
        self.n, self.options, self.weights = n, options, [1.0] * n
        self.begin()

    def update(self, losses):
        new = self.weigh(losses)
        if self.options.get("scaled"):
            top = max((w for w, a in zip(new, self.active(), strict=True) if a), default=1.0)
            new = [w / top if a else w for w, a in zip(new, self.active(), strict=True)]
        bad = [x is not None and not self.good(x) for x in losses]
        self.weights = [o if b else w for o, b, w in zip(self.weights, bad, new, strict=True)]
        return self.weights


class LastLosses(Oracle):
    """Weights from the running means, the last losses with decay 0."""

    def begin(self):
        self.mean = [None] * self.n

    def active(self):
        return [a is not None and a > FLOOR for a in self.mean]

    def observe(self, losses):
        d = self.options.get("decay", 0.0)
        for i, x in enumerate(losses):
            if good(x) and x > FLOOR:
                self.mean[i] = x if self.mean[i] is None else d * self.mean[i] + (1 - d) * x


class LogOracle(LastLosses):
    def weigh(self, losses):
        self.observe(losses)
        return [1 / m if a else 1.0 for m, a in zip(self.mean, self.active(), strict=True)]


class SoftmaxOracle(LastLosses):
    def weigh(self, losses):
        self.observe(losses)
        t, active = self.options.get("temperature", 1.0), self.active()
        z = [1 / (m * t) if a else None for m, a in zip(self.mean, active, strict=True)]
        top = max((x for x in z if x is not None), default=0.0)
        powers = [0.0 if x is None else math.exp(x - top) for x in z]
        return [p / sum(powers) if a else 1.0 for p, a in zip(powers, active, strict=True)]


class UncertaintyOracle(Oracle):
    def begin(self):
        self.s = [0.0] * self.n

    def active(self):
        return [True] * self.n

    def weigh(self, losses):
        bound = math.log(1 / FLOOR)
        for i, x in enumerate(losses):
            if good(x) and x > FLOOR:
                gradient = 1 - math.exp(-self.s[i]) * x
                step = min(max(self.options.get("learning_rate", 0.01) * gradient, -1.0), 1.0)
                self.s[i] = min(max(self.s[i] - step, -bound), bound)
        return [math.exp(-s) for s in self.s]


class WindowOracle(Oracle):
    @staticmethod
    def good(x):  # it divides by no loss: a negative one is a value
        return x is not None and math.isfinite(x)

    def begin(self):
        self.step, self.seen, self.before = 0, [[] for _ in range(self.n)], [None] * self.n

    def active(self):
        return [True] * self.n

    def weigh(self, losses):
        for values, x in zip(self.seen, losses, strict=True):
            if self.good(x) and abs(x) > FLOOR:
                values.append(x)
        self.step += 1
        if self.step % self.options["window"]:
            return list(self.weights)
        means = [sum(v) / len(v) if v else None for v in self.seen]
        r = [
            1.0 if m is None or b is None or b <= FLOOR else m / b
            for m, b in zip(means, self.before, strict=True)
        ]
        t = self.options.get("temperature", 2.0)
        powers = [math.exp((x - max(r)) / t) for x in r]
        self.before = [b if m is None else m for m, b in zip(means, self.before, strict=True)]
        self.seen = [[] for _ in range(self.n)]
        return [self.n * p / sum(powers) for p in powers]

    def update(self, losses):
        if (self.step + 1) % self.options["window"]:
            self.weigh(losses)  # within a window the weights stand still, scaled or not
            return self.weights
        return super().update(losses)


temperatures = st.sampled_from([0.5, 1.0, 2.0, 20.0])
methods = st.one_of(
    st.tuples(
        st.just(LogLoss),
        st.just(LogOracle),
        st.fixed_dictionaries({"decay": st.sampled_from([0.0, 0.3, 0.9])}),
    ),
    st.tuples(
        st.just(SoftmaxInverse),
        st.just(SoftmaxOracle),
        st.fixed_dictionaries({"temperature": temperatures, "decay": st.sampled_from([0.0, 0.9])}),
    ),
    st.tuples(
        st.just(UncertaintyWeighting),
        st.just(UncertaintyOracle),
        st.fixed_dictionaries({"learning_rate": st.sampled_from([0.01, 0.1, 1.0])}),
    ),
    st.tuples(
        st.just(DynamicWeightAverage),
        st.just(WindowOracle),
        st.fixed_dictionaries({"window": st.integers(1, 4), "temperature": temperatures}),
    ),
)
sequences = st.integers(1, 6).flatmap(
    lambda n: st.tuples(st.just(n), st.lists(any_losses(n), min_size=1, max_size=10))
)


@given(methods, sequences, st.booleans())
def test_weights_are_the_published_ones(method, drawn, scaled):
    kind, oracle, options = method
    n, steps = drawn
    scheme, expected = kind(n, scaled=scaled, **options), oracle(n, scaled=scaled, **options)
    state = scheme.init(np)
    for losses in steps:
        values, present = as_arrays(losses)
        state = scheme.update(state, values, np, present)
        np.testing.assert_allclose(state.weights, expected.update(losses), rtol=1e-9, atol=1e-300)
    bad = [
        sum(x is not None and not expected.good(x) for x in column)
        for column in zip(*steps, strict=True)
    ]
    assert state.skipped.tolist() == bad
    assert state.step == len(steps)


@given(methods, sequences)
def test_scaled_weights_have_1_as_their_largest(method, drawn):
    kind, _, options = method
    n, steps = drawn
    scheme = kind(n, scaled=True, **options)
    state = scheme.init(np)
    for losses in steps:
        present = np.array([good(x) for x in losses])
        values = np.array([x if p else 0.0 for x, p in zip(losses, present, strict=True)])
        state = scheme.update(state, values, np, present)
        assert state.weights.max() == pytest.approx(1.0, rel=1e-12)
        assert (state.weights >= 0).all()


@given(st.integers(1, 6).flatmap(positive))
def test_log_loss_follows_the_gradient_of_the_sum_of_logs(losses):
    state = LogLoss(len(losses)).update(LogLoss(len(losses)).init(np), np.array(losses), np)
    np.testing.assert_allclose(state.weights * np.array(losses), 1.0, rtol=1e-12)


@given(st.integers(1, 6).flatmap(positive))
def test_scaled_log_loss_is_adaloss_without_mean_and_mix(losses):
    n = len(losses)
    ours = LogLoss(n, scaled=True)
    theirs = AdaLoss(n, gamma=0.0, decay=0.0)
    np.testing.assert_allclose(
        ours.update(ours.init(np), np.array(losses), np).weights,
        theirs.update(theirs.init(np), np.array(losses), np).weights,
        rtol=1e-12,
    )


def test_uncertainty_weights_come_to_rest_at_the_inverse_of_the_losses():
    scheme = UncertaintyWeighting(3, learning_rate=0.05)
    state = scheme.init(np)
    losses = np.array([0.1, 2.0, 30.0])
    for _ in range(3000):
        state = scheme.update(state, losses, np)
    np.testing.assert_allclose(state.weights, 1 / losses, rtol=1e-6)


def test_dynamic_weights_favour_the_loss_that_falls_slowest():
    scheme = DynamicWeightAverage(2, window=2)
    state = scheme.init(np)
    seen = []
    for losses in ([4.0, 4.0], [4.0, 4.0], [2.0, 4.0], [2.0, 4.0], [2.0, 4.0]):
        state = scheme.update(state, np.array(losses), np)
        seen.append(state.weights.tolist())
    assert seen[:3] == [[1.0, 1.0]] * 3
    ratio = math.exp((1.0 - 0.5) / 2.0)
    assert seen[3] == pytest.approx([2 / (1 + ratio), 2 * ratio / (1 + ratio)])
    assert seen[4] == seen[3]


def test_the_softmax_of_inverse_losses_sums_to_1_and_tames_with_temperature():
    def weights(t):
        scheme = SoftmaxInverse(2, temperature=t)
        return scheme.update(scheme.init(np), np.array([0.5, 1.0]), np).weights

    assert weights(1.0).sum() == pytest.approx(1.0)
    assert weights(1.0)[0] / weights(1.0)[1] == pytest.approx(math.e)
    assert weights(100.0)[0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogLoss(0), "num_losses must be a whole number"),
        (lambda: LogLoss(2, decay=1.0), "decay must be a number"),
        (lambda: SoftmaxInverse(2, temperature=0.0), "temperature must be a number"),
        (lambda: UncertaintyWeighting(2, learning_rate=-1.0), "learning_rate must be a number"),
        (lambda: UncertaintyWeighting(2, floor=0.0), "floor must be a number"),
        (lambda: DynamicWeightAverage(2, window=0), "window must be a whole number"),
    ],
)
def test_a_hyperparameter_out_of_range_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
