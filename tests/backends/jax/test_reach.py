"""What users put together with the JAX balancer: foreign states, schedules, export, optimisers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from loss_balance import AdaLoss, DynamicWeightAverage, Static, UncertaintyWeighting

jax = pytest.importorskip("jax")
pytest.importorskip("flax")
optax = pytest.importorskip("optax")
import jax.numpy as jnp

from loss_balance.backends.jax import balance, init, metrics, reset
from loss_balance.schemes.base import State

LOSSES = [4.0, 1.0]


@pytest.mark.parametrize("call", [balance, jax.jit(balance, static_argnames="scheme")])
@pytest.mark.parametrize(
    ("state", "scheme", "message"),
    [
        (init(4), AdaLoss(2), r"a State of 2 losses.*got a State with weights of shape \(4,\)"),
        (init(2), UncertaintyWeighting(2), "must be a UncertaintyState of 2 losses.*got a State"),
        (
            State(*init(UncertaintyWeighting(2))[:6]),
            UncertaintyWeighting(2),
            "must be a UncertaintyState",
        ),
        (init(2), AdaLoss(2, warmup=5), "must be a WarmState of 2 losses.*got a State"),
        ((1.0, 2.0), AdaLoss(2), "must be a State of 2 losses.*got a tuple"),
    ],
)
def test_a_state_of_another_scheme_is_refused_eager_and_compiled(call, state, scheme, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.array(LOSSES), state, scheme)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32])
def test_a_state_too_narrow_for_a_mean_is_refused(dtype):
    with pytest.raises(ValueError, match="dtype must be float32 or float64"):
        init(2, dtype)


def test_a_state_that_cannot_be_is_refused_where_its_values_are_known():
    broken = init(2)._replace(average=jnp.array([1.0, jnp.nan]))
    with pytest.raises(ValueError, match="average must be finite"):
        balance(jnp.array(LOSSES), broken, 2)


def test_fixed_weights_are_those_of_the_scheme_whatever_the_state_says():
    state = init(Static((1.0, 1.0)))
    for training in (True, False):
        total, after = balance(jnp.array(LOSSES), state, Static((5.0, 1.0)), training=training)
        assert float(total) == 21.0
        assert after.weights.tolist() == [5.0, 1.0]


def test_training_is_static():
    with pytest.raises(ValueError, match="training must be a bool, static under jit"):
        jax.jit(lambda t: balance(jnp.array(LOSSES), init(2), 2, training=t))(True)


def test_gamma_may_follow_a_schedule_of_optax():
    scheme = AdaLoss(2, gamma=optax.linear_schedule(1.0, 0.0, 4), decay=0.0)
    step, state = jax.jit(partial(balance, scheme=scheme)), init(scheme)
    seen = []
    for _ in range(6):
        _, state = step(jnp.array([2.0, 1.0]), state=state)
        seen.append(float(state.weights[0]))
    assert seen == pytest.approx([1.0, 0.875, 0.75, 0.625, 0.5, 0.5])


@pytest.mark.parametrize(
    "gamma", [lambda step: 0.5, lambda step, scale=0.5: scale, lambda step, xp, dtype: 0.5]
)
def test_gamma_may_be_a_function_of_the_step_alone_or_of_all_three(gamma):
    scheme = AdaLoss(2, gamma=gamma)
    assert balance(jnp.array([4.0, 1.0]), init(scheme), scheme)[1].weights[0] == 0.625


def test_update_is_one_bool():
    with pytest.raises(ValueError, match=r"update must be one bool, got an array of shape \(2,\)"):
        balance(jnp.array(LOSSES), init(2), 2, update=jnp.array([True, False]))


def test_several_gammas_at_once_by_vmap():
    def weights(gamma):
        scheme = AdaLoss(2, gamma=lambda step: gamma)
        return balance(jnp.array([4.0, 1.0]), init(scheme), scheme)[1].weights[0]

    found = jax.vmap(weights)(jnp.array([0.0, 0.5, 1.0]))
    assert found.tolist() == pytest.approx([0.25, 0.625, 1.0])


@pytest.mark.parametrize(
    "scheme",
    [AdaLoss(2), AdaLoss(2, warmup=3), UncertaintyWeighting(2), DynamicWeightAverage(2, 2)],
)
def test_a_step_is_exported_and_comes_back(scheme):
    step = jax.jit(partial(balance, scheme=scheme))
    losses, state = jnp.array(LOSSES), init(scheme)
    text = jax.export.export(step)(losses, state=state).serialize()
    total, after = jax.export.deserialize(text).call(losses, state=state)
    expected, state = step(losses, state=state)
    assert float(total) == float(expected)
    np.testing.assert_array_equal(after.weights, state.weights)


def test_names_of_losses_in_mappings_in_mappings():
    losses = {"near": {"depth": 4.0, "labels": 1.0}, "far": 2.0}
    names = ["far", "near/labels", "near/depth"]
    _, state = balance(losses, init(3), 3, names=names)
    shown = metrics(state, names)
    assert shown["loss_average/near/depth"] == 4.0
    assert shown["loss_average/far"] == 2.0


def test_a_state_inside_a_model_is_kept_from_weight_decay():
    model = {"w": jnp.ones(3), "balance": init(2)}
    _, model["balance"] = balance(jnp.array(LOSSES), model["balance"], 2)
    kept = {"w": True, "balance": jax.tree.map(lambda _: False, model["balance"])}
    optimizer = optax.masked(optax.adamw(0.1, weight_decay=0.5), kept)
    zeros = jax.tree.map(jnp.zeros_like, model)
    moves, _ = optimizer.update(zeros, optimizer.init(model), model)
    after = optax.apply_updates(model, moves)
    assert (after["w"] < 1).all()
    np.testing.assert_array_equal(after["balance"].average, model["balance"].average)


def test_one_loss_is_reset_in_a_compiled_program():
    _, state = balance(jnp.array(LOSSES), init(2), 2)
    after = jax.jit(lambda state: reset(state, 2, "far", names=["near", "far"]))(state)
    assert after.average.tolist() == [4.0, -1.0]
    assert after.step == 1


def test_one_all_reduce_carries_all_that_replicas_share():
    def replica(losses, mask, state):
        return balance(losses, state, 2, "replicas", mask=mask)

    over = jax.vmap(replica, in_axes=(0, 0, None), axis_name="replicas")
    shapes = jnp.ones((4, 2)), jnp.ones((4, 2), bool), init(2)
    text = str(
        jax.make_jaxpr(replica, axis_env=[("replicas", 4)])(shapes[0][0], shapes[1][0], init(2))
    )
    assert text.count("psum") == 1
    mask = jnp.array([[True, True], [True, False], [False, False], [True, True]])
    losses = jnp.array([[4.0, 1.0], [2.0, 9.0], [9.0, 9.0], [0.0, 3.0]])
    _, state = over(losses, mask, init(2))
    np.testing.assert_array_equal(state.average, [[3.0, 2.0]] * 4)  # what is at 0 is as absent


def test_a_negative_loss_on_one_replica_is_bad_on_all():
    def replica(losses, state):
        return balance(losses, state, 2, "replicas")

    step = jax.jit(jax.vmap(replica, in_axes=(0, None), axis_name="replicas"))
    _, state = step(jnp.array([[4.0, 1.0], [2.0, -9.0], [3.0, 90.0]]), init(2))
    assert state.average[:, 0].tolist() == [3.0] * 3
    assert state.average[:, 1].tolist() == [-1.0] * 3
    assert state.skipped.tolist() == [[0, 1]] * 3
