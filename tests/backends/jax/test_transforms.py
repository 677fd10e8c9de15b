"""The pure functions under every transformation of JAX."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from support.balancers.contract import STEPS, with_each_scheme

from loss_balance import AdaLoss, LinearSchedule
from loss_balance.schemes.fixed import FixedScheme

jax = pytest.importorskip("jax")
pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.jax_tools import assert_close, compiled, loop

from loss_balance.backends.jax import balance, init


def test_a_masked_nan_leaves_no_trace_in_the_gradient():
    losses, mask = jnp.array([1.0, math.nan, 2.0]), jnp.array([True, False, True])
    call = partial(balance, state=init(3), scheme=3, mask=mask)
    gradient, state = jax.grad(call, has_aux=True)(losses)
    np.testing.assert_array_equal(gradient, state.weights * mask)


@with_each_scheme
def test_one_trace_serves_all_steps(scheme):
    traces = 0

    @jax.jit
    def step(losses, state):
        nonlocal traces
        traces += 1
        return balance(losses, state, scheme)

    state = init(scheme)
    for losses in STEPS:
        total, state = step(jnp.array(losses), state)
    assert traces == 1
    totals, expected = loop(scheme)
    assert_close(state, expected)
    assert float(total) == pytest.approx(float(totals[-1]))


@with_each_scheme
@pytest.mark.parametrize("x64", [False, True])
def test_scan_equals_the_loop_and_its_carry_keeps_its_types(scheme, x64):
    expected, end = loop(scheme)
    with jax.enable_x64(x64):
        steps = jnp.array(STEPS)  # float64 if it may be
        state, totals = jax.lax.scan(
            lambda state, losses: balance(losses, state, scheme)[::-1], init(scheme), steps
        )
        assert totals.dtype == (jnp.float64 if x64 else jnp.float32)
    assert jax.tree.map(lambda x: (x.dtype, x.weak_type), state) == jax.tree.map(
        lambda x: (x.dtype, x.weak_type), end
    )
    assert_close(state, end)
    np.testing.assert_allclose(totals, expected, rtol=1e-6)


@with_each_scheme
def test_vmap_over_states_equals_each_alone(scheme):
    several = jnp.array([STEPS, STEPS[::-1], [[1.0, 2.0, math.nan]] * len(STEPS)])
    states = jax.vmap(lambda _: init(scheme))(jnp.arange(3))
    for losses in several.swapaxes(0, 1):
        _, states = jax.vmap(partial(balance, scheme=scheme))(losses, states)
    for i, steps in enumerate(several):
        assert_close(jax.tree.map(lambda x, i=i: x[i], states), loop(scheme, steps)[1])


@with_each_scheme
def test_a_donated_state_is_reused(scheme):
    step = jax.jit(partial(balance, scheme=scheme), donate_argnames="state")
    state = init(scheme)
    for losses in STEPS:
        before = state
        _, state = step(jnp.array(losses), state=before)
        kept = {"weights"} if isinstance(scheme, FixedScheme) else set()  # those are constants
        reused = {name for name, x in before._asdict().items() if x.is_deleted()}
        assert reused == set(before._fields) - kept
    assert_close(state, loop(scheme)[1])


@with_each_scheme
def test_programs_with_strict_promotion_are_served(scheme):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        _, state = compiled(jnp.array(STEPS[0]), init(scheme), scheme, mask=jnp.ones(3, bool))
    assert_close(state, loop(scheme, STEPS[:1])[1])


def test_no_gradient_enters_the_state():
    def weights_of_the_next_step(losses, average):
        state = init(3)._replace(average=average)
        total, state = balance(losses, state, 3)
        return balance(jnp.ones(3), state, 3)[0] + total

    by_losses, by_state = jax.grad(weights_of_the_next_step, (0, 1))(
        jnp.array(STEPS[0]), jnp.ones(3)
    )
    _, state = balance(jnp.array(STEPS[0]), init(3)._replace(average=jnp.ones(3)), 3)
    np.testing.assert_allclose(by_losses, state.weights, rtol=1e-6)
    assert by_state.tolist() == [0.0, 0.0, 0.0]


def test_a_negative_loss_is_refused_by_the_first_eager_gradient_and_counted_by_a_compiled_one():
    call = partial(balance, state=init(2), scheme=2)
    with pytest.raises(ValueError, match=r"must not be negative .*, got \[1.0, -2.0\]"):
        jax.grad(call, has_aux=True)(jnp.array([1.0, -2.0]))
    _, state = jax.jit(jax.grad(call, has_aux=True))(jnp.array([1.0, -2.0]))
    assert state.skipped.tolist() == [0, 1]


def test_a_compiled_step_calls_nothing_back_on_the_host():
    scheme = AdaLoss(3, gamma=LinearSchedule(1.0, 0.0, 4), update_every=2)
    step = jax.jit(jax.grad(partial(balance, scheme=scheme, mask=jnp.ones(3, bool)), has_aux=True))
    assert "custom_call" not in step.lower(jnp.array(STEPS[0]), state=init(3)).as_text()


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("final_weight", [0.3, 1.0, 2.0])
def test_the_largest_weight_is_exactly_1_whatever_xla_makes_of_the_formula(count, final_weight):
    scheme = AdaLoss(count, final_weight=final_weight)

    @jax.jit
    @jax.vmap
    def largest(losses):
        return scheme.update(scheme.init(jnp), losses, jnp).weights.max()

    losses = np.random.default_rng(0).uniform(0.01, 100.0, (2000, count))
    assert set(largest(jnp.asarray(losses, jnp.float32)).tolist()) == {1.0}
