from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from support.balancers.contract import SCHEMES

from loss_balance import AdaLoss

jax = pytest.importorskip("jax")
nnx = pytest.importorskip("flax.nnx")
pytest.importorskip("orbax.checkpoint")
import jax.numpy as jnp
from support.balancers.jax_contract import FunctionsContract, JaxContract
from support.balancers.jax_tools import assert_same, compiled, convert, loop, restore, save

from loss_balance.backends.jax import (
    Balancer,
    balance,
    export_state,
    import_state,
    init,
    metrics,
)


class TestFunctions(FunctionsContract):
    pass


class TestNnx(JaxContract):
    def make(self, scheme, *, dtype=jnp.float32, **options):
        with jax.enable_x64(dtype == jnp.float64):
            return Balancer(scheme, dtype=dtype, **options)

    def call(self, balancer, losses, mask, **options):
        balancer.train()
        return balancer(losses, mask=mask, **options)

    def stepping(self, balancer):
        step = nnx.jit(lambda balancer, losses: balancer(losses))
        return lambda losses: step(balancer, jnp.array(losses))

    def gradient(self, balancer, losses, dtype="float32"):
        balancer.train()
        found = nnx.grad(lambda x, balancer: balancer(x))(convert(losses, dtype), balancer)
        return [float(x) for x in found]

    def gradient_of_square(self, balancer, x, scales):
        def total(x, balancer):
            return balancer([scale * x**2 for scale in scales])

        return float(nnx.grad(total)(jnp.float32(x), balancer))

    def evaluate(self, balancer, losses):
        balancer.eval()
        return float(balancer(convert(losses, "float32")))

    def save(self, balancer, path):
        save(nnx.state(balancer), path)

    def load(self, balancer, path):
        nnx.update(balancer, restore(path, nnx.state(balancer)))


class Heads(NamedTuple):
    near: jax.Array
    far: jax.Array


@pytest.mark.parametrize(
    "losses", [{"a": 4.0, "b": 1.0}, {"b": 1.0, "a": 4.0}, Heads(4.0, 1.0), [{"x": 4.0}, (1.0,)]]
)
def test_any_pytree_is_taken_in_the_order_of_jax_eager_and_compiled(losses):
    for call in (balance, compiled):
        _, state = call(losses, init(2), AdaLoss(2))
        assert state.weights.tolist() == pytest.approx([0.2875, 1.0])


def test_names_give_a_mapping_another_order():
    _, state = balance({"a": 1.0, "b": 4.0}, init(2), 2, names=["b", "a"])
    shown = metrics(state, ["b", "a"])
    assert (shown["loss_weight/b"], shown["loss_weight/a"]) == pytest.approx((0.2875, 1.0))


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (jnp.array([1, 2]), "losses must be real floating point, got int32"),
        ([1.0 + 2.0j, 1.0], "losses must be real floating point, got complex64"),
        ("ab", "must be an iterable of scalars, a mapping or a stacked array"),
    ],
)
def test_what_is_no_tree_of_floats_is_named(losses, message):
    with pytest.raises(ValueError, match=message):
        balance(losses, init(2), 2)


def test_losses_of_mixed_dtype_are_promoted():
    total, _ = balance([jnp.float32(1.0), jnp.bfloat16(2.0)], init(2), 2)
    assert total.dtype == jnp.float32
    total, _ = balance([2.0, jnp.bfloat16(2.0), None], init(3), 3)
    assert total.dtype == jnp.bfloat16


def test_a_state_survives_orbax_with_its_types(tmp_path):
    _, state = loop(AdaLoss(3))
    save(state, tmp_path / "checkpoint")
    assert_same(restore(tmp_path / "checkpoint", init(3)), state)


@pytest.mark.parametrize("scheme", SCHEMES[:2], ids=repr)
def test_a_float64_state_from_elsewhere_becomes_float32(scheme):
    exported = {name: np.asarray(x, np.float64) for name, x in export_state(init(scheme)).items()}
    assert_same(import_state(exported, scheme), init(scheme))
