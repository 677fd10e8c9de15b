"""Four host devices, different losses, one state."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from support.balancers.replica_steps import FOUR, SCHEME, SKIPPED, expected_weights, numbers

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from support.balancers.jax_devices import MESH, each_device

from loss_balance.backends.jax import Balancer, balance, export_state, init, metrics


def test_there_are_four_devices():
    assert MESH.shape == {"data": 4}


@pytest.mark.parametrize("check_vma", [True, False])
def test_devices_hold_identical_weights_while_their_losses_differ(check_vma):
    def step(losses, mask, state):
        return balance(losses, state, SCHEME, "data", mask=mask)

    run, state = each_device(step, check_vma=check_vma), init(SCHEME)
    for losses, expected in zip(FOUR, expected_weights(FOUR), strict=True):
        values, mask = numbers(losses)
        totals, states = run(values, mask, state)
        for each in states:
            np.testing.assert_array_equal(each, np.broadcast_to(each[:1], each.shape))
        state = jax.tree.map(lambda x: x[0], states)
        np.testing.assert_allclose(state.weights, expected, rtol=1e-6)
        own = np.where(mask, values, 0.0) @ np.asarray(state.weights)
        np.testing.assert_allclose(totals, own, rtol=1e-6)
    assert state.skipped.tolist() == SKIPPED


def test_the_state_that_comes_out_is_known_to_be_replicated():
    """`out_specs=P()` holds only where JAX can tell that no device differs."""

    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=(P("data"), P()), out_specs=(P("data"), P()))
    def run(losses, state):
        total, state = balance(losses[0], state, SCHEME, axis_name="data")
        return total[None], state

    losses, _ = numbers(FOUR[0])
    _, state = run(losses, init(SCHEME))
    (expected,) = expected_weights(FOUR[:1])
    np.testing.assert_allclose(state.weights, expected, rtol=1e-6)


def test_a_loss_that_is_none_is_absent_on_all_devices():
    def step(losses, mask, state):
        return balance([losses[0], None, losses[2]], state, SCHEME, "data", mask=mask)

    values, mask = numbers(FOUR[1])
    _, states = each_device(step)(values, mask, init(SCHEME))
    (expected,) = expected_weights([[[row[0], None, row[2]] for row in FOUR[1]]])
    np.testing.assert_allclose(states.weights[3], expected, rtol=1e-6)
    assert states.average[:, 1].tolist() == [-1.0] * 4


def test_the_gradient_of_a_replicated_parameter_is_the_mean_over_the_devices():
    """By the mean of the totals, or by the mean of the gradients of a parameter of one's own."""
    losses, _ = numbers(FOUR[0])
    x = jnp.float32(1.5)

    def total(x, losses, state):
        return balance(losses * x**2, state, SCHEME, "data")

    def mean_of_totals(x, losses, state):
        own, state = total(x, losses, state)
        return jax.lax.pmean(own, "data"), state

    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=(P(), P("data"), P()), out_specs=P())
    def run(x, losses, state):
        by_total, new = jax.grad(mean_of_totals, has_aux=True)(x, losses[0], state)
        own = jax.lax.pcast(x, "data", to="varying")
        by_gradient, _ = jax.grad(total, has_aux=True)(own, losses[0], state)
        summed, _ = jax.grad(total, has_aux=True)(x, losses[0], state)
        return by_total, jax.lax.pmean(by_gradient, "data"), summed, new

    by_total, by_gradient, summed, state = run(x, losses, init(SCHEME))
    expected = float((losses.mean(0) * np.asarray(state.weights)).sum()) * 2 * 1.5
    assert float(by_total) == pytest.approx(expected, rel=1e-5)
    assert float(by_gradient) == pytest.approx(expected, rel=1e-5)
    assert float(summed) == pytest.approx(4 * expected, rel=1e-5)  # the trap in `balance`'s notes


def test_vmap_with_an_axis_name_shares_one_state():
    losses, mask = numbers(FOUR[1])
    call = partial(balance, scheme=SCHEME, axis_name="data")
    run = jax.vmap(
        lambda losses, mask, state: call(losses, state, mask=mask),
        in_axes=(0, 0, None),
        out_axes=(0, None),
        axis_name="data",
    )
    _, state = run(losses, mask, init(SCHEME))
    (expected,) = expected_weights(FOUR[1:2])
    np.testing.assert_allclose(state.weights, expected, rtol=1e-6)


def test_one_collective_a_step():
    """Counted in the program that the compiler is given."""

    def step(losses, mask, state):
        return balance(losses, state, SCHEME, "data", mask=mask)

    values, mask = numbers(FOUR[0])
    program = each_device(step).lower(values, mask, init(SCHEME)).as_text()
    assert program.count("all_reduce") == 1


def left_alone(losses, scheme=SCHEME):
    """A state, replicated by its own account, after a step of each device by itself."""

    @jax.jit
    @partial(jax.shard_map, mesh=MESH, in_specs=(P("data"), P()), out_specs=P(), check_vma=False)
    def run(losses, state):
        return balance(losses[0], state, scheme)[1]

    return run(losses, init(scheme))


def test_without_axis_name_devices_part_and_reading_the_state_refuses_it():
    losses, _ = numbers(FOUR[0])
    state = left_alone(losses)
    assert state.weights.is_fully_replicated  # as it says of itself
    for read in (export_state, metrics):
        with pytest.raises(ValueError, match="the same on all devices, got average") as refused:
            read(state)
        for shown in (losses[0].tolist(), losses[1].tolist(), "axis_name="):
            assert str(shown) in str(refused.value)


def test_a_module_whose_devices_have_parted_refuses_to_export_until_it_begins_anew():
    balance = Balancer(SCHEME)
    balance._keep(left_alone(numbers(FOUR[0])[0]))
    for read in (balance.export_state, balance.metrics):
        with pytest.raises(ValueError, match="must be the same on all devices"):
            read()
    balance.reset()
    assert balance.export_state()["step"] == 0


def test_a_state_that_is_the_same_on_all_devices_is_exported_though_it_holds_nan():
    """A NaN is equal to itself here: what is wrong with it is for others to say."""
    state = left_alone(np.ones((4, 3), np.float32))
    state = state._replace(average=state.average * jnp.nan)
    assert len(state.average.addressable_shards) == 4
    assert np.isnan(export_state(state)["average"]).all()
    assert export_state(state)["weights"].tolist() == [1.0, 1.0, 1.0]
