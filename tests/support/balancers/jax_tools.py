"""What the JAX tests share; needs jax, flax and orbax, so import it after `importorskip`."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from support.balancers.contract import STEPS

from loss_balance.backends.jax import balance, init

compiled = jax.jit(
    balance, static_argnames=("scheme", "axis_name", "names", "training", "equilibrium")
)


@contextmanager
def compiled_quickly():
    """For tests in which most of the time goes into compiling what runs once."""
    option = "jax_disable_most_optimizations"
    before = jax.config.values[option]
    jax.config.update(option, True)
    yield
    jax.config.update(option, before)


def convert(losses, dtype):
    """Floats in whatever container to scalar arrays or a vector of `dtype`."""
    one = partial(jnp.asarray, dtype=dtype)
    if isinstance(losses, np.ndarray):
        return one(losses)
    if isinstance(losses, float):
        return losses
    return jax.tree.map(one, losses)


def save(tree, path):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def restore(path, like):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, like)


def assert_same(left, right):
    """Equal in structure, dtypes and every digit."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def assert_close(left, right):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), left, right)


def cosine(found, wanted):
    """Of the angle between two gradients by name: rounded, single numbers change sides of ReLUs."""
    a, b = (np.concatenate([each[name].ravel() for name in wanted]) for each in (found, wanted))
    return a @ b / np.sqrt((a @ a) * (b @ b))


def loop(scheme, steps=STEPS):
    """(totals, state) of the plain Python loop."""
    state, totals = init(scheme), []
    for losses in steps:
        total, state = balance(jnp.array(losses), state, scheme)
        totals.append(total)
    return jnp.stack(totals), state
