"""`jit` over four devices: the program of one device, with its batch spread over them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.balancers.contract_forks import chain
from support.balancers.replica_steps import FOUR, SCHEME, numbers

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
ocp = pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.jax_devices import EVERYWHERE, MESH, SPREAD, each_device
from support.balancers.jax_tools import assert_close, assert_same, save

from loss_balance.backends.jax import (
    Balancer,
    balance,
    export_state,
    fork,
    guidance,
    import_state,
    init,
)
from loss_balance.backends.numpy import Balancer as NumPyBalancer
from loss_balance.experiments.verification.oracle import Oracle

# Losses of each of 8 examples, two on a device, for four steps.
BATCHES = np.abs(np.random.default_rng(0).normal(1.0, 0.5, (4, 8, 3))).astype(np.float32)
BATCHES *= np.array([4.0, 1.0, 0.1], np.float32)


@partial(jax.jit, donate_argnums=1)
def step(batch, state, mask=None):
    """The mean over all examples, which here is over all devices."""
    return balance(batch.mean(0), state, SCHEME, mask=mask)


def spread(x):
    return jax.device_put(x, SPREAD)


def test_a_batch_spread_over_devices_has_the_weights_of_one_device():
    oracle, state = Oracle(3, decay=0.5), jax.device_put(init(SCHEME), EVERYWHERE)
    for batch in BATCHES:
        before = state
        total, state = step(spread(batch), state)
        assert before.weights.is_deleted()  # donated
        losses = batch.mean(0, dtype=np.float64).tolist()
        weights = oracle.update(losses)
        np.testing.assert_allclose(state.weights, weights, rtol=1e-6)
        np.testing.assert_allclose(total, np.dot(weights, losses), rtol=1e-5)
    assert len(state.weights.sharding.device_set) == 4
    assert export_state(state, SCHEME)["step"] == len(BATCHES)


def test_a_nan_on_one_device_is_a_bad_loss_of_all_and_a_masked_one_is_absent():
    oracle, state = Oracle(3, decay=0.5), jax.device_put(init(SCHEME), EVERYWHERE)
    spoilt = BATCHES[1].copy()
    spoilt[5, 1] = np.nan
    there = np.array([True, False, True])
    steps = [(BATCHES[0], None), (spoilt, None), (spoilt, there), (BATCHES[2], None)]
    for batch, mask in steps:
        _, state = step(spread(batch), state, mask)
        losses = batch.mean(0, dtype=np.float64).tolist()
        weights = oracle.update([losses[0], None, losses[2]] if mask is not None else losses)
    np.testing.assert_allclose(state.weights, weights, rtol=1e-6)
    assert export_state(state)["skipped"].tolist() == oracle.skipped == [0, 1, 0]


def test_evaluation_leaves_the_state_on_all_devices_as_it_is():
    _, state = step(spread(BATCHES[0]), jax.device_put(init(SCHEME), EVERYWHERE))
    look = jax.jit(lambda batch, state: balance(batch.mean(0), state, SCHEME, training=False))
    total, after = look(spread(BATCHES[1]), state)
    assert_same(after, state)
    expected = np.dot(np.asarray(state.weights, np.float64), BATCHES[1].mean(0))
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def forked(x, heads, state):
    """(gradients of heads and trunk, losses) of a chain of forks with guidance."""

    def total(heads, w):
        call = partial(fork, state=state, scheme=SCHEME)
        losses, read = chain(call, w * x, heads, jnp.tanh, jnp.mean)
        return sum(losses) + guidance(jnp.stack(read), state, SCHEME), jnp.stack(losses)

    return jax.grad(total, argnums=(0, 1), has_aux=True)(heads, jnp.float32(0.7))


def test_forks_and_guidance_of_a_spread_batch_have_the_gradients_of_one_device():
    x = np.linspace(-2.0, 3.0, 32, dtype=np.float32).reshape(8, 4)
    heads = np.array([1.5, -0.7, 2.0], np.float32)
    _, state = balance(jnp.array(BATCHES[0].mean(0)), init(SCHEME), SCHEME)
    run = jax.jit(forked)
    whole = run(x, heads, state)
    over = run(spread(x), jax.device_put(heads, EVERYWHERE), jax.device_put(state, EVERYWHERE))
    assert len(over[1].sharding.device_set) == 4
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), over, whole)


def test_forks_in_shard_map_have_the_mean_gradient_of_the_devices():
    x = np.linspace(-2.0, 3.0, 16, dtype=np.float32).reshape(4, 4)
    heads = jnp.array([1.5, -0.7, 2.0])
    _, state = balance(jnp.array(BATCHES[0].mean(0)), init(SCHEME), SCHEME)

    def local(x, _, state):
        own = jax.lax.pcast(heads, "data", to="varying")
        (by_heads, _), _ = forked(x, own, state)
        return jax.lax.pmean(by_heads, "data")

    found = each_device(local)(x, np.ones_like(x), state)
    alone = [forked(row, heads, state)[0][0] for row in x]
    np.testing.assert_allclose(found[2], np.mean(alone, axis=0), rtol=1e-5)


def test_a_module_within_nnx_jit_balances_a_spread_batch():
    module, reference = Balancer(SCHEME), NumPyBalancer(SCHEME)
    nnx.update(module, jax.device_put(nnx.state(module), EVERYWHERE))
    run = nnx.jit(lambda module, batch: module(batch.mean(0)))
    for batch in BATCHES:
        run(module, spread(batch))
        reference(batch.mean(0))
    assert len(module.weights.get_value().sharding.device_set) == 4
    found, expected = module.export_state(), reference.export_state()
    for name in ("average", "weights", "step"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_a_checkpoint_of_one_device_goes_on_over_four_and_back(tmp_path):
    losses, _ = numbers(FOUR[0])
    _, one = balance(jnp.array(losses[0]), init(SCHEME), SCHEME)
    save(one, tmp_path / "one")
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=EVERYWHERE), one)
    with ocp.StandardCheckpointer() as checkpointer:
        four = checkpointer.restore(tmp_path / "one", like)
    assert four.weights.sharding == EVERYWHERE
    assert_same(four, one)
    expected = balance(jnp.array(BATCHES[0].mean(0)), one, SCHEME)[1]
    _, four = step(spread(BATCHES[0]), four)
    assert_close(four, expected)
    exported = export_state(four, SCHEME)
    save(four, tmp_path / "four")
    with ocp.StandardCheckpointer() as checkpointer:
        back = checkpointer.restore(tmp_path / "four", one)
    assert_same(back, import_state(exported, SCHEME))
    assert len(back.weights.sharding.device_set) == 1


def test_shard_map_may_be_given_its_state_to_keep():
    """Donated, step after step."""
    losses, mask = numbers(FOUR[0])
    run = each_device(lambda x, there, s: balance(x, s, SCHEME, "data", mask=there))
    kept = jax.jit(lambda x, m, s: jax.tree.map(lambda y: y[0], run(x, m, s)[1]), donate_argnums=2)
    state, oracle = jax.device_put(init(SCHEME), EVERYWHERE), Oracle(3, decay=0.5)
    for _ in range(3):
        before, state = state, kept(losses, mask, state)
        weights = oracle.update(losses.mean(0).tolist())
        assert before.weights.is_deleted()
    np.testing.assert_allclose(state.weights, weights, rtol=1e-6)
    assert MESH.devices.size == len(state.weights.sharding.device_set) == 4
