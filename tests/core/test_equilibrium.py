"""The promises of `loss_balance.equilibrium`, each against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import loss_balance
from loss_balance import AdaLoss, GradientNorm
from loss_balance.equilibrium import check_pull, guidance, shares

positive = st.floats(1e-3, 1e3)
weight_lists = st.lists(positive, min_size=1, max_size=12)


def test_it_is_part_of_the_package():
    assert loss_balance.equilibrium.shares is shares
    assert "equilibrium" in dir(loss_balance)


@given(weight_lists, st.randoms(use_true_random=False))
def test_the_trunk_receives_the_weighted_mean_of_all_later_gradients(weights, random):
    """A network of scalars, x -> a_1 x -> a_2 a_1 x ..., whose losses have slopes b_i."""
    own, deeper = shares(np.array(weights), np)
    slopes = [random.uniform(-2, 2) for _ in weights]
    factors = [random.uniform(-2, 2) for _ in weights]
    received = 0.0  # backward, from the last exit to the first
    for i in reversed(range(len(weights))):
        behind = received * factors[i + 1] if i + 1 < len(weights) else 0.0
        received = own[i] * slopes[i] + deeper[i] * behind
        total, wanted, path = 0.0, 0.0, 1.0
        for k in range(i, len(weights)):
            path *= factors[k] if k > i else 1.0
            wanted += weights[k] * path * slopes[k]
            total += weights[k]
        assert received == pytest.approx(wanted / total, rel=1e-9, abs=1e-9)


def test_one_exit_is_the_identity():
    own, deeper = shares(np.array([0.3]), np)
    assert (own.tolist(), deeper.tolist()) == ([1.0], [0.0])


@given(st.integers(1, 30))
def test_constant_weights_give_one_over_the_exits_that_are_left(count):
    own, deeper = shares(np.full(count, 0.7), np)
    left = np.arange(count, 0, -1)
    np.testing.assert_allclose(own, 1 / left, rtol=1e-12)
    np.testing.assert_allclose(deeper, 1 - 1 / left, rtol=1e-12, atol=1e-15)


@given(weight_lists, positive)
def test_scaling_all_weights_changes_nothing(weights, factor):
    for ours, theirs in zip(
        shares(np.array(weights), np), shares(factor * np.array(weights), np), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


@given(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=12))
def test_they_sum_to_1_in_float32_with_zeros_too(weights):
    own, deeper = shares(np.array(weights, np.float32), np)
    np.testing.assert_allclose(own + deeper, 1.0, rtol=1e-6)
    assert (own >= 0.0).all()
    assert (deeper >= 0.0).all()


def test_without_later_weights_the_trunk_gets_the_deeper_gradient_alone():
    own, deeper = shares(np.array([0.5, 0.0, 0.0]), np)
    assert own.tolist() == [1.0, 0.0, 0.0]
    assert deeper.tolist() == [0.0, 1.0, 1.0]


@given(st.lists(st.floats(0.0, 10.0), min_size=1, max_size=8), st.floats(0.0, 1.0))
def test_a_pull_is_a_power_of_the_weights_but_nothing_stays_nothing(weights, pull):
    powers = [w**pull if w > 0.0 else 0.0 for w in weights]
    for ours, theirs in zip(
        shares(np.array(weights), np, pull), shares(np.array(powers), np), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_priorities_are_factors_beside_the_pull():
    weights, priorities = np.array([0.25, 1.0, 0.0]), np.array([2.0, 0.5, 1.0])
    for ours, theirs in zip(
        shares(weights, np, 0.5, priorities), shares(np.array([1.0, 0.5, 0.0]), np), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize("pull", [-0.1, 1.1, math.nan, "1"])
def test_a_pull_out_of_its_range_is_refused(pull):
    with pytest.raises(ValueError, match=r"pull must be a number in \[0, 1\], got"):
        check_pull(pull)


def kl(teacher, pupil, temperature):
    """KL(softmax(teacher / T) || softmax(pupil / T)) of one sample, in plain Python."""
    soft = []
    for logits in (teacher, pupil):
        top = max(logits)
        powers = [math.exp((x - top) / temperature) for x in logits]
        soft.append([p / sum(powers) for p in powers])
    return sum(p * math.log(p / q) for p, q in zip(*soft, strict=True) if p > 0.0)


@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(2, 5),
    st.floats(0.0, 2.0),
    st.floats(0.5, 5.0),
    st.integers(0, 2**32 - 1),
)
def test_guidance_is_the_divergence_from_the_last_exit_in_the_share_left(
    exits, batch, classes, strength, temperature, seed
):
    drawn = np.random.default_rng(seed)
    logits = drawn.normal(scale=3.0, size=(exits, batch, classes))
    weights = drawn.uniform(size=exits)
    found = guidance(logits, weights, strength, temperature, np)
    for i in range(exits):
        mean = (
            sum(kl(t, p, temperature) for t, p in zip(logits[-1], logits[i], strict=True)) / batch
        )
        wanted = strength * temperature**2 * (1 - weights[i]) * mean
        assert found[i] == pytest.approx(wanted, rel=1e-7, abs=1e-9)
    assert found[-1] == 0.0


def test_guidance_takes_a_sequence_and_logits_of_maps():
    logits = np.random.default_rng(0).normal(size=(3, 2, 4, 5))
    weights = np.array([0.1, 0.5, 1.0])
    whole = guidance(logits, weights, 1.0, 3.0, np)
    np.testing.assert_array_equal(guidance(list(logits), weights, 1.0, 3.0, np), whole)
    flat = guidance(logits.reshape(3, 8, 5), weights, 1.0, 3.0, np)
    np.testing.assert_allclose(whole, flat)


def test_guidance_is_stable_in_float32():
    logits = np.array([[[1e4, -1e4, 0.0]], [[-1e4, 1e4, 0.0]]], np.float32)
    found = guidance(logits, np.array([0.0, 1.0], np.float32), 1.0, 3.0, np)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [9.0 * 2e4 / 3.0, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -1.0}, r"strength must be a number in \[0, inf\), got -1.0"),
        ({"temperature": 0.0}, r"temperature must be a number in \(0, inf\), got 0.0"),
        ({"logits": np.zeros((3, 1, 2))}, "logits must be of 2 exits, got 3"),
    ],
)
def test_what_guidance_cannot_take_is_named(change, message):
    usual = {"logits": np.zeros((2, 1, 2)), "weights": np.ones(2), "strength": 1.0}
    with pytest.raises(ValueError, match=message):
        guidance(**{**usual, "temperature": 3.0, "xp": np, **change})


@given(st.lists(st.lists(positive, min_size=3, max_size=3), min_size=1, max_size=6))
def test_gradient_norm_is_adaloss_of_the_norms(steps):
    ours, theirs = GradientNorm(3, gamma=0.1), AdaLoss(3, gamma=0.1)
    left, right = ours.init(np), theirs.init(np)
    for norms in steps:
        left = ours.update(left, np.array(norms), np)
        right = theirs.update(right, np.array(norms), np)
        np.testing.assert_array_equal(left.weights, right.weights)
    assert (ours.observes, theirs.observes) == ("gradients", "losses")
