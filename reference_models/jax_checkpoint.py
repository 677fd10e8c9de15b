"""A part computed anew in the backward pass, so that nothing inside it is kept until then.

Why not `nnx.remat`: XLA for CPUs drops its optimization barriers, after which nothing keeps the
second computation from being merged with the first or scheduled next to it, and no memory is
saved. Here the second one depends on the gradient that arrives, on every platform.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from loss_balance.reference_models.jax_multiscale import MultiScaleUnit
from loss_balance.reference_models.jax_units import DenseUnit

# In place of a map stand the pieces whose concatenation it is: a unit that reads all that was made
# before it would otherwise keep a copy of all that for itself.
Pieces = tuple[Array, ...]


def recomputed(part: nnx.Module, features: Any) -> Any:
    """`part(features)` and its updates, but its backward pass starts from `features` again.

    Args:
        part: to be called.
        features: `Pieces` in place of a map, or a list of them in place of a list of maps.

    Returns:
        The same of what the part returns.
    """
    if isinstance(part, DenseUnit):
        return (*features, _twice(_grow, part, features))
    if isinstance(part, MultiScaleUnit):
        grown = zip(features[part.dropped :], _twice(_grow, part, features), strict=True)
        return [(*old, *new) for old, new in grown]
    made = _twice(_call, part, features)
    return [(x,) for x in made] if isinstance(made, list) else (made,)


def _call(part: Any, features: Any) -> Any:
    return part(_joined(features))


def _grow(part: DenseUnit | MultiScaleUnit, features: Any) -> Any:
    return part.grow(_joined(features))


def _joined(features: Any) -> Any:
    if isinstance(features, list):
        return [_joined(pieces) for pieces in features]
    return features[0] if len(features) == 1 else jnp.concatenate(features, axis=-1)


def _twice(run: Callable[[Any, Any], Any], part: nnx.Module, features: Any) -> Any:
    graph, state = nnx.split(part)
    made, state = _pure(run, graph, state, features)
    nnx.update(part, state)
    return made


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pure(run: Callable[[Any, Any], Any], graph: Any, state: Any, features: Any) -> Any:
    """(what `run` makes of the features, the part's state after it)."""
    part = nnx.merge(graph, state)
    return run(part, features), nnx.state(part)


def _forward(run: Callable[[Any, Any], Any], graph: Any, state: Any, features: Any) -> Any:
    return _pure(run, graph, state, features), (state, features)


def _backward(run: Callable[[Any, Any], Any], graph: Any, kept: Any, cotangents: Any) -> Any:
    state, features = kept
    features = jax.tree.map(partial(_not_before, jax.tree.leaves(cotangents[0])), features)
    _, pullback = jax.vjp(partial(_pure.fun, run, graph), state, features)
    return pullback(cotangents)


def _not_before(arrivals: list[Array], x: Array) -> Array:
    """`x`, but XLA cannot know that and has to wait for the arrivals: nothing exceeds infinity."""
    never = jnp.stack([jnp.ravel(arrival)[0] > jnp.inf for arrival in arrivals]).any()
    return jnp.where(never, jnp.zeros((), x.dtype), x)


_pure.defvjp(_forward, _backward)
