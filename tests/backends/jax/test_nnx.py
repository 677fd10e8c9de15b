"""The module inside a Flax NNX model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
from support.balancers.contract import STEPS

from loss_balance import AdaLoss

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.jax_tools import assert_same, restore, save

from loss_balance.backends.jax import Balancer, BalanceState, balance


class Model(nnx.Module):
    """Three heads on one parameter, and the balancer of their losses."""

    def __init__(self):
        self.scale = nnx.Param(jnp.float32(1.5))
        self.balance = Balancer(3)

    def losses(self, targets):
        return targets * self.scale**2


@nnx.jit
def train_step(model, targets):
    loss, gradient = nnx.value_and_grad(lambda model: model.balance(model.losses(targets)))(model)
    model.scale.set_value(model.scale - 0.01 * gradient["scale"].get_value())
    return loss, gradient


def test_a_compiled_training_step_updates_the_state_and_differentiates_parameters_only():
    model = Model()
    for i, targets in enumerate(STEPS):
        before = float(model.scale.get_value())
        loss, gradient = train_step(model, jnp.array(targets))
        state = model.balance.state
        assert state.step == i + 1
        assert list(gradient) == ["scale"]
        slope = float((state.weights * jnp.array(targets)).sum())
        assert float(gradient["scale"].get_value()) == pytest.approx(2 * before * slope, rel=1e-5)
        assert float(loss) == pytest.approx(before**2 * slope, rel=1e-5)


def test_the_state_is_a_type_of_variable_of_its_own():
    model = Model()
    train_step(model, jnp.array(STEPS[0]))
    graph, parameters, state = nnx.split(model, nnx.Param, BalanceState)
    assert list(parameters) == ["scale"]
    fields = {"average", "weights", "step", "skipped", "recent", "pending"}
    assert set(state["balance"]) == fields | {"identity"}
    merged = nnx.merge(graph, parameters, jax.tree.map(jnp.zeros_like, state))
    assert merged.balance.state.weights.tolist() == [0.0, 0.0, 0.0]
    nnx.update(merged, state)
    assert_same(merged.balance.state, model.balance.state)
    assert merged.balance.scheme == AdaLoss(3)


def test_the_functions_go_on_from_a_modules_state():
    balancer = Balancer(3)
    for losses in STEPS:
        total, state = balance(jnp.array(losses), balancer.state, balancer.scheme)
        assert float(balancer(jnp.array(losses))) == float(total)
        assert_same(balancer.state, state)


def by_eval(model) -> Model:
    model.eval()
    return model


@pytest.mark.parametrize(
    "frozen", [by_eval, lambda model: nnx.view(model, use_running_average=True)]
)
def test_a_model_in_evaluation_leaves_the_state_alone(frozen: Callable[[Model], Model]):
    model = Model()
    train_step(model, jnp.array(STEPS[0]))
    before = model.balance.state
    model = frozen(model)
    train_step(model, jnp.array(STEPS[1]))
    assert_same(model.balance.state, before)
    model.train()
    train_step(model, jnp.array(STEPS[1]))
    assert model.balance.state.step == before.step + 1


def test_evaluation_writes_nothing_so_a_plain_jit_may_close_over_the_module():
    balancer = Balancer(3)
    balancer.eval()
    assert float(jax.jit(lambda losses: balancer(losses))(jnp.array(STEPS[0]))) == 5.5


def test_a_negative_loss_does_not_stop_a_compiled_step():
    model = Model()
    train_step(model, jnp.array([1.0, -1.0, 1.0]))
    assert model.balance.state.skipped.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "copy_of", [copy.deepcopy, nnx.clone, lambda b: pickle.loads(pickle.dumps(b))]
)
def test_a_copy_has_the_same_state_of_its_own(copy_of):
    kept = Balancer(3, names=["a", "b", "c"])
    kept(jnp.array(STEPS[0]))
    other = copy_of(kept)
    assert_same(other.state, kept.state)
    other(jnp.array(STEPS[1]))
    assert other.state.step == kept.state.step + 1
    assert list(other.metrics())[:3] == ["loss_weight/a", "loss_weight/b", "loss_weight/c"]


def test_the_variables_say_whose_they_are():
    kept, other = Balancer(2, names=["a", "b"]), Balancer(AdaLoss(2, gamma=0.5), names=["a", "b"])
    kept(jnp.array([4.0, 1.0]))
    nnx.update(other, nnx.state(kept))
    for look in (other.metrics, other.export_state, lambda: other(jnp.array([4.0, 1.0]))):
        with pytest.raises(ValueError, match=r"gamma was 0.05, is 0.5"):
            look()


def test_restored_variables_are_adopted_by_name():
    kept, other = Balancer(2, names=["a", "b"]), Balancer(2, names=["b", "a"])
    kept(jnp.array([4.0, 1.0]))
    restored = nnx.to_pure_dict(nnx.state(kept))
    nnx.update(other, nnx.state(kept))
    with pytest.raises(ValueError, match="adopt"):
        other.metrics()
    other.adopt(restored)
    assert other.metrics()["loss_average/a"] == 4.0


def test_variables_of_version_0_1_are_adopted():
    kept, other = Balancer(2), Balancer(2)
    kept(jnp.array([4.0, 1.0]))
    restored = nnx.to_pure_dict(nnx.state(kept))
    other.adopt({name: restored[name] for name in ("average", "weights", "step", "skipped")})
    assert_same(other.state, kept.state)


def test_a_checkpoint_of_other_hyperparameters_is_refused_by_what_differs(tmp_path):
    kept, other = Balancer(2), Balancer(AdaLoss(2, gamma=0.5))
    kept(jnp.array([4.0, 1.0]))
    save(nnx.state(kept), tmp_path / "checkpoint")
    nnx.update(other, restore(tmp_path / "checkpoint", nnx.state(other)))
    with pytest.raises(ValueError, match=r"gamma was 0.05, is 0.5"):
        other.metrics()
