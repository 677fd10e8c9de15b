"""The state of a balancer in the pytrees of Flax, Optax, Equinox and Orbax."""

from __future__ import annotations

import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp
import numpy as np
from support.docs.integrations import shown
from support.docs.loop_page import need

from loss_balance import AdaLoss
from loss_balance.backends.jax import BalanceState, balance, export_state, init


def like(found, expected):
    """All fields are the same."""
    assert type(found) is type(expected)
    for name, value in expected._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


def stepped(losses):
    """The state after these losses, one update each."""
    state = init(2)
    for one in losses:
        _, state = balance(jnp.asarray(one), state, 2)
    return state


def test_a_train_state_carries_the_balancer_through_its_steps():
    page = shown("train-state")
    assert page.state.step == page.state.balance.step == 20
    assert set(page.row) >= {"loss_weight/depth", "loss_average/labels"}
    assert page.row["loss_weight/depth"] == page.state.balance.weights[0]


def test_a_step_that_is_not_finite_moves_neither_parameters_nor_the_average_of_that_loss():
    page = shown("train-state")
    before = page.state
    after = page.step(before, page.x, page.y.at[:, 1].set(jnp.inf))
    for a, b in zip(jax.tree.leaves(before.params), jax.tree.leaves(after.params), strict=True):
        np.testing.assert_array_equal(a, b)
    assert after.opt_state.total_notfinite == 1
    assert after.balance.skipped.tolist() == [0, 1]
    assert after.balance.average[1] == before.balance.average[1]
    assert jnp.isfinite(after.balance.weights).all()


def test_nnx_decays_no_state_and_the_module_is_logged_under_its_names():
    page = shown("nnx")
    state = page.model.balance.state
    assert state.step == 20
    assert page.row["loss_average/depth"] == state.average[0]
    watched = page.nnx.state(page.model, page.nnx.Param)
    assert "balance" not in watched
    assert "balance" in page.nnx.state(page.model, BalanceState)


def test_an_equinox_step_compiles_once_and_what_was_written_goes_on():
    need("equinox")
    page = shown("equinox")
    assert page.state.step == 20
    again = page.eqx.tree_deserialise_leaves("run.eqx", (page.model, page.opt_state, init(2)))
    like(again[2], page.state)
    assert page.step._cached._cache_size() == 1


def test_within_an_equinox_model_a_state_would_decay():
    """Which is why the page has it beside the model."""
    equinox = pytest.importorskip("equinox")
    optax = pytest.importorskip("optax")

    class Model(equinox.Module):
        weight: jax.Array
        state: object

    model = Model(jnp.ones(2), stepped([[4.0, 1.0]]))
    optimizer = optax.adamw(0.1, weight_decay=0.5)
    arrays = equinox.filter(model, equinox.is_inexact_array)
    zeros = jax.tree.map(jnp.zeros_like, arrays)
    changes, _ = optimizer.update(zeros, optimizer.init(arrays), arrays)
    assert equinox.apply_updates(model, changes).state.average[0] < 4.0


def test_orbax_gives_the_state_back_and_another_schemes_is_refused():
    pytest.importorskip("orbax.checkpoint")
    page = shown("orbax")
    like(page.state, stepped([[4.0, 1.0]]))
    assert export_state(page.state, page.scheme, page.names)["step"] == 1
    with pytest.raises(ValueError, match=r"gamma was 0\.05, is 0\.2"):
        page.import_state(page.restored["balance"], AdaLoss(2, gamma=0.2), names=page.names)
