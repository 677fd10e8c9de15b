"""The JAX blocks of docs/guides."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp
import numpy as np
from support.docs.loop_page import begin, go_on, run

from loss_balance.experiments.verification.oracle import Oracle


def assert_saw(state, losses):
    """The state is that after these losses, one update each."""
    oracle = Oracle(2)
    for one in losses:
        weights = oracle.update(one)
    assert state.step == len(losses)
    assert state.average.tolist() == pytest.approx(oracle.average, rel=1e-5)
    assert state.weights.tolist() == pytest.approx(weights, rel=1e-5)
    assert not state.pending.any()


def mean_losses(page, params, batches):
    return np.mean([page.losses_of(params, batch) for batch in batches], axis=0).tolist()


def test_multisteps_moves_the_averages_once_a_step_on_the_undivided_batch():
    page = begin("jax")
    before = page.params
    go_on(page, "jax", "multisteps")
    assert page.opt_state.gradient_step == 2
    batches = list(zip(page.x, page.y, strict=True))
    first = mean_losses(page, before, batches[:4])
    second = mean_losses(page, after_one_step(page, before, batches[:4]), batches[4:])
    assert_saw(page.state, [first, second])


def after_one_step(page, params, batches):
    """Plain gradient descent by the mean over the micro-batches with the weights of each call."""
    oracle = Oracle(2)
    weights = [[1.0, 1.0]] * 3 + [oracle.update(mean_losses(page, params, batches))]

    def total(params):
        losses = [
            jnp.array(w) @ page.losses_of(params, batch)
            for w, batch in zip(weights, batches, strict=True)
        ]
        return sum(losses) / len(losses)

    gradient = jax.grad(total)(params)
    return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient)


def test_lbfgs_observes_once_a_step_and_descends_in_the_total_of_that_step():
    page = begin("jax")
    params, state = page.params, page.init(2)
    go_on(page, "jax", "lbfgs")
    opt_state, seen = page.optimizer.init(params), []
    for batch in zip(page.x, page.y, strict=True):  # the same steps, watched
        losses = page.losses_of(params, batch)
        seen.append(losses.tolist())
        params, opt_state, state = page.step(params, opt_state, state, batch)
        assert state.weights @ page.losses_of(params, batch) < state.weights @ losses
    assert_saw(state, seen)
    assert page.state.average.tolist() == state.average.tolist()


def test_a_traced_ramp_disturbs_nobody_and_counts_as_much_as_it_should():
    page = run("jax", "curriculum")
    losses = [page.losses_of(page.params, batch) for batch in zip(page.x, page.y, strict=True)]
    assert_saw(page.state, [one.tolist() for one in losses])
    oracle = Oracle(2)
    for total, ramp, one in zip(page.totals, page.ramps, losses, strict=True):
        weights = oracle.update(one.tolist())
        assert float(total) == pytest.approx(
            float(weights[0] * one[0] + ramp * weights[1] * one[1])
        )
