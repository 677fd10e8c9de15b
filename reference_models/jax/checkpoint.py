"""Parts that are computed anew in the backward pass: nothing inside them is kept until then.

Why not `nnx.remat`: XLA for CPUs drops its optimization barriers, after which nothing keeps the
second computation from being merged with the first or scheduled next to it, and no memory is
saved. Here the second one depends on the gradient that arrives, on every platform.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from loss_balance.reference_models.jax.multiscale import MultiScaleUnit
from loss_balance.reference_models.jax.units import DenseUnit


class Features(NamedTuple):
    """What parts pass on, and what it is made of.

    A dense unit puts a few channels behind all that was made before. Were its input kept for the
    backward pass, so would be a copy of all that, for every unit. Instead the pieces are kept, each
    once, and put together again.
    """

    maps: Any  # an array, or a list of them: as the parts take and return it
    pieces: Any  # in place of each array a tuple of those that it is the concatenation of


def whole(x: Array) -> Features:
    """Features that are one map, in one piece."""
    return Features(x, (lax.stop_gradient(x),))


def recomputed(part: nnx.Module, given: Features) -> Features:
    """`part(given.maps)` and its updates, but its backward pass starts from the pieces again."""
    maps = _twice(_call, part, given)
    made = lax.stop_gradient(maps)
    if isinstance(part, DenseUnit):
        return Features(maps, _extended(given.pieces, made))
    if isinstance(part, MultiScaleUnit):
        kept = given.pieces[part.dropped :]
        return Features(maps, [_extended(*pair) for pair in zip(kept, made, strict=True)])
    return Features(maps, jax.tree.map(lambda x: (x,), made))


def recomputed_head(
    head: nnx.Module, given: Features, fork: Callable[[Any], tuple[Any, Any]]
) -> tuple[Array, Features]:
    """(logits, features to go on with), recomputed like a unit.

    The maps go through, so that the head's backward pass waits for those of all later units;
    otherwise gradients of all heads might wait in memory at the same time. `fork` gives the maps
    for the head and those to go on with.
    """
    both = Features(list(fork(given.maps)), [given.pieces, given.pieces])
    logits, maps = _twice(_call_beside, head, both)
    return logits, given._replace(maps=maps)


def _call(part: Any, maps: Any) -> Any:
    return part(maps)


def _call_beside(head: Any, both: Any) -> Any:
    read, onward = both
    return head(read[-1] if isinstance(read, list) else read), onward


def _extended(pieces: tuple[Array, ...], made: Array) -> tuple[Array, ...]:
    """The pieces, and the channels that `made` has behind them."""
    return (*pieces, made[..., sum(piece.shape[-1] for piece in pieces) :])


def _joined(pieces: Any) -> Any:
    if isinstance(pieces, list):
        return [_joined(each) for each in pieces]
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, axis=-1)


def _twice(run: Callable[[Any, Any], Any], part: nnx.Module, given: Features) -> Any:
    graph, state = nnx.split(part)
    made, state = _pure(run, graph, state, *given)
    nnx.update(part, state)
    return made


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _pure(run: Callable[[Any, Any], Any], graph: Any, state: Any, maps: Any, pieces: Any) -> Any:
    """(what `run` makes of the maps, the part's state after it)."""
    del pieces  # for the backward pass
    part = nnx.merge(graph, state)
    return run(part, maps), nnx.state(part)


def _forward(run: Callable[[Any, Any], Any], graph: Any, state: Any, maps: Any, pieces: Any) -> Any:
    return _pure(run, graph, state, maps, pieces), (state, pieces)


def _backward(run: Callable[[Any, Any], Any], graph: Any, kept: Any, cotangents: Any) -> Any:
    state, pieces = kept
    maps = _joined(jax.tree.map(partial(_not_before, jax.tree.leaves(cotangents[0])), pieces))
    _, pullback = jax.vjp(lambda *given: _pure.fun(run, graph, *given, None), state, maps)
    return *pullback(cotangents), None


def _not_before(arrivals: list[Array], x: Array) -> Array:
    """`x` itself, which XLA computes only after the arrivals: they would zero it above infinity.

    Sums, for a single element XLA would compute apart from the rest, which it puts off: gradients
    of all units' inputs would then be in memory at once.
    """
    never = jnp.stack([arrival.sum() > jnp.inf for arrival in arrivals]).any()
    return jnp.where(never, jnp.zeros((), x.dtype), x)


_pure.defvjp(_forward, _backward)
