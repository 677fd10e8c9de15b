"""Forks in JAX: under scan, vmap, sharding and in Flax modules."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from loss_balance import AdaLoss, LinearSchedule

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from loss_balance.backends.jax import Balancer, balance, fork, guidance, init

SCHEME = AdaLoss(2, decay=0.5)
RISING = LinearSchedule(0.0, 1.0, 4)
X = jnp.array(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
FIRST = jnp.array([[0.5, -0.3, 0.2], [0.1, 0.4, -0.6]])


def logits_of(kernels, x, at):
    """Two exits (batch, 3) of an elementwise trunk."""
    found = []
    for i in range(2):
        branch, x = at(jnp.tanh(kernels[i] * x), i)
        found.append(branch)
    return found


def total_of(kernels, state, x=X, axis_name=None):
    found = logits_of(kernels, x, partial(fork, state=state, scheme=SCHEME, pull=0.5))
    losses = [(each**2).mean() * (i + 1) for i, each in enumerate(found)]
    total, after = balance(losses, state, SCHEME, axis_name, equilibrium=True)
    return total + guidance(found, state, SCHEME, RISING), after


def step(kernels, state):
    gradient, state = jax.grad(total_of, has_aux=True)(kernels, state)
    return kernels - 0.5 * gradient, state


def trained(kernels, steps=4):
    state = init(SCHEME)
    for _ in range(steps):
        kernels, state = step(kernels, state)
    return kernels


def test_under_scan_it_is_the_plain_loop():
    (kernels, _), _ = jax.jit(
        lambda carried: lax.scan(lambda c, _: (step(*c), None), carried, None, length=4)
    )((FIRST, init(SCHEME)))
    np.testing.assert_allclose(kernels, trained(FIRST), rtol=1e-5, atol=1e-6)


def test_under_vmap_each_has_its_own_weights():
    several = jnp.stack([FIRST, 2.0 * FIRST, -FIRST])
    for ours, first in zip(jax.vmap(trained)(several), several, strict=True):
        np.testing.assert_allclose(ours, trained(first), rtol=1e-5, atol=1e-6)


def test_over_shards_of_a_batch_the_gradient_is_that_of_the_whole():
    state = init(SCHEME)._replace(weights=jnp.array([0.2, 1.0]))
    mesh = Mesh(np.array(jax.devices()[:2]), "replica")

    def sharded(kernels, state, x):
        def total(kernels):
            found, after = total_of(kernels, state, x, "replica")
            return lax.pmean(found, "replica"), after

        return jax.grad(total, has_aux=True)(kernels)

    split, whole = PartitionSpec("replica"), PartitionSpec()
    run = jax.shard_map(sharded, mesh=mesh, in_specs=(whole, whole, split), out_specs=whole)
    ours, theirs = (jax.jit(f)(FIRST, state, X) for f in (run, jax.grad(total_of, has_aux=True)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class Net(nnx.Module):
    """The same with its balancer inside."""

    def __init__(self):
        self.kernels = nnx.Param(FIRST)
        self.balance = Balancer(SCHEME, equilibrium=True, pull=0.5)

    def __call__(self, x):
        found = logits_of(self.kernels.get_value(), x, self.balance.fork)
        losses = [(each**2).mean() * (i + 1) for i, each in enumerate(found)]
        return self.balance.guidance(found, RISING) + self.balance(losses)


def test_a_module_trains_as_the_functions_do():
    net = Net()

    @nnx.jit
    def one_step(net):
        gradients = nnx.grad(lambda net: net(X))(net)
        net.kernels.set_value(net.kernels.get_value() - 0.5 * gradients["kernels"].get_value())

    for _ in range(4):
        one_step(net)
    np.testing.assert_allclose(net.kernels.get_value(), trained(FIRST), rtol=1e-5, atol=1e-6)
    assert int(net.balance.state.step) == 4


def test_a_state_of_another_scheme_is_refused():
    with pytest.raises(ValueError, match="the state must be a State of 2 losses"):
        fork(X, 0, init(3), SCHEME)
