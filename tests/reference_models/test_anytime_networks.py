"""Deadlines, early exit and ensembles over real networks, each framework's where it is installed.

Time is virtual: the networks compute for real, and each exit moves a clock by what it is said to
take, so that what is asserted is exact.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module

import numpy as np
import pytest
from support.networks.anytime_tools import FakeClock

from loss_balance import eann
from loss_balance.anytime import (
    budgeted_thresholds,
    calibrate,
    early_exit,
    predict,
    top_probability,
)
from loss_balance.anytime.answers import to_numpy
from loss_balance.experiments.verification.probes import probe_of, random_batch, random_weights
from loss_balance.reference_models import families

SMALL = families.resann(1, 4, 5, input_shape=(8, 12, 3))
LARGE = families.resann(2, 4, 5, input_shape=(8, 12, 3))
NEEDED = {
    "torch": ["torch"],
    "tensorflow": ["tensorflow", "keras"],
    "jax": ["jax", "flax", "optax"],
}
PREDICTIONS = 10_000


class Framework:
    """One framework's networks and tensors."""

    def __init__(self, name):
        self.name = name
        self.probe = probe_of(name)

    def network(self, spec, seed=1):
        """With weights in which nothing is constant, in evaluation mode."""
        net = self.probe.network(spec)
        net.load_weights(random_weights(spec, seed))
        if self.name == "torch":
            net.requires_grad_(requires_grad=False)
        if self.name != "tensorflow":  # Keras is told in the call
            net.eval()
        return net

    def native(self, images):
        """Images (B, H, W, C) as the framework's networks take them."""
        if self.name == "torch":
            return import_module("loss_balance.experiments.verification.probes.torch").native(
                images
            )
        if self.name == "jax":
            return import_module("jax.numpy").asarray(images)
        return import_module("tensorflow").constant(images)


@pytest.fixture(scope="module", params=list(NEEDED))
def framework(request):
    for module in NEEDED[request.param]:
        pytest.importorskip(module)
    pytest.importorskip(request.param)
    if request.param != "torch":
        yield Framework(request.param)
        return
    torch = import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # such small layers only wait for a second one
    yield Framework("torch")
    torch.set_num_threads(before)


class Timed:
    """A real network; exit k takes `steps[k]` on the clock. Counts the exits it computed."""

    def __init__(self, net, clock, steps):
        self.net, self.clock, self.steps = net, clock, steps
        self.computed = 0

    def anytime(self, x):
        answers = self.net.anytime(x)
        for step in self.steps:
            logits = next(answers)
            self.clock.now += step
            self.computed += 1
            yield logits


def assert_logits(value, expected):
    np.testing.assert_allclose(to_numpy(value), expected, rtol=1e-4, atol=1e-5)


def test_a_deadline_gives_the_logits_of_the_latest_exit_in_time(framework):
    net, images = framework.network(LARGE), random_batch(LARGE)[0]
    logits = framework.probe.predict(net, images)
    steps = [3, 1, 2, 5, 1, 4]
    ends = np.cumsum(steps)
    for deadline in range(ends[-1] + 2):
        clock = FakeClock()
        got = predict(
            Timed(net, clock, steps).anytime(framework.native(images)), deadline, clock=clock
        )
        in_time = np.flatnonzero(ends <= deadline)
        assert got.exit == (in_time[-1] if len(in_time) else 0)
        assert got.late == (len(in_time) == 0)
        assert_logits(got.value, logits[got.exit])


def test_no_prediction_overshoots_its_deadline_by_more_than_one_exit(framework):
    rng = np.random.default_rng(0)
    net, x = framework.network(SMALL), framework.native(random_batch(SMALL, size=1)[0])
    most = 0.0
    for _ in range(PREDICTIONS):
        steps = rng.exponential(size=len(SMALL.exits)).tolist()
        deadline = rng.uniform(0, 1.2 * sum(steps))
        clock = FakeClock(0.0)
        timed = Timed(net, clock, steps)
        predict(timed.anytime(x), deadline, clock=clock)
        overshoot = (clock.now - deadline) / steps[timed.computed - 1]
        assert overshoot <= 1
        most = max(most, overshoot)
    assert most > 0.9  # it does come close: the bound is not loose


def test_with_calibrated_times_only_the_first_exit_is_ever_late(framework):
    net, x = framework.network(SMALL), framework.native(random_batch(SMALL, size=1)[0])
    steps = [2, 3, 4]
    clock = FakeClock(0)
    times = calibrate(Timed(net, clock, steps), x, repeats=2, clock=clock)
    assert times == (2, 5, 9)
    for deadline in range(11):
        clock.now = 0
        got = predict(
            Timed(net, clock, steps).anytime(x), deadline, clock=clock, expected_times=times
        )
        assert clock.now <= max(deadline, 2)
        assert got.late == (deadline < 2)


def test_times_are_measured_on_the_real_clock_too(framework):
    x = framework.native(random_batch(LARGE, size=1)[0])
    times = calibrate(framework.network(LARGE), x, repeats=3)
    assert len(times) == len(LARGE.exits)
    assert list(times) == sorted(times)


def test_each_sample_leaves_with_the_logits_of_the_first_exit_that_is_confident(framework):
    net, images = framework.network(LARGE), random_batch(LARGE, size=24)[0]
    whole = np.stack(framework.probe.predict(net, images))  # (exits, samples, classes)
    scores = top_probability(whole)
    threshold = float(np.quantile(scores[:-1].max(axis=0), 0.4))  # so some go to the end
    left = early_exit(net, framework.native(images), threshold)
    assert len(set(left.exits)) > 2
    for i, k in enumerate(left.exits):
        assert all(scores[:k, i] < threshold + 1e-4)
        assert scores[k, i] >= threshold - 1e-4 or k == len(LARGE.exits) - 1
        assert_logits(left.logits[i], whole[k, i])


def test_thresholds_for_a_budget_keep_it(framework):
    net, images = framework.network(LARGE), random_batch(LARGE, size=64)[0]
    scores = np.stack([top_probability(x) for x in framework.probe.predict(net, images)], axis=1)
    costs = [cost.multiply_adds for cost in LARGE.costs()]
    budget = 0.6 * costs[-1]
    thresholds = budgeted_thresholds(scores, budget, costs)
    left = early_exit(net, framework.native(images), thresholds.values)
    spent = np.take(costs, left.exits).mean()
    # A score that differs in its last bits from one batch to the next may cross a threshold.
    assert spent == pytest.approx(thresholds.cost, abs=2 * costs[-1] / len(images))
    assert 0.5 * budget < spent < 1.05 * budget


def test_an_ensemble_gives_what_its_schedule_says_at_every_deadline(framework):
    x = random_batch(LARGE)[0]
    nets = [framework.network(SMALL, seed=2), framework.network(LARGE, seed=3)]
    logits = [framework.probe.predict(net, x) for net in nets]
    steps = [[1, 2, 1], [2, 1, 3, 2, 1, 2]]
    errors = [[0.5, 0.4, 0.35], [0.6, 0.5, 0.38, 0.3, 0.31, 0.2]]
    exits = [
        [eann.Exit(cost, error) for cost, error in zip(np.cumsum(s).tolist(), e, strict=True)]
        for s, e in zip(steps, errors, strict=True)
    ]
    events = eann.schedule(exits)
    for deadline in range(events[-1].time + 2):
        clock = FakeClock(0)
        timed = [Timed(net, clock, s) for net, s in zip(nets, steps, strict=True)]
        members = [eann.Member(net, e) for net, e in zip(timed, errors, strict=True)]
        got = eann.run(members, framework.native(x), deadline, clock=clock)
        expected = eann.answer(events, deadline) or events[0]
        assert (got.member, got.exit) == (expected.member, expected.exit)
        assert_logits(got.value, logits[got.member][got.exit])
        longest = max(s for network in steps for s in network)
        assert clock.now - deadline <= longest


def test_an_ensemble_of_real_networks_runs_in_threads(framework):
    x = random_batch(LARGE)[0]
    nets = [framework.network(SMALL, seed=2), framework.network(LARGE, seed=3)]
    members = [
        eann.Member(net, np.linspace(top, top / 2, len(net.spec.exits)).tolist())
        for net, top in zip(nets, (0.5, 0.4), strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        got = eann.run(members, framework.native(x), executor=pool)
    assert (got.member, got.exit, got.failure) == (1, len(LARGE.exits) - 1, None)
    assert_logits(got.value, framework.probe.predict(nets[1], x)[-1])


def test_a_network_that_breaks_leaves_what_was_there(framework):
    """With the error of the framework, not ours: images of the wrong size."""
    net, x = framework.network(SMALL), random_batch(SMALL)[0]
    wrong = framework.native(np.zeros((1, 4, 4, 3), np.float32))
    small = eann.Member(net, [0.5, 0.4, 0.3])
    broken = eann.Member(lambda _: net.anytime(wrong), [0.2])
    got = eann.run([small, broken], framework.native(x), math.inf)
    assert (got.member, got.exit) == (0, 2)
    assert isinstance(got.failure, ValueError)
